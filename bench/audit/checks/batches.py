"""Averages with the wrong divisor: total = first + gaps × mean gap; total = count × mean.

Between b batches lie b − 1 gaps. A mean that was divided by b instead is too small by (b − 1) ÷ b,
and shows itself: total − first is then b of it rather than b − 1.
"""

from __future__ import annotations

import numpy as np

from bench.audit import rows
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Floats, Table

CHECK = "wrong-divisor"

LARGEST_REST = 0.35
"""Part of a gap that may be left over (saving, start-up) where rows cannot tell it from a gap."""
SMALLEST_SPREAD = 1.4
"""Ratio of the longest to the shortest gap from which the rows' slope tells the divisor."""
SETTLE = "the times of the single batches, or the line of code that divides"


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return means that do not add up to their totals."""
    return [*_gaps(table), *_means(table), *_order(table)], []


def corrected_gaps(table: Table) -> Floats:
    """Return the mean gaps, (rows,), those with the wrong divisor put right."""
    gaps = table.values("gap_s").copy()
    batches = _batches(table)
    for finding in _gaps(table):
        for i in finding.rows:
            gaps[i] *= batches[i] / (batches[i] - 1)
    return gaps


def _batches(table: Table) -> Floats:
    stated = table.values("batches")
    with np.errstate(all="ignore"):
        derived = np.ceil(table.values("samples") / table.values("batch"))
    return np.asarray(np.where(np.isfinite(stated), stated, derived))


def _gaps(table: Table) -> list[Finding]:
    total, first, gap = table.values("total_s"), table.values("first_s"), table.values("gap_s")
    batches = _batches(table)
    ready = np.flatnonzero((total > first) & (first > 0) & (gap > 0) & (batches >= 2)).tolist()
    findings = []
    names = ("session", "gpu", "model", "scheduler", "batches", "samples", "batch")
    for group in rows.groups(table, names, ready):
        b = float(batches[group[0]])
        rest = (total - first)[group]
        # How far rounding moves total − first − b gaps.
        half = (table.half("total_s") + table.half("first_s") + b * table.half("gap_s"))[group]
        if not _tells(rest, gap[group], b, half, total[group]):
            continue
        low = rest - b * gap[group] >= -half - 0.02 * total[group]
        if not low.all():
            continue
        i = group[0]
        exact = bool((np.abs(rest - b * gap[group]) <= half).all())
        several = len(group) >= 3
        factor = b / (b - 1)
        findings.append(
            Finding(
                CHECK,
                "certain" if several or exact else "likely",
                min(1.0, 0.45 + factor - 1),
                f"The {table.header('gap_s')!r} of {rows.places(table, group)} is too small by the "
                f"factor {factor:.4g}: it was divided by the {b:g} batches instead of the "
                f"{b - 1:g} "
                f"{'gap' if b == 2 else 'gaps'} between them.",
                tuple(group),
                f"total − first = {figure(total[i])} − {figure(first[i])} = "
                f"{figure(rest[0], 's')} = {float(rest[0] / gap[i]):.3g} × "
                f"{figure(gap[i])}, where {b:g} batches have {b - 1:g} gaps; × {factor:.4g} "
                f"gives {figure(gap[i] * factor, 's')}",
                SETTLE,
            )
        )
    findings += _too_large(table, ready, batches)
    return findings


def _tells(rest: Floats, gap: Floats, b: float, half: Floats, total: Floats) -> bool:
    """Whether total − first is b gaps and a little, rather than b − 1 gaps and a little."""
    if (gap <= 4 * half + 0.015 * total).any():
        # One gap more or less drowns in rounding and noise.
        return False
    count = rest / gap
    if len(gap) >= 3 and float(gap.max() / gap.min()) >= SMALLEST_SPREAD:
        # Over gaps of unlike length, what is left over stays and the slope counts gaps.
        design = np.column_stack([np.ones(len(gap)), gap]) / rest[:, None]
        found = np.linalg.lstsq(design, np.ones(len(gap)), rcond=None)[0]
        left, slope = float(found[0]), float(found[1])
        scatter = float(np.sqrt(np.mean((design @ found - 1) ** 2)))
        # How well the slope is known: by the rows' scatter over the spread of their gaps.
        apart = scatter * b / max(float(np.std(np.log(gap))), 1e-9)
        return abs(slope - b) < 0.3 and apart < 0.3 and left > -0.3 * float(gap.min())
    return bool(((count > b - 0.05) & (count < b + LARGEST_REST)).all())


def _too_large(table: Table, ready: list[int], batches: Floats) -> list[Finding]:
    """Rows of which the parts are longer than the whole."""
    total, first, gap = table.values("total_s"), table.values("first_s"), table.values("gap_s")
    half = table.half("total_s") + table.half("first_s") + batches * table.half("gap_s")
    over = first + (batches - 1) * gap - total
    findings = []
    for i in ready:
        if over[i] <= half[i] + 0.03 * total[i]:
            continue
        b = float(batches[i])
        per_batch = abs(gap[i] * b - total[i]) <= half[i] + 0.005 * total[i]
        why = (
            f"; it is the total ÷ the {b:g} batches, so that it holds the first one"
            if per_batch
            else ""
        )
        findings.append(
            Finding(
                CHECK,
                "certain" if over[i] > half[i] + 0.1 * total[i] else "likely",
                0.8,
                f"The first batch and the {table.header('gap_s')!r} of {rows.label(table, i)} are "
                f"together longer than its total{why}.",
                (i,),
                f"{figure(first[i])} + {b - 1:g} × {figure(gap[i])} = "
                f"{figure(first[i] + (b - 1) * gap[i], 's')}, total {figure(total[i], 's')}",
                SETTLE,
            )
        )
    return findings


def _means(table: Table) -> list[Finding]:
    """Means that times their count are not the total."""
    total, mean, runs = table.values("total_s"), table.values("mean_s"), table.values("runs")
    findings = []
    with np.errstate(all="ignore"):
        half = table.half("total_s") + runs * table.half("mean_s")
        off = np.abs(mean * runs - total) > half + 2e-3 * total
    for i in np.flatnonzero((total > 0) & (mean > 0) & (runs >= 1) & off).tolist():
        n = float(runs[i])
        told = next(
            (
                (m, word)
                for m, word in ((n - 1, "one less than"), (n + 1, "one more than"))
                if m >= 1 and abs(mean[i] * m - total[i]) <= half[i] + 2e-3 * total[i]
            ),
            None,
        )
        what = (
            f"was divided by {told[0]:g}, {told[1]} its {n:g} runs"
            if told
            else f"times its {n:g} runs is not its total"
        )
        findings.append(
            Finding(
                CHECK,
                "certain" if told else "likely",
                0.6,
                f"The mean of {rows.label(table, i)} {what}.",
                (i,),
                f"{figure(mean[i])} × {n:g} = {figure(mean[i] * n, 's')}, total "
                f"{figure(total[i], 's')}",
                "the single times",
            )
        )
    return findings


def _order(table: Table) -> list[Finding]:
    """Means and medians outside their smallest and largest value."""
    low, high = table.values("min_s"), table.values("max_s")
    findings = []
    for name, word in (("mean_s", "mean"), ("median_s", "median")):
        value = table.values(name)
        with np.errstate(all="ignore"):
            half = table.half(name) + np.maximum(table.half("min_s"), table.half("max_s"))
            slack = half + 1e-9 * np.abs(value)
            outside = (value < low - slack) | (value > high + slack)
        for i in np.flatnonzero(outside).tolist():
            findings.append(
                Finding(
                    "impossible",
                    "certain",
                    0.7,
                    f"The {word} of {rows.label(table, i)} lies outside its smallest and largest "
                    "time.",
                    (i,),
                    f"{figure(value[i], 's')} is not within {figure(low[i])} to "
                    f"{figure(high[i], 's')}",
                    "the single times",
                )
            )
    return findings
