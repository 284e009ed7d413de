"""Peak memory by phase.

Columns: workload, label, backend, meter, phase, gib, shown, why. One meter for each workload:
values of different meters are never put side by side.
"""

from __future__ import annotations

from plots import style

TITLE = "Peak memory by phase, by backend"

PHASES = {
    "load": ("|", "load"),
    "prepare": ("^", "prepare"),
    "warmup": ("D", "warm-up (cold peak)"),
    "steady": ("o", "steady (warm peak)"),
}
"""Phases in order, with their marker and how the legend calls them."""


@style.figure_of(
    TITLE,
    nothing="No record holds a memory figure.",
    notes=(
        "Largest peak over all processes of a row; peaks are reset between phases. The "
        "number is the steady peak, the filled mark. The meter stands in each panel's "
        "axis; figures of different meters must not be compared."
    ),
    height=style.list_height(0.36),
    key=[style.mark(text, shape, filled=shape == "o") for shape, text in PHASES.values()],
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: a row for each backend, a mark for each phase."""
    axes, heights = panel.axes, panel.heights()
    furthest = 0.0
    for label, rows, _ in panel.series():
        known = rows[[style.present(v) for v in rows["gib"]]]
        if known.empty:
            style.missing(axes, heights[label], rows["why"].iloc[0])
            continue
        peaks = dict(zip(known["phase"], known["gib"], strict=True))
        colour = panel.colour(known)
        most = style.marks_on_line(axes, heights[label], colour, peaks, PHASES, "steady")
        for shown in known.loc[known["phase"] == "steady", "shown"]:
            style.beside(axes, most, heights[label], f"steady {shown} GiB")
        furthest = max(furthest, most)
    style.from_zero(axes, furthest, 1.4)
    meters = [str(meter) for meter in panel.rows["meter"].dropna().unique()]
    axes.set_xlabel(f"peak memory [GiB], meter: {', '.join(meters) or 'none'}")
