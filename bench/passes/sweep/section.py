"""A workload's sweeps in a report: the line through its step counts, and what each size costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import plots.sizes
import plots.sweep
from bench import text
from bench.passes.sweep.judge import (
    Failure,
    SizePoint,
    StepCall,
    StepSweep,
    size_sweep,
    step_sweep,
)
from bench.records.arms import Arm, each_once
from bench.records.types import median
from bench.stats.sweep import SweepFit
from reports import frames
from reports.analyse import Comparison
from reports.frames import Row
from reports.sections.base import Plot
from reports.tables import Cell, Column, Table, interval, table


class _Sweeps(NamedTuple):
    steps: StepSweep | None
    sizes: list[SizePoint]


_KNOWN: WeakKeyDictionary[Arm, _Sweeps] = WeakKeyDictionary()
"""Of arms that are still in use: a fit takes long, and both a figure and a table want it."""


def _sweeps(arm: Arm) -> _Sweeps:
    known = _KNOWN.get(arm)
    if known is None:
        known = _KNOWN[arm] = _Sweeps(step_sweep(arm.good), size_sweep(arm.good))
    return known


def _steps(comparisons: Sequence[Comparison]) -> Iterator[Row]:
    """Yield each finding with a steps sweep, with it."""
    for row in frames.rows(comparisons):
        found = _sweeps(row.finding.arm).steps
        if found is not None:
            yield row._replace(at=found)


def _fitted(comparisons: Sequence[Comparison]) -> Iterator[Row]:
    return (row for row in _steps(comparisons) if row.at.fit is not None)


def _sizes(comparisons: Sequence[Comparison]) -> Iterator[Row]:
    for row in frames.rows(comparisons):
        yield from (row._replace(at=size) for size in _sweeps(row.finding.arm).sizes)


# ----------------------------------------------------------------------------------- figures


class _Call(NamedTuple):
    call: StepCall
    process: int
    outlier: bool
    fitted_s: float


CALLS: frames.Columns = {
    **frames.WHO,
    "process": "at.process",
    "steps": "at.call.steps",
    "denoiser_calls": "at.call.denoiser_calls",
    "e2e_s": "at.call.e2e_s",
    "outlier": "at.outlier",
    "fitted_s": "at.fitted_s",
}


def _calls(comparisons: Sequence[Comparison]) -> Iterator[Row]:
    for row in _fitted(comparisons):
        process = {record.round: i for i, record in enumerate(row.finding.arm.good, 1)}
        fit, calls = row.at.fit, row.at.calls
        fitted = fit.predict([call.denoiser_calls for call in calls])
        for call, out, at in zip(calls, fit.outliers, fitted, strict=True):
            yield row._replace(at=_Call(call, process[call.round], out, at))


def _band(row: Row) -> dict[str, float | None]:
    """Return how far the line may lie off: half the intervals of its slope and of its mean."""
    fit: SweepFit = row.at.fit
    calls = [call.denoiser_calls for call in row.at.calls]
    kept = [x for x, out in zip(calls, fit.outliers, strict=True) if not out]
    errors = [r for r, out in zip(fit.residuals_s, fit.outliers, strict=True) if not out]
    mean = sum(kept) / len(kept)
    slope_half = mean_half = None
    if fit.marginal_interval_s is not None and len(kept) > 2:
        low, high = fit.marginal_interval_s
        slope_half = (high - low) / 2
        # The slope's interval already carries Student's t; the same factor holds for the mean.
        spread = math.sqrt(sum(e * e for e in errors) / (len(kept) - 2))
        around = math.sqrt(sum((x - mean) ** 2 for x in kept))
        factor = slope_half * around / spread if spread and around else NormalDist().inv_cdf(0.975)
        mean_half = factor * spread / math.sqrt(len(kept))
    return {"slope_half_s": slope_half, "mean_calls": mean, "mean_half_s": mean_half}


def sweep_words(found: StepSweep, fit: SweepFit) -> str:
    """Return the line of a sweep in words: fixed time, throughput, measured it_per_s, n."""
    return (
        f"fixed {text.seconds(fit.fixed_s)} s · "
        f"marginal_it_per_s {text.number(found.marginal_it_per_s)} · "
        f"it_per_s {text.number(found.it_per_s)} · n {fit.n}"
    )


LINES: frames.Columns = {
    **frames.WHO,
    "fixed_s": "at.fit.fixed_s",
    "marginal_step_s": "at.fit.marginal_step_s",
    "slope_half_s": lambda row: _band(row)["slope_half_s"],
    "mean_calls": lambda row: _band(row)["mean_calls"],
    "mean_half_s": lambda row: _band(row)["mean_half_s"],
    "n": "at.fit.n",
    **frames.PROCESSES,
    "summary": lambda row: sweep_words(row.at, row.at.fit),
}

SIZES: frames.Columns = {
    **frames.WHO,
    "label": lambda row: f"{row.at.width}×{row.at.height} {row.finding.arm.label}",
    "first_s": lambda row: median(row.at.first_s),
    "second_s": lambda row: median(row.at.second_s),
    "steady_s": "at.median_s",
    "shown": lambda row: (
        f"{text.seconds(median(row.at.first_s))}, {text.seconds(median(row.at.second_s))}, "
        f"{text.seconds(row.at.median_s)} s · "
        f"graphs {text.count(median(row.at.graphs))}, "
        f"recompiles {text.count(median(row.at.recompiles))} · "
        f"n = {len(row.at.first_s)}"
    ),
    "why": lambda row: (
        "; ".join(each_once(f"{x.outcome}: {x.reason}" for x in row.at.failures)) or None
    ),
}


def _by_size(comparisons: Sequence[Comparison]) -> Iterator[Row]:
    """Yield all backends of a size together."""
    for comparison in comparisons:
        yield from sorted(_sizes([comparison]), key=lambda row: row.at.order)


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    return {
        "sweep": Plot(
            plots.sweep,
            lambda: [
                frames.frame(CALLS, _calls(comparisons)),
                frames.frame(LINES, _fitted(comparisons)),
            ],
            "The slope is the cost of a step, the height at 0 what every call costs besides.",
        ),
        "sizes": Plot(
            plots.sizes,
            lambda: [frames.frame(SIZES, _by_size(comparisons))],
            "The distance from the first mark to the last is the price of meeting a size.",
        ),
    }


# ------------------------------------------------------------------------------------ tables

BACKEND = Column("backend", "finding.arm.label", kind="name")


def _fit(name: str) -> Any:
    return lambda row: getattr(row.at.fit, name) if row.at.fit else None


def _interval(name: str) -> Any:
    return lambda row: interval(*(_fit(name)(row) or (None, None)))


def _notes(row: Row) -> str:
    found: StepSweep = row.at
    notes = [*(found.fit.notes if found.fit else ()), found.check.reason if found.check else ""]
    return found.reason or " ".join(notes).strip() or text.DASH


STEPS = (
    BACKEND,
    Column("fixed [s]", _fit("fixed_s"), text.seconds),
    Column("95 % interval", _interval("fixed_interval_s")),
    Column("per denoiser call [s]", _fit("marginal_step_s"), text.seconds),
    Column("95 % interval", _interval("marginal_interval_s")),
    Column("marginal_it_per_s [it/s]", "at.marginal_it_per_s", text.number),
    Column("it_per_s [it/s]", "at.it_per_s", text.number),
    Column("R²", _fit("r2"), lambda r2: text.DASH if r2 is None else f"{r2:.4f}"),
    Column("calls", lambda row: len(row.at.calls), text.whole),
    Column("notes", _notes),
)

LOST = (
    BACKEND,
    Column("point", "at.point"),
    Column("round", lambda row: row.at.round + 1, text.whole),
    Column("outcome", "at.outcome", kind="bad"),
    Column("reason", lambda row: row.at.reason or "no reason was given"),
)


def _dynamic(row: Row) -> str:
    value = row.finding.arm.cell.backend.options.get("dynamic")
    if isinstance(value, bool):
        return "on" if value else "off"
    return text.DASH if value is None else str(value)


def _shown(row: Row) -> Cell:
    size: SizePoint = row.at
    asked, returned = f"{size.width}×{size.height}", f"{size.output_width}×{size.output_height}"
    same = size.output_width is None or returned == asked
    return Cell(asked if same else f"{asked}, returned {returned}", None, "number")


def _outcome(failures: Sequence[Failure]) -> str:
    lost = (f"{each.outcome}: {each.reason or 'no reason was given'}" for each in failures)
    return "; ".join(each_once(lost)) or "ok"


SIZE = (
    BACKEND,
    Column("dynamic", _dynamic),
    Column("size", _shown),
    Column("first call [s]", lambda row: median(row.at.first_s), text.seconds),
    Column("second call [s]", lambda row: median(row.at.second_s), text.seconds),
    Column("steady [s]", "at.median_s", text.seconds),
    Column("recompile_s [s]", lambda row: median(row.at.recompile_s), text.seconds),
    Column("graphs", lambda row: median(row.at.graphs), text.count),
    Column("recompiles", lambda row: median(row.at.recompiles), text.count),
    Column("outcome", lambda row: _outcome(row.at.failures)),
)


def tables(comparison: Comparison) -> list[Table | None]:
    """Return the line through the step counts, the step counts that are lost, and the sizes."""
    steps = list(_steps([comparison]))
    return [
        table(
            "Steps against time",
            STEPS,
            steps,
            "end-to-end = fixed + per denoiser call × denoiser calls, fitted robustly. "
            "marginal_it_per_s is what the slope gives in step events per second, the unit of "
            "it_per_s.",
        ),
        table(
            "Step counts without a figure",
            LOST,
            (row._replace(at=lost) for row in steps for lost in row.at.failures),
        ),
        table(
            "Sizes",
            SIZE,
            _sizes([comparison]),
            "What each new size costs in a process that has been warmed up at the cell's own: "
            "medians over processes, in the order of the sweep. recompile_s is the first call less "
            "the steady ones; graphs and recompiles are those of the first two calls.",
        ),
    ]
