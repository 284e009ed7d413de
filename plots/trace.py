"""Step-time trace within a call.

Columns: workload, label, backend, step (number of the interval, from 1), median_s, low_s, high_s,
calls, processes.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Time of each denoising step within a call"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: a line for each backend over the steps of a call."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No record holds the times of steps.",
        notes=[
            (
                "Intervals between the events of consecutive steps of one call, so one fewer than "
                "steps. Line: median over calls and processes (n = processes × calls). Band: "
                "smallest and largest, cut where they leave the axis."
            ),
        ],
        height=lambda rows: 3.0 + 0.2 * len(style.labels(rows)),
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    shapes = style.markers(rows["label"])
    for label, own in rows.groupby("label", sort=False):
        colour = colours[own["backend"].iloc[0]]
        first = own.iloc[0]
        each = first["calls"] / max(first["processes"], 1)
        axes.fill_between(
            own["step"],
            1000 * own["low_s"],
            1000 * own["high_s"],
            color=colour,
            alpha=0.13,
            linewidth=0,
        )
        axes.plot(
            own["step"],
            1000 * own["median_s"],
            color=colour,
            linewidth=1.5,
            marker=shapes[str(label)],
            markersize=3.5,
            label=f"{style.shorten(str(label), 44)} · n = {first['processes']} × {each:.3g}",
        )
    highest = 1000 * float(rows["median_s"].max())
    axes.set_ylim(0, max(highest * 1.35, min(1000 * float(rows["high_s"].max()), highest * 2)))
    last = int(rows["step"].max())
    axes.set_xlim(0.5, last + 0.5)
    every = max(1, round(last / 10))
    axes.set_xticks(range(1, last + 1, every))
    axes.set_xlabel("interval between steps, by number")
    axes.set_ylabel("time of the step [ms]")
    style.legend_below(axes, 0.2)
