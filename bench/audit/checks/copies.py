"""Copied cells: equal figures in unlike rows, near-copies of rows, one picture on two rows.

Two measured figures that agree in every digit can be chance. How likely that is follows from the
column itself: with n rows and figures that lie about d printed steps apart, some n² ÷ 2d pairs
agree by chance. Only what is far less likely is a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.audit import rows
from bench.audit.build import is_baseline
from bench.audit.finding import Finding, Note, Sure
from bench.audit.rows import figure
from bench.audit.table import Numbers, Table

CHECK = "copied-cell"

TIMES = ("e2e_s", "warmup_s", "first_call_s", "compile_s", "total_s", "first_s", "gap_s", "mean_s",
         "median_s", "load_s")  # fmt: skip
RATES = ("it_per_s", "images_per_s")
QUALITY = ("fid", "clip_score", "lpips", "ssim", "psnr")
MEMORY = ("peak_bytes", "mean_bytes")
CHANCE = 4e-3
"""Expected number of chance agreements, over all columns, below which one is a finding."""
FEWEST_UNITS = 10_000
"""A figure of fewer printed steps (1.982) may agree by chance, however far the others lie."""
FEWEST_CELLS = 3
"""So many of them in one pair of rows are judged all the same."""
SHORTEST_UNITS = 100
"""A figure of fewer printed steps (0.97) tells nothing in any company."""
MOST_REPEATS = 3
"""A value on more rows than this is a property of the column, not a copied cell."""
LARGEST_TABLE = 5000
"""Among more rows, figures agree by chance too often to tell anything."""
UNLIKE = ("model", "task", "backend", "height", "width", "batch", "steps", "strength", "dtype",
          "gpu", "scheduler", "guidance", "prompt")  # fmt: skip
UNLIKE_STEP = {"model", "backend", "height", "width", "batch", "dtype", "gpu"}
"""What changes the time of a single step."""
STARTS = ("warmup_s", "first_call_s", "compile_s", "load_s")
"""Times of a process of its own, which never repeat to the last digit."""
UNLIKE_MEMORY = ("height", "width", "batch")


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return cells and labels that stand twice."""
    return [*_cells(table), *_labels(table)], []


def _cells(table: Table) -> list[Finding]:
    if len(table) < 2 or len(table) > LARGEST_TABLE:
        return []
    alike = {name: rows.field(table, name) for name in UNLIKE if table.has(name)}
    found: dict[tuple[int, int], list[tuple[str, float]]] = {}
    for name in (*TIMES, *RATES, *QUALITY, *MEMORY):
        column = table.numbers.get(name)
        if column is None:
            continue
        for a, b in _equal(column):
            if not _unlike(table, alike, name, a, b):
                continue
            found.setdefault((a, b), []).append((name, _chance(column, a)))
    findings = []
    explained: set[tuple[int, str]] = set()
    for (a, b), cells in sorted(found.items(), key=lambda entry: sum(c for _, c in entry[1])):
        names = [name for name, _ in cells]
        if all((b, name) in explained for name in names):
            continue
        if all(_digits(table.numbers[name], a) < FEWEST_UNITS for name in names) and (
            len(names) < FEWEST_CELLS
        ):
            continue
        first, *further = sorted(chance for _, chance in cells)
        # Given that two rows agree once, one pair is left to agree in the other columns; and since
        # columns of one row hang together, a further one is half as telling as by itself.
        chance = first * math.sqrt(math.prod(min(1.0, 2 * c / len(table)) for c in further))
        if chance > CHANCE:
            continue
        explained |= {(b, name) for name in names}
        values = ", ".join(
            f"{table.header(name)} {_shown(table.numbers[name], a)}" for name in names
        )
        sure: Sure = "certain" if chance < 1e-5 else "likely"
        unlike = [word for word, column in alike.items() if column[a] != column[b]]
        findings.append(
            Finding(
                CHECK,
                sure,
                0.7 if set(names) - set(MEMORY) else 0.5,
                f"{rows.label(table, b)} holds the same {_plural(names)} as "
                f"{rows.label(table, a)}, though they differ in {_and(unlike[:3])}: at least "
                "one is "
                "copied.",
                (a, b),
                f"{values} in both; by chance {_odds(chance)}",
                "the logs or pictures that both rows were read from",
            )
        )
    return [*findings, *_near(table, alike, {f.rows for f in findings})]


