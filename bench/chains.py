"""The layout of a chain: which round makes how many images, from which parents and in what steps.

Pure arithmetic, which the parent needs for plans and reports and the worker for its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TASK = "chain"


@dataclass(frozen=True)
class Round:
    """One pipeline call of a chain.

    Attributes:
        number: 0 for text-to-image, from 1 on image-to-image.
        first: index of its first image in the chain.
        batch: images that it makes.
        parents: for each of its images the index of the image that it starts from; empty for
            text-to-image.
    """

    number: int
    first: int
    batch: int
    parents: tuple[int, ...]


def rounds(samples: int, max_batch: int, start_from: str) -> list[Round]:
    """Return the rounds that make ``samples`` images, at most ``max_batch`` each.

    Image i of a later round starts from image i of the first round, or of the round before if
    ``start_from`` is "previous". Only the last round may be smaller, so every parent exists.
    """
    made: list[Round] = []
    for number, first in enumerate(range(0, samples, max_batch)):
        batch = min(max_batch, samples - first)
        start = first - max_batch if start_from == "previous" else 0
        parents = tuple(range(start, start + batch)) if number else ()
        made.append(Round(number, first, batch, parents))
    return made


def of(workload: Mapping[str, Any]) -> list[Round]:
    """Return the rounds of a workload whose task is chain."""
    return rounds(workload["samples"], workload["max_batch"], workload["start_from"])


def pictures(workload: Mapping[str, Any]) -> int:
    """Return how many images one measured call of any workload makes."""
    return int(workload.get("samples") or workload.get("batch") or 1)


def diffusers_steps(steps: int, strength: float) -> int:
    """Return the steps of an image-to-image call as diffusers' Stable Diffusion classes round.

    Source: ``get_timesteps`` of StableDiffusionImg2ImgPipeline and its SDXL relative.
    """
    return min(int(steps * strength), steps)


_ROUND_UP = ("StableDiffusion3", "Flux", "Chroma", "QwenImage", "ZImage", "SanaSprint")
_ROUND_DOWN = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
)


def class_steps(class_name: str | None, steps: int, strength: float) -> int | None:
    """Return the steps that image-to-image of a model's class takes; None if it is not known.

    Source: ``get_timesteps`` of diffusers 0.42: eight classes keep the part of a step, all others
    that are named here cut it off. LCM spreads the steps that are asked for.
    """
    if class_name is None:
        return None
    if class_name.startswith("LatentConsistencyModel"):
        return steps
    if class_name.startswith(_ROUND_UP):
        return min(steps - int(max(steps - steps * strength, 0)), steps)
    return diffusers_steps(steps, strength) if class_name in _ROUND_DOWN else None


def script_steps(steps: int, strength: float) -> int:
    """Return the steps of a later round as the published chain's script counted them.

    The rule that gives all of that report's counts: one more than the whole part of
    strength x steps, and never more than there are.
    """
    return min(int(strength * steps) + 1, steps)
