"""Cumulative time over images: where a backend's dearer first call has paid for itself.

Columns: workload, label, backend, first_call_s, e2e_s (medians), images_per_call, is_baseline,
kind (after, immediately, never; None for the baseline), images, low_images, high_images, shown,
processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "When does the first call pay? Cumulative time over images"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return one panel for each workload: a line for each backend, crossings marked."""
    return style.panels(
        table,
        TITLE,
        _panel,
        nothing="No record holds a first call and an end-to-end time.",
        notes=[
            (
                "Lines: median first call + images × median end-to-end time. Both axes are "
                "logarithmic. n = processes."
            ),
            _marks(table),
        ],
        height=lambda rows: 3.4 + 0.2 * len(rows),
        colours=colours,
    )


def _marks(table: pd.DataFrame) -> str:
    """Return what the panels' marks mean, of those that are drawn."""
    kinds = _kinds(table)
    said = []
    if marked(table):
        said.append(
            "Large mark: where the line falls below the baseline's; the broad bar is the 95 % "
            "interval of that number."
        )
    elif "immediately" in kinds:
        said.append("No line crosses the baseline's: what pays does so from the first image.")
    elif "never" in kinds:
        said.append("Nothing pays here, so no crossing is marked.")
    if "never" in kinds:
        said.append("Never: the interval of the saving reaches 0.")
    return " ".join(said)


def marked(table: pd.DataFrame) -> bool:
    """Return whether a panel marks where a line crosses the baseline's."""
    return "after" in _kinds(table)


def _kinds(table: pd.DataFrame) -> set[str]:
    return set(table[table["workload"].isin(style.workloads(table))]["kind"])


def _panel(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    pays = [v for v in [*rows["images"], *rows["high_images"]] if style.present(v) and v > 0]
    ends = [v for v in pays if v < 1e6]
    last = max([100.0, *(3 * v for v in ends)])
    each = [max(1.0, float(v)) for v in rows["images_per_call"]]
    first = min(each)
    xs = [first * (last / first) ** (i / 120) for i in range(121)]
    shapes = style.markers(rows["label"])
    totals: list[float] = []
    for row in rows.itertuples():
        colour = colours[row.backend]

        def total(
            images: float,
            start: float = row.first_call_s,
            each: float = row.e2e_s / max(1.0, row.images_per_call),
        ) -> float:
            return start + images * each

        ys = [total(x) for x in xs]
        totals += [ys[0], ys[-1]]
        text = f"{style.shorten(row.label, 44)}: {row.shown}  (n = {row.processes})"
        axes.plot(
            xs,
            ys,
            color=colour,
            linewidth=2.4 if row.is_baseline else 1.6,
            linestyle="--" if row.is_baseline else "-",
            label=text,
            marker=shapes[str(row.label)],
            markevery=[20, 60, 100],
            markersize=4,
        )
        if row.kind == "after" and style.present(row.images) and row.images > 0:
            height = total(row.images)
            if style.present(row.low_images):
                high = row.high_images if style.present(row.high_images) else last
                axes.plot(
                    [max(first, row.low_images), max(first, high)],
                    [height, height],
                    color=colour,
                    alpha=0.3,
                    linewidth=9,
                    solid_capstyle="butt",
                )
            axes.plot(
                [row.images, row.images], [1e-9, height], color=colour, linewidth=1, linestyle=":"
            )
            axes.plot(
                row.images,
                height,
                shapes[str(row.label)],
                color=colour,
                markersize=10,
                markeredgecolor="white",
                zorder=5,
            )
    style.plain_log(axes, "x", first * 1.35, last / 1.35)
    style.plain_log(axes, "y", min(totals), max(totals))
    axes.set_xlabel("images after the first call, logarithmic")
    axes.set_ylabel("cumulative time [s], logarithmic")
    style.legend_below(axes, handlelength=2.4)
    if not math.isfinite(max(totals)):
        raise ValueError("a first call or an end-to-end time is not finite")
