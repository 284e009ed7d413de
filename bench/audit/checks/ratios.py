"""Speedups and percentages: what they are ratios of, and what their averages average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from bench.audit import rows
from bench.audit.build import is_baseline
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Floats, Table

CHECK = "moved-baseline"
AVERAGE = "average-of-ratios"
RATIO = "stated-ratio"
TIMES = ("e2e_s", "mean_s", "median_s", "total_s", "step_s")
RATES = ("it_per_s", "steps_per_s_e2e", "images_per_s")
SLACK = 0.01
"""Ratios of unrounded times may miss those of the printed ones; what rounding explains is added."""

Form = Callable[[float, float], float]

FORMS: dict[str, dict[str, Form]] = {
    "speedup": {
        "baseline ÷ this": lambda base, this: base / this,
        "this ÷ baseline": lambda base, this: this / base,
    },
    "change_pct": {
        "(baseline − this) ÷ baseline": lambda base, this: 100 * (base - this) / base,
        "baseline ÷ this − 1": lambda base, this: 100 * (base / this - 1),
        "this ÷ baseline": lambda base, this: 100 * this / base,
        "baseline ÷ this": lambda base, this: 100 * base / this,
    },
}


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return ratios that are not those of their rows, and averages of ratios."""
    findings: list[Finding] = []
    for name in ("speedup", "change_pct"):
        if table.has(name):
            findings += _ratios(table, name)
    return [*findings, *_averages(table)], []


def _bases(table: Table) -> dict[int, int]:
    """Return each row's baseline row: that of its arm's comparison, else the group's first row."""
    found = {pair.other: pair.base for pair in rows.pairs(table)}
    arms = table.text("backend")
    if any(is_baseline(arm) for arm in arms):
        return found
    names = [n for n in rows.COMPARED if table.has(n)]
    for group in rows.groups(table, names):
        for i in group[1:]:
            found[i] = group[0]
    return found


def _ratios(table: Table, name: str) -> list[Finding]:
    stated = table.values(name)
    half = table.half(name)
    measures = [(n, False) for n in TIMES if table.has(n)] + [
        (n, True) for n in RATES if table.has(n)
    ]
    bases = _bases(table)
    own = table.values("baseline_s")
    rated = [
        i for i in np.flatnonzero(np.isfinite(stated)).tolist()
        if i in bases or np.isfinite(own[i])
    ]  # fmt: skip
    if not measures or not rated:
        return []

    def fits(measure: tuple[str, bool], form: Form, base: int, i: int, sign: float) -> bool:
        return _fits(table, measure, form, base, i, sign, float(stated[i]), float(half[i]))

    # The one definition that most rows follow is the table's.
    best: tuple[int, tuple[str, bool], str, float] | None = None
    for measure in measures:
        for word, form in FORMS[name].items():
            for sign in (1.0, -1.0) if name == "change_pct" else (1.0,):
                count = sum(fits(measure, form, bases.get(i, -1), i, sign) for i in rated)
                if best is None or count > best[0]:
                    best = (count, measure, word, sign)
    assert best is not None
    count, measure, word, sign = best
    form = FORMS[name][word]
    wrong = [i for i in rated if not fits(measure, form, bases.get(i, -1), i, sign)]
    otherwise = [i for i in wrong if _any(table, name, measures, bases, i, stated, half)]
    wrong = [i for i in wrong if i not in otherwise]
    if count >= 2 * max(len(otherwise), 1):

        def meant(i: int) -> str:
            base = bases.get(i, -1)
            return next((w for w, f in FORMS[name].items() if fits(measure, f, base, i, sign)), "")

        mixed = [
            _otherwise(table, name, measure, word, meant(i), sign, bases.get(i, -1), i, stated)
            for i in otherwise
            if meant(i)
        ]
    else:
        mixed = []
    if not wrong or (count == 0 and len(rated) < 2):
        return [*mixed, *_lone(table, name, wrong, measure, form, bases, stated)]
    findings = mixed
    names = [n for n in rows.COMPARED if table.has(n)]
    members = {i: group for group in rows.groups(table, names) for i in group}
    moved: dict[int, int] = {}
    for i in wrong:
        others = [j for j in members[i] if j not in (i, bases.get(i, -1))][:200]
        # Nearest above first: a table's author compares with the row before.
        for j in sorted(others, key=lambda j: (j > i, abs(i - j))):
            unlike = abs(_value(table, measure, j) - _value(table, measure, i))
            if unlike > SLACK * abs(_value(table, measure, i)) and fits(measure, form, j, i, sign):
                moved[i] = j
                break
    for i, j in moved.items():
        right = sign * form(*_times(table, measure, bases.get(i, j), i))
        findings.append(
            Finding(
                CHECK,
                "likely",
                0.65,
                f"The {table.header(name)!r} of {rows.label(table, i)} is taken against "
                f"{rows.label(table, j)}, not against the baseline of the other rows.",
                (i, j),
                f"{word} with {figure(_value(table, measure, j))} and "
                f"{figure(_value(table, measure, i))} gives the stated {stated[i]:g}; against the "
                f"baseline {figure(_value(table, measure, bases.get(i, j)))} it is {right:.4g}",
                "which row each percentage is meant to be against",
            )
        )
    for i in wrong:
        if i not in moved and (i in bases or np.isfinite(own[i])) and count >= 1:
            findings.append(
                _not_it(table, name, measure, word, form, sign, bases.get(i, -1), i, stated)
            )
    return findings


