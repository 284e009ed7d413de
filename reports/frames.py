"""The tables that figures are drawn from: for each its columns, and the rows they are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import pandas as pd

from bench import text
from bench.contract import PHASES, STAGES
from bench.records.types import median as median_of
from reports import answers
from reports.analyse import Comparison, Finding, Interval
from reports.fidelity import THRESHOLD_DB, Likeness
from reports.reference import References
from reports.tables import Getter, get

Columns = Mapping[str, Getter]
"""What each column reads from a row, by its name."""


class Row(NamedTuple):
    """One finding, and what of it the row is about if there are several."""

    comparison: Comparison
    finding: Finding
    at: Any = None


def rows(comparisons: Iterable[Comparison]) -> Iterator[Row]:
    """Yield a row for each finding."""
    for comparison in comparisons:
        for finding in comparison.findings:
            yield Row(comparison, finding)


def frame(columns: Columns, rows: Iterable[Any], drawn: str | None = None) -> pd.DataFrame:
    """Return a table; without the workloads that have nothing to draw in the column ``drawn``."""
    made = [{name: get(row, what) for name, what in columns.items()} for row in rows]
    if drawn is not None:
        drawable = {row["workload"] for row in made if row[drawn] is not None}
        made = [row for row in made if row["workload"] in drawable]
    return pd.DataFrame(made, columns=list(columns))


WHO: Columns = {
    "workload": "comparison.panel",
    "label": "finding.arm.label",
    "backend": "finding.arm.cell.backend.name",
}
PROCESSES: Columns = {"processes": "finding.processes"}
CALLS: Columns = {"calls": "finding.calls", **PROCESSES}


def _why(finding: Finding) -> str:
    return "not recorded" if finding.ok else finding.outcome


WHY: Columns = {"why": lambda row: _why(row.finding)}

# ------------------------------------------------------------------- bars of one figure each


class _Bar(NamedTuple):
    """A bar, and its marks; one of a published row has no finding."""

    comparison: Comparison
    label: str
    backend: str
    value: Interval | None
    points: list[float]
    shown: str | None
    finding: Finding | None = None
    cache: str = "fresh"


_BARS: Columns = {
    "workload": "comparison.panel",
    "label": "label",
    "backend": "backend",
    "cache": "cache",
    "value": "value.value",
    "low": "value.low",
    "high": "value.high",
    "calls": lambda bar: bar.finding.calls if bar.finding else 0,
    "processes": lambda bar: bar.finding.processes if bar.finding else 0,
    "points": "points",
    "shown": "shown",
    "published": lambda bar: bar.finding is None,
    "why": lambda bar: _why(bar.finding) if bar.finding else "not published",
}


def _bars(
    comparisons: Sequence[Comparison],
    published: References,
    value: Getter,
    points: Callable[[Finding], list[float | None]],
    publish: Getter,
    show: Callable[[Interval], str],
    label: str = "label",
) -> pd.DataFrame:
    made = []
    for place, comparison in enumerate(comparisons):
        for finding in comparison.findings:
            arm, found = finding.arm, get(finding, value)
            marks = [point for point in points(finding) if point is not None]
            made.append(
                _Bar(comparison, getattr(arm, label), arm.cell.backend.name, found, marks,
                     show(found) if found else None, finding, arm.cache)
            )  # fmt: skip
        for row in published.get(place, ()):
            figure = get(row, publish)
            alone = None if figure is None else Interval(figure, None, None)
            made.append(
                _Bar(comparison, row.label, row.backend, alone, [], show(alone) if alone else None)
            )
    return frame(_BARS, made, "value")


def end_to_end(comparisons: Sequence[Comparison], published: References) -> pd.DataFrame:
    return _bars(
        comparisons,
        published,
        "e2e",
        lambda f: [record.median_e2e_s for record in f.arm.good],
        "e2e_s",
        lambda v: f"{text.with_interval(v.value, v.low, v.high)} s",
    )


def throughput(comparisons: Sequence[Comparison], published: References) -> pd.DataFrame:
    return _bars(
        comparisons,
        published,
        "it",
        lambda f: [median_of(record.rates) for record in f.arm.good],
        "it_per_s",
        lambda v: f"{text.with_interval(v.value, v.low, v.high, text.number)} it/s",
    )


def warmup(comparisons: Sequence[Comparison], published: References) -> pd.DataFrame:
    return _bars(
        comparisons,
        published,
        lambda f: None if f.warmup_s is None else Interval(f.warmup_s, None, None),
        lambda f: [record.warmup_total_s for record in f.arm.good],
        "warmup_s",
        lambda v: text.seconds(v.value),
        "short",
    )


# ---------------------------------------------------------------------------- other figures

_MEMORY: Columns = {
    **WHO,
    "meter": "finding.meter",
    "phase": "at",
    "gib": lambda row: text.in_gib(row.finding.peak(phase=row.at)),
    "shown": lambda row: text.gib(row.finding.peak()),
    "why": lambda row: (
        "not read by this meter"
        if row.finding.ok and row.finding.peak() is None
        else _why(row.finding)
    ),
}


def memory(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    found = (c for c in comparisons if c.meter is not None)
    return frame(_MEMORY, (row._replace(at=p) for row in rows(found) for p in PHASES), "gib")


_BREAKEVEN: Columns = {
    **WHO,
    "first_call_s": "finding.first_call_s",
    "e2e_s": "finding.e2e.value",
    "images_per_call": "comparison.group.cell.workload.images_per_call",
    "is_baseline": "finding.arm.is_baseline",
    "kind": "at.kind",
    "images": "at.images",
    "low_images": "at.low_images",
    "high_images": "at.high_images",
    "shown": lambda row: answers.breakeven(row.finding) if row.at else "baseline",
    **PROCESSES,
}


def breakeven(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    found = []
    for comparison in comparisons:
        baselines = {id(f.baseline) for f in comparison.findings if f.breakeven and f.baseline}
        found += [
            Row(comparison, f, f.breakeven)
            for f in comparison.findings
            if f.e2e and f.first_call_s is not None and (f.breakeven or id(f) in baselines)
        ]
    return frame(_BREAKEVEN, found)


def _share(row: Row) -> float | None:
    seconds, total = row.finding.stages.get(row.at), sum(row.finding.stages.values())
    return None if seconds is None or not total else 100 * seconds / total


_STAGES: Columns = {
    **WHO,
    "stage": "at",
    "seconds": lambda row: row.finding.stages.get(row.at),
    "pct": _share,
    **CALLS,
    "shown": lambda row: text.seconds(sum(row.finding.stages.values()) or None),
    **WHY,
}


def stages(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    found = (row._replace(at=stage) for row in rows(comparisons) for stage in STAGES)
    return frame(_STAGES, found, "seconds")


def _control(likeness: Likeness) -> float | None:
    figures = (pair.figures for pair in likeness.control)
    return min((f.psnr_db for f in figures if f and f.psnr_db is not None), default=None)


_PARETO: Columns = {
    **WHO,
    "speedup": "finding.speedup.ratio",
    "low": "finding.speedup.low",
    "high": "finding.speedup.high",
    "shown": lambda row: text.ratio(row.finding.speedup.ratio),
    "psnr_db": "at.verdict.worst_db",
    "identical": lambda row: row.at.verdict.word == "IDENTICAL",
    "pictures": lambda row: len([p for p in row.at.pairs if p.figures is not None]),
    "control_db": lambda row: _control(row.at),
    "threshold_db": lambda _: THRESHOLD_DB,
}


def pareto(
    comparisons: Sequence[Comparison], likenesses: Sequence[Mapping[int, Likeness]]
) -> pd.DataFrame:
    found = (
        Row(comparison, comparison.findings[index], one)
        for comparison, likeness in zip(comparisons, likenesses, strict=True)
        for index, one in sorted(likeness.items())
    )
    return frame(
        _PARETO,
        (
            row
            for row in found
            if row.finding.speedup and row.at.verdict and row.at.verdict.word != "INVALID"
        ),
    )


_SPREAD: Columns = {
    **WHO,
    "process": lambda row: row.at[0],
    "e2e_s": lambda row: row.at[1],
    "median_s": "finding.e2e.value",
    "between_pct": "finding.between_pct",
    "within_pct": "finding.within_pct",
}


def spread(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    return frame(
        _SPREAD,
        (
            row._replace(at=(process, seconds))
            for row in rows(comparisons)
            if row.finding.e2e
            for process, record in enumerate(row.finding.arm.good, 1)
            for seconds in record.e2e_s
        ),
    )


TRACE: Columns = {
    **WHO,
    "step": lambda row: row.at["step"],
    "median_s": lambda row: median(at[0] for at in row.at["traces"]),
    "low_s": lambda row: min(at[1] for at in row.at["traces"]),
    "high_s": lambda row: max(at[2] for at in row.at["traces"]),
    "calls": "finding.calls",
    "processes": lambda row: len(row.at["traces"]),
}
"""Of rows whose ``at`` is a ``step`` and its ``traces``: (median, least, most) by process."""


def trace(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    return frame(TRACE, _steps(comparisons))


def _steps(comparisons: Sequence[Comparison]) -> Iterator[Row]:
    for row in rows(comparisons):
        traces = [list(record.step_trace()) for record in row.finding.arm.good if record.step_s]
        longest = max(map(len, traces), default=0)
        whole = [one for one in traces if len(one) == longest]
        for step, at in enumerate(zip(*whole, strict=True), 1):
            yield row._replace(at={"step": step, "traces": at})
