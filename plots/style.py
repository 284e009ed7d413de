"""What all figures share: colours, type, panels, and how a figure is written to a file."""

from __future__ import annotations

import functools
import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from PIL import Image

INK = "#1F2328"
FAINT = "#6A737D"
GRID = "#E1E4E8"
BAD = "#A40E26"

KNOWN = {
    "none": "#4D4D4D",
    "torch-compile": "#0072B2",
    "torch-compile-regional": "#D55E00",
    "nexfort": "#009E73",
    "oneflow": "#CC79A7",
}
"""Okabe and Ito's colours (2008), which readers with any colour vision tell apart."""

OTHERS = (
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#999933",
    "#332288",
    "#44AA99",
    "#AA4499",
    "#117733",
    "#661100",
    "#6699CC",
)
"""The rest of them, then Paul Tol's muted scheme, for backends that are not built in."""

MARKERS = "osD^vP*XphH<>d"

DPI = 120
GIB = 1024**3
ROW_LABEL = 30
"""Characters of a line of a row's label."""
PANEL_WIDTH = 6.6
MOST_PANELS = 16
MOST_ROWS = 80
FIRST_ROWS = 16
"""A figure holds all workloads if they fit ``MOST_PANELS`` and ``MOST_ROWS``. If not, it is a
sample in any case, and shows the first workloads within ``FIRST_ROWS``: quick to read and draw."""
LEFT_OUT = (
    "{drawn} of {total} workloads are drawn, the first of the report; the tables have all, and "
    "--workload NAME draws others."
)

# For signs that DejaVu lacks, where the machine has one of them; else a PNG shows boxes.
_FURTHER_FONTS = [
    name
    for name in (
        "Noto Sans CJK JP",
        "Noto Sans CJK SC",
        "WenQuanYi Zen Hei",
        "PingFang SC",
        "Microsoft YaHei",
        "Arial Unicode MS",
    )
    if name in {font.name for font in fontManager.ttflist}
]

_SETTINGS: dict[str, Any] = {
    "font.family": ["sans-serif", *_FURTHER_FONTS],
    # The first comes with matplotlib; the others are as wide or narrower, where an SVG is shown.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    # At a place of its own; else every pass measures all tick labels to keep the title off them.
    "axes.titley": 1.0,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "text.parse_math": False,
}


def settings() -> Any:
    """Return the context in which figures are made and saved."""
    context: Any = mpl.rc_context
    return context(_SETTINGS)


def colours(backends: Iterable[str]) -> dict[str, str]:
    """Return a colour for each backend, the same whatever the order they are given in.

    Built-in names have colours of their own everywhere. Further names take the others in the order
    of the alphabet; from the eleventh on colours repeat, and labels and markers tell them apart.
    """
    names = sorted(set(backends))
    further = [name for name in names if name not in KNOWN]
    return {name: KNOWN.get(name) or OTHERS[further.index(name) % len(OTHERS)] for name in names}


def markers(labels: Iterable[str]) -> dict[str, str]:
    """Return a marker for each label, in the order of first appearance."""
    names = dict.fromkeys(map(str, labels))
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


def own_colours(table: pd.DataFrame) -> dict[str, str]:
    """Return the colours of the backends of a table, if it has any."""
    return colours(map(str, table["backend"].dropna())) if "backend" in table else {}


def workloads(table: pd.DataFrame) -> list[str]:
    """Return the workloads that get a panel, in the order of the table: all if they fit a page."""
    if not len(table):
        return []
    lines = table.drop_duplicates(["workload", "label"]).groupby("workload", sort=False).size()
    names = [str(name) for name in lines.index]
    if len(names) <= MOST_PANELS and lines.sum() <= MOST_ROWS:
        return names
    return names[: max(1, min(MOST_PANELS, int((lines.cumsum() <= FIRST_ROWS).sum())))]


def labels(rows: pd.DataFrame) -> list[str]:
    """Return the labels of a panel's rows, each once, in their order."""
    return [str(label) for label in dict.fromkeys(rows["label"])]


