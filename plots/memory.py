"""Peak memory by phase.

Columns: workload, label, backend, meter, phase, gib, shown, why. One meter for each workload:
values of different meters are never put side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Peak memory by phase, by backend"

PHASES = {
    "load": ("|", "load"),
    "prepare": ("^", "prepare"),
    "warmup": ("D", "warm-up (cold peak)"),
    "steady": ("o", "steady (warm peak)"),
}
"""Phases in order, with their marker and how the legend calls them."""


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: a row for each backend, a mark for each phase."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No record holds a memory figure.",
        notes=[
            (
                "Largest peak over all processes of a row; peaks are reset between phases. The "
                "number is the steady peak, the filled mark. The meter stands in each panel's "
                "axis; figures of different meters must not be compared."
            ),
        ],
        height=lambda rows: style.panel_height(style.labels(rows), 0.36, 1.05),
        key=[
            style.mark(text, shape, filled=phase == "steady")
            for phase, (shape, text) in PHASES.items()
        ],
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    labels = style.labels(rows)
    heights = dict(zip(labels, style.rows(axes, labels), strict=True))
    furthest = 0.0
    for label, lines in rows.groupby("label", sort=False):
        height = heights[str(label)]
        kept = lines[[style.present(v) for v in lines["gib"]]]
        if kept.empty:
            style.missing(axes, height, str(lines["why"].iloc[0] or "no figure"))
            continue
        colour = colours[kept["backend"].iloc[0]]
        values = list(kept["gib"])
        axes.plot([min(values), max(values)], [height, height], color=colour, alpha=0.35)
        for row in kept.itertuples():
            marker, _ = PHASES[row.phase]
            axes.plot(
                row.gib,
                height,
                marker,
                color=colour,
                markersize=10 if marker == "|" else 6.5,
                markerfacecolor=colour if row.phase == "steady" else "white",
                markeredgewidth=1.6,
            )
        steady = kept[kept["phase"] == "steady"]
        if not steady.empty:
            style.beside(axes, [max(values)], [height], [f"steady {steady['shown'].iloc[0]} GiB"])
        furthest = max(furthest, *values)
    axes.set_xlim(0, furthest * 1.4 if furthest else 1)
    meters = [str(meter) for meter in rows["meter"].dropna().unique()]
    axes.set_xlabel(f"peak memory [GiB], meter: {', '.join(meters) or 'none'}")
