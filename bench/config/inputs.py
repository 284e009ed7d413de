"""Files that a configuration names: where they are, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import content, folder
from bench.config.errors import nearest, shown
from bench.contract import CONTROL_DRAWINGS, FOLDER_INPUTS, GivenFile

_FOLDER = "path:"
_ELSEWHERE = ("embedded:", "hub:")
_WHAT = {
    "model": "model folder",
    "input_image": "input image",
    "pictures": "folder of images",
    "controlnet": "ControlNet folder",
    "lora": "LoRA",
    "control_image": "control image",
    "custom_pipeline": "custom pipeline",
}


class InputError(Exception):
    """A file or folder that is not there, or not what it should be. ``str()`` is the sentence."""


def named(workload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return (field, path as written) of each input that a workload names."""
    for field in _WHAT:
        text = workload.get(field)
        if text is None or text in CONTROL_DRAWINGS:
            continue
        if field not in FOLDER_INPUTS:
            if not (field == "lora" and text.startswith(_ELSEWHERE)):
                yield field, text
        elif text.startswith(_FOLDER):
            yield field, text.removeprefix(_FOLDER).strip()


def read(field: str, text: str, start: Path) -> GivenFile:
    """Find an input and hash it.

    Args:
        field: ``model`` or ``controlnet``, whose input is a folder; ``custom_pipeline`` or
            ``pictures``, which are either; ``input_image``, ``control_image`` or ``lora``, which
            are files.
        text: the path as written, absolute, below ``~``, or relative to ``start``.
        start: an absolute folder.

    Raises:
        InputError: it is not there, is of the other kind, or cannot be read.
    """
    what, is_folder = _WHAT[field], field in FOLDER_INPUTS
    try:
        path = (start / Path(text).expanduser()).resolve()
        where = f"{what} {shown(text)}" + ("" if str(path) == text else f" ({path})")
        if not path.exists():
            raise InputError(f"{where} does not exist.{_hint(field, text, path, start)}")
        if field == "custom_pipeline":
            code = path / "pipeline.py" if path.is_dir() else path
            if not code.is_file():
                raise InputError(f"{where} is a folder without the file pipeline.py")
            return {"path": str(path), "content": content.of_file(code)}
        if is_folder:
            if not path.is_dir():
                raise InputError(
                    f"{where} is a file, and path: takes a folder in diffusers' layout; a "
                    "single-file checkpoint becomes one by the model's class in diffusers: "
                    "from_single_file(FILE).save_pretrained(DIR)"
                )
            return {"path": str(path), "content": content.of_folder(path)}
        if field == "pictures":
            names = folder.names(path)
            if not names:
                raise InputError(
                    f"{where} holds no image; images end in {', '.join(folder.SUFFIXES)}"
                )
            return {"path": str(path), "content": folder.identity(path, names)}
        if not path.is_file():
            raise InputError(f"{where} is {'a folder' if path.is_dir() else 'no regular file'}")
        return {"path": str(path), "content": content.of_file(path)}
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{what} {shown(text)} cannot be read: {why.lower()}") from None


def identity(field: str, file: GivenFile) -> str:
    """Return what stands for a path in the identity of a cell."""
    if field == "pictures":
        return f"pictures:{file['content']}"
    return f"{_FOLDER if field in FOLDER_INPUTS else 'sha256:'}{file['content']}"


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return how the first input is written whose path differs between two equal cells."""
    others = dict(named(other))
    for field, text in named(one):
        if others.get(field, text) != text:
            return shown(text), shown(others[field])
    return None


def _hint(field: str, text: str, path: Path, start: Path) -> str:
    """Return where the user may have meant: from the working folder, or a name nearby."""
    here = Path.cwd()
    if here != start and (here / Path(text).expanduser()).exists():
        wanted = os.path.relpath(here / text, start)
        return (
            " Paths in a configuration start from its own folder; from there it is "
            f"{shown(_FOLDER + wanted if field in FOLDER_INPUTS else wanted)}."
        )
    if not path.parent.is_dir():
        return f" Nor does the folder {path.parent}."
    is_folder = field in FOLDER_INPUTS
    either = field in ("pictures", "custom_pipeline")
    names = [each.name for each in path.parent.iterdir() if either or each.is_dir() == is_folder]
    near = nearest(path.name, names)
    if near is None:
        return ""
    meant = str(Path(text).with_name(near))
    return f" Did you mean {shown(_FOLDER + meant if is_folder else meant)}?"
