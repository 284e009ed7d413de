"""Speed against fidelity: what a backend's speed costs in image quality.

Columns: workload, label, backend, speedup, low, high, psnr_db (the worst image's; None if
identical), identical (bool), pictures, control_db (the baseline against itself; None if identical
or not known), threshold_db.
"""

from __future__ import annotations

import pandas as pd

from plots import style

TITLE = "Speed against image fidelity"


def _reach(rows: pd.DataFrame) -> style.Reach:
    return style.reach([1.0, *rows["speedup"]])


@style.figure_of(
    TITLE,
    nothing="No backend has both a speedup and images that were compared with the baseline.",
    notes=lambda table: [
        (
            "Across: ratio of median end-to-end times, baseline over backend, with its 95 % "
            "interval. Up: peak signal-to-noise ratio of the worst image against the "
            "baseline's of the same seed; identical images, whose ratio is infinite, lie on "
            "the top line. Dashed: the threshold. Dotted: the baseline against itself in "
            "another process. The ratio's axis is logarithmic: a step is a factor."
        ),
        style.arrows(table, _reach),
    ],
    height=lambda rows: 3.2 + 0.2 * len(rows),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: right is faster, up is closer to the baseline."""
    axes, rows = panel.axes, panel.rows
    threshold = float(rows["threshold_db"].iloc[0])
    known = [v for v in [*rows["psnr_db"], *rows["control_db"]] if style.present(v)]
    low = min([threshold, *known]) - 6
    top = max([threshold, *known]) + 14
    shapes = style.markers(rows["label"])
    least, most = _reach(rows)
    for row in rows.itertuples():
        height = top - 4 if row.identical else row.psnr_db
        colour = panel.colours[row.backend]
        style.interval(
            axes, height, row.low, row.high, (least, most), colour, alpha=0.5, linewidth=2.5
        )
        fidelity = "identical" if row.identical else f"{row.psnr_db:.1f} dB"
        count = f"{row.pictures} image{'s' if row.pictures != 1 else ''}"
        label = f"{style.shorten(row.label, 40)}: {row.shown}, {fidelity}, {count}"
        style.dot(axes, row.speedup, height, shapes[str(row.label)], colour, 8, label=label)
    lines = [
        (threshold, f"threshold {threshold:g} dB ", style.BAD, "--"),
        (top - 4, "identical ", style.FAINT, "-"),
        *(
            (v, f"baseline against itself {v:.1f} dB ", style.FAINT, ":")
            for v in rows["control_db"]
            if style.present(v)
        ),
    ]
    for height, text, ink, dashes in lines[:3]:
        line, width = (style.GRID, 1.5) if dashes == "-" else (ink, 1)
        axes.axhline(height, color=line, linewidth=width, linestyle=dashes, zorder=0)
        place = axes.get_yaxis_transform()
        axes.text(
            0.995, height, text, transform=place, ha="right", va="bottom", fontsize=8, color=ink
        )
    axes.axvline(1, color=style.FAINT, linewidth=1, zorder=0)
    xs = [1.0, *rows["speedup"], *rows["low"], *rows["high"]]
    inside = [min(max(float(v), least), most) for v in xs if style.present(v)]
    style.plain_log(axes, "x", min(inside), max(inside), least=style.CLOSE)
    axes.set_ylim(low, top)
    axes.set_xlabel("speedup over the baseline [×], logarithmic, right is faster")
    axes.set_ylabel("PSNR of the worst image [dB]")
    style.legend_below(axes)
