"""What fits: of runs that tried memory against a limit, or with several batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import plots.capacity
from bench import text
from bench.passes.capacity import judge as findings
from bench.passes.capacity.judge import Capacity, PerImage, Trial, size_text
from bench.stats.memory_law import MemoryLaw
from reports import frames
from reports.analyse import Comparison
from reports.sections import trials
from reports.sections.base import Plot, Section
from reports.tables import Column, Table, present, table

AT = 60
"""Points of a line in the figure."""


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure of trials, law and limit."""
    return {
        "capacity": Plot(
            plots.capacity,
            lambda: _frames(comparisons),
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
        tables += present(_trials(each), _per_image(each), _cards(each))
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


class _Shown(NamedTuple):
    """A trial in the figure, of one of the findings, with the backend and the panel's title."""

    found: Capacity
    backend: str
    workload: str
    trial: Trial
    outlier: bool = False


POINTS: frames.Columns = {
    "workload": "workload",
    "label": "workload",
    "backend": "backend",
    "series": lambda row: "batch" if row.trial.size == row.found.base else "size",
    "shown": lambda row: f"{size_text(row.trial.size)} x {row.trial.batch}",
    "mpixels": lambda row: row.trial.pixels * row.trial.batch / 1e6,
    "gib": lambda row: text.in_gib(row.trial.peak_bytes),
    "fits": lambda row: row.trial.answer == "fits",
    "outlier": "outlier",
    "limit_gib": lambda row: text.in_gib(row.found.limit_bytes),
    "meter": "found.meter",
    "law": lambda row: (
        f"{row.found.law.form}: {findings.law_text(row.found.law)}" if row.found.law else ""
    ),
}


def _frames(comparisons: Sequence[Comparison]) -> list[pd.DataFrame]:
    found = _found(comparisons)
    points: list[_Shown] = []
    lines: list[dict[str, Any]] = []
    for number, (each, backend) in enumerate(found, 1):
        name = each.name if len(found) == 1 else f"{number}. {each.name}"
        law = each.law
        off = (
            {t.record_id for t, out in zip(each.points, law.outliers, strict=True) if out}
            if law
            else ()
        )
        points += [
            _Shown(each, backend, name, trial, trial.record_id in off)
            for trial in each.trials
            if trial.answer != "unknown" and trial.outcome != "skipped"
        ]
        lines += _lines(each, law, name) if law else []
    return [frames.frame(POINTS, points), pd.DataFrame(lines, columns=plots.capacity.LINES)]


def _lines(found: Capacity, law: MemoryLaw, name: str) -> list[dict[str, Any]]:
    base = found.base[0] * found.base[1]
    top = max(t.pixels * t.batch for t in found.trials if t.outcome != "skipped")
    curves = {
        "batch": [(base, total / base) for total in np.linspace(base, max(top, base), AT)],
    }
    if law.knows_sizes:
        each = found.base_batch
        curves["size"] = [(p, each) for p in np.linspace(base, max(top / each, base), AT)]
    return [
        {
            "workload": name,
            "series": series,
            "mpixels": pixels * batch / 1e6,
            "gib": text.in_gib(law.bytes_at(pixels, batch)),
        }
        for series, places in curves.items()
        for pixels, batch in places
    ]


_WORDS = {"oom": "out of memory"}


def _trials(found: Capacity) -> Table | None:
    columns = (
        Column("size", lambda t: size_text(t.size)),
        Column("batch", "batch", text.whole),
        Column(
            "measured",
            lambda t: "fits" if t.answer == "fits" else _WORDS.get(t.outcome, t.outcome),
        ),
        Column(f"peak of {found.meter} [GiB]", "peak_bytes", text.gib),
        Column("reason", lambda t: "" if t.answer == "fits" else t.reason),
    )
    trials = sorted(found.trials, key=lambda t: (t.pixels, t.batch))
    return table(f"Trials: {found.name}", columns, trials, folded=True)


def _between(each: PerImage) -> str:
    low, high = each.time.low, each.time.high
    known = low is not None and high is not None
    return f"{text.seconds(low)} to {text.seconds(high)}" if known else text.DASH


def _level(each: PerImage) -> str:
    known = _between(each) != text.DASH
    return f"{100 * each.time.achieved_level:.3g} %" if known else ""


def _per_image(found: Capacity) -> Table | None:
    columns = (
        Column("batch", "batch", text.whole),
        Column("time for an image [s]", "time.median", text.seconds),
        Column("interval of the median", _between),
        Column("level", _level),
        Column("calls", "time.n", text.whole),
        Column("", lambda each: "least" if each is found.best else ""),
    )
    title = f"Time for an image by batch, at {size_text(found.base)}: {found.name}"
    return table(title, columns, found.per_image, f"{_capital(found.best_says)}.")


def _size(name: str) -> Callable[[Any], str]:
    def get(card: Any) -> str:
        size = getattr(card, name)
        return text.DASH if size is None else size_text(size)

    return get


def _cards(found: Capacity) -> Table | None:
    columns = (
        Column("memory", "gib", lambda gib: f"{gib} GiB"),
        Column("usable [GiB]", "usable_bytes", text.gib),
        Column(f"largest batch at {size_text(found.base)}", "batch", text.whole),
        Column("surely", lambda card: text.whole(card.sure_batch)),
        Column(f"largest size at batch {found.base_batch}", _size("side")),
        Column("surely", _size("sure_side")),
        Column(
            "",
            lambda card: "beyond what was measured" if card.beyond else "within what was measured",
        ),
    )
    note = (
        f"Predicted by the law above, not measured: {found.reserve_says}. Surely: by the upper "
        "bound of the law's 95 % prediction interval, which knows the noise and not whether the "
        "law holds that far."
    )
    title = f"Prediction for common amounts of memory: {found.name}"
    return table(title, columns, found.cards, note)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
