"""The sweeps of one cell's records: a line through the step counts, and what each size costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.passes.sweep.record import Fields, SizeEntry, StepsEntry
from bench.records.types import Record, median
from bench.stats.sweep import SweepFit, ThroughputCheck, check_throughput, fit_sweep


@dataclass(frozen=True, slots=True)
class StepCall:
    """One measured call of a steps sweep; ``order`` is its place among all calls of the cell."""

    round: int
    order: int
    steps: int
    steps_effective: int | None
    denoiser_calls: int
    e2e_s: float
    it_per_s: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A point of a sweep that gave no figure; ``point`` is such as "20 steps" or "768x512"."""

    point: str
    round: int
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class StepSweep:
    """A steps sweep, its rounds pooled.

    Attributes:
        calls: in the order in which they ran, as are the fit's residuals and outliers.
        it_per_s: median of the cell's own measured calls, not of the sweep's.
        denoiser_calls_per_step: for each step event of those calls.
        check: ``1 / marginal_step_s`` against ``it_per_s``.
        reason: why there is no fit.
    """

    calls: tuple[StepCall, ...]
    fit: SweepFit | None
    it_per_s: float | None
    denoiser_calls_per_step: float | None
    check: ThroughputCheck | None
    failures: tuple[Failure, ...]
    reason: str | None

    @property
    def marginal_it_per_s(self) -> float | None:
        """Return 1 / marginal_step_s in step events per second, to stand beside ``it_per_s``."""
        if self.fit is None or self.fit.steps_per_s is None:
            return None
        return self.fit.steps_per_s / (self.denoiser_calls_per_step or 1.0)


@dataclass(frozen=True, slots=True)
class SizePoint:
    """One size of a size sweep. The tuples have one entry a round that reached this size.

    Attributes:
        output_height, output_width: as the pipeline returned them; None if no call ended.
        order: place in the sweep: earlier sizes decide what is compiled already.
        e2e_s: the calls after the first two; ``median_s`` is over all rounds.
        recompile_s: first call minus the median of the round's own ``e2e_s``.
        graphs, recompiles: what torch compiled in the first two calls.
        failures: rounds in which this size gave no figure, or one that does not count.
    """

    height: int
    width: int
    output_height: int | None
    output_width: int | None
    order: int
    first_s: tuple[float | None, ...]
    second_s: tuple[float | None, ...]
    e2e_s: tuple[tuple[float, ...], ...]
    median_s: float | None
    recompile_s: tuple[float | None, ...]
    graphs: tuple[int, ...]
    recompiles: tuple[int, ...]
    failures: tuple[Failure, ...]


def step_sweep(
    records: Sequence[Record], *, level: float = 0.95, seed: int = 0
) -> StepSweep | None:
    """Fit the steps sweep of one cell; None if no record has one.

    Args:
        records: rounds of one cell; those whose outcome is not ``ok`` are left out.
        level, seed: as for `bench.stats.sweep.fit_sweep`.

    Raises:
        ValueError: the records are of more than one cell.
    """
    rounds = _rounds(records)
    parts = [(record, record.part(Fields)) for record in rounds]
    if all((part.sweep_steps, part.sweep_steps_warmup) == (None, None) for _, part in parts):
        return None
    calls: list[StepCall] = []
    failures: list[Failure] = []
    uncounted = 0
    for record, part in parts:
        measured = sorted(part.sweep_steps or (), key=lambda each: each.order)
        for entry in (*(part.sweep_steps_warmup or ()), *measured):
            if entry.outcome != "ok":
                failures.append(_failure(f"{entry.steps} steps", record, entry))
        for entry in measured:
            if entry.outcome != "ok" or entry.e2e_s is None:
                continue
            if not entry.denoiser_calls:
                uncounted += 1
                continue
            calls.append(
                StepCall(
                    round=record.round,
                    order=len(calls),
                    steps=entry.steps,
                    steps_effective=entry.steps_effective,
                    denoiser_calls=entry.denoiser_calls,
                    e2e_s=entry.e2e_s,
                    it_per_s=entry.it_per_s,
                )
            )
    it_per_s = median(rate for record in rounds for rate in record.it_per_s)
    per_step = median(_calls_per_event(rounds)) if it_per_s is not None else None
    fit: SweepFit | None = None
    check: ThroughputCheck | None = None
    reason: str | None = None
    lengths = {call.denoiser_calls for call in calls}
    if uncounted and not calls:
        reason = "the calls of the denoiser could not be counted"
    elif len(lengths) < 2:
        reason = f"a line needs two different step counts; {len(lengths)} could be measured"
    else:
        fit = fit_sweep(
            [call.denoiser_calls for call in calls],
            [call.e2e_s for call in calls],
            order=[call.order for call in calls],
            level=level,
            seed=seed,
        )
        if it_per_s is not None and per_step is not None:
            check = check_throughput(fit, it_per_s, denoiser_calls_per_step=per_step)
    return StepSweep(tuple(calls), fit, it_per_s, per_step, check, tuple(failures), reason)


