"""Warm-up time by backend on a logarithmic axis, cold beside warm compile cache.

Columns: workload, label (without the cache), backend, cache (fresh or warm), value, points (one sum
for each process), shown, published, why.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Warm-up time before the first steady call, by backend"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: filled marks cold, open marks with a warm cache."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No record holds a warm-up time.",
        notes=[
            (
                "Warm-up time: sum of all warm-up calls, the first included; median over "
                "processes (n), with the smallest and the largest as a line. Filled: compile "
                "cache empty at the start. Open: filled by an earlier process. The axis is "
                "logarithmic: a step is a factor."
            ),
            "Crosses: published by others on another machine." if table["published"].any() else "",
        ],
        height=lambda rows: style.panel_height(style.labels(rows), 0.42, 1.05),
        key=[style.mark("cold (fresh cache)"), style.mark("warm cache", filled=False)],
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    labels = style.labels(rows)
    heights = dict(zip(labels, style.rows(axes, labels), strict=True))
    values: list[float] = []
    for label, lines in rows.groupby("label", sort=False):
        several = lines["cache"].nunique() > 1
        drawn = False
        for row in lines.itertuples():
            if not style.present(row.value) or row.value <= 0:
                continue
            drawn = True
            height = heights[str(label)] + (0.0 if not several else _shift(row.cache))
            colour = colours[row.backend]
            points = [v for v in row.points if style.present(v) and v > 0] or [row.value]
            axes.plot(
                [min(points), max(points)], [height, height], color=colour, linewidth=2, alpha=0.6
            )
            fill = "white" if row.cache == "warm" else colour
            axes.plot(
                row.value,
                height,
                "x" if row.published else "o",
                color=colour,
                markersize=7,
                markerfacecolor=fill,
                markeredgewidth=2 if row.published else 1.5,
            )
            told = "published" if row.published else f"n = {len(points)}"
            style.beside(axes, [max(points)], [height], [f"{row.shown} s · {told}"])
            values += points
        if not drawn:
            style.missing(axes, heights[str(label)], str(lines["why"].iloc[0] or "no figure"))
    if values:
        style.plain_log(axes, "x", min(values), max(values) * 3)
    else:
        axes.set_xticks([])
    axes.set_xlabel("warm-up time [s], logarithmic, less is better")


def _shift(cache: str) -> float:
    return -0.2 if cache == "warm" else 0.2
