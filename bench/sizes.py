"""Sizes that a pipeline can make, from sizes that somebody asks for.

A pipeline works on latents and makes sides that are multiples of what one latent covers: 8 pixels
in Stable Diffusion, 16 in VQGAN or Flux. Scripts that take any size round it without a word, so
that a table of sizes and memory is one of sizes that nobody got.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from bench import files

Rounding = Literal["down", "nearest"]


LEAST_MULTIPLE = 8
"""Sides that are no multiples of this are refused by most pipelines, whatever a latent covers."""


class Asked(int):
    """A side in pixels that stands for the nearest one that the pipeline can make."""


def rounded(side: int, multiple: int, how: Rounding) -> int:
    """Return the side in pixels that is made of ``side``: at least one ``multiple``.

    ``nearest`` takes the larger of two that are equally near.
    """
    units = (side + multiple // 2) // multiple if how == "nearest" else side // multiple
    return max(units, 1) * multiple


def scaled(units: int, multiple: int, aspect: float) -> tuple[int, int]:
    """Return the (height, width) of ``units`` steps of height; ``aspect`` is width over height."""
    height = units * multiple
    return height, rounded(round(height * aspect), multiple, "nearest")


def own_multiple(folder: Path) -> int:
    """Return what the sides of a diffusers folder's images are multiples of, in pixels.

    One latent covers 2 to the number of times that the autoencoder halves a side; transformers
    take patches of latents, of which some (Flux) are made before, with four times the channels.
    Where the folder does not tell, it is `LEAST_MULTIPLE`.
    """
    latents, denoiser = _config(folder / "vae"), _config(folder / "transformer")
    blocks, patch = latents.get("block_out_channels"), denoiser.get("patch_size")
    if not isinstance(blocks, list) or not blocks:
        return LEAST_MULTIPLE
    side = 2 ** (len(blocks) - 1)
    if isinstance(patch, int) and patch > 1:
        side *= patch
    channels, packed = latents.get("latent_channels"), denoiser.get("in_channels")
    if isinstance(channels, int) and packed == 4 * channels:
        side *= 2
    return math.lcm(LEAST_MULTIPLE, side)


def class_of(folder: Path) -> str | None:
    """Return the pipeline class that a diffusers folder names; None if it names none."""
    name = _config(folder, "model_index.json").get("_class_name")
    return name if isinstance(name, str) else None


def _config(part: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        read = json.loads(files.read(part / name, files.CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
