"""When the pictures of a chain are there: its first images, then round after round.

Columns: workload (one panel each), label, backend, ends_s (list: median end of each round since
the start), batches (list: pictures of each round), ttfi_s, tbb_s (None for one round), shown (total
with its interval, as text), calls, processes, why (of a chain without figures).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plots import style

TITLE = "Chains: time to the first images, and between rounds"
MOST_MARKS = 24
"""Rounds whose end gets a mark of its own; more would be a solid bar."""


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return a bar for each chain: solid until the first images, a lighter part for each round."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No record holds a chain.",
        notes=[
            (
                "TTFI: until the first round's pictures are there. TBB: mean of the gaps between "
                "the ends of consecutive rounds. Medians over all measured chains (n = processes × "
                "chains); the total with the 95 % interval of its median, from six chains on. "
                "Numbers in the bars: pictures of the round."
            )
        ],
        height=lambda rows: style.panel_height(style.labels(rows), 0.5, 1.05),
        key=[
            Patch(facecolor=style.INK, label="first images (text-to-image)"),
            Patch(facecolor=style.INK, alpha=0.35, label="later rounds (image-to-image)"),
        ],
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    labels = style.labels(rows)
    heights = dict(zip(labels, style.rows(axes, labels), strict=True))
    longest = max([row.ends_s[-1] for row in rows.itertuples() if row.ends_s], default=0.0)
    for row in rows.itertuples():
        height = heights[str(row.label)]
        if not row.ends_s:
            style.missing(axes, height, str(row.why or "no figure"))
            continue
        starts = [0.0, *row.ends_s[:-1]]
        for number, (start, end) in enumerate(zip(starts, row.ends_s, strict=True)):
            axes.barh(
                height,
                end - start,
                0.56,
                start,
                color=colours[row.backend],
                alpha=0.35 if number else 1.0,
                edgecolor="white" if len(row.ends_s) <= MOST_MARKS else "none",
                linewidth=1.0,
            )
            if end - start > 0.05 * longest:
                axes.text(
                    (start + end) / 2,
                    height,
                    str(row.batches[number]),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=style.INK if number else "white",
                )
        between = f" · TBB {row.tbb_s:.3g} s" if style.present(row.tbb_s) else ""
        told = f"{row.shown}\nTTFI {row.ttfi_s:.3g} s{between}"
        told += f" · n = {row.processes} × {row.calls / row.processes:.3g}"
        style.beside(axes, [row.ends_s[-1]], [height], [told])
    axes.set_xlim(0, longest * 1.75 if longest else 1)
    axes.set_xlabel("time since the start of the chain [s], less is better")
