"""What a telemetry pass leaves in a record."""

from __future__ import annotations

from typing import Any

from bench.records.types import Count, Part, Text

Column = tuple[float | None, ...]


class Telemetry(Part, frozen=True):
    """Samples from outside the worker; times in seconds since the pass began.

    Attributes:
        period_s: between samples, as asked for; ``achieved_s`` is the median in fact.
        thinned: how often every other sample was dropped.
        ended: why sampling ended early; None if it did not.
        foreign: names of other processes on the GPU.
        calls: (begin, end, images) of each call.
        columns: by quantity, a value or None for each sample; None for a quantity that was not to
            be had.
    """

    period_s: float
    columns: dict[Text, Column | None]
    calls: tuple[tuple[float, float, float], ...] = ()
    achieved_s: float | None = None
    source: Any = None
    cpus: Count | None = None
    thinned: Count = 0
    ended: Text | None = None
    foreign: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values() if column is not None}
        if len(lengths) > 1 or self.columns.get("t_s") is None:
            raise ValueError("columns of telemetry differ in length, or have no times")


class Fields(Part, frozen=True):
    telemetry: Telemetry | None = None
