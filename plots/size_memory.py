"""Peak memory over the pixels of an image, with the law through it and what lies off it.

Columns of the first table: workload, label, backend, shown (the size in words), mpixels (10^6
pixels of one image), gib, outlier, meter, law (as a formula, or why there is none). Of the
second, the law: workload, mpixels, gib, and low and high of its prediction interval, None without.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plots import style

TITLE = "Peak memory over the pixels of an image"

POINTS = ["workload", "label", "backend", "shown", "mpixels", "gib", "outlier", "meter", "law"]
LINES = ["workload", "mpixels", "gib", "low", "high"]
MOST_NAMES = 14
NAME_SHARE = 0.085
"""Width of a size's name as a share of the axis; names of sizes nearer than that are stacked."""


@style.figure_of(
    TITLE,
    nothing="No run measured one workload at three sizes or more.",
    notes=(
        "Each mark is one process at one size (n in the axis): its largest peak in any phase. "
        "Sizes are those that were really made, after rounding. Band: where the law "
        "expects a new measurement, 95 %. Ringed: off the law of the others, and without "
        "weight in it."
    ),
    height=lambda *_: 3.8,
    key=lambda points, _: [
        style.mark("a size"),
        *([style.mark("off the law", filled=False)] if points["outlier"].any() else []),
    ],
)
def figure(panel: style.Panel) -> None:
    """Draw one workload and batch: a mark for each size, the law and its band."""
    axes, (rows, lines) = panel.axes, panel.tables
    colour = panel.colour(rows)
    if not lines.empty:
        xs = lines["mpixels"].to_numpy(float)
        axes.plot(xs, lines["gib"], "-", color=colour, alpha=0.7, linewidth=1.4)
        if lines["low"].notna().all():
            low, high = (lines[end].to_numpy(float) for end in ("low", "high"))
            style.band(axes, xs, np.maximum(low, 0), high, colour, 0.12)
    kept, out = rows[~rows["outlier"].astype(bool)], rows[rows["outlier"].astype(bool)]
    style.dot(axes, kept["mpixels"], kept["gib"], "o", colour, 6)
    style.ring(axes, out, 9, markeredgewidth=1.6)
    axes.set_xlim(0, 1.1 * float(rows["mpixels"].max()))
    axes.set_ylim(0, 1.2 * float(rows["gib"].max()))
    _name_sizes(axes, rows if len(rows) <= MOST_NAMES else out, lines)
    style.label_law(axes, "an image", rows)


def _name_sizes(axes: Axes, rows: pd.DataFrame, lines: pd.DataFrame) -> None:
    """Write sizes above and below the law, stacked where they would meet."""
    taken: dict[tuple[bool, int], list[float]] = {}
    room = NAME_SHARE * axes.get_xlim()[1]
    for at, row in enumerate(rows.sort_values("mpixels").itertuples()):
        above = at % 2 == 0
        if not lines.empty:
            above = row.gib >= np.interp(row.mpixels, lines["mpixels"], lines["gib"])
        lane = 0
        while any(row.mpixels - other < room for other in taken.get((above, lane), [])):
            lane += 1
        taken.setdefault((above, lane), []).append(row.mpixels)
        away = 9 + 11 * lane
        ink = style.BAD if row.outlier else style.INK
        at_mark = (row.mpixels, row.gib)
        style.write(
            axes, str(row.shown), at_mark, (0, away if above else -away - 6), ha="center", color=ink
        )