def _any(
    table: Table,
    name: str,
    measures: Iterable[tuple[str, bool]],
    bases: dict[int, int],
    i: int,
    stated: Floats,
    half: Floats,
) -> bool:
    """Whether another definition against the right baseline explains a row."""
    return any(
        _fits(table, m, form, bases.get(i, -1), i, sign, float(stated[i]), float(half[i]))
        for m in measures
        for form in FORMS[name].values()
        for sign in (1.0, -1.0)
    )


def _lone(
    table: Table,
    name: str,
    wrong: list[int],
    measure: tuple[str, bool],
    form: Form,
    bases: dict[int, int],
    stated: Floats,
) -> list[Finding]:
    """A table with one ratio: only one that no figure of its two rows explains."""
    findings = []
    for i in wrong:
        base = bases.get(i, -1)
        value = form(*_times(table, measure, base, i))
        if not math.isfinite(value):
            continue
        word = next(w for w, f in FORMS[name].items() if f is form)
        findings.append(_not_it(table, name, measure, word, form, 1.0, base, i, stated))
    return findings


def _otherwise(
    table: Table,
    name: str,
    measure: tuple[str, bool],
    word: str,
    meant: str,
    sign: float,
    base: int,
    i: int,
    stated: Floats,
) -> Finding:
    """A row whose ratio is right by another definition than that of the other rows."""
    first, second = _times(table, measure, base, i)
    value = sign * FORMS[name][word](first, second)
    return Finding(
        RATIO,
        "likely",
        0.55,
        f"The {table.header(name)!r} of {rows.label(table, i)} is {meant}, where the other rows "
        f"state {word}.",
        (i, base) if base >= 0 else (i,),
        f"{word} with {figure(first)} and {figure(second)} gives {value:.4g}, stated {stated[i]:g}",
        "one definition for the whole column",
    )


def _not_it(
    table: Table,
    name: str,
    measure: tuple[str, bool],
    word: str,
    form: Form,
    sign: float,
    base: int,
    i: int,
    stated: Floats,
) -> Finding:
    first, second = _times(table, measure, base, i)
    value = sign * form(first, second)
    return Finding(
        RATIO,
        "likely",
        0.6,
        f"The {table.header(name)!r} of {rows.label(table, i)} is not the ratio of its figures.",
        (i, base) if base >= 0 else (i,),
        f"{word} with {figure(first)} and {figure(second)} gives {value:.4g}, stated {stated[i]:g}",
        "the times that the ratio was made from",
    )


def _value(table: Table, measure: tuple[str, bool], i: int) -> float:
    return float(table.values(measure[0])[i])


