"""Where the time of one call goes.

Columns: workload, label, backend, stage, seconds (mean over calls), pct (of the end-to-end time),
calls, processes, shown (the total as text), why.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plots import style

TITLE = "Stages of one call, by backend"

STAGES = {
    "text_encode_s": ("text encode", "#88CCEE", ""),
    "image_encode_s": ("image encode", "#DDCC77", ""),
    "denoise_s": ("denoise", "#4477AA", ""),
    "vae_decode_s": ("VAE decode", "#CC6677", ""),
    "post_s": ("post", "#999999", ""),
    "unaccounted_s": ("unaccounted", "#FFFFFF", "////"),
}
"""Stages in their order, with the name, colour (Paul Tol's) and hatching of each."""


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return stacked bars; colours mean stages here, and backends are told apart by their row."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No record holds the times of stages.",
        notes=[
            (
                "Means over all measured calls (n = processes × calls), so that the stages add up "
                "to the mean end-to-end time, which stands at the end of each bar. Unaccounted: "
                "what no stage covers. Numbers within bars: per cent."
            ),
        ],
        height=lambda rows: style.panel_height(style.labels(rows), 0.42, 1.05),
        key=[
            Patch(facecolor=colour, hatch=hatch, edgecolor=style.FAINT, linewidth=0.5, label=text)
            for text, colour, hatch in STAGES.values()
        ],
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, _: Mapping[str, str]) -> None:
    labels = style.labels(rows)
    heights = dict(zip(labels, style.rows(axes, labels), strict=True))
    longest = 0.0
    for label, parts in rows.groupby("label", sort=False):
        height = heights[str(label)]
        known = {row.stage: row for row in parts.itertuples() if style.present(row.seconds)}
        if not known:
            style.missing(axes, height, str(parts["why"].iloc[0] or "no figure"))
            continue
        left = 0.0
        for stage, (__, colour, hatch) in STAGES.items():
            row = known.get(stage)
            if row is None or row.seconds <= 0:
                continue
            axes.barh(
                height,
                row.seconds,
                0.62,
                left,
                color=colour,
                hatch=hatch,
                edgecolor=style.FAINT,
                linewidth=0.5,
            )
            if row.pct >= 9:
                axes.text(
                    left + row.seconds / 2,
                    height,
                    f"{row.pct:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if stage == "denoise_s" else style.INK,
                )
            left += row.seconds
        one = next(iter(known.values()))
        text = f"{one.shown} s · n = {one.processes} × {one.calls / one.processes:.3g}"
        style.beside(axes, [left], [height], [text])
        longest = max(longest, left)
    axes.set_xlim(0, longest * 1.55 if longest else 1)
    axes.set_xlabel("mean time of one call [s]")
