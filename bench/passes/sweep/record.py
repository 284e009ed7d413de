"""What a sweep leaves in a record."""

from __future__ import annotations

from bench.contract import Outcome
from bench.records.types import Count, Part, Seconds, Text


class StepsEntry(Part, frozen=True):
    """One call at a number of steps; figures are None unless it is ``ok``."""

    steps: Count
    outcome: Outcome
    order: Count = 0
    steps_effective: Count | None = None
    denoiser_calls: Count | None = None
    e2e_s: Seconds | None = None
    it_per_s: float | None = None
    reason: Text | None = None


class SizeEntry(Part, frozen=True):
    """One size: its first, its second and its measured calls."""

    order: Count
    height: Count
    width: Count
    outcome: Outcome
    output_height: Count | None = None
    output_width: Count | None = None
    first_s: Seconds | None = None
    second_s: Seconds | None = None
    e2e_s: tuple[Seconds, ...] = ()
    graphs: Count = 0
    recompiles: Count = 0
    reason: Text | None = None


class Fields(Part, frozen=True):
    sweep_steps_warmup: tuple[StepsEntry, ...] | None = None
    sweep_steps: tuple[StepsEntry, ...] | None = None
    sweep_size: tuple[SizeEntry, ...] | None = None
