"""What all figures share: colours, type, panels, and how a figure is written to a file."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
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
ROW_LABEL = 30
"""Characters of a line of a row's label."""
PANEL_WIDTH = 6.6
MOST_PANELS = 16
MOST_ROWS = 80
FIRST_ROWS = 16
"""A figure holds all workloads if they fit ``MOST_PANELS`` and ``MOST_ROWS``. If not, it is a
sample in any case, and shows the first workloads within ``FIRST_ROWS``: quick to read and draw."""

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
    return {
        **{name: KNOWN[name] for name in names if name in KNOWN},
        **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(further)},
    }


def markers(labels: Iterable[str]) -> dict[str, str]:
    """Return a marker for each label, in the order of first appearance."""
    return {
        label: MARKERS[i % len(MARKERS)] for i, label in enumerate(dict.fromkeys(map(str, labels)))
    }


def colour_of(table: pd.DataFrame, given: Mapping[str, str] | None) -> Mapping[str, str]:
    own = colours(str(name) for name in table["backend"].dropna()) if len(table) else {}
    return {**own, **(given or {})}


def workloads(table: pd.DataFrame) -> list[str]:
    """Return the workloads that get a panel, in the order of the table: all if they fit a page."""
    if not len(table):
        return []
    lines = table.drop_duplicates(["workload", "label"]).groupby("workload", sort=False).size()
    names = [str(name) for name in lines.index]
    if len(names) <= MOST_PANELS and lines.sum() <= MOST_ROWS:
        return names
    return names[: max(1, min(MOST_PANELS, int((lines.cumsum() <= FIRST_ROWS).sum())))]


def of(table: pd.DataFrame, workload: str) -> pd.DataFrame:
    return table[table["workload"] == workload]


def labels(rows: pd.DataFrame) -> list[str]:
    """Return the labels of a panel's rows, each once, in their order."""
    return [str(label) for label in dict.fromkeys(rows["label"])]


