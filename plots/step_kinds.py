"""Steps that ran the whole denoiser beside steps that reused features.

Columns: workload, label, backend, step (number of the denoiser call, from 1), kind (full or
shallow), median_s, low_s, high_s (over calls and processes), calls, processes.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Full and shallow steps of step caching"
SHAPES = {"full": "o", "shallow": "v"}


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: each step's time, by its kind, with both medians."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No backend of this run reuses features between steps.",
        notes=[
            (
                "A mark is the median time of one step over all measured calls (n = processes × "
                "calls), its bar the smallest and the largest. Step i is timed from the event of "
                "step i - 1 to its own, so the first step has no time. Lines: the median over the "
                "steps of a kind."
            ),
        ],
        height=lambda rows: 3.0 + 0.4 * len(style.labels(rows)),
        colours=colours,
        key=[
            style.mark("full: the whole denoiser"),
            style.mark("shallow: deep features reused", "v", filled=False),
        ],
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    last = int(rows["step"].max())
    names = style.labels(rows)
    for place, label in enumerate(names):
        own = rows[rows["label"] == label]
        colour = colours[own["backend"].iloc[0]]
        aside = 0.5 * ((place + 1) / (len(names) + 1) - 0.5)
        each = own["calls"].iloc[0] / max(own["processes"].iloc[0], 1)
        told = f"n = {own['processes'].iloc[0]} × {each:.3g}"
        for kind, of_kind in own.groupby("kind", sort=False):
            whole = kind == "full"
            centre = 1000 * of_kind["median_s"]
            axes.errorbar(
                of_kind["step"] + aside,
                centre,
                [centre - 1000 * of_kind["low_s"], 1000 * of_kind["high_s"] - centre],
                fmt=SHAPES[str(kind)],
                color=colour,
                markersize=5,
                markerfacecolor=colour if whole else "white",
                elinewidth=0.9,
                linestyle="",
            )
            middle = float(centre.median())
            axes.axhline(
                middle,
                color=colour,
                linewidth=1.2,
                linestyle="-" if whole else "--",
                alpha=0.7,
                label=f"{style.shorten(label, 40)} · {kind} {middle:.3g} ms · {told}",
            )
    axes.set_ylim(0, 1.15 * min(1000 * rows["high_s"].max(), 2500 * rows["median_s"].max()))
    axes.set_xlim(0.5, last + 0.5)
    axes.set_xticks(range(1, last + 1, max(1, round(last / 10))))
    axes.set_xlabel("step of a generation, by number")
    axes.set_ylabel("time of the step [ms]")
    style.legend_below(axes, 0.2)
