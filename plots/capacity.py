"""What fits: peak memory of trials over the pixels of a call, the law through them, the limit.

Columns of the first table: workload, label, backend, series (batch: at one size; size: at one
batch), shown (the trial in words), mpixels (10^6 pixels of a whole batch), gib (peak, None if it
ran out of memory), fits, outlier, limit_gib (None without a limit), meter, law (as a formula). Of
the second, a point of the law: workload, series, mpixels, gib.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "What fits: peak memory over the pixels of a call"

POINTS = ["workload", "label", "backend", "series", "shown", "mpixels", "gib", "fits", "outlier",
          "limit_gib", "meter", "law"]  # fmt: skip
LINES = ["workload", "series", "mpixels", "gib"]

SERIES = {
    "batch": ("o", "-", "one size, growing batch"),
    "size": ("s", "--", "one batch, growing size"),
}
"""Marker, line and name of the two ways to grow."""


def figure(
    points: pd.DataFrame, lines: pd.DataFrame, colours: Mapping[str, str] | None = None
) -> Figure:
    """Return one panel for each search: a mark for each trial, the law, and the limit."""

    def draw(axes: Axes, rows: pd.DataFrame, shades: Mapping[str, str]) -> None:
        own = lines[lines["workload"] == rows["workload"].iloc[0]]
        _panel(axes, rows, own, shades)

    return style.panels(
        points,
        TITLE,
        draw,
        nothing="No run tried what fits into memory.",
        notes=[
            (
                "Each mark is one trial in a process of its own (n in the axis): its largest peak "
                "in any phase. A cross ran out of memory; it stands on the limit, as its own need "
                "is not known. Lines: the fitted law; whether it has a quadratic term was tested. "
                "Ringed: off the law, and without weight in it. Trials that were skipped because "
                "a smaller one had run out of memory are not drawn."
            ),
        ],
        height=lambda rows: 3.6,
        colours=colours,
        key=[
            *[style.mark(name, shape) for shape, _, name in SERIES.values()],
            style.mark("ran out of memory", "x"),
        ],
    )


def _panel(axes: Axes, rows: pd.DataFrame, lines: pd.DataFrame, colours: Mapping[str, str]) -> None:
    colour = colours[rows["backend"].iloc[0]]
    limits = [v for v in rows["limit_gib"] if style.present(v)]
    for series, (shape, dashes, _) in SERIES.items():
        law = lines[lines["series"] == series]
        if not law.empty:
            axes.plot(law["mpixels"], law["gib"], dashes, color=colour, alpha=0.6, linewidth=1.4)
        part = _measured(rows, series)
        axes.plot(part["mpixels"], part["gib"], shape, color=colour, markersize=6, zorder=3)
    heights = [v for v in rows["gib"] if style.present(v)]
    top = max([*heights, *limits], default=1.0)
    bad = rows[~rows["fits"].astype(bool)]
    axes.plot(
        bad["mpixels"],
        [limits[0] if limits else 1.06 * top] * len(bad),
        "x",
        color=style.BAD,
        markersize=7,
        markeredgewidth=1.8,
        zorder=4,
    )
    out = rows[rows["outlier"].astype(bool)]
    axes.plot(
        out["mpixels"], out["gib"], "o", markersize=12, markerfacecolor="none",
        markeredgecolor=style.BAD,
    )  # fmt: skip
    if limits:
        axes.axhline(limits[0], color=style.BAD, linewidth=1.2)
        axes.annotate(
            f"limit {limits[0]:.3g} GiB", (0.01, limits[0]), (0, 4),
            xycoords=axes.get_yaxis_transform(), textcoords="offset points", fontsize=8,
            color=style.BAD,
        )  # fmt: skip
    _edges(axes, rows)
    axes.set_xlim(0, 1.12 * float(rows["mpixels"].max()))
    axes.set_ylim(0, 1.18 * top)
    law_text = str(rows["law"].iloc[0])
    axes.set_xlabel(
        f"10^6 pixels of a call (size x batch), n = {len(rows)}"
        + (f"\nlaw, {style.wrap(law_text, 84)}" if law_text else "")
    )
    axes.set_ylabel(f"peak of {rows['meter'].iloc[0]} [GiB]")


def _measured(rows: pd.DataFrame, series: str) -> pd.DataFrame:
    """Return the trials of a series that fit and have a figure."""
    known = rows["gib"].map(style.present).astype(bool)
    return rows[(rows["series"] == series) & rows["fits"].astype(bool) & known]


def _edges(axes: Axes, rows: pd.DataFrame) -> None:
    """Write beside the largest that fits in each series what it is."""
    for series, offset in zip(SERIES, (-11, -23), strict=True):
        part = _measured(rows, series)
        if len(part):
            last = part.loc[part["mpixels"].idxmax()]
            axes.annotate(
                str(last["shown"]), (last["mpixels"], last["gib"]), (5, offset),
                textcoords="offset points", fontsize=8, ha="left", va="center",
            )  # fmt: skip
