"""Keys of text-to-image: those of every workload, less what an input image needs."""

from __future__ import annotations

from typing import Literal

from bench.config.keys import Traits, Workload


class Keys(Workload):
    """An image from a prompt."""

    traits = Traits(leaves_out={"strength": "", "image_guidance": "", "input_image": ""})
    task: Literal["text-to-image"]
