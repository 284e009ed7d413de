"""Keys of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from bench import chains
from bench.config import values as v
from bench.config.keys import Around, Traits, Workload, key


class Keys(Workload):
    """Text-to-image, then rounds of image-to-image from its images."""

    traits = Traits(
        after="between",
        leaves_out={
            "image_guidance": "",
            "input_image": "",
            "batch": "'max_batch' is the number of images of a round, 'samples' that of all",
        },
        defaults={"strength": 0.75},  # of the published chains
    )
    task: Literal["chain"]
    samples: int = key(9, "`chain` only: images of the whole chain", ge=1, le=10_000)
    max_batch: v.Batch = key(
        3, "`chain` only: images of a round, the last may make fewer; stands in place of `batch`"
    )
    start_from: Literal["first", "previous"] = key(
        "first", "`chain` only: whose images its later rounds start from"
    )

    @classmethod
    def complete(cls, given: dict[str, Any], around: Around) -> None:
        """Make no round larger than the chain."""
        super().complete(given, around)
        samples, most = (
            given.get(name, cls.model_fields[name].default) for name in ("samples", "max_batch")
        )
        given["batch"] = given["max_batch"] = min(most, samples)

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:
        """Refuse a ControlNet besides."""
        if self.controlnet is not None:
            yield "controlnet", "a ControlNet steers one call's image, and chain makes many"
        yield from super().problems(around)

    def cell(self, name: str) -> dict[str, Any]:
        """Return all three keys of its own besides."""
        own = ("samples", "max_batch", "start_from")
        others = {key_: value for key_, value in super().cell(name).items() if key_ not in own}
        return {**others, **{key_: getattr(self, key_) for key_ in own}}

    @classmethod
    def rounds(cls, workload: Mapping[str, Any], steps: int) -> list[tuple[int, int]]:
        """Return every round; the first one takes all steps."""
        later = chains.diffusers_steps(steps, workload["strength"])
        return [(each.batch, later if each.number else steps) for each in chains.of(workload)]
