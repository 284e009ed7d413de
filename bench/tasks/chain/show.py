"""What the terminal says of a chain."""

from __future__ import annotations

from itertools import chain

from bench import text
from bench.records.arms import ArmGroup
from bench.records.types import median
from bench.tasks.chain.record import Fields


def facts(group: ArmGroup) -> list[str]:
    """Return the two times of each backend's chains, pooled over its rounds."""
    texts = []
    for arm in group.arms:
        parts = [record.part(Fields) for record in arm.good]
        first = median(chain.from_iterable(part.ttfi_s for part in parts))
        gap = median(chain.from_iterable(part.tbb_s for part in parts))
        if first is not None:
            between = "" if gap is None else f", TBB {text.seconds(gap)} s"
            texts.append(f"{arm.label}: TTFI {text.seconds(first)} s{between}")
    return texts
