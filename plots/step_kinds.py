"""Steps that ran the whole denoiser beside steps that reused features.

Columns: workload, label, backend, step (number of the denoiser call, from 1), kind (full or
shallow), median_s, low_s, high_s (over calls and processes), calls, processes.
"""

from __future__ import annotations

from plots import style

TITLE = "Full and shallow steps of step caching"
SHAPES = {"full": "o", "shallow": "v"}


@style.figure_of(
    TITLE,
    nothing="No backend of this run reuses features between steps.",
    notes=(
        "A mark is the median time of one step over all measured calls (n = processes × "
        "calls), its bar the smallest and the largest. Step i is timed from the event of "
        "step i - 1 to its own, so the first step has no time. Lines: the median over the "
        "steps of a kind."
    ),
    height=lambda rows: 3.0 + 0.4 * len(style.labels(rows)),
    key=[
        style.mark("full: the whole denoiser"),
        style.mark("shallow: deep features reused", "v", filled=False),
    ],
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: each step's time, by its kind, with both medians."""
    axes, rows = panel.axes, panel.rows
    names = style.labels(rows)
    for place, (label, one, colour) in enumerate(panel.series()):
        aside = 0.5 * ((place + 1) / (len(names) + 1) - 0.5)
        n = style.count(one["processes"].iloc[0], one["calls"].iloc[0])
        for kind, of_kind in one.groupby("kind", sort=False):
            whole = kind == "full"
            centre = 1000 * of_kind["median_s"]
            axes.errorbar(
                of_kind["step"] + aside,
                centre,
                [centre - 1000 * of_kind["low_s"], 1000 * of_kind["high_s"] - centre],
                fmt=SHAPES[str(kind)],
                color=colour,
                markersize=5,
                markerfacecolor=colour if whole else "white",
                elinewidth=0.9,
                linestyle="",
            )
            middle = float(centre.median())
            axes.axhline(
                middle,
                color=colour,
                linewidth=1.2,
                linestyle="-" if whole else "--",
                alpha=0.7,
                label=f"{style.shorten(label, 40)} · {kind} {middle:.3g} ms · {n}",
            )
    axes.set_ylim(0, 1.15 * min(1000 * rows["high_s"].max(), 2500 * rows["median_s"].max()))
    axes.set_xlabel("step of a generation, by number")
    style.number_steps(axes, int(rows["step"].max()))