def mark(text: str, shape: str = "o", *, filled: bool = True) -> Line2D:
    """Return an entry of a key: a mark that stands for ``text`` whatever its colour."""
    face = INK if filled else "white"
    return Line2D([], [], marker=shape, linestyle="", color=INK, markerfacecolor=face, label=text)


def legend_below(axes: Axes, distance: float = 0.17, **how: Any) -> None:
    """Put the legend below the axes, ``distance`` of their height away, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -distance), borderaxespad=0.0, **how)


def present(value: Any) -> bool:
    """Return whether a cell of a table holds a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def wrap(label: str, width: int, most: int = 3) -> str:
    """Break a label into lines; what does not fit into ``most`` of them is cut with an ellipsis."""
    label = str(label)
    # A hyphen is a better place to break a long name than the middle of a word, but only then.
    hyphens = any(len(word) > width for word in label.split())
    lines = textwrap.wrap(label, width, break_on_hyphens=hyphens) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][: width - 1] + "…"]
    return "\n".join(lines)


def _row_label(label: str) -> str:
    """Break the label of a row, between a backend's options rather than within one."""
    if len(label) > ROW_LABEL:
        label = label.replace("[", " [").replace(",", ", ")
    return wrap(label, ROW_LABEL)


def shorten(label: str, width: int) -> str:
    """Cut a label in its middle: names of one backend often differ at the end."""
    label = str(label)
    if len(label) <= width:
        return label
    tail = width // 3
    return f"{label[: width - tail - 1]}…{label[-tail:]}"