def mark(text: str, shape: str = "o", *, filled: bool = True) -> Line2D:
    """Return an entry of a key: a mark that stands for ``text`` whatever its colour."""
    return Line2D(
        [],
        [],
        marker=shape,
        linestyle="",
        color=INK,
        markerfacecolor=INK if filled else "white",
        label=text,
    )


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
    """A figure of panels, one for each workload, with a title above and notes below.

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
        panels = max(1, len(heights))
        columns = min(2, panels)
        rows = math.ceil(panels / columns)
        tallest = [max(heights[i * columns : (i + 1) * columns], default=2.0) for i in range(rows)]
        width = PANEL_WIDTH * columns + (0.8 if columns == 1 else 0.0)
        characters = int(width * 16.5)
        told = "\n".join(textwrap.fill(note, characters) for note in notes if note)
        heading = textwrap.fill(title, int(width * 8.5))
        if key:
            heading += "\n"
        lines = (told.count("\n") + 1 if told else 0, heading.count("\n") + 1)
        height = sum(tallest) + 0.17 * lines[0] + 0.24 * lines[1] + 0.25
        self.figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(self.figure)
        engine: Any = self.figure.get_layout_engine()
        engine.set(w_pad=0.12, h_pad=0.08, hspace=0.03, wspace=0.03)
        self.figure.suptitle(heading, x=0.012, ha="left", fontsize=12, fontweight="bold")
        if told:
            self.figure.supxlabel(
                told, x=0.012, ha="left", fontsize=8, color=FAINT, linespacing=1.35
            )
        if key:
            # In the line that the heading leaves free; layout would put it over the heading.
            legend = self.figure.legend(
                handles=list(key),
                ncols=len(key),
                loc="upper left",
                bbox_to_anchor=(0.006, 1 - (0.24 * (lines[1] - 1) + 0.05) / height),
                borderaxespad=0.0,
                columnspacing=1.4,
            )
            legend.set_in_layout(False)
        grid = self.figure.add_gridspec(rows, columns, height_ratios=tallest)
        self.cells = [grid[i // columns, i % columns] for i in range(panels)]

    def axes(self, place: int, title: str = "") -> Axes:
        axes = self.figure.add_subplot(self.cells[place])
        if title:
            axes.set_title(wrap(title, 46, 2))
        return axes

    def pair(self, place: int, title: str, ratios: tuple[float, float]) -> tuple[Axes, Axes]:
        """Return two axes above one another in one panel, which share their horizontal axis."""
        inner = self.cells[place].subgridspec(2, 1, height_ratios=ratios)
        upper = self.figure.add_subplot(inner[0])
        lower = self.figure.add_subplot(inner[1], sharex=upper)
        upper.set_title(wrap(title, 46, 2))
        return upper, lower


def panels(
    table: pd.DataFrame,
    title: str,
    draw: Callable[[Axes, pd.DataFrame, Mapping[str, str]], None],
    *,
    nothing: str,
    notes: Sequence[str],
    height: Callable[[pd.DataFrame], float],
    colours: Mapping[str, str] | None,
    key: Sequence[Artist] = (),
) -> Figure:
    """Return a figure with one panel for each workload that has room.

    Args:
        draw: fills the axes of a panel from the rows of its workload and the backends' colours.
        nothing: why there is no figure, if the table is empty.
        notes, key: as of `Page`; workloads without a panel are noted besides.
        height: of a panel with these rows, in inches.
    """
    names = workloads(table)
    if not names:
        return empty(title, nothing)
    shades = colour_of(table, colours)
    with settings():
        parts = [of(table, name) for name in names]
        page = Page(title, list(map(height, parts)), notes=[*notes, left_out(table)], key=key)
        for place, (name, rows) in enumerate(zip(names, parts, strict=True)):
            draw(page.axes(place, name), rows, shades)
        return page.figure


def empty(title: str, why: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    with settings():
        page = Page(title, [1.0])
        axes = page.axes(0)
        axes.set_axis_off()
        axes.text(0.0, 0.5, textwrap.fill(why, 80), transform=axes.transAxes, va="center")
        return page.figure


def left_out(table: pd.DataFrame) -> str:
    """Return the note on workloads that have no panel, or nothing."""
    total = table["workload"].nunique() if len(table) else 0
    drawn = len(workloads(table))
    if total <= drawn:
        return ""
    return (
        f"{drawn} of {total} workloads are drawn, the first of the report; the tables have all, "
        "and --workload NAME draws others."
    )


def rows(axes: Axes, labels: Sequence[str], *, last: float | None = None) -> list[float]:
    """Make the vertical axis a list of labels from the top; return the height of each."""
    heights = [-float(i) for i in range(len(labels))]
    axes.set_yticks(heights, [_row_label(label) for label in labels])
    axes.set_ylim((-len(labels) + 0.4) if last is None else last, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    # There is no label to keep off the ticks; without this they are measured twice in every pass.
    axes.yaxis.set_label_coords(0.0, 0.5)
    return heights


def panel_height(labels: Sequence[str], each: float = 0.34, base: float = 1.0) -> float:
    """Return the height of a panel that lists ``labels``, in inches."""
    lines = sum(_row_label(label).count("\n") + 1 for label in labels)
    return base + each * len(labels) + 0.13 * (lines - len(labels))


def missing(axes: Axes, height: float, why: str) -> None:
    """Say in a row of a list why it has no mark."""
    axes.text(
        0.01,
        height,
        textwrap.shorten(why, 60, placeholder="…"),
        transform=axes.get_yaxis_transform(),
        va="center",
        ha="left",
        fontsize=8,
        style="italic",
        color=BAD,
    )


def beside(
    axes: Axes,
    values: Sequence[float],
    heights: Sequence[float],
    texts: Sequence[str],
    colour: str = INK,
) -> None:
    """Write a text to the right of each mark."""
    for value, height, text in zip(values, heights, texts, strict=True):
        axes.annotate(
            text,
            (value, height),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
        )


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