def _equal(column: Numbers) -> list[tuple[int, int]]:
    """Return pairs of rows with one value, unless it stands on too many rows to be a copy."""
    by_value: dict[float, list[int]] = {}
    for i, value in enumerate(column.values.tolist()):
        if value == value and value != 0:
            by_value.setdefault(value, []).append(i)
    return [
        (group[k], group[m])
        for group in by_value.values()
        if 2 <= len(group) <= MOST_REPEATS
        for k in range(len(group))
        for m in range(k + 1, len(group))
    ]


def _unlike(table: Table, alike: dict[str, list[str]], name: str, a: int, b: int) -> bool:
    """Whether rows a and b should differ in figure ``name``."""
    different = [word for word, column in alike.items() if column[a] != column[b]]
    if name in MEMORY:
        # Allocations repeat exactly for one network, size and batch, whatever the steps.
        height, width = table.values("height"), table.values("width")
        same_pixels = height[a] * width[a] == height[b] * width[b]
        return bool(set(different) & set(UNLIKE_MEMORY)) and not same_pixels
    if name in QUALITY:
        # A lossless backend gives the very picture of its baseline.
        return bool(set(different) - {"backend"})
    if set(different) & UNLIKE_STEP:
        return True
    if name in RATES or not set(different) & {"steps", "strength"}:
        # A step takes as long whatever the task and the number of steps.
        return name in STARTS and bool(set(different) - {"prompt"})
    if name == "first_s":
        return "steps" in different
    return _ran(table, a) != _ran(table, b)


def _ran(table: Table, i: int) -> float:
    steps, strength = float(table.values("steps")[i]), float(table.values("strength")[i])
    return rows.effective_steps(steps, strength) if 0 < strength < 1 else steps


def _digits(column: Numbers, i: int) -> float:
    """Return a figure in printed steps, infinite for an unrounded one."""
    return abs(float(column.values[i])) / column.step if column.step > 0 else math.inf


