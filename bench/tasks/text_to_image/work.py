"""Any class that takes a prompt, a height and a width and returns images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.tasks.base import Task


class TextToImage(Task):
    """The ordinary task without an image to start from."""

    name = "text-to-image"
    takes_image = False

    @classmethod
    def why_not(cls, name: str, parameters: Mapping[str, Any]) -> str | None:
        if not {"height", "width"} <= parameters.keys():
            return "it takes no height and width, or no picture comes out of it"
        if "strength" in parameters:
            return "it starts from a picture; task: image-to-image fits it"
        if "image" in parameters and not _needs_none(name):
            return "it starts from a picture; task: edit may fit it"
        return None


def _needs_none(class_name: str) -> bool:
    """Return whether diffusers counts a class that may take an image among those without one."""
    from diffusers.pipelines import auto_pipeline

    known = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    return class_name in {each.__name__ for each in known}


TASK = TextToImage
