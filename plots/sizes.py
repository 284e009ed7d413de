"""What a new size costs: the first and second call at it, and those that follow.

Columns: workload, label (the size and the backend), backend, first_s, second_s, steady_s (medians
over processes, in seconds), shown (the same in words), why (why there is no steady time).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "What a new size costs: first, second and steady call"

CALLS = {
    "first_s": ("D", "first call at this size"),
    "second_s": ("^", "second call"),
    "steady_s": ("o", "steady"),
}
"""Calls in their order, with the marker and the name of each."""


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: a row for each size and backend, a mark for each call."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No run swept the size of the pictures (sweep.size).",
        notes=[
            (
                "Sizes in the order in which a process met them, after it was warmed up at the "
                "cell's own; medians over processes (n). In words: first, second and steady call. "
                "Where the first mark stands far right of the others, the size was compiled anew: "
                "graphs and recompiles are those of the first two calls. The axis is logarithmic: "
                "a step is a factor."
            ),
        ],
        height=lambda rows: style.panel_height(style.labels(rows), 0.4, 1.05),
        key=[
            style.mark(text, shape, filled=call == "steady_s")
            for call, (shape, text) in CALLS.items()
        ],
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    heights = style.rows(axes, [str(label) for label in rows["label"]])
    drawn: list[float] = []
    for height, row in zip(heights, rows.itertuples(), strict=True):
        known = {
            call: float(getattr(row, call)) for call in CALLS if style.present(getattr(row, call))
        }
        if not known:
            style.missing(axes, height, str(row.why or "no figure"))
            continue
        colour = colours[row.backend]
        values = list(known.values())
        axes.plot([min(values), max(values)], [height, height], color=colour, alpha=0.35)
        for call, value in known.items():
            axes.plot(
                value,
                height,
                CALLS[call][0],
                color=colour,
                markersize=6.5,
                markerfacecolor=colour if call == "steady_s" else "white",
                markeredgewidth=1.6,
            )
        style.beside(axes, [max(values)], [height], [str(row.shown)])
        drawn += values
    if drawn:
        # The words stand right of the marks and are about as long as the marks' own room.
        style.plain_log(axes, "x", min(drawn), max(drawn) * (max(drawn) / min(drawn)) * 4)
    else:
        axes.set_xticks([])
    axes.set_xlabel("time of one call [s], logarithmic, less is better")