def _chance(column: Numbers, a: int) -> float:
    """Return how many pairs of the column's figures are expected to agree by chance."""
    values = column.values[np.isfinite(column.values)]
    n = len(values)
    if column.step <= 0:
        return 1e-9
    value = float(column.values[a])
    step = column.step
    digits = _digits(column, a)
    if digits < SHORTEST_UNITS:
        return 1.0
    if digits > 1e15:
        return 1e-9
    # Trailing zeros were chosen by a person, not measured.
    while step < abs(value) and abs(value / step / 10 - round(value / step / 10)) < 1e-6:
        step *= 10
    if abs(value) / step < min(FEWEST_UNITS, digits) / 10:
        return 1.0
    others = np.sort(np.abs(values[values != value] - value))
    if len(others) < 3:
        # Nothing to tell the spread of the column by but its own size.
        return n * step / abs(value)
    # The densest neighbourhood counts: baselines lie closer together than compiled arms.
    density = max(
        (k + 1) / (2 * max(float(others[k]), 10 * column.step))
        for k in {2, len(others) // 4, len(others) // 2}
        if k >= 2
    )
    return n * density * column.step / 2


def _near(table: Table, alike: dict[str, list[str]], known: set[tuple[int, ...]]) -> list[Finding]:
    """Rows of unlike size or steps of which every time and rate agrees but for a last digit."""
    names = [n for n in (*TIMES, *RATES) if n in table.numbers]
    hard = [n for n in ("height", "width", "batch", "steps", "model") if n in alike]
    if len(names) < 2 or not hard or len(table) > 2000:
        return []
    values = np.column_stack([table.values(name) for name in names])
    steps = np.array([table.numbers[name].step for name in names])
    size = rows.megapixels(table)
    findings = []
    order = np.argsort(values[:, 0], kind="stable")
    for place, a in enumerate(order.tolist()):
        for b in order[place + 1 : place + 4].tolist():
            both = np.isfinite(values[a]) & np.isfinite(values[b])
            if both.sum() < 3 or tuple(sorted((a, b))) in known:
                continue
            apart = np.abs(values[a] - values[b])[both]
            digits = (values[a][both] / np.maximum(steps[both], 1e-300)).clip(1)
            close = apart <= 1.5 * steps[both]
            if not close.all() or float(np.log10(digits).sum()) < 8 or (apart == 0).all():
                continue
            unlike = [word for word in hard if alike[word][a] != alike[word][b]]
            if (
                not unlike
                or (unlike == ["model"])
                or (size[a] == size[b] and "steps" not in unlike)
            ):
                continue
            low, high = sorted((a, b))
            findings.append(
                Finding(
                    CHECK,
                    "likely",
                    0.6,
                    f"{rows.label(table, high)} is nearly a copy of {rows.label(table, low)}, "
                    "though "
                    f"they differ in {_and(unlike)}.",
                    (low, high),
                    "; ".join(
                        f"{table.header(names[k])} {_shown(table.numbers[names[k]], low)} and "
                        f"{_shown(table.numbers[names[k]], high)}"
                        for k in np.flatnonzero(both)[:4]
                    ),
                    "the logs that both rows were read from",
                )
            )
    return findings


def _labels(table: Table) -> list[Finding]:
    findings: list[Finding] = []
    for name, word in (("picture", "picture"), ("label", "picture label")):
        by_text: dict[str, list[int]] = {}
        for i, text in enumerate(table.text(name)):
            if text:
                by_text.setdefault(text, []).append(i)
        for text, group in by_text.items():
            if len(group) != 2 and not (name == "picture" and 2 <= len(group) <= 4):
                continue
            if any(set(group) <= set(f.rows) for f in findings):
                continue
            if not _label_should_differ(table, group):
                continue
            wrong = [i for i in group if _contradicts(text, table.text("backend")[i])]
            extra = (
                f"; {rows.places(table, wrong)} is the one without it" if len(wrong) == 1 else ""
            )
            findings.append(
                Finding(
                    CHECK,
                    "certain" if name == "picture" or wrong else "likely",
                    0.35,
                    f"One {word} stands on two unlike rows, {rows.listed(table, group)}{extra}.",
                    tuple(group),
                    f"{table.header(name)} {text!r} on {rows.places(table, group)}",
                    "the picture files of both rows",
                )
            )
    return findings


def _label_should_differ(table: Table, group: Sequence[int]) -> bool:
    names = [n for n in (*UNLIKE, "session") if table.has(n)]
    if len(rows.groups(table, names, group)) == 1:
        return False
    # A label that is the same word on most rows ("cat.png") tells nothing.
    return len(set(table.text("label")) | set(table.text("picture"))) > 2


def _contradicts(label: str, arm: str) -> bool:
    """Whether a label says with or without an accelerator, and the row's arm says otherwise."""
    low = label.lower().replace("_", " ").replace("-", " ")
    without = any(mark in low for mark in ("without", "baseline", "eager", "no compile"))
    with_one = not without and any(
        mark in low for mark in ("with", "onediff", "nexfort", "oneflow", "compile")
    )
    return bool(arm) and ((is_baseline(arm) and with_one) or (not is_baseline(arm) and without))


def _shown(column: Numbers, i: int) -> str:
    value = float(column.values[i]) / column.scale
    return f"{value:.10g}"


def _odds(chance: float) -> str:
    return (
        "once in a million tables or less"
        if chance < 1e-6
        else f"once in {figure(1 / chance)} tables"
    )


def _plural(names: Sequence[str]) -> str:
    words = {"e2e_s": "time", "it_per_s": "it/s", "peak_bytes": "memory", "fid": "FID",
             "clip_score": "CLIP score", "warmup_s": "warm-up time"}  # fmt: skip
    return _and([words.get(n, n.removesuffix("_s").replace("_", " ")) for n in names])


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "name"
