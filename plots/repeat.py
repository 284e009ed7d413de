"""Memory held after each of many equal calls, with the line of its growth and that line's interval.

Columns: workload, label, backend, process, call (from 1), memory_mib (above the first reading),
counts (False while it settles), slope_mib, low_mib, high_mib (growth a call and its interval),
start_mib, start_call (where the line begins), verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plots import style

TITLE = "Memory held after each call: does it grow?"
LINES = ("-", "--", ":", "-.")


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: a series for each backend, variant and process."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No run repeated equal calls (repeat).",
        notes=[
            (
                "Memory above the first reading, after each of n equal calls in one process. "
                "Hollow marks are calls that settle and do not count. The line is the mean growth "
                "from call to call, steps set aside, and the band its 95 % interval: memory leaks "
                "where the whole band rises."
            ),
        ],
        height=lambda rows: 2.7 + 0.17 * rows.groupby(["label", "process"]).ngroups,
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    shapes = style.markers(rows["label"])
    for (label, process), one in rows.groupby(["label", "process"], sort=False):
        colour = colours[one["backend"].iloc[0]]
        if len(shapes) > 1:
            colour = [*style.OTHERS, colour][list(shapes).index(str(label)) % len(style.OTHERS)]
        line = LINES[(int(process) - 1) % len(LINES)]
        calls, memory = one["call"].to_numpy(float), one["memory_mib"].to_numpy(float)
        counts = one["counts"].to_numpy(bool)
        axes.plot(calls, memory, line, color=colour, alpha=0.35, linewidth=0.9)
        axes.plot(calls[counts], memory[counts], shapes[str(label)], color=colour, markersize=4)
        axes.plot(
            calls[~counts],
            memory[~counts],
            shapes[str(label)],
            color=colour,
            markersize=4,
            markerfacecolor="white",
        )
        first = one.iloc[0]
        said = f"{label}, process {process} (n = {len(one)}): {first['verdict']}"
        if not style.present(float(first["slope_mib"])):
            axes.plot([], [], line, color=colour, label=said)
            continue
        along = np.array([first["start_call"], calls[-1]], dtype=float)
        since = along - first["start_call"]
        axes.plot(
            along,
            first["start_mib"] + first["slope_mib"] * since,
            line,
            color=colour,
            linewidth=1.6,
            label=said,
        )
        axes.fill_between(
            along,
            first["start_mib"] + first["low_mib"] * since,
            first["start_mib"] + first["high_mib"] * since,
            color=colour,
            alpha=0.12,
            linewidth=0,
        )
    low, high = axes.get_ylim()
    if high - low < 1:
        # Pages of a few KiB would fill the panel and look like growth.
        axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("call")
    axes.set_ylabel("memory above first [MiB]")
    style.legend_below(axes, 0.24)
