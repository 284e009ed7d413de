"""Folders of pictures: what lies in one, what each picture is drawn, how its result is called.

Planner and worker both ask here, so that they agree: a cell names the folder's content by its hash,
and everything below follows from the names in it and from the workload.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from bench import content, files

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
"""Endings, in lower case, of the files that count as pictures; any other file is left alone."""

ROWS = "rows.jsonl"
"""Name of the file beside the results that has one line for each picture."""

RUN_MARK = "plan.json"
"""Name of a file that marks a run folder; see `bench.store`."""

_LONGEST_NAME = 200  # bytes; file systems take 255, and a suffix and ".part" come on top


class Drawn(TypedDict):
    """What one picture gets."""

    index: int  # place in the folder, from 0
    picture: str  # relative to the folder, with "/"
    prompt: str
    model: str
    seed: int


def names(place: Path) -> list[str]:
    """Return the pictures of a folder and its subfolders in order of their names, or the one file.

    Hidden files and folders do not count, nor do run folders, whose pictures are results; links to
    folders are not followed.

    Raises:
        OSError: the folder cannot be read.
    """
    if place.is_file():
        return [place.name]
    found: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, there in os.walk(place, onerror=refuse):
        if RUN_MARK in there and Path(root) != place:
            folders.clear()
            continue
        folders[:] = [each for each in folders if not each.startswith(".")]
        below = Path(root).relative_to(place).as_posix()
        found += [
            name if below == "." else f"{below}/{name}"
            for name in there
            if is_picture_name(name) and os.path.isfile(os.path.join(root, name))
        ]
    return sorted(found)


def is_picture_name(name: str) -> bool:
    """Say whether a file of this name counts as a picture."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def path_of(place: Path, name: str) -> Path:
    """Return where the picture ``name`` of a folder, or of a single file, lies."""
    return place if place.name == name and place.is_file() else place / name


def identity(place: Path, found: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that change with the names and the content of the pictures.

    Of files above 1 MiB the size and three samples count, as for models, so that thousands of
    photographs take seconds; a file that cannot be read counts by its name. One file is held at a
    time.
    """
    digest = hashlib.sha256()
    for name in found:
        digest.update(os.fsencode(name) + b"\0")
        try:
            content.add_file(digest, path_of(place, name))
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()[:16]


def draw(draw_seed: int, kind: str, name: str, count: int) -> int:
    """Draw a number below ``count`` for a picture: the same on every machine, for ever.

    It is the first eight bytes, big end first, of the SHA-256 of "<draw_seed>/<kind>/<name>" in
    UTF-8, modulo ``count``. So a draw depends on nothing but the seed and the picture's own name:
    another picture in the folder changes no other draw.
    """
    said = f"{draw_seed}/{kind}/{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "big") % count


def drawn(workload: Mapping[str, Any], found: Sequence[str]) -> Iterator[Drawn]:
    """Return what each picture of a folder gets, of whichever model, in order.

    A list of prompts or models is drawn from; a single one is everyone's. The picture at place i
    has the workload's seed + i.
    """
    prompts = workload.get("prompts") or [workload["prompt"]]
    choices = workload.get("models") or [workload["model"]]
    seed = workload.get("draw_seed", 0)
    for index, name in enumerate(found):
        yield {
            "index": index,
            "picture": name,
            "prompt": prompts[draw(seed, "prompt", name, len(prompts))],
            "model": choices[draw(seed, "model", name, len(choices))],
            "seed": workload["seed"] + index,
        }


def result_name(name: str) -> str:
    """Return the file name of a picture's result: its own relative name, then ``.png``.

    Reversible, so no two results collide: "a.png" and "a.jpg" become "a.png.png" and "a.jpg.png",
    and a subfolder's "/" becomes "%2F". Of very long names the end is replaced by a hash.
    """
    quoted = urllib.parse.quote(os.fsencode(name), safe=" !#$&'()+,;=@[]^`{}~")
    if len(quoted) > _LONGEST_NAME:
        tail = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        quoted = f"{quoted[:_LONGEST_NAME]}~{tail}"
    return f"{quoted}.png"


def header(rows: Path) -> dict[str, Any] | None:
    """Return the first line of a file of rows, which says whose they are; None if it has none."""
    try:
        with files.open_file(rows, files.JSON_BYTES) as stream:
            read = json.loads(stream.readline())
    except (OSError, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def read_rows(rows: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of a file one after the other; a torn last line is none.

    Raises:
        OSError: it cannot be read.
    """
    for line in row_lines(rows):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("picture"), str):
            yield row


def row_lines(rows: Path) -> Iterator[bytes]:
    """Return the lines of a file of rows behind its first one; raise OSError if unreadable."""
    with files.open_file(rows, files.JSON_BYTES) as stream:
        stream.readline()
        yield from stream


def belongs(pictures_dir: Path, cell_id: str) -> bool:
    """Say whether results of this cell lie in a folder, which an interrupted process has left."""
    first = header(pictures_dir / ROWS)
    return first is not None and first.get("cell_id") == cell_id
