"""Speed against fidelity: what a backend's speed costs in picture quality.

Columns: workload, label, backend, speedup, low, high, psnr_db (the worst picture's; None if
identical), identical (bool), pictures, control_db (the baseline against itself; None if identical
or not known), threshold_db.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Speed against picture fidelity"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: right is faster, up is closer to the baseline."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No backend has both a speedup and pictures that were compared with the baseline.",
        notes=[
            (
                "Across: ratio of median end-to-end times, baseline over backend, with its 95 % "
                "interval. Up: peak signal-to-noise ratio of the worst picture against the "
                "baseline's of the same seed; identical pictures, whose ratio is infinite, lie on "
                "the top line. Dashed: the threshold. Dotted: the baseline against itself in "
                "another process. The ratio's axis is logarithmic: a step is a factor."
            ),
            "Arrow: the interval goes on beyond the axis."
            if any(_beyond(style.of(table, name)) for name in style.workloads(table))
            else "",
        ],
        height=lambda rows: 3.2 + 0.2 * len(rows),
        colours=colours,
    )


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    threshold = float(rows["threshold_db"].iloc[0])
    known = [v for v in [*rows["psnr_db"], *rows["control_db"]] if style.present(v)]
    low = min([threshold, *known]) - 6
    top = max([threshold, *known]) + 14
    shapes = style.markers(rows["label"])
    least, most = _reach(rows)
    for row in rows.itertuples():
        height = top - 4 if row.identical else row.psnr_db
        colour = colours[row.backend]
        if style.present(row.low) and style.present(row.high):
            ends = [min(max(end, least), most) for end in (row.low, row.high)]
            axes.plot(ends, [height, height], color=colour, alpha=0.5, linewidth=2.5)
            if row.low < least:
                axes.plot(least, height, "<", color=colour, markersize=7)
            if row.high > most:
                axes.plot(most, height, ">", color=colour, markersize=7)
        told = "identical" if row.identical else f"{row.psnr_db:.1f} dB"
        axes.plot(
            row.speedup,
            height,
            shapes[str(row.label)],
            color=colour,
            markersize=8,
            label=f"{style.shorten(row.label, 40)}: {row.shown}, {told}, "
            f"{row.pictures} picture{'s' if row.pictures != 1 else ''}",
        )
    axes.axhline(top - 4, color=style.GRID, linewidth=1.5, zorder=0)
    axes.axhline(threshold, color=style.BAD, linewidth=1, linestyle="--", zorder=0)
    axes.axvline(1, color=style.FAINT, linewidth=1, zorder=0)
    edge = axes.get_yaxis_transform()
    axes.text(
        0.995,
        threshold,
        f"threshold {threshold:g} dB ",
        transform=edge,
        ha="right",
        va="bottom",
        fontsize=8,
        color=style.BAD,
    )
    axes.text(
        0.995,
        top - 4,
        "identical ",
        transform=edge,
        ha="right",
        va="bottom",
        fontsize=8,
        color=style.FAINT,
    )
    control = next((v for v in rows["control_db"] if style.present(v)), None)
    if control is not None:
        axes.axhline(control, color=style.FAINT, linewidth=1, linestyle=":", zorder=0)
        axes.text(
            0.995,
            control,
            f"baseline against itself {control:.1f} dB ",
            transform=edge,
            ha="right",
            va="bottom",
            fontsize=8,
            color=style.FAINT,
        )
    xs = [1.0, *rows["speedup"], *rows["low"], *rows["high"]]
    inside = [min(max(float(v), least), most) for v in xs if style.present(v)]
    style.plain_log(axes, "x", min(inside), max(inside), least=style.CLOSE)
    axes.set_ylim(low, top)
    axes.set_xlabel("speedup over the baseline [×], logarithmic, right is faster")
    axes.set_ylabel("PSNR of the worst picture [dB]")
    style.legend_below(axes)


def _reach(rows: pd.DataFrame) -> tuple[float, float]:
    """Return where bars end: an interval of two processes may be a thousand times the ratio."""
    points = [1.0, *rows["speedup"]]
    return min(points) / 1.6, 1.6 * max(points)


def _beyond(rows: pd.DataFrame) -> bool:
    least, most = _reach(rows)
    return any(style.present(v) and v < least for v in rows["low"]) or any(
        style.present(v) and v > most for v in rows["high"]
    )
