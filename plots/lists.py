"""A list of backends with a dot, an interval and a number each: times and rates look alike."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from plots import style


def draw(table: pd.DataFrame, title: str, axis: str, colours: Mapping[str, str]) -> Figure:
    """Draw one panel for each workload; columns as in `plots.end_to_end`."""
    names = style.workloads(table)
    if not names:
        return style.empty(title, "No record holds this figure.")
    notes = [
        (
            "Dot: median over all measured calls. Bar: its 95 % interval, over processes where "
            "there "
            "are several (two-level bootstrap), else over the calls of the one process, from 6 "
            "calls "
            "on; it stands in brackets. Rings: the median of each process. n = processes × calls."
        ),
        style.left_out(table),
    ]
    if table["published"].any():
        notes.insert(1, "Crosses: published by others on another machine; not measured here.")
    with style.settings():
        heights = [style.panel_height(list(style.of(table, name)["label"])) for name in names]
        page = style.Page(title, heights, notes=notes)
        for place, name in enumerate(names):
            _panel(page, place, style.of(table, name), name, axis, colours)
        return page.figure


def _panel(
    page: style.Page,
    place: int,
    rows: pd.DataFrame,
    name: str,
    axis: str,
    colours: Mapping[str, str],
) -> None:
    axes = page.axes(place, name)
    heights = style.rows(axes, [str(label) for label in rows["label"]])
    furthest = 0.0
    for height, row in zip(heights, rows.itertuples(), strict=True):
        if not style.present(row.value):
            style.missing(axes, height, str(row.why or "no figure"))
            continue
        colour = colours[row.backend]
        if row.published:
            axes.plot(row.value, height, "x", color=colour, markersize=8, markeredgewidth=2)
            style.beside(axes, [row.value], [height], [f"{row.shown}  published"], style.FAINT)
            furthest = max(furthest, row.value)
            continue
        points = [value for value in row.points if style.present(value)]
        if len(points) > 1:
            axes.plot(
                points,
                [height] * len(points),
                "o",
                markersize=9,
                markerfacecolor="none",
                markeredgecolor=colour,
                alpha=0.45,
            )
        if style.present(row.low) and style.present(row.high):
            axes.plot([row.low, row.high], [height, height], color=colour, linewidth=3, alpha=0.6)
        axes.plot(row.value, height, "o", color=colour, markersize=7)
        right = max([row.value, *points, *([row.high] if style.present(row.high) else [])])
        text = f"{row.shown}  n = {row.processes} × {_each(row.calls, row.processes)}"
        style.beside(axes, [right], [height], [text])
        furthest = max(furthest, right)
    # Room for the numbers, which stand right of the marks.
    axes.set_xlim(0, furthest * 1.85 if furthest else 1)
    axes.set_xlabel(axis)


def _each(calls: int, processes: int) -> str:
    each = calls / max(processes, 1)
    return f"{each:.0f}" if each == int(each) else f"{each:.1f}"
