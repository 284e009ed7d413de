"""What fits: of runs that tried memory against a limit, or with several batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

import plots.capacity
from bench import text
from bench.passes.capacity import judge as findings
from bench.passes.capacity.judge import Capacity, size_text
from bench.text import GIB
from reports.analyse import Comparison
from reports.sections import trials
from reports.sections.base import Plot, Section
from reports.view import Cell, Table

POINTS = 60


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure of trials, law and limit."""
    points, lines = _tables(_found(comparisons))
    return {
        "capacity": Plot(
            plots.capacity,
            [points, lines],
            "Crosses ran out of memory. Where the line meets the limit, the law says that no more "
            "fits; beyond the last mark it is a prediction.",
        )
    }


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return measured limits, the law, the best batch and predictions, or None."""
    found = _found(comparisons)
    if not found:
        return None
    says = []
    tables: list[Table] = []
    for each, _ in found:
        limit = (
            "the device's own" if each.limit_bytes is None else f"{text.gib(each.limit_bytes)} GiB"
        )
        head = f"{each.name} (limit {limit}, meter {each.meter}, "
        head += f"{findings.counted(each)}): "
        head += f"{findings.limit_says(each.batches, 'batch')}. "
        head += f"{_capital(findings.limit_says(each.sizes, 'size'))}."
        says += [head, f"{_capital(findings.law_says(each))}.", f"Best batch: {each.best_says}."]
        tables += [_trials(each), *_per_image(each), *_cards(each)]
    return Section("capacity", "What fits into memory", says, ["capacity"], [], tables)


def _found(comparisons: Sequence[Comparison]) -> list[tuple[Capacity, str]]:
    """Return the findings of each workload that tried memory, with its backend."""
    known = trials.of(comparisons)
    backends = {trial.subject: backend for trial, backend, _ in known}
    searches = {trial.subject: search for trial, _, search in known}
    return [
        (each, backends[each.subject])
        for each in findings.capacities(
            (trial for trial, _, _ in known), searches=searches.__getitem__
        )
        if _asked(each)
    ]


def _asked(found: Capacity) -> bool:
    """Whether a run was about memory: one size after another alone is another section's."""
    tried = {(t.size, t.batch) for t in found.trials}
    limited = found.limit_bytes is not None or any(t.answer == "oom" for t in found.trials)
    return len(tried) > 1 and (limited or len({batch for _, batch in tried}) > 2)


def _tables(found: Sequence[tuple[Capacity, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    points: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for number, (each, backend) in enumerate(found, 1):
        name = each.name if len(found) == 1 else f"{number}. {each.name}"
        limit = None if each.limit_bytes is None else each.limit_bytes / GIB
        off = (
            dict(zip([t.record_id for t in each.points], each.law.outliers, strict=True))
            if (each.law)
            else {}
        )
        told = "" if each.law is None else f"{each.law.form}: {findings.law_text(each.law)}"
        for trial in each.trials:
            if trial.answer == "unknown" or trial.outcome == "skipped":
                continue
            points.append({
                "workload": name,
                "label": name,
                "backend": backend,
                "series": "batch" if trial.size == each.base else "size",
                "shown": f"{size_text(trial.size)} x {trial.batch}",
                "mpixels": trial.pixels * trial.batch / 1e6,
                "gib": None if trial.peak_bytes is None else trial.peak_bytes / GIB,
                "fits": trial.answer == "fits",
                "outlier": off.get(trial.record_id, False),
                "limit_gib": limit,
                "meter": each.meter,
                "law": told,
            })  # fmt: skip
        if each.law is not None:
            lines += _lines(each, name)
    return pd.DataFrame(points, columns=plots.capacity.POINTS), pd.DataFrame(
        lines, columns=plots.capacity.LINES
    )


def _lines(found: Capacity, name: str) -> list[dict[str, Any]]:
    assert found.law is not None
    base = found.base[0] * found.base[1]
    top = max(t.pixels * t.batch for t in found.trials if t.outcome != "skipped")
    curves = {
        "batch": [(base, total / base) for total in np.linspace(base, max(top, base), POINTS)],
    }
    if found.law.knows_sizes:
        each = found.base_batch
        curves["size"] = [(p, each) for p in np.linspace(base, max(top / each, base), POINTS)]
    return [
        {
            "workload": name,
            "series": series,
            "mpixels": pixels * batch / 1e6,
            "gib": found.law.bytes_at(pixels, batch) / GIB,
        }
        for series, places in curves.items()
        for pixels, batch in places
    ]


def _trials(found: Capacity) -> Table:
    words = {"oom": "out of memory"}
    rows = [
        [
            Cell(size_text(t.size)),
            _number(str(t.batch), t.batch),
            Cell("fits" if t.answer == "fits" else words.get(t.outcome, t.outcome)),
            _number(text.gib(t.peak_bytes), t.peak_bytes),
            Cell("" if t.answer == "fits" else str(t.reason or "")),
        ]
        for t in sorted(found.trials, key=lambda t: (t.pixels, t.batch))
    ]
    head = ["size", "batch", "measured", f"peak of {found.meter} [GiB]", "reason"]
    return Table(f"Trials: {found.name}", head, rows, folded=True)


def _per_image(found: Capacity) -> list[Table]:
    if not found.per_image:
        return []
    rows = []
    for each in found.per_image:
        interval = text.DASH
        if each.time.low is not None and each.time.high is not None:
            interval = f"{text.seconds(each.time.low)} to {text.seconds(each.time.high)}"
        level = "" if interval == text.DASH else f"{100 * each.time.achieved_level:.3g} %"
        rows.append([
            _number(str(each.batch), each.batch),
            _number(text.seconds(each.time.median), each.time.median),
            Cell(interval),
            Cell(level),
            _number(str(each.time.n), each.time.n),
            Cell("least" if each is found.best else ""),
        ])  # fmt: skip
    head = ["batch", "time for a picture [s]", "interval of the median", "level", "calls", ""]
    title = f"Time for a picture by batch, at {size_text(found.base)}: {found.name}"
    return [Table(title, head, rows, note=f"{_capital(found.best_says)}.")]


def _cards(found: Capacity) -> list[Table]:
    if not found.cards:
        return []
    rows = [
        [
            _number(f"{card.gib} GiB", card.gib),
            _number(text.gib(card.usable_bytes), card.usable_bytes),
            _number(str(card.batch), card.batch),
            Cell(text.DASH if card.sure_batch is None else str(card.sure_batch)),
            Cell(text.DASH if card.side is None else size_text(card.side)),
            Cell(text.DASH if card.sure_side is None else size_text(card.sure_side)),
            Cell("beyond what was measured" if card.beyond else "within what was measured"),
        ]
        for card in found.cards
    ]
    head = [
        "memory", "usable [GiB]", f"largest batch at {size_text(found.base)}", "surely",
        f"largest size at batch {found.base_batch}", "surely", "",
    ]  # fmt: skip
    note = (
        f"Predicted by the law above, not measured: {found.reserve_says}. Surely: by the upper "
        "bound of the law's 95 % prediction interval, which knows the noise and not whether the "
        "law holds that far."
    )
    return [Table(f"Prediction for common amounts of memory: {found.name}", head, rows, note=note)]


def _number(shown: str, value: float | None) -> Cell:
    return Cell(shown, value, "number")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