class Page:
    """A figure of panels, with a title above and notes below.

    Args:
        title: the subject.
        heights: of each panel, in inches.
        notes: sentences below: what marks and intervals mean, what is left out.
        key: marks that mean the same in all panels; they stand below the title.
    """

    def __init__(
        self,
        title: str,
        heights: Sequence[float],
        *,
        notes: Sequence[str] = (),
        key: Sequence[Artist] = (),
    ) -> None:
        columns = min(2, len(heights))
        rows = math.ceil(len(heights) / columns)
        tallest = [max(heights[i * columns : (i + 1) * columns]) for i in range(rows)]
        width = PANEL_WIDTH * columns + (0.8 if columns == 1 else 0.0)
        foot = "\n".join(textwrap.fill(note, int(width * 16.5)) for note in notes if note)
        heading = textwrap.fill(title, int(width * 8.5)) + ("\n" if key else "")
        lines = heading.count("\n") + 1
        height = sum(tallest) + 0.17 * len(foot.splitlines()) + 0.24 * lines + 0.25
        self.figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(self.figure)
        engine: Any = self.figure.get_layout_engine()
        engine.set(w_pad=0.12, h_pad=0.08, hspace=0.03, wspace=0.03)
        self.figure.suptitle(heading, x=0.012, ha="left", fontsize=12, fontweight="bold")
        if foot:
            self.figure.supxlabel(
                foot, x=0.012, ha="left", fontsize=8, color=FAINT, linespacing=1.35
            )
        if key:
            # In the line that the heading leaves free; layout would put it over the heading.
            legend = self.figure.legend(
                handles=list(key),
                ncols=len(key),
                loc="upper left",
                bbox_to_anchor=(0.006, 1 - (0.24 * (lines - 1) + 0.05) / height),
                borderaxespad=0.0,
                columnspacing=1.4,
            )
            legend.set_in_layout(False)
        grid = self.figure.add_gridspec(rows, columns, height_ratios=tallest)
        self.cells = [grid[i // columns, i % columns] for i in range(len(heights))]

    def axes(self, place: int, title: str = "", ratios: Sequence[float] = (1.0,)) -> list[Axes]:
        """Return the axes of a panel from the top, which share their horizontal axis."""
        inner = self.cells[place].subgridspec(len(ratios), 1, height_ratios=ratios)
        cells = [inner[i] for i in range(len(ratios))] if len(ratios) > 1 else [self.cells[place]]
        axes: list[Axes] = []
        for cell in cells:
            axes.append(self.figure.add_subplot(cell, sharex=axes[0] if axes else None))
        if title:
            axes[0].set_title(wrap(title, 46, 2))
        for upper in axes[:-1]:
            upper.tick_params(axis="x", labelbottom=False)
        return axes


@dataclass(frozen=True)
class Panel:
    """What one panel is drawn from.

    Attributes:
        stack: its axes, from the top.
        tables: the panel's rows of each of the figure's tables.
        colours: of the backends.
    """

    stack: Sequence[Axes]
    tables: Sequence[pd.DataFrame]
    colours: Mapping[str, str]

    @property
    def axes(self) -> Axes:
        return self.stack[0]

    @property
    def rows(self) -> pd.DataFrame:
        return self.tables[0]

    def colour(self, rows: pd.DataFrame) -> str:
        """Return the colour of the backend of ``rows``."""
        return self.colours[rows["backend"].iloc[0]]

    def series(self) -> Iterator[tuple[str, pd.DataFrame, str]]:
        """Yield the label, the rows and the colour of each series."""
        for label, rows in self.rows.groupby("label", sort=False):
            yield str(label), rows, self.colour(rows)

    def heights(self) -> dict[str, float]:
        """Make the vertical axis a list of the labels; return the height of each."""
        names = labels(self.rows)
        return dict(zip(names, list_rows(self.axes, names), strict=True))


def figure_of(
    title: str,
    *,
    nothing: str,
    notes: str | Callable[..., Sequence[str]],
    height: Callable[..., float],
    key: Sequence[Artist] | Callable[..., Sequence[Artist]] = (),
    ratios: Sequence[float] | Callable[[pd.DataFrame], Sequence[float]] = (1.0,),
    by: str = "workload",
    most: int = MOST_PANELS,
    left_out: str = LEFT_OUT,
) -> Callable[[Callable[[Panel], None]], Callable[..., Figure]]:
    """Make of a function that draws one panel one that takes tables and returns a figure.

    Args:
        nothing: why there is no figure, if the first table is empty.
        notes, key: as of `Page`, or what returns them for the figure's tables.
        height: of a panel in inches, for its rows of each table.
        ratios: heights of the axes in a panel, as parts of it.
        by: the column that has a value for each panel, in each table.
        most: panels, unless they are by workload, of which there are those of `workloads`.
        left_out: the note where there are more.
    """

    def decorate(draw: Callable[[Panel], None]) -> Callable[..., Figure]:
        @functools.wraps(draw)
        def figure(*tables: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
            table = tables[0]
            every = [str(name) for name in dict.fromkeys(table[by])] if len(table) else []
            names = workloads(table) if by == "workload" else every[:most]
            if not names:
                return empty(title, nothing)
            shades = {**own_colours(table), **(colours or {})}
            parts = [[each[each[by] == name] for each in tables] for name in names]
            texts = [notes] if isinstance(notes, str) else [*notes(*tables)]
            if len(names) < len(every):
                texts.append(left_out.format(drawn=len(names), total=len(every)))
            marks = key(*tables) if callable(key) else key
            with settings():
                page = Page(title, [height(*part) for part in parts], notes=texts, key=marks)
                for place, (name, part) in enumerate(zip(names, parts, strict=True)):
                    each = ratios(part[0]) if callable(ratios) else ratios
                    draw(Panel(page.axes(place, name, each), part, shades))
                return page.figure

        return figure

    return decorate


def empty(title: str, why: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    with settings():
        page = Page(title, [1.0])
        (axes,) = page.axes(0)
        axes.set_axis_off()
        axes.text(0.0, 0.5, textwrap.fill(why, 80), transform=axes.transAxes, va="center")
        return page.figure


def list_rows(axes: Axes, labels: Sequence[str]) -> list[float]:
    """Make the vertical axis a list of labels from the top; return the height of each."""
    heights = [-float(i) for i in range(len(labels))]
    axes.set_yticks(heights, [_row_label(label) for label in labels])
    axes.set_ylim(-len(labels) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    # There is no label to keep off the ticks; without this they are measured twice in every pass.
    axes.yaxis.set_label_coords(0.0, 0.5)
    return heights


def list_height(each: float, base: float = 1.05) -> Callable[[pd.DataFrame], float]:
    """Return what tells the height in inches of a panel that lists labels."""

    def height(rows: pd.DataFrame) -> float:
        names = labels(rows)
        return base + each * len(names) + 0.13 * sum(_row_label(n).count("\n") for n in names)

    return height


def missing(axes: Axes, height: float, why: str | None) -> None:
    """Say in a row of a list why it has no mark."""
    axes.text(
        0.01,
        height,
        textwrap.shorten(str(why or "no figure"), 60, placeholder="…"),
        transform=axes.get_yaxis_transform(),
        va="center",
        ha="left",
        fontsize=8,
        style="italic",
        color=BAD,
    )


def write(
    axes: Axes, text: str, at: tuple[Any, Any], away: tuple[float, float], **how: Any
) -> None:
    """Write a small text, ``away`` points from a place."""
    axes.annotate(text, at, away, textcoords="offset points", **{"fontsize": 8, **how})


def beside(axes: Axes, value: float, height: float, text: str, colour: str = INK) -> None:
    """Write a text to the right of a mark."""
    write(axes, text, (value, height), (7, 0), va="center", color=colour)


def dot(
    axes: Axes,
    x: Any,
    y: Any,
    shape: str,
    colour: str,
    size: float,
    *,
    filled: bool = True,
    **how: Any,
) -> None:
    """Draw one or several marks, filled or hollow."""
    face = {"markerfacecolor": colour if filled else "white"}
    axes.plot(x, y, shape, color=colour, markersize=size, **{**face, **how})


def ring(axes: Axes, rows: pd.DataFrame, size: float, **how: Any) -> None:
    """Ring the points of a law that lie off it."""
    how = {"markerfacecolor": "none", **how}
    dot(axes, rows["mpixels"], rows["gib"], "o", BAD, size, **how)


def label_law(axes: Axes, whose: str, rows: pd.DataFrame) -> None:
    """Label the axes of peak memory over pixels; the law stands below the horizontal one."""
    law = str(rows["law"].iloc[0])
    below = f"\nlaw, {wrap(law, 84)}" if law else ""
    axes.set_xlabel(f"10^6 pixels of {whose}, n = {len(rows)}{below}")
    axes.set_ylabel(f"peak of {rows['meter'].iloc[0]} [GiB]")


def band(axes: Axes, x: Any, low: Any, high: Any, colour: str, alpha: float) -> None:
    """Shade what lies between two lines."""
    axes.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)


Segment = tuple[float, float, float, float]
"""Height of its middle, left end, width, and thickness."""


def segment(axes: Axes, place: Segment, text: str, ink: str, **how: Any) -> None:
    """Draw a part of a horizontal bar, with a text in its middle."""
    height, left, width, thickness = place
    axes.barh(height, width, thickness, left, **how)
    axes.text(left + width / 2, height, text, ha="center", va="center", fontsize=8, color=ink)


def marks_on_line(
    axes: Axes,
    height: float,
    colour: str,
    values: Mapping[str, float],
    shapes: Mapping[str, tuple[str, str]],
    filled: str,
) -> float:
    """Draw the values of a row, each with its shape, and a line through them.

    Returns:
        the largest value.
    """
    ends = [min(values.values()), max(values.values())]
    axes.plot(ends, [height, height], color=colour, alpha=0.35)
    for name, value in values.items():
        shape, _ = shapes[name]
        size = 10 if shape == "|" else 6.5
        dot(axes, value, height, shape, colour, size, filled=name == filled, markeredgewidth=1.6)
    return ends[1]


def from_zero(axes: Axes, furthest: float, room: float) -> None:
    """Let the horizontal axis go from 0 to ``room`` times the furthest mark, for texts beside."""
    axes.set_xlim(0, furthest * room if furthest else 1)


def number_steps(axes: Axes, last: int) -> None:
    """Let the horizontal axis be the numbers of steps, and the vertical one their time."""
    axes.set_xlim(0.5, last + 0.5)
    axes.set_xticks(range(1, last + 1, max(1, round(last / 10))))
    axes.set_ylabel("time of the step [ms]")
    legend_below(axes, 0.2)


def count(processes: int, calls: int) -> str:
    """Return n as processes × calls of each."""
    each = calls / max(processes, 1)
    return f"n = {processes} × {f'{each:.0f}' if each == int(each) else f'{each:.1f}'}"


Reach = tuple[float, float]
"""Least and largest value at which bars of intervals end."""


def reach(values: Iterable[Any]) -> Reach:
    """Return where bars end: an interval of two processes may be a thousand times the values."""
    known = [float(value) for value in values if present(value)] or [0.0]
    return min(known) / 1.6, 1.6 * max(known)


def arrows(table: pd.DataFrame, reach_of: Callable[[pd.DataFrame], Reach], more: str = "") -> str:
    """Return the note on arrows if an interval in a panel goes on beyond its reach, or nothing."""
    for name in workloads(table):
        rows = table[table["workload"] == name]
        least, most = reach_of(rows)
        if any(present(value) and value < least for value in rows["low"]) or any(
            present(value) and value > most for value in rows["high"]
        ):
            return f"Arrow: the interval goes on beyond the axis{more}."
    return ""


def interval(
    axes: Axes,
    at: float,
    low: Any,
    high: Any,
    within: Reach,
    colour: str,
    *,
    upright: bool = False,
    arrow: float = 7,
    zorder: float | None = None,
    **line: Any,
) -> None:
    """Draw an interval, if there is one, as a bar at ``at``; arrows where it is cut."""
    if not (present(low) and present(high)):
        return

    def draw(along: list[float], *shape: str, **how: Any) -> None:
        across = [at] * len(along)
        places = (across, along) if upright else (along, across)
        axes.plot(*places, *shape, color=colour, zorder=zorder, **how)

    least, most = within
    draw([min(max(end, least), most) for end in (low, high)], **line)
    if low < least:
        draw([least], "v" if upright else "<", markersize=arrow)
    if high > most:
        draw([most], "^" if upright else ">", markersize=arrow)


WIDE = 12.25
"""Fewest times that a logarithmic axis of unlike times or sizes grows from end to end."""
CLOSE = 1.5
"""The same of ratios that may all lie near 1."""


def plain_log(axes: Axes, which: str, low: float, high: float, *, least: float = WIDE) -> None:
    """Make an axis logarithmic, labelled by plain numbers, with room on both sides.

    Its end is at least ``least`` times its beginning.
    """
    room = min(1.35, math.sqrt(least))
    low, high = low / room, high * room
    if high / low < least:
        middle = math.sqrt(low * high)
        low = min(low, middle / math.sqrt(least))
        high = max(high, middle * math.sqrt(least))
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    decades = math.log10(high / low)
    if decades < 8:
        axis.set_major_locator(FixedLocator(_log_ticks(low, high)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: equal steps if it is short, else equal factors."""
    decades = math.log10(high / low)
    if decades < 0.7:
        ticks = [float(tick) for tick in MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high)]
    else:
        steps = (1.0, 2.0, 5.0) if decades < 3 else (1.0, 3.0) if decades < 4 else (1.0,)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def plain(value: float) -> str:
    """Return a tick's number without an exponent, as short as it is exact."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6f}".rstrip("0").rstrip(".")


def save(figure: Figure) -> tuple[bytes, bytes]:
    """Return a figure as (PNG, SVG): equal bytes for equal figures.

    Draws once for each file and no more often, as drawing is most of the time that a report takes.
    """
    with settings(), warnings.catch_warnings():
        # A sign that no font has is a box in the PNG; the SVG and the pages hold the sign itself.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        canvas: Any = FigureCanvasAgg(figure)
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
        figure.set_layout_engine("none")
        canvas.draw()
        png = io.BytesIO()
        # The palette of a figure is small: a quarter of the bytes, and no visible difference.
        Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(
            256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        ).save(png, format="png", dpi=(DPI, DPI))
        svg = io.StringIO()
        vector: Any = FigureCanvasSVG(figure)
        vector.print_svg(svg, metadata={"Date": None, "Creator": None})
    return png.getvalue(), svg.getvalue().encode("utf-8")
