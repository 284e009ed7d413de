"""Memory held after each of many equal calls, with the line of its growth and that line's interval.

Columns: workload, label, backend, process, call (from 1), memory_mib (above the first reading),
counts (False while it settles), slope_mib, low_mib, high_mib (growth a call and its interval),
start_mib, start_call (where the line begins), verdict.
"""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from plots import style

TITLE = "Memory held after each call: does it grow?"
LINES = ("-", "--", ":", "-.")


@style.figure_of(
    TITLE,
    nothing="No run repeated equal calls (repeat).",
    notes=(
        "Memory above the first reading, after each of n equal calls in one process. "
        "Hollow marks are calls that settle and do not count. The line is the mean growth "
        "from call to call, steps set aside, and the band its 95 % interval: memory leaks "
        "where the whole band rises."
    ),
    height=lambda rows: 2.7 + 0.17 * rows.groupby(["label", "process"]).ngroups,
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: a series for each backend, variant and process."""
    axes = panel.axes
    shapes = style.markers(panel.rows["label"])
    for (label, process), one in panel.rows.groupby(["label", "process"], sort=False):
        colour = panel.colour(one)
        if len(shapes) > 1:
            colour = [*style.OTHERS, colour][list(shapes).index(str(label)) % len(style.OTHERS)]
        line = LINES[(int(process) - 1) % len(LINES)]
        calls, memory = one["call"].to_numpy(float), one["memory_mib"].to_numpy(float)
        axes.plot(calls, memory, line, color=colour, alpha=0.35, linewidth=0.9)
        counts = one["counts"].to_numpy(bool)
        for filled, part in ((True, counts), (False, ~counts)):
            style.dot(axes, calls[part], memory[part], shapes[str(label)], colour, 4, filled=filled)
        first = one.iloc[0]
        text = f"{label}, process {process} (n = {len(one)}): {first['verdict']}"
        if not style.present(float(first["slope_mib"])):
            axes.plot([], [], line, color=colour, label=text)
            continue
        along = np.array([first["start_call"], calls[-1]], dtype=float)
        middle, low, high = (
            first["start_mib"] + first[slope] * (along - first["start_call"])
            for slope in ("slope_mib", "low_mib", "high_mib")
        )
        axes.plot(along, middle, line, color=colour, linewidth=1.6, label=text)
        style.band(axes, along, low, high, colour, 0.12)
    low, high = axes.get_ylim()
    if high - low < 1:
        # Pages of a few KiB would fill the panel and look like growth.
        axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("call")
    axes.set_ylabel("memory above first [MiB]")
    style.legend_below(axes, 0.24)