def _times(table: Table, measure: tuple[str, bool], base: int, i: int) -> tuple[float, float]:
    """Return (baseline, this) as times; a rate is a time's inverse. NaN where one is missing."""
    name, is_rate = measure
    values = table.values(name)
    this = float(values[i])
    own = float(table.values("baseline_s")[i])
    reference = (
        own if own == own and not is_rate else float(values[base]) if base >= 0 else math.nan
    )
    if is_rate:
        this, reference = (1 / v if v > 0 else math.nan for v in (this, reference))
    return (reference, this) if reference > 0 and this > 0 else (math.nan, math.nan)


def _fits(
    table: Table,
    measure: tuple[str, bool],
    form: Form,
    base: int,
    i: int,
    sign: float,
    stated: float,
    half: float,
) -> bool:
    first, second = _times(table, measure, base, i)
    if first != first:
        return False
    name, is_rate = measure
    column = table.numbers[name]
    errors = []
    for row, value in ((base, first), (i, second)):
        rounding = float(column.half[row]) if row >= 0 else 0.0
        # Half a digit of a rate, as a relative error of the time.
        errors.append(rounding / (1 / value if is_rate else value))
    relative = sum(errors) + 1e-6
    value = sign * form(first, second)
    change = max(
        abs(sign * form(first * (1 + relative), second) - value),
        abs(sign * form(first * (1 - relative), second) - value),
    )
    return abs(value - stated) <= change + half * 1.05 + SLACK * 0.3 * abs(value)


def _averages(table: Table) -> list[Finding]:
    """Summary rows whose ratio is the mean of the rows' ratios, not the ratio of their means."""
    summary = table.summaries
    if summary is None:
        return []
    findings = []
    for name in ("speedup", "it_per_s", "steps_per_s_e2e", "images_per_s"):
        if not (table.has(name) and summary.has(name)):
            continue
        values = table.values(name)
        for s in range(len(summary)):
            stated, half = float(summary.values(name)[s]), float(summary.half(name)[s])
            chosen = _summed(table, summary, s, values)
            if len(chosen) < 2 or stated != stated:
                continue
            mean = float(values[chosen].mean())
            proper, how = _proper(table, name, chosen)
            slack = half * 1.05 + 2e-3 * abs(stated) + float(table.half(name)[chosen].mean())
            if proper != proper or abs(mean - stated) > slack or abs(proper - stated) <= slack:
                continue
            findings.append(
                Finding(
                    AVERAGE,
                    "certain",
                    min(0.9, 0.45 + abs(mean / proper - 1)),
                    f"The average {table.header(name)!r} ({summary.place} {summary.lines[s]}) "
                    "is the "
                    f"mean of {len(chosen)} ratios, which is no ratio of anything measured.",
                    tuple(chosen),
                    f"mean of ratios {mean:.4g}, stated {stated:g}; {how} = {proper:.4g}",
                    "the ratio of the summed times, or the geometric mean, named as such",
                )
            )
    return findings


def _summed(table: Table, summary: Table, s: int, values: Floats) -> list[int]:
    """Return the rows that a summary row sums up: those of its arm, if it names one."""
    chosen = np.flatnonzero(np.isfinite(values)).tolist()
    for name in ("backend", "model", "task"):
        text = summary.text(name)[s]
        if text and any(text == t for t in table.text(name)):
            chosen = [i for i in chosen if table.text(name)[i] == text]
    return [int(i) for i in chosen]


def _proper(table: Table, name: str, chosen: list[int]) -> tuple[float, str]:
    time = table.values(next((n for n in TIMES if table.has(n)), "e2e_s"))[chosen]
    if name == "speedup":
        bases = _bases(table)
        own = table.values("baseline_s")
        base = [
            float(own[i]) if np.isfinite(own[i])
            else float(table.values("e2e_s")[bases[i]]) if i in bases else math.nan
            for i in chosen
        ]  # fmt: skip
        total = float(np.sum(base))
        return total / float(time.sum()), "sum of baseline times ÷ sum of times"
    if name in ("steps_per_s_e2e", "it_per_s"):
        work = table.values("steps")[chosen]
        if np.isfinite(work).all() and np.isfinite(time).all():
            return float(work.sum() / time.sum()), "sum of steps ÷ sum of times"
        return math.nan, ""
    work = table.values("batch")[chosen]
    return float(work.sum() / time.sum()), "sum of pictures ÷ sum of times"
