"""Each figure of each cell over runs, with the places where its level changed.

Columns: title (of the panel), unit (s, bytes or count), position (number of the run from 1), run
(label), value (in the unit), mark (the change that begins at this run, or an empty text), level (of
the segment that the run belongs to).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plots import style

TITLE = "History: each figure over runs, with change points"
MOST = 24
"""Panels in one figure; the rest is in the table."""

_LABELS = {"s": "seconds", "bytes": "GiB", "count": "count"}
_GIB = 1024**3


def figure(table: pd.DataFrame) -> Figure:
    """Return one panel for each series; a dashed line is a change point, a thin one a level."""
    titles = list(dict.fromkeys(table["title"])) if len(table) else []
    if not titles:
        return style.empty(TITLE, "No run holds a figure.")
    shown = titles[:MOST]
    notes = [
        (
            "Each dot is a run (median over its processes), in order of time; less is better. Dashed: "
            "the level changed there, by a rank test that marks at most 1 % of unchanged histories. It "
            "takes 10 runs. Counts are exact, and every change of one is marked."
        ),
        f"{len(titles) - len(shown)} further series are in the table."
        if len(titles) > MOST
        else "",
    ]
    with style.settings():
        page = style.Page(TITLE, [2.4] * len(shown), notes=notes)
        for place, title in enumerate(shown):
            _panel(page.axes(place, title), table[table["title"] == title])
        return page.figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    unit = str(rows["unit"].iloc[0])
    scale = _GIB if unit == "bytes" else 1.0
    places = rows["position"].to_numpy()
    values = rows["value"].to_numpy() / scale
    axes.step(places, rows["level"].to_numpy() / scale, where="mid", color=style.FAINT, lw=1)
    axes.plot(places, values, "o", color=style.KNOWN["torch-compile"], markersize=4)
    top = max(float(values.max()), 0.0)
    axes.set_ylim(0, top * 1.35 if top > 0 else 1.0)
    for row in rows.itertuples():
        if row.mark:
            axes.axvline(row.position - 0.5, color=style.BAD, linestyle="--", linewidth=1.2)
            right = row.position > 0.6 * float(places.max())
            axes.annotate(
                str(row.mark),
                (row.position - 0.5, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if right else 4, 0),
                textcoords="offset points",
                ha="right" if right else "left",
                va="top",
                fontsize=8,
                color=style.BAD,
            )
    axes.set_xlabel("run, in order of time")
    axes.set_ylabel(_LABELS[unit])
    axes.set_xlim(float(places.min()) - 0.7, float(places.max()) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
