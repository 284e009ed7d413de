"""What a new size costs: the first and second call at it, and those that follow.

Columns: workload, label (the size and the backend), backend, first_s, second_s, steady_s (medians
over processes, in seconds), shown (the same in words), why (why there is no steady time).
"""

from __future__ import annotations

from plots import style

TITLE = "What a new size costs: first, second and steady call"

CALLS = {
    "first_s": ("D", "first call at this size"),
    "second_s": ("^", "second call"),
    "steady_s": ("o", "steady"),
}
"""Calls in their order, with the marker and the name of each."""


@style.figure_of(
    TITLE,
    nothing="No run swept the size of the images (sweep.size).",
    notes=(
        "Sizes in the order in which a process met them, after it was warmed up at the "
        "cell's own; medians over processes (n). In words: first, second and steady call. "
        "Where the first mark stands far right of the others, the size was compiled anew: "
        "graphs and recompiles are those of the first two calls. The axis is logarithmic: "
        "a step is a factor."
    ),
    height=style.list_height(0.4),
    key=[style.mark(text, shape, filled=shape == "o") for shape, text in CALLS.values()],
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: a row for each size and backend, a mark for each call."""
    axes = panel.axes
    heights = style.list_rows(axes, [str(label) for label in panel.rows["label"]])
    drawn: list[float] = []
    for height, row in zip(heights, panel.rows.itertuples(), strict=True):
        times = {call: getattr(row, call) for call in CALLS if style.present(getattr(row, call))}
        if not times:
            style.missing(axes, height, row.why)
            continue
        colour = panel.colours[row.backend]
        most = style.marks_on_line(axes, height, colour, times, CALLS, "steady_s")
        style.beside(axes, most, height, str(row.shown))
        drawn += times.values()
    if drawn:
        # The words stand right of the marks and are about as long as the marks' own room.
        style.plain_log(axes, "x", min(drawn), max(drawn) * (max(drawn) / min(drawn)) * 4)
    else:
        axes.set_xticks([])
    axes.set_xlabel("time of one call [s], logarithmic, lower is better")
