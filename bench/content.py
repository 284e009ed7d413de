"""What a file or a model folder holds, as a hash that does not depend on where it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SAMPLE = 64 * 1024
_WHOLE = 1024 * 1024
_COUNTED = (".json", ".txt", ".model", ".safetensors", ".py")


def of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_WHOLE):
            digest.update(block)
    return digest.hexdigest()


def of_folder(folder: Path) -> str:
    """Return 16 hexadecimal digits that change with the files of a model folder, in milliseconds.

    Configurations, tokenizers, weights and Python files count. Those up to 1 MiB count whole; of
    larger ones the name, the size and three samples of 64 KiB (start, middle, end) do, so a change
    of single weights elsewhere goes unseen, and training, which changes all of them, does not.

    Raises:
        OSError: the folder or a file in it cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(listing(folder)):
        if Path(name).suffix not in _COUNTED:
            continue
        digest.update(f"{name}\0".encode())
        add_file(digest, folder / name)
    return digest.hexdigest()[:16]


def add_file(digest: hashlib._Hash, file: Path) -> None:
    """Add a file's size and content to a digest: whole up to 1 MiB, else in three samples.

    Raises:
        OSError: it cannot be read.
    """
    size = file.stat().st_size
    digest.update(f"{size}\0".encode())
    with file.open("rb") as stream:
        if size <= _WHOLE:
            digest.update(stream.read())
            return
        for offset in (0, size // 2, size - _SAMPLE):
            stream.seek(offset)
            digest.update(stream.read(_SAMPLE))


def listing(folder: Path) -> list[str]:
    """Return the files of a folder and of its direct subfolders: "name" or "subfolder/name".

    Raises:
        OSError: one of the folders cannot be read.
    """
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += [f"{entry.name}/{each.name}" for each in entry.iterdir() if each.is_file()]
        elif entry.is_file():
            found.append(entry.name)
    return found
