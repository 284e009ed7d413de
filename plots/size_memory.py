"""Peak memory over the pixels of a picture, with the law through it and what lies off it.

Columns of the first table: workload, label, backend, shown (the size in words), mpixels (10^6
pixels of one picture), gib, outlier, meter, law (as a formula, or why there is none). Of the
second, the law: workload, mpixels, gib, and low and high of its prediction interval, None without.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Peak memory over the pixels of a picture"

POINTS = ["workload", "label", "backend", "shown", "mpixels", "gib", "outlier", "meter", "law"]
LINES = ["workload", "mpixels", "gib", "low", "high"]
MOST_NAMES = 14
NAME_SHARE = 0.085
"""Width of a size's name as a share of the axis; names of sizes nearer than that are stacked."""


def figure(
    points: pd.DataFrame, lines: pd.DataFrame, colours: Mapping[str, str] | None = None
) -> Figure:
    """Return one panel for each workload and batch: a mark for each size, the law and its band."""

    def draw(axes: Axes, rows: pd.DataFrame, shades: Mapping[str, str]) -> None:
        own = lines[lines["workload"] == rows["workload"].iloc[0]]
        _panel(axes, rows, own, shades)

    return style.panels(
        points,
        TITLE,
        draw,
        nothing="No run measured one workload at three sizes or more.",
        notes=[
            (
                "Each mark is one process at one size (n in the axis): its largest peak in any "
                "phase. "
                "Sizes are those that were really made, after rounding. Band: where the law "
                "expects a new measurement, 95 %. Ringed: off the law of the others, and without "
                "weight in it."
            ),
        ],
        height=lambda rows: 3.8,
        colours=colours,
        key=[
            style.mark("a size"),
            *([style.mark("off the law", filled=False)] if points["outlier"].any() else []),
        ],
    )


def _panel(axes: Axes, rows: pd.DataFrame, lines: pd.DataFrame, colours: Mapping[str, str]) -> None:
    colour = colours[rows["backend"].iloc[0]]
    if not lines.empty:
        axes.plot(lines["mpixels"], lines["gib"], "-", color=colour, alpha=0.7, linewidth=1.4)
        if lines["low"].notna().all():
            axes.fill_between(
                lines["mpixels"].to_numpy(float),
                np.maximum(lines["low"].to_numpy(float), 0),
                lines["high"].to_numpy(float),
                color=colour,
                alpha=0.12,
                linewidth=0,
            )
    kept, out = rows[~rows["outlier"].astype(bool)], rows[rows["outlier"].astype(bool)]
    axes.plot(kept["mpixels"], kept["gib"], "o", color=colour, markersize=6)
    axes.plot(
        out["mpixels"], out["gib"], "o", markersize=9, markerfacecolor="none",
        markeredgecolor=style.BAD, markeredgewidth=1.6,
    )  # fmt: skip
    named = rows if len(rows) <= MOST_NAMES else out
    axes.set_xlim(0, 1.1 * float(rows["mpixels"].max()))
    axes.set_ylim(0, 1.2 * float(rows["gib"].max()))
    taken: dict[tuple[bool, int], list[float]] = {}
    room = NAME_SHARE * axes.get_xlim()[1]
    for at, row in enumerate(named.sort_values("mpixels").itertuples()):
        above = at % 2 == 0
        if not lines.empty:
            above = row.gib >= np.interp(row.mpixels, lines["mpixels"], lines["gib"])
        lane = 0
        while any(row.mpixels - other < room for other in taken.get((above, lane), [])):
            lane += 1
        taken.setdefault((above, lane), []).append(row.mpixels)
        away = 9 + 11 * lane
        axes.annotate(
            str(row.shown), (row.mpixels, row.gib), (0, away if above else -away - 6),
            textcoords="offset points", fontsize=8, ha="center",
            color=style.BAD if row.outlier else style.INK,
        )  # fmt: skip
    axes.set_xlabel(
        f"10^6 pixels of a picture, n = {len(rows)}\n"
        f"law, {style.wrap(str(rows['law'].iloc[0]), 84)}"
    )
    axes.set_ylabel(f"peak of {rows['meter'].iloc[0]} [GiB]")
