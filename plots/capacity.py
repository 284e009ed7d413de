"""What fits: peak memory of trials over the pixels of a call, the law through them, the limit.

Columns of the first table: workload, label, backend, series (batch: at one size; size: at one
batch), shown (the trial in words), mpixels (10^6 pixels of a whole batch), gib (peak, None if it
ran out of memory), fits, outlier, limit_gib (None without a limit), meter, law (as a formula). Of
the second, a point of the law: workload, series, mpixels, gib.
"""

from __future__ import annotations

import pandas as pd

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


@style.figure_of(
    TITLE,
    nothing="No run tried what fits into memory.",
    notes=(
        "Each mark is one trial in a process of its own (n in the axis): its largest peak "
        "in any phase. A cross ran out of memory; it stands on the limit, as its need "
        "is not known. Lines: the fitted law; whether it has a quadratic term was tested. "
        "Ringed: off the law, and without weight in it. Trials that were skipped because "
        "a smaller one had run out of memory are not drawn."
    ),
    height=lambda *_: 3.6,
    key=[
        *[style.mark(name, shape) for shape, _, name in SERIES.values()],
        style.mark("ran out of memory", "x"),
    ],
)
def figure(panel: style.Panel) -> None:
    """Draw one search: a mark for each trial, the law, and the limit."""
    axes, (rows, lines) = panel.axes, panel.tables
    colour = panel.colour(rows)
    limit = next((v for v in rows["limit_gib"] if style.present(v)), None)
    fits = rows["fits"].astype(bool)
    measured = rows[fits & rows["gib"].map(style.present).astype(bool)]
    top = max([v for v in [*rows["gib"], limit] if style.present(v)], default=1.0)
    widest = float(rows["mpixels"].max())
    named: list[pd.Series] = []
    for series, (shape, dashes, _) in SERIES.items():
        law = lines[lines["series"] == series]
        if not law.empty:
            axes.plot(law["mpixels"], law["gib"], dashes, color=colour, alpha=0.6, linewidth=1.4)
        part = measured[measured["series"] == series]
        style.dot(axes, part["mpixels"], part["gib"], shape, colour, 6, zorder=3)
        if len(part):
            last = part.loc[part["mpixels"].idxmax()]
            near = any(
                abs(last["mpixels"] - other["mpixels"]) < 0.13 * widest
                and abs(last["gib"] - other["gib"]) < 0.08 * top
                for other in named
            )
            named.append(last)
            at, away = (last["mpixels"], last["gib"]), (5, -23 if near else -11)
            style.write(axes, str(last["shown"]), at, away, ha="left", va="center")
    bad = rows.loc[~fits, "mpixels"]
    height = 1.06 * top if limit is None else limit
    style.dot(axes, bad, [height] * len(bad), "x", style.BAD, 7, markeredgewidth=1.8, zorder=4)
    style.ring(axes, rows[rows["outlier"].astype(bool)], 12)
    if limit is not None:
        axes.axhline(limit, color=style.BAD, linewidth=1.2)
        place = axes.get_yaxis_transform()
        text = f"limit {limit:.3g} GiB"
        style.write(axes, text, (0.01, limit), (0, 4), xycoords=place, color=style.BAD)
    axes.set_xlim(0, 1.12 * widest)
    axes.set_ylim(0, 1.18 * top)
    style.label_law(axes, "a call (size x batch)", rows)
