"""Any class that takes a prompt, an image and a strength."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.tasks.base import Task
from bench.worker import families


class ImageToImage(Task):
    """The class that a model declares, or the one that diffusers has beside it."""

    name = "image-to-image"
    controlnet_infix = "ControlNetImg2Img"

    @classmethod
    def pipeline_class(cls, class_name: str, denoiser_channels: int | None) -> Any:
        declared = families.diffusers_class(class_name)
        if families.why_not(declared, cls) is None:
            return declared
        return cls.check(families.sibling(class_name, "Img2Img") or _filed(class_name) or declared)

    @classmethod
    def why_not(cls, name: str, parameters: Mapping[str, Any]) -> str | None:
        if "image" not in parameters:
            return "it takes no input picture"
        return None if "strength" in parameters else "it has no strength; task: edit may fit it"


def _filed(class_name: str) -> Any | None:
    """Return the image-to-image class of the kind that diffusers files ``class_name`` under."""
    from diffusers.pipelines import auto_pipeline

    for kind, found in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items():
        if found.__name__ == class_name:
            return auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.get(kind)
    return None


TASK = ImageToImage
