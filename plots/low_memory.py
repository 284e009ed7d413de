"""Time per image against peak memory, of a workload in all its memory modes and batches.

Columns: workload, label (mode and batch), backend (the mode: what a colour stands for), batch,
seconds (median per picture), low, high (its 95 % interval, None without one), gib (steady peak, the
median over processes), meter (one for each workload), optimal (nothing else has less of both),
processes, calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Time per image against memory"

WIDE = 8.0
"""Ratio of the largest to the smallest value above which an axis is logarithmic."""


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: left needs less memory, down is quicker."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No memory mode has both a time and a memory figure.",
        notes=[
            (
                f"{_counts(table)}Across: steady peak of memory, the median over processes; the "
                "axis names its meter. Up: median time of a call and of what is done after it, "
                "divided by the batch, with its 95 % interval over processes and calls. Filled "
                "marks, joined by the line: nothing else needs less of both, by the medians. "
                "Neither axis begins at 0."
            ),
            "Arrow: the interval goes on beyond the axis."
            if any(_beyond(style.of(table, name)) for name in style.workloads(table))
            else "",
        ],
        height=lambda rows: 3.6 + 0.17 * (len(set(rows["backend"])) + len(set(rows["batch"]))),
        colours=colours,
    )


def _counts(table: pd.DataFrame) -> str:
    if not len(table):
        return ""
    processes, calls = table["processes"], table["calls"]
    return (
        f"n = {_span(processes.min(), processes.max())} processes and "
        f"{_span(calls.min(), calls.max())} calls for each mark. "
    )


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    shapes = style.markers(str(batch) for batch in sorted(set(rows["batch"])))
    front = rows[rows["optimal"]].sort_values("gib")
    axes.plot(front["gib"], front["seconds"], color=style.FAINT, linewidth=1.2, zorder=1)
    least, most = _reach(rows)
    for row in rows.itertuples():
        colour = colours[row.backend]
        if style.present(row.low) and style.present(row.high):
            ends = [min(max(end, least), most) for end in (row.low, row.high)]
            axes.plot([row.gib, row.gib], ends, color=colour, alpha=0.5, zorder=2)
            if row.low < least:
                axes.plot(row.gib, least, "v", color=colour, markersize=5, zorder=2)
            if row.high > most:
                axes.plot(row.gib, most, "^", color=colour, markersize=5, zorder=2)
        axes.plot(
            row.gib,
            row.seconds,
            shapes[str(row.batch)],
            color=colour,
            markerfacecolor=colour if row.optimal else "white",
            markersize=7,
            zorder=3,
        )
    for mode in dict.fromkeys(rows["backend"]):
        axes.plot([], [], "s", color=colours[mode], label=style.shorten(mode, 52))
    for batch, shape in shapes.items():
        axes.plot([], [], shape, color=style.INK, markerfacecolor="white", label=f"batch {batch}")
    _scale(axes, "x", rows["gib"].min(), rows["gib"].max())
    shown = [min(max(v, least), most) for n in ("low", "high") for v in rows[n] if style.present(v)]
    _scale(axes, "y", min([*rows["seconds"], *shown]), max([*rows["seconds"], *shown]))
    axes.set_xlabel(f"peak memory [GiB], {rows['meter'].iloc[0]}, left is less")
    axes.set_ylabel("time per image [s], down is quicker")
    style.legend_below(axes, ncols=2)


def _reach(rows: pd.DataFrame) -> tuple[float, float]:
    """Return where bars end: an interval of two processes may be many times the figure."""
    return rows["seconds"].min() / 1.6, 1.6 * rows["seconds"].max()


def _beyond(rows: pd.DataFrame) -> bool:
    least, most = _reach(rows)
    return any(style.present(v) and v < least for v in rows["low"]) or any(
        style.present(v) and v > most for v in rows["high"]
    )


def _scale(axes: Axes, which: str, low: float, high: float) -> None:
    """Fit an axis to its values; logarithmic where they span more than a linear one can show."""
    if high > WIDE * low:
        style.plain_log(axes, which, low, high)
        return
    room = 0.08 * (high - low) or 0.05 * high
    (axes.set_xlim if which == "x" else axes.set_ylim)(low - room, high + room)
