"""Sizes that a pipeline can make, from sizes that somebody asks for.

A pipeline works on latents and makes sides that are multiples of what one latent covers: 8 pixels
in Stable Diffusion, 16 in VQGAN or Flux. Scripts that take any size round it without a word, so
that a table of sizes and memory is one of sizes that nobody got.
"""

from __future__ import annotations

from typing import Literal

Rounding = Literal["down", "nearest"]


class Asked(int):
    """A side in pixels that stands for the nearest one that the pipeline can make."""


def rounded(side: int, multiple: int, how: Rounding) -> int:
    """Return the side in pixels that is made of ``side``: at least one ``multiple``.

    ``nearest`` takes the larger of two that are equally near.
    """
    units = (side + multiple // 2) // multiple if how == "nearest" else side // multiple
    return max(units, 1) * multiple
