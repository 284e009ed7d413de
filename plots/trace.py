"""Step-time trace within a call.

Columns: workload, label, backend, step (number of the interval, from 1), median_s, low_s, high_s,
calls, processes.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from plots import style

TITLE = "Time of each denoising step within a call"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: a line for each backend over the steps of a call."""
    names = style.workloads(table)
    if not names:
        return style.empty(TITLE, "No record holds the times of steps.")
    colours = style.colour_of(table, colours)
    notes = [
        (
            "Intervals between the events of consecutive steps of one call, so one fewer than "
            "steps. "
            "Line: median over calls and processes (n = processes × calls). Band: smallest and "
            "largest, cut where they leave the axis."
        ),
        style.left_out(table),
    ]
    with style.settings():
        heights = [3.0 + 0.2 * style.of(table, name)["label"].nunique() for name in names]
        page = style.Page(TITLE, heights, notes=notes)
        for place, name in enumerate(names):
            _panel(page, place, style.of(table, name), name, colours)
        return page.figure


def _panel(
    page: style.Page, place: int, rows: pd.DataFrame, name: str, colours: Mapping[str, str]
) -> None:
    axes = page.axes(place, name)
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
            label=f"{style.shorten(str(label), 44)}  n = {first['processes']} × {each:.3g}",
        )
    highest = 1000 * float(rows["median_s"].max())
    axes.set_ylim(0, max(highest * 1.35, min(1000 * float(rows["high_s"].max()), highest * 2)))
    last = int(rows["step"].max())
    axes.set_xlim(0.5, last + 0.5)
    every = max(1, round(last / 10))
    axes.set_xticks(range(1, last + 1, every))
    axes.set_xlabel("interval between steps, by number")
    axes.set_ylabel("time of the step [ms]")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), borderaxespad=0.0)
