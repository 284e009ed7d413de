"""A list of backends with a dot, an interval and a number each: times and rates look alike."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style


def draw(table: pd.DataFrame, title: str, axis: str, colours: Mapping[str, str] | None) -> Figure:
    """Draw one panel for each workload; columns as in `plots.end_to_end`."""

    def panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
        _panel(axes, rows, colours)
        axes.set_xlabel(axis)

    notes = [
        (
            "Dot: median over all measured calls. Bar: its 95 % interval, over processes where "
            "there are several (two-level bootstrap), else over the calls of the one process, "
            "from 6 calls on; it stands in brackets. Rings: the median of each process. n = "
            "processes × calls."
        ),
        "Arrow: the bar goes on beyond the axis, to the number in brackets."
        if any(_beyond(style.of(table, name)) for name in style.workloads(table))
        else "",
        "Crosses: published by others on another machine; not measured here."
        if table["published"].any()
        else "",
    ]
    return style.panels(
        table,
        title,
        panel,
        nothing="No record holds this figure.",
        notes=notes,
        height=lambda rows: style.panel_height(style.labels(rows)),
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    heights = style.rows(axes, [str(label) for label in rows["label"]])
    reach = _reach(rows)
    furthest = 0.0
    for height, row in zip(heights, rows.itertuples(), strict=True):
        if not style.present(row.value):
            style.missing(axes, height, str(row.why or "no figure"))
            continue
        colour = colours[row.backend]
        if row.published:
            axes.plot(row.value, height, "x", color=colour, markersize=8, markeredgewidth=2)
            style.beside(axes, [row.value], [height], [f"{row.shown} · published"], style.FAINT)
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
            ends = [min(row.low, reach), min(row.high, reach)]
            axes.plot(ends, [height, height], color=colour, linewidth=3, alpha=0.6)
            if row.high > reach:
                axes.plot(reach, height, ">", color=colour, markersize=7)
        axes.plot(row.value, height, "o", color=colour, markersize=7)
        ends = [min(row.high, reach)] if style.present(row.high) else []
        right = max([row.value, *points, *ends])
        text = f"{row.shown} · n = {row.processes} × {_each(row.calls, row.processes)}"
        style.beside(axes, [right], [height], [text])
        furthest = max(furthest, right)
    # Room for the numbers, which stand right of the marks.
    axes.set_xlim(0, furthest * 1.85 if furthest else 1)


def _reach(rows: pd.DataFrame) -> float:
    """Return where bars end: an interval of two processes may be a thousand times the values."""
    points = [v for own in rows["points"] for v in own if style.present(v)]
    return 1.6 * max([v for v in [*rows["value"], *points] if style.present(v)], default=0.0)


def _beyond(rows: pd.DataFrame) -> bool:
    return any(style.present(v) and v > _reach(rows) for v in rows["high"])


def _each(calls: int, processes: int) -> str:
    each = calls / max(processes, 1)
    return f"{each:.0f}" if each == int(each) else f"{each:.1f}"
