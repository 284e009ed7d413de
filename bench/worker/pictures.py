"""The pictures of a call: checked, hashed and saved, all outside the timed span."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contract import ImageEntry

BLACK_MAX = 2  # of 255: what rounding leaves of a black picture


class NoPicturesError(Exception):
    """The pipeline returned something else than PIL images; the message says what."""


def of_output(output: Any) -> list[Any]:
    """Return the PIL images in what a pipeline returned."""
    images = getattr(output, "images", None)
    if images is None and isinstance(output, (tuple, list)) and output:
        images = output[0]
    if not isinstance(images, (list, tuple)):
        raise NoPicturesError(
            f"the pipeline returned {type(output).__name__} without a list of pictures"
        )
    for image in images:
        if not hasattr(image, "convert"):
            raise NoPicturesError(
                f"the pipeline returned {type(image).__name__} instead of a PIL image"
            )
    if not images:
        raise NoPicturesError("the pipeline returned no picture")
    return list(images)


def digest(image: Any) -> str:
    """Return the SHA-256 of a PIL image's raw RGB bytes, row by row from the top left."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def is_finite(decoded: Any) -> bool:
    """Say whether a decoded tensor or array, of any shape, holds neither NaN nor infinity."""
    import torch

    if isinstance(decoded, (list, tuple)):
        return all(is_finite(item) for item in decoded)
    try:
        return bool(torch.isfinite(torch.as_tensor(decoded)).all())
    except (TypeError, ValueError, RuntimeError):  # not numbers, so not NaN either
        return True


def defect(image: Any) -> str | None:
    """Say what is wrong with a picture that cannot be right: black, or all of one colour."""
    extrema = image.convert("RGB").getextrema()
    if all(high <= BLACK_MAX for _, high in extrema):
        return "black"
    if all(low == high for low, high in extrema):
        return "a single colour"
    return None


def save_inputs(
    given: Sequence[Any], folder: Path, relative_to: Path, name: str = "input"
) -> list[str]:
    """Write ``<name>_<index>.png`` for each different image; return the paths in the run folder."""
    different = list({digest(image): image for image in given}.values())
    paths = [folder / f"{name}_{index:05d}.png" for index in range(len(different))]
    for image, path in zip(different, paths, strict=True):
        write(image, path)
    return [relative(path, relative_to) for path in paths]


def save(
    images: Sequence[Any],
    seed: int,
    folder: Path,
    relative_to: Path,
    first: int = 0,
    stem: str = "seed",
) -> list[ImageEntry]:
    """Write ``<stem>_<seed>_<index>.png`` for each picture and return their entries.

    ``index`` counts the pictures of the cell, and picture i has the seed ``seed + i``. Each file
    appears whole or not at all.
    """
    entries: list[ImageEntry] = []
    for index, image in enumerate(images, first):
        path = folder / f"{stem}_{seed + index}_{index:05d}.png"
        write(image, path)
        entries.append(
            {
                "path": relative(path, relative_to),
                "seed": seed + index,
                "index": index,
                "width": image.width,
                "height": image.height,
                "sha256": digest(image),
            }
        )
    return entries


def write(image: Any, path: Path) -> None:
    """Write a PIL image as RGB to a PNG file, which appears whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        image.convert("RGB").save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def relative(path: Path, relative_to: Path) -> str:
    """Return a path from a folder on, with "/"."""
    return Path(os.path.relpath(path, relative_to)).as_posix()
