"""When the images of a chain are ready: its first images, then round after round.

Columns: workload (one panel each), label, backend, ends_s (list: median end of each round since
the start), batches (list: images of each round), ttfi_s, tbb_s (None for one round), shown (total
with its interval, as text), calls, processes, why (of a chain without figures).
"""

from __future__ import annotations

from matplotlib.patches import Patch

from plots import style

TITLE = "Chains: time to the first images, and between rounds"
MOST_MARKS = 24
"""Rounds whose end gets a mark of its own; more would be a solid bar."""


@style.figure_of(
    TITLE,
    nothing="No record holds a chain.",
    notes=(
        "TTFI: until the first round's images are ready. TBB: mean of the gaps between "
        "the ends of consecutive rounds. Medians over all measured chains (n = processes × "
        "chains); the total with the 95 % interval of its median, from six chains on. "
        "Numbers in the bars: images of the round."
    ),
    height=style.list_height(0.5),
    key=[
        Patch(facecolor=style.INK, label="first images (text-to-image)"),
        Patch(facecolor=style.INK, alpha=0.35, label="later rounds (image-to-image)"),
    ],
)
def figure(panel: style.Panel) -> None:
    """Draw a bar for each chain: solid until the first images, a lighter part for each round."""
    axes, heights = panel.axes, panel.heights()
    longest = max([row.ends_s[-1] for row in panel.rows.itertuples() if row.ends_s], default=0.0)
    for row in panel.rows.itertuples():
        height = heights[str(row.label)]
        if not row.ends_s:
            style.missing(axes, height, row.why)
            continue
        starts = [0.0, *row.ends_s[:-1]]
        for number, (start, end) in enumerate(zip(starts, row.ends_s, strict=True)):
            style.segment(
                axes,
                (height, start, end - start, 0.56),
                str(row.batches[number]) if end - start > 0.05 * longest else "",
                style.INK if number else "white",
                color=panel.colours[row.backend],
                alpha=0.35 if number else 1.0,
                edgecolor="white" if len(row.ends_s) <= MOST_MARKS else "none",
                linewidth=1.0,
            )
        between = f" · TBB {row.tbb_s:.3g} s" if style.present(row.tbb_s) else ""
        n = style.count(row.processes, row.calls)
        text = f"{row.shown}\nTTFI {row.ttfi_s:.3g} s{between} · {n}"
        style.beside(axes, row.ends_s[-1], height, text)
    style.from_zero(axes, longest, 1.75)
    axes.set_xlabel("time since the start of the chain [s], lower is better")
