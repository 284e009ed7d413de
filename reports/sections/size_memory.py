"""Memory over the size of the pictures: of runs that measured one workload at several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import plots.size_memory
from bench import text
from bench.passes.capacity import judge as findings
from bench.passes.capacity.judge import Trial, size_text
from bench.stats.memory_law import MemoryLaw
from bench.text import GIB
from reports.analyse import Comparison
from reports.sections import trials
from reports.sections.base import Plot, Section
from reports.view import Cell, Table

LEAST_SIZES = 3
POINTS = 60


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
    points, lines = _tables(_found(comparisons))
    return {
        "size_memory": Plot(
            plots.size_memory,
            [points, lines],
            "The height at 0 is what is held whatever is drawn, the slope what a pixel adds; a "
            "ringed size takes another amount than its neighbours lead one to expect.",
        )
    }


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the law of each series, its outliers and its sizes as asked and as made, or None."""
    found = _found(comparisons)
    if not found:
        return None
    says, tables = [], []
    for each in found:
        says.append(_says(each))
        tables.append(_table(each))
    return Section("size-memory", "Memory over size", says, ["size_memory"], [], tables)


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


def _table(series: _Series) -> Table:
    law = series.law
    at = {id(t): place for place, t in enumerate(series.points)}
    rows = []
    for trial in sorted(series.trials, key=lambda t: (t.pixels, t.size)):
        place = at.get(id(trial))
        known = law is not None and place is not None
        fitted = None if law is None else law.bytes_at(trial.pixels, trial.batch)
        residual = law.residuals[place] if law is not None and place is not None else None
        out = known and law is not None and place is not None and law.outliers[place]
        rows.append([
            Cell(size_text(trial.asked or trial.size)),
            Cell(size_text(trial.size)),
            Cell(text.DASH if trial.output is None else size_text(trial.output)),
            Cell(f"{trial.pixels:,}", trial.pixels, "number"),
            Cell(text.gib(trial.peak_bytes), trial.peak_bytes, "number"),
            Cell(text.gib(fitted), fitted, "number"),
            Cell(text.DASH if residual is None else f"{100 * residual:+.1f} %", residual, "number"),
            Cell("outlier" if out else "" if trial.answer == "fits" else trial.outcome),
        ])  # fmt: skip
    meter = series.trials[0].meter
    head = [
        "asked", "made of it", "came out", "pixels", f"peak of {meter} [GiB]", "law [GiB]", "off",
        "",
    ]  # fmt: skip
    return Table(f"Sizes: {series.name}, batch {series.batch}", head, rows)


def _tables(found: Sequence[_Series]) -> tuple[pd.DataFrame, pd.DataFrame]:
    points: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for number, series in enumerate(found, 1):
        name = f"{series.name}, batch {series.batch}"
        name = name if len(found) == 1 else f"{number}. {name}"
        law = series.law
        for place, trial in enumerate(series.points):
            points.append({
                "workload": name,
                "label": name,
                "backend": series.backend,
                "shown": size_text(trial.size),
                "mpixels": trial.pixels / 1e6,
                "gib": (trial.peak_bytes or 0) / GIB,
                "outlier": law is not None and law.outliers[place],
                "meter": trial.meter,
                "law": series.no_law if law is None else f"{law.form}: {findings.law_text(law)}",
            })  # fmt: skip
        if law is None:
            continue
        for pixels in np.linspace(0, 1.05 * max(t.pixels for t in series.points), POINTS):
            expected = law.predict(max(pixels, 1.0), series.batch)
            lines.append({
                "workload": name,
                "mpixels": pixels / 1e6,
                "gib": expected.bytes / GIB,
                "low": None if expected.low is None else expected.low / GIB,
                "high": None if expected.high is None else expected.high / GIB,
            })  # fmt: skip
    return pd.DataFrame(points, columns=plots.size_memory.POINTS), pd.DataFrame(
        lines, columns=plots.size_memory.LINES
    )
