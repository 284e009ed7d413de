"""Where the time of one call goes.

Columns: workload, label, backend, stage, seconds (mean over calls), pct (of the end-to-end time),
calls, processes, shown (the total as text), why.
"""

from __future__ import annotations

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


@style.figure_of(
    TITLE,
    nothing="No record holds the times of stages.",
    notes=(
        "Means over all measured calls (n = processes × calls), so that the stages add up "
        "to the mean end-to-end time, which stands at the end of each bar. Unaccounted: "
        "what no stage covers. Numbers within bars: per cent."
    ),
    height=style.list_height(0.42),
    key=[
        Patch(facecolor=colour, hatch=hatch, edgecolor=style.FAINT, linewidth=0.5, label=text)
        for text, colour, hatch in STAGES.values()
    ],
)
def figure(panel: style.Panel) -> None:
    """Draw stacked bars; colours mean stages here, and backends are told apart by their row."""
    axes, heights = panel.axes, panel.heights()
    longest = 0.0
    for label, rows, _ in panel.series():
        height = heights[label]
        known = {row.stage: row for row in rows.itertuples() if style.present(row.seconds)}
        if not known:
            style.missing(axes, height, rows["why"].iloc[0])
            continue
        left = 0.0
        for stage, (__, colour, hatch) in STAGES.items():
            row = known.get(stage)
            if row is None or row.seconds <= 0:
                continue
            style.segment(
                axes,
                (height, left, row.seconds, 0.62),
                f"{row.pct:.0f}" if row.pct >= 9 else "",
                "white" if stage == "denoise_s" else style.INK,
                color=colour,
                hatch=hatch,
                edgecolor=style.FAINT,
                linewidth=0.5,
            )
            left += row.seconds
        one = next(iter(known.values()))
        text = f"{one.shown} s · {style.count(one.processes, one.calls)}"
        style.beside(axes, left, height, text)
        longest = max(longest, left)
    style.from_zero(axes, longest, 1.55)
    axes.set_xlabel("mean time of one call [s]")
