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

NOTE = (
    "Each dot is a run (median over its processes), in order of time; less is better, and axes do "
    "not begin at 0. Dashed: the level changed there, by a rank test that marks at most 1 % of "
    "unchanged histories and takes 10 runs. Counts are exact: each change is marked."
)

_LABELS = {"s": "seconds", "bytes": "GiB", "count": "count"}
_GIB = 1024**3


def figure(table: pd.DataFrame) -> Figure:
    """Return one panel for each series; a dashed line is a change point, a thin one a level."""
    titles = list(dict.fromkeys(table["title"])) if len(table) else []
    if not titles:
        return style.empty(TITLE, "No run holds a figure.")
    shown = titles[:MOST]
    notes = [NOTE]
    if len(titles) > MOST:
        notes.append(f"{len(titles) - MOST} further series are in the table.")
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
    low, high = float(values.min()), float(values.max())
    if unit == "count":
        axes.set_ylim(-0.05 * max(high, 1.0), 1.35 * max(high, 1.0))
    else:
        room = max(0.5 * (high - low), 0.03 * high)
        axes.set_ylim(max(low - room, 0.0), high + 1.6 * room)
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
