"""Step-time trace within a call.

Columns: workload, label, backend, step (number of the interval, from 1), median_s, low_s, high_s,
calls, processes.
"""

from __future__ import annotations

from plots import style

TITLE = "Time of each denoising step within a call"


@style.figure_of(
    TITLE,
    nothing="No record holds the times of steps.",
    notes=(
        "Intervals between the events of consecutive steps of one call, so one fewer than "
        "steps. Line: median over calls and processes (n = processes × calls). Band: "
        "smallest and largest, cut where they leave the axis."
    ),
    height=lambda rows: 3.0 + 0.2 * len(style.labels(rows)),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: a line for each backend over the steps of a call."""
    axes, rows = panel.axes, panel.rows
    shapes = style.markers(rows["label"])
    for label, one, colour in panel.series():
        n = style.count(one["processes"].iloc[0], one["calls"].iloc[0])
        style.band(axes, one["step"], 1000 * one["low_s"], 1000 * one["high_s"], colour, 0.13)
        axes.plot(
            one["step"],
            1000 * one["median_s"],
            color=colour,
            linewidth=1.5,
            marker=shapes[label],
            markersize=3.5,
            label=f"{style.shorten(label, 44)} · {n}",
        )
    highest = 1000 * float(rows["median_s"].max())
    axes.set_ylim(0, max(highest * 1.35, min(1000 * float(rows["high_s"].max()), highest * 2)))
    axes.set_xlabel("interval between steps, by number")
    style.number_steps(axes, int(rows["step"].max()))
