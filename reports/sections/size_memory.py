"""Memory over the size of the images: of runs that measured one workload at several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

import plots.size_memory
from bench import text
from bench.passes.capacity import judge as findings
from bench.passes.capacity.judge import Trial, size_text
from bench.stats.memory_law import MemoryLaw, Prediction
from reports import frames
from reports.analyse import Comparison
from reports.sections import trials
from reports.sections.base import Plot, Section
from reports.tables import Column, Table, present, table

LEAST_SIZES = 3
AT = 60
"""Points of a line in the figure."""


@dataclass(frozen=True, slots=True)
class _Series:
    """Trials of one workload and batch at several sizes, and the law through those that fitted."""

    name: str
    backend: str
    batch: int
    trials: list[Trial]
    points: list[Trial]
    law: MemoryLaw | None
    no_law: str | None


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure of memory over pixels."""
    return {
        "size_memory": Plot(
            plots.size_memory,
            lambda: _frames(comparisons),
            "The height at 0 is what is held whatever is drawn, the slope what a pixel adds; a "
            "ringed size takes another amount than its neighbours lead one to expect.",
        )
    }


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the law of each series, its outliers and its sizes as asked and as made, or None."""
    found = _found(comparisons)
    if not found:
        return None
    return Section(
        "size-memory",
        "Memory over size",
        [_says(each) for each in found],
        figures=["size_memory"],
        tables=present(*map(_table, found)),
    )


def _found(comparisons: Sequence[Comparison]) -> list[_Series]:
    groups: dict[tuple[str, int], list[tuple[Trial, str]]] = {}
    for trial, backend, _ in trials.of(comparisons):
        groups.setdefault((trial.subject, trial.batch), []).append((trial, backend))
    kept = {
        key: members
        for key, members in groups.items()
        if len({t.size for t, _ in members if t.peak_bytes is not None}) >= LEAST_SIZES
    }
    tried = [[trial for trial, _ in members] for members in kept.values()]
    found = []
    for ((_, batch), members), own, name in zip(
        kept.items(), tried, findings.names_of(tried), strict=True
    ):
        law, points, no_law = findings.fit(own)
        found.append(_Series(name, members[0][1], batch, own, points, law, no_law))
    return found


def _says(series: _Series) -> str:
    head = f"{series.name}, batch {series.batch}: "
    law = series.law
    if law is None:
        return f"{head}no law of memory: {series.no_law}."
    told = f"{head}{law.form} law over {text.plural(law.n, 'point')}, "
    told += f"{findings.law_text(law)}; {law.why}."
    off = [
        f"{size_text(t.size)} ({100 * residual:+.0f} %)"
        for t, residual, out in zip(series.points, law.residuals, law.outliers, strict=True)
        if out
    ]
    told += f" Off the law: {', '.join(off)}." if off else " No size is off the law."
    if law.lack_of_fit:
        told += f" Take care: {law.lack_of_fit}."
    return told


class _Sized(NamedTuple):
    """A trial of a series; ``residual`` and ``outlier`` where it is a point of the law."""

    series: _Series
    trial: Trial
    residual: float | None = None
    outlier: bool = False

    @property
    def fitted(self) -> float | None:
        law = self.series.law
        return None if law is None else law.bytes_at(self.trial.pixels, self.trial.batch)


def _sized(series: _Series) -> list[_Sized]:
    law = series.law
    known = (
        dict(zip(map(id, series.points), zip(law.residuals, law.outliers, strict=True),
                 strict=True))
        if law
        else {}
    )  # fmt: skip
    return [_Sized(series, t, *known.get(id(t), ())) for t in series.trials]


def _remark(row: _Sized) -> str:
    if row.outlier:
        return "outlier"
    return "" if row.trial.answer == "fits" else row.trial.outcome


def _columns(meter: str) -> tuple[Column, ...]:
    return (
        Column("asked", lambda row: size_text(row.trial.asked or row.trial.size)),
        Column("made of it", lambda row: size_text(row.trial.size)),
        Column(
            "came out",
            lambda row: size_text(row.trial.output) if row.trial.output else text.DASH,
        ),
        Column("pixels", "trial.pixels", text.count),
        Column(f"peak of {meter} [GiB]", "trial.peak_bytes", text.gib),
        Column("law [GiB]", "fitted", text.gib),
        Column(
            "off",
            "residual",
            lambda value: text.DASH if value is None else f"{100 * value:+.1f} %",
        ),
        Column("", _remark),
    )


def _table(series: _Series) -> Table | None:
    rows = sorted(_sized(series), key=lambda row: (row.trial.pixels, row.trial.size))
    title = f"Sizes: {series.name}, batch {series.batch}"
    return table(title, _columns(series.trials[0].meter), rows)


def _law(series: _Series) -> str | None:
    law = series.law
    return f"{law.form}: {findings.law_text(law)}" if law else series.no_law


POINTS: frames.Columns = {
    "workload": lambda row: row[0],
    "label": lambda row: row[0],
    "backend": lambda row: row[1].series.backend,
    "shown": lambda row: size_text(row[1].trial.size),
    "mpixels": lambda row: row[1].trial.pixels / 1e6,
    "gib": lambda row: text.in_gib(row[1].trial.peak_bytes or 0),
    "outlier": lambda row: row[1].outlier,
    "meter": lambda row: row[1].trial.meter,
    "law": lambda row: _law(row[1].series),
}
LINES: frames.Columns = {
    "workload": lambda row: row[0],
    "mpixels": lambda row: row[1] / 1e6,
    "gib": lambda row: text.in_gib(row[2].bytes),
    "low": lambda row: text.in_gib(row[2].low),
    "high": lambda row: text.in_gib(row[2].high),
}


def _frames(comparisons: Sequence[Comparison]) -> list[pd.DataFrame]:
    found = _found(comparisons)
    points: list[tuple[str, _Sized]] = []
    lines: list[tuple[str, float, Prediction]] = []
    for number, series in enumerate(found, 1):
        name = f"{series.name}, batch {series.batch}"
        name = name if len(found) == 1 else f"{number}. {name}"
        known = {id(trial) for trial in series.points}
        points += [(name, row) for row in _sized(series) if id(row.trial) in known]
        if series.law is not None:
            for pixels in np.linspace(0, 1.05 * max(t.pixels for t in series.points), AT):
                lines.append((name, pixels, series.law.predict(max(pixels, 1.0), series.batch)))
    return [frames.frame(POINTS, points), frames.frame(LINES, lines)]
