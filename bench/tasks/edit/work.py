"""Classes that change an image as a sentence says, InstructPix2Pix first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bench.tasks.base import Task
from bench.worker import families
from bench.worker.errors import SourceError

CHANNELS = 8
"""Input channels of a UNet that was trained for instruct-pix2pix."""


class Edit(Task):
    """The class that a model declares, or InstructPix2Pix if its UNet is made for it."""

    name = "edit"
    controlnet_infix = None

    @classmethod
    def pipeline_class(cls, class_name: str, denoiser_channels: int | None) -> Any:
        declared = families.diffusers_class(class_name)
        if families.why_not(declared, cls) is None:
            return declared
        sibling = families.sibling(class_name, "InstructPix2Pix")
        if sibling is None:
            cls.check(declared)
        if denoiser_channels != CHANNELS:
            raise SourceError(
                f"this {class_name} cannot do edit: instruct-pix2pix needs a UNet of {CHANNELS} "
                f"input channels, and this one has {denoiser_channels}."
            )
        return sibling

    @classmethod
    def why_not(cls, name: str, parameters: Mapping[str, Any]) -> str | None:
        if "image" not in parameters:
            return "it takes no input picture"
        if "image_guidance_scale" in parameters or re.search("Edit|Kontext", name):
            return None
        return "it is no pipeline that edits by instruction (such as instruct-pix2pix)"


TASK = Edit
