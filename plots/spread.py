"""Run-to-run spread: every call of every process, as its distance from the row's median.

Columns: workload, label, backend, process (number from 1), e2e_s (one call), median_s (of the row),
between_pct, within_pct.
"""

from __future__ import annotations

from statistics import median

import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from plots import style

TITLE = "Run-to-run spread of the end-to-end time"

LINEAR_PCT = 25.0
"""Calls further out than this stretch the axis, which is logarithmic from here on."""


def _height(rows: pd.DataFrame) -> float:
    processes = len(rows[["label", "process"]].drop_duplicates())
    return style.list_height(0.4, 1.0)(rows) + 0.09 * processes


@style.figure_of(
    TITLE,
    nothing="No record holds an end-to-end time.",
    notes=(
        "Each dot is one measured call, each line of dots one process, the bar its "
        "median. Where the lines of a backend lie further apart than the dots within "
        "them, more rounds help and more calls do not. Right: standard deviation between "
        "process medians and within processes (robust); n = processes × calls. Beyond "
        f"{LINEAR_PCT:g} % the axis is logarithmic."
    ),
    height=_height,
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: one line of dots for each process."""
    axes, heights = panel.axes, panel.heights()
    off = 100 * (panel.rows["e2e_s"] / panel.rows["median_s"] - 1)
    reach = left = max(float(off.abs().max()) * 1.24, 0.54)
    if reach > LINEAR_PCT:
        # No time is shorter by more than 100 %, but it may be longer by any number.
        left = max(float(-off.min()) * 1.24, LINEAR_PCT)
        axes.set_xscale("symlog", linthresh=LINEAR_PCT)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(left, reach)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for label, rows, colour in panel.series():
        parts = list(rows.groupby("process", sort=True))
        for number, (_, calls) in enumerate(parts):
            shift = 0.0 if len(parts) == 1 else 0.36 - 0.72 * number / (len(parts) - 1)
            height = heights[label] + shift
            values = [float(v) for v in off.loc[calls.index]]
            at = [height] * len(values)
            style.dot(axes, values, at, "o", colour, 3.2, alpha=0.55, markeredgewidth=0)
            middle = median(values)
            axes.plot([middle, middle], [height - 0.07, height + 0.07], color=colour, linewidth=2.2)
        spreads = [
            f"{name} {rows[f'{name}_pct'].iloc[0]:.1f} %"
            for name in ("between", "within")
            if style.present(rows[f"{name}_pct"].iloc[0])
        ]
        style.write(
            axes,
            "\n".join([style.count(len(parts), len(rows)), *spreads]),
            (1.0, heights[label]),
            (4, 0),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=style.FAINT,
            annotation_clip=False,
        )
    axes.axvline(0, color=style.FAINT, linewidth=1, zorder=0)
    axes.set_xlim(-left, reach)
    axes.set_xlabel("distance from the row's median end-to-end time [%]")


def _ticks(left: float, right: float) -> list[float]:
    """Return the ticks of a logarithmic axis from ``-left`` to ``right`` per cent."""
    apart = [10.0, LINEAR_PCT, 50.0, 100.0, *([250.0, 500.0] if right < 1000 else [])]
    while apart[-1] * 10 <= right:
        apart.append(apart[-1] * 10)
    return [*(-tick for tick in apart if tick <= left), 0.0, *(t for t in apart if t <= right)]
