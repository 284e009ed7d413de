"""Time per image against peak memory, of a workload in all its memory modes and batches.

Columns: workload, label (mode and batch), backend (the mode: what a colour stands for), batch,
seconds (median per picture), low, high (its 95 % interval, None without one), gib (steady peak),
meter (one for each workload), optimal (nothing else has less of both), processes, calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Time per image against memory"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: left needs less memory, down is quicker."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No memory mode has both a time and a memory figure.",
        notes=[
            (
                f"{_counts(table)}Across: steady peak of memory, with its meter named in the axis. "
                "Up: median time of a call and of what is done after it, divided by the batch, "
                "with its 95 % interval over processes and calls. Filled marks, joined by the "
                "line: nothing else needs less of both, by the medians. Both axes are logarithmic."
            ),
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
    for row in rows.itertuples():
        colour = colours[row.backend]
        if style.present(row.low) and style.present(row.high):
            axes.plot([row.gib, row.gib], [row.low, row.high], color=colour, alpha=0.5, zorder=2)
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
    style.plain_log(axes, "x", rows["gib"].min(), rows["gib"].max())
    heights = [v for name in ("seconds", "low", "high") for v in rows[name] if style.present(v)]
    style.plain_log(axes, "y", min(heights), max(heights))
    axes.set_xlabel(f"peak memory [GiB], {rows['meter'].iloc[0]}, left is less")
    axes.set_ylabel("time per image [s], down is quicker")
    style.legend_below(axes, ncols=2)
