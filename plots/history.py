"""Each figure of each cell over runs, with the places where its level changed.

Columns: title (of the panel), unit (s, bytes or count), position (number of the run from 1), run
(label), value (in the unit), mark (the change that begins at this run, or an empty text), level (of
the segment that the run belongs to).
"""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from plots import style

TITLE = "History: each figure over runs, with change points"

_UNITS = {"s": ("seconds", 1.0), "bytes": ("GiB", style.GIB), "count": ("count", 1.0)}


@style.figure_of(
    TITLE,
    nothing="No run holds a figure.",
    notes=(
        "Each dot is a run (median over its processes), in order of time; lower is better, and "
        "axes do not begin at 0. Dashed: the level changed there, by a rank test that marks at "
        "most 1 % of unchanged histories and takes 10 runs. Counts are exact: each change is "
        "marked."
    ),
    height=lambda _: 2.4,
    by="title",
    most=24,
    left_out="{drawn} of {total} series are drawn; the table has all.",
)
def figure(panel: style.Panel) -> None:
    """Draw one series; a dashed line is a change point, a thin one a level."""
    axes, rows = panel.axes, panel.rows
    name, scale = _UNITS[rows["unit"].iloc[0]]
    places, values = rows["position"].to_numpy(), rows["value"].to_numpy() / scale
    axes.step(places, rows["level"].to_numpy() / scale, where="mid", color=style.FAINT, lw=1)
    axes.plot(places, values, "o", color=style.KNOWN["torch-compile"], markersize=4)
    low, high = float(values.min()), float(values.max())
    if name == "count":
        axes.set_ylim(-0.05 * max(high, 1.0), 1.35 * max(high, 1.0))
    else:
        room = max(0.5 * (high - low), 0.03 * high)
        axes.set_ylim(max(low - room, 0.0), high + 1.6 * room)
    for row in rows[rows["mark"].astype(bool)].itertuples():
        axes.axvline(row.position - 0.5, color=style.BAD, linestyle="--", linewidth=1.2)
        right = row.position > 0.6 * float(places.max())
        style.write(
            axes,
            str(row.mark),
            (row.position - 0.5, 0.97),
            (-4 if right else 4, 0),
            xycoords=("data", "axes fraction"),
            ha="right" if right else "left",
            va="top",
            color=style.BAD,
        )
    axes.set_xlabel("run, in order of time")
    axes.set_ylabel(name)
    axes.set_xlim(float(places.min()) - 0.7, float(places.max()) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
