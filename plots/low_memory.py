"""Time per image against peak memory, of a workload in all its memory modes and batches.

Columns: workload, label (mode and batch), backend (the mode: what a colour stands for), batch,
seconds (median per image), low, high (its 95 % interval, None without one), gib (steady peak, the
median over processes), meter (one for each workload), optimal (nothing else has less of both),
processes, calls.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from plots import style

TITLE = "Time per image against memory"

WIDE = 8.0
"""Ratio of the largest to the smallest value above which an axis is logarithmic."""


def _reach(rows: pd.DataFrame) -> style.Reach:
    return style.reach(rows["seconds"])


def _notes(table: pd.DataFrame) -> list[str]:
    processes, calls = (
        "–".join(map(str, sorted({column.min(), column.max()})))
        for column in (table["processes"], table["calls"])
    )
    return [
        (
            f"n = {processes} processes and {calls} calls for each mark. "
            "Across: steady peak of memory, the median over processes; the "
            "axis names its meter. Up: median time of a call and of what is done after it, "
            "divided by the batch, with its 95 % interval over processes and calls. Filled "
            "marks, joined by the line: nothing else needs less of both, by the medians. "
            "Neither axis begins at 0."
        ),
        style.arrows(table, _reach),
    ]


@style.figure_of(
    TITLE,
    nothing="No memory mode has both a time and a memory figure.",
    notes=_notes,
    height=lambda rows: 3.6 + 0.17 * (len(set(rows["backend"])) + len(set(rows["batch"]))),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: left needs less memory, down is faster."""
    axes, rows = panel.axes, panel.rows
    shapes = style.markers(str(batch) for batch in sorted(set(rows["batch"])))
    front = rows[rows["optimal"]].sort_values("gib")
    axes.plot(front["gib"], front["seconds"], color=style.FAINT, linewidth=1.2, zorder=1)
    least, most = _reach(rows)
    for row in rows.itertuples():
        colour, shape = panel.colours[row.backend], shapes[str(row.batch)]
        style.interval(
            axes, row.gib, row.low, row.high, (least, most), colour,
            upright=True, arrow=5, alpha=0.5, zorder=2,
        )  # fmt: skip
        style.dot(axes, row.gib, row.seconds, shape, colour, 7, filled=row.optimal, zorder=3)
    for mode in dict.fromkeys(rows["backend"]):
        axes.plot([], [], "s", color=panel.colours[mode], label=style.shorten(mode, 52))
    for batch, shape in shapes.items():
        axes.plot([], [], shape, color=style.INK, markerfacecolor="white", label=f"batch {batch}")
    _scale(axes, "x", rows["gib"].min(), rows["gib"].max())
    shown = [min(max(v, least), most) for n in ("low", "high") for v in rows[n] if style.present(v)]
    _scale(axes, "y", min([*rows["seconds"], *shown]), max([*rows["seconds"], *shown]))
    axes.set_xlabel(f"peak memory [GiB], {rows['meter'].iloc[0]}, lower is better")
    axes.set_ylabel("time per image [s], lower is better")
    style.legend_below(axes, ncols=2)


def _scale(axes: Axes, which: str, low: float, high: float) -> None:
    """Fit an axis to its values; logarithmic where they span more than a linear one can show."""
    if high > WIDE * low:
        style.plain_log(axes, which, low, high)
        return
    room = 0.08 * (high - low) or 0.05 * high
    (axes.set_xlim if which == "x" else axes.set_ylim)(low - room, high + room)
