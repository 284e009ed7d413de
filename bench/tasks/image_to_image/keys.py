"""Keys of image-to-image."""

from __future__ import annotations

from typing import Literal

from bench.config.keys import Traits, Workload

STRENGTH = 0.8
"""Of diffusers' Stable Diffusion img2img; SDXL's own 0.3 leaves 3 of 10 steps."""


class Keys(Workload):
    """An image from an image and a prompt."""

    traits = Traits(leaves_out={"image_guidance": ""}, defaults={"strength": STRENGTH})
    task: Literal["image-to-image"]
