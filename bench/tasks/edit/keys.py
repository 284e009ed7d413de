"""Keys of edit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from bench.config.keys import Around, Traits, Workload


class Keys(Workload):
    """An image that is changed by an instruction."""

    traits = Traits(leaves_out={"strength": ""})
    task: Literal["edit"]

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:
        """Refuse a ControlNet besides."""
        if self.controlnet is not None:
            yield ("controlnet", "a ControlNet steers text-to-image and image-to-image, not edit")
        yield from super().problems(around)
