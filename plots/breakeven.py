"""Cumulative time over images: where a backend has made up for a slower first call.

Columns: workload, label, backend, first_call_s, e2e_s (medians), images_per_call, is_baseline,
kind (after, immediately, never; None for the baseline), images, low_images, high_images, shown,
processes.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from plots import style

TITLE = "Break-even: cumulative time over images"


def _kinds(table: pd.DataFrame) -> set[str]:
    return set(table[table["workload"].isin(style.workloads(table))]["kind"])


def marked(table: pd.DataFrame) -> bool:
    """Return whether a panel marks where a line crosses the baseline's."""
    return "after" in _kinds(table)


def _notes(table: pd.DataFrame) -> list[str]:
    """Return what the lines mean, and the marks, of those that are drawn."""
    kinds = _kinds(table)
    marks = []
    if "after" in kinds:
        marks.append(
            "Large mark: where the line falls below the baseline's; the broad bar is the 95 % "
            "interval of that number."
        )
    elif "immediately" in kinds:
        marks.append("No line crosses the baseline's: what breaks even does so at once.")
    elif "never" in kinds:
        marks.append("No backend breaks even, so no crossing is marked.")
    if "never" in kinds:
        marks.append("Never: the interval of the saving reaches 0.")
    lines = (
        "Lines: median first call + images × median end-to-end time. Both axes are "
        "logarithmic. n = processes."
    )
    return [lines, " ".join(marks)]


@style.figure_of(
    TITLE,
    nothing="No record holds a first call and an end-to-end time.",
    notes=_notes,
    height=lambda rows: 3.4 + 0.2 * len(rows),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: a line for each backend, crossings marked."""
    axes, rows = panel.axes, panel.rows
    crossings = [v for v in [*rows["images"], *rows["high_images"]] if style.present(v)]
    last = max([100.0, *(3 * v for v in crossings if 0 < v < 1e6)])
    per_call = rows["images_per_call"].astype(float).clip(lower=1.0)
    first = float(per_call.min())
    xs = first * (last / first) ** (np.arange(121) / 120)
    shapes = style.markers(rows["label"])
    totals: list[float] = []
    for row, batch in zip(rows.itertuples(), per_call, strict=True):
        colour, shape = panel.colours[row.backend], shapes[str(row.label)]
        ys = row.first_call_s + xs * (row.e2e_s / batch)
        totals += [ys[0], ys[-1]]
        axes.plot(
            xs,
            ys,
            color=colour,
            linewidth=2.4 if row.is_baseline else 1.6,
            linestyle="--" if row.is_baseline else "-",
            label=f"{style.shorten(row.label, 44)}: {row.shown}  (n = {row.processes})",
            marker=shape,
            markevery=[20, 60, 100],
            markersize=4,
        )
        if row.kind != "after" or not style.present(row.images) or row.images <= 0:
            continue
        height = row.first_call_s + row.images * (row.e2e_s / batch)
        if style.present(row.low_images):
            high = row.high_images if style.present(row.high_images) else last
            ends = [max(first, row.low_images), max(first, high)]
            at = [height, height]
            axes.plot(ends, at, color=colour, alpha=0.3, linewidth=9, solid_capstyle="butt")
        down = [1e-9, height]
        axes.plot([row.images, row.images], down, color=colour, linewidth=1, linestyle=":")
        style.dot(axes, row.images, height, shape, colour, 10, markeredgecolor="white", zorder=5)
    style.plain_log(axes, "x", first * 1.35, last / 1.35)
    style.plain_log(axes, "y", min(totals), max(totals))
    axes.set_xlabel("images after the first call, logarithmic")
    axes.set_ylabel("cumulative time [s], logarithmic")
    style.legend_below(axes, handlelength=2.4)
    if not math.isfinite(max(totals)):
        raise ValueError("a first call or an end-to-end time is not finite")