def size_sweep(records: Sequence[Record]) -> list[SizePoint]:
    """Return the sizes of one cell in the order in which they were run; empty without a sweep.

    Args:
        records: rounds of one cell; those whose outcome is not ``ok`` are left out.

    Raises:
        ValueError: the records are of more than one cell.
    """
    sizes: dict[tuple[int, int], list[tuple[Record, SizeEntry]]] = {}
    for record in _rounds(records):
        for entry in record.part(Fields).sweep_size or ():
            sizes.setdefault((entry.height, entry.width), []).append((record, entry))
    return [_size_point(*size, rounds) for size, rounds in sizes.items()]


def _size_point(height: int, width: int, rounds: Sequence[tuple[Record, SizeEntry]]) -> SizePoint:
    entries = [entry for _, entry in rounds]
    returned = next((each for each in entries if each.output_height is not None), entries[0])
    return SizePoint(
        height=height,
        width=width,
        output_height=returned.output_height,
        output_width=returned.output_width,
        order=entries[0].order,
        first_s=tuple(entry.first_s for entry in entries),
        second_s=tuple(entry.second_s for entry in entries),
        e2e_s=tuple(entry.e2e_s for entry in entries),
        # What ran eager, or compiled while it was measured, is no figure of this backend here.
        median_s=median(s for entry in entries if entry.outcome == "ok" for s in entry.e2e_s),
        recompile_s=tuple(_recompile_s(entry) for entry in entries),
        graphs=tuple(entry.graphs for entry in entries),
        recompiles=tuple(entry.recompiles for entry in entries),
        failures=tuple(
            _failure(f"{width}x{height}", record, entry)
            for record, entry in rounds
            if entry.outcome != "ok"
        ),
    )


def _recompile_s(entry: SizeEntry) -> float | None:
    steady = median(entry.e2e_s)
    if entry.outcome != "ok" or entry.first_s is None or steady is None:
        return None
    return entry.first_s - steady


def _rounds(records: Sequence[Record]) -> list[Record]:
    """Return the records that count, in the order in which they ran."""
    cells = {record.cell_id for record in records}
    if len(cells) > 1:
        raise ValueError(f"records of {len(cells)} cells; a sweep belongs to one")
    counted = [record for record in records if record.outcome == "ok"]
    return sorted(counted, key=lambda record: record.sequence)


def _calls_per_event(rounds: Sequence[Record]) -> Iterator[float]:
    """Yield denoiser calls per step event.

    Step events, not steps: with Heun the callbacks of diffusers come once a denoiser call, those of
    older pipelines once a step, and ``it_per_s`` counts what came.
    """
    for record in rounds:
        for intervals in record.step_s:
            if record.denoiser_calls and intervals:
                yield record.denoiser_calls / (len(intervals) + 1)


def _failure(point: str, record: Record, entry: StepsEntry | SizeEntry) -> Failure:
    return Failure(point, record.round, entry.outcome, entry.reason)
