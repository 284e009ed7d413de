"""Warm-up time by backend on a logarithmic axis, cold beside warm compile cache.

Columns: workload, label (without the cache), backend, cache (fresh or warm), value, points (one sum
for each process), shown, published, why.
"""

from __future__ import annotations

from plots import style

TITLE = "Warm-up time before the first steady call, by backend"


@style.figure_of(
    TITLE,
    nothing="No record holds a warm-up time.",
    notes=lambda table: [
        (
            "Warm-up time: sum of all warm-up calls, the first included; median over "
            "processes (n), with the smallest and the largest as a line. Filled: compile "
            "cache empty at the start. Open: filled by an earlier process. The axis is "
            "logarithmic: a step is a factor."
        ),
        "Crosses: published by others on another machine." if table["published"].any() else "",
    ],
    height=style.list_height(0.42),
    key=[style.mark("cold (fresh cache)"), style.mark("warm cache", filled=False)],
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: filled marks cold, open marks with a warm cache."""
    axes, heights = panel.axes, panel.heights()
    values: list[float] = []
    for label, rows, _ in panel.series():
        known = rows[[style.present(v) and v > 0 for v in rows["value"]]]
        if known.empty:
            style.missing(axes, heights[label], rows["why"].iloc[0])
        for row in known.itertuples():
            cold = row.cache != "warm"
            several = rows["cache"].nunique() > 1
            height = heights[label] + (0.0 if not several else 0.2 if cold else -0.2)
            colour = panel.colours[row.backend]
            points = [v for v in row.points if style.present(v) and v > 0] or [row.value]
            ends = [min(points), max(points)]
            axes.plot(ends, [height, height], color=colour, linewidth=2, alpha=0.6)
            shape, edge = ("x", 2) if row.published else ("o", 1.5)
            style.dot(axes, row.value, height, shape, colour, 7, filled=cold, markeredgewidth=edge)
            n = "published" if row.published else f"n = {len(points)}"
            style.beside(axes, ends[1], height, f"{row.shown} s · {n}")
            values += points
    if values:
        style.plain_log(axes, "x", min(values), max(values) * 3)
    else:
        axes.set_xticks([])
    axes.set_xlabel("warm-up time [s], logarithmic, lower is better")
