"""A list of backends with a dot, an interval and a number each: times and rates look alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from plots import style


def listing(title: str, axis: str) -> Callable[..., Figure]:
    """Return what draws one panel for each workload; columns as in `plots.end_to_end`."""

    @style.figure_of(
        title,
        nothing="No record holds this figure.",
        notes=_notes,
        height=style.list_height(0.34, 1.0),
    )
    def figure(panel: style.Panel) -> None:
        """Draw dots with intervals on an axis from 0."""
        heights = style.list_rows(panel.axes, [str(label) for label in panel.rows["label"]])
        reach = _reach(panel.rows)
        drawn = [
            _row(panel, row, height, reach)
            for height, row in zip(heights, panel.rows.itertuples(), strict=True)
        ]
        # Room for the numbers, which stand right of the marks.
        style.from_zero(panel.axes, max(drawn), 1.85)
        panel.axes.set_xlabel(axis)

    return figure


def _notes(table: pd.DataFrame) -> list[str]:
    return [
        (
            "Dot: median over all measured calls. Bar: its 95 % interval, over processes where "
            "there are several (two-level bootstrap), else over the calls of the one process, "
            "from 6 calls on; it stands in brackets. Rings: the median of each process. n = "
            "processes × calls."
        ),
        style.arrows(table, _reach, ", to the number in brackets"),
        "Crosses: published by others on another machine; not measured here."
        if table["published"].any()
        else "",
    ]


def _row(panel: style.Panel, row: Any, height: float, reach: style.Reach) -> float:
    """Draw a row and return where its marks end."""
    axes, colour = panel.axes, panel.colours[row.backend]
    if not style.present(row.value):
        style.missing(axes, height, row.why)
        return 0.0
    value = float(row.value)
    if row.published:
        style.dot(axes, value, height, "x", colour, 8, markeredgewidth=2)
        style.beside(axes, value, height, f"{row.shown} · published", style.FAINT)
        return value
    points = [point for point in row.points if style.present(point)]
    if len(points) > 1:
        heights = [height] * len(points)
        style.dot(axes, points, heights, "o", colour, 9, markerfacecolor="none", alpha=0.45)
    style.interval(axes, height, row.low, row.high, reach, colour, linewidth=3, alpha=0.6)
    style.dot(axes, value, height, "o", colour, 7)
    end = min(row.high, reach[1]) if style.present(row.high) else value
    right = float(max(value, *points, end))
    style.beside(axes, right, height, f"{row.shown} · {style.count(row.processes, row.calls)}")
    return right


def _reach(rows: pd.DataFrame) -> style.Reach:
    points = [point for each in rows["points"] for point in each]
    return -math.inf, style.reach([*rows["value"], *points])[1]
