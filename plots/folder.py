"""A folder of pictures, one after the other: time of each call, failures marked, memory below.

Columns: workload, label, backend, place (of the picture in the cell's own order, from 1), e2e_s
(None for a picture without a time), rss_bytes (None where the system tells none), outcome, drawn
(one in how many ok pictures has a mark), total, failed.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plots import style

TITLE = "Folder of pictures: time and memory along the folder"
GIB = 1024**3


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: times above, resident memory below."""
    names = style.workloads(table)
    if not names:
        return style.empty(TITLE, "No run processed a folder of pictures (task: folder).")
    shades = style.colour_of(table, colours)
    notes = [
        (
            "Each mark is the call of one picture, in the order of the folder, n = pictures of the "
            "cell. Line: median of the ok calls. Red crosses: pictures that failed or gave an "
            "invalid result, at the foot, since they have no time to show. Below: resident memory "
            "of the worker after each picture; a line that rises is a leak."
        ),
        style.left_out(table),
    ]
    with style.settings():
        parts = [style.of(table, name) for name in names]
        page = style.Page(
            TITLE, [4.4 + 0.2 * len(style.labels(part)) for part in parts], notes=notes
        )
        for place, (name, rows) in enumerate(zip(names, parts, strict=True)):
            _draw(*page.pair(place, name, (3.0, 1.4)), rows, shades)
        return page.figure


def _draw(upper: Axes, lower: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    shapes = style.markers(rows["label"])
    for label, own in rows.groupby("label", sort=False):
        first = own.iloc[0]
        colour = colours[first["backend"]]
        good = own[(own["outcome"] == "ok") & own["e2e_s"].notna()]
        size = 4.5 if len(good) <= 100 else 2.2
        told = f"{style.shorten(str(label), 40)} · n = {first['total']}"
        told += f", {first['failed']} failed" if first["failed"] else ""
        told += f", one of {first['drawn']} drawn" if first["drawn"] > 1 else ""
        upper.plot(
            good["place"], good["e2e_s"], shapes[str(label)], color=colour, markersize=size,
            alpha=0.75, label=told,
        )  # fmt: skip
        if len(good):
            upper.axhline(float(good["e2e_s"].median()), color=colour, linewidth=1.2)
        bad = own[own["outcome"] != "ok"]
        if len(bad):  # marks of no picture, not clipped, have no end: they leave no room for axes
            upper.plot(
                bad["place"], [0.02] * len(bad), "x", color=style.BAD, markersize=7,
                transform=upper.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
        held = own[own["rss_bytes"].notna()]
        lower.plot(held["place"], held["rss_bytes"] / GIB, color=colour, linewidth=1.3)
    times = rows.loc[rows["outcome"] == "ok", "e2e_s"].dropna()
    upper.set_ylim(0, float(times.max()) * 1.15 if len(times) else 1.0)
    most = rows["rss_bytes"].max()
    lower.set_ylim(0, float(most) / GIB * 1.2 if style.present(float(most)) else 1.0)
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("end-to-end time [s]")
    lower.set_ylabel("memory [GiB]")
    lower.set_xlabel("picture, in the order of the folder")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Between the times and the crosses at the foot: calls of one folder are of one order.
    upper.legend(loc="lower left", bbox_to_anchor=(0.0, 0.07))
