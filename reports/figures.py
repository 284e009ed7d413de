"""The figures of a report: which there are, and the picture files of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context

import plots.breakeven
import plots.end_to_end
import plots.memory
import plots.pareto
import plots.roofline
import plots.sizes
import plots.spread
import plots.stages
import plots.style
import plots.sweep
import plots.throughput
import plots.trace
import plots.warmup
from reports import frames, sections
from reports.analyse import Comparison
from reports.fidelity import Likeness
from reports.sections import Plot


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure: ``name`` is its file's, ``says`` one sentence on how to read it.

    ``in_section`` is true of those that a section of the report shows.
    """

    name: str
    title: str
    says: str
    png: bytes
    svg: bytes
    in_section: bool = False


def draw(
    comparisons: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    published: frames.References,
) -> Callable[[], list[Drawn]]:
    """Start to draw every figure that there is something for; what is returned waits for them.

    Drawing takes other processes, so that there is time for something else until then. Workloads
    beyond a page are left out.
    """
    colours = plots.style.colours(
        [f.row.backend for c in comparisons for f in c.findings]
        + [p.backend for rows in published.values() for p in rows]
    )
    own = sections.figures(comparisons)
    plotted: dict[str, _Plotted] = {
        **_plotted(comparisons, likenesses, published),
        **{name: partial(_itself, plot) for name, plot in own.items()},
    }
    saved = _saved(plotted, colours)
    return lambda: [
        Drawn(name, *made, in_section=name in own)
        for name, made in saved().items()
        if made is not None
    ]


_Plotted = Callable[[], Plot]
_Made = tuple[str, str, bytes, bytes]
"""Title, how to read it, PNG, SVG."""


def _itself(plot: Plot) -> Plot:
    return plot


def _saved(
    plotted: Mapping[str, _Plotted], colours: Mapping[str, str]
) -> Callable[[], dict[str, _Made | None]]:
    """Start to draw each figure, on all processors; None of one that there is nothing for."""
    workers = min(os.cpu_count() or 1, len(plotted), 8)
    if workers < 2 or "fork" not in get_all_start_methods():
        return lambda: {name: _made(plot(), colours) for name, plot in plotted.items()}
    pool = ProcessPoolExecutor(
        workers, get_context("fork"), initializer=_inherit, initargs=(plotted, colours)
    )
    jobs = {name: pool.submit(_inherited, name) for name in plotted}

    def saved() -> dict[str, _Made | None]:
        with pool:
            return {name: job.result() for name, job in jobs.items()}

    return saved


_INHERITED: list[tuple[Mapping[str, _Plotted], Mapping[str, str]]] = []
"""In a forked worker, all that there is to draw, so that nothing has to be sent there."""


def _inherit(plotted: Mapping[str, _Plotted], colours: Mapping[str, str]) -> None:
    _INHERITED.append((plotted, colours))


def _inherited(name: str) -> _Made | None:
    (plotted, colours), *_ = _INHERITED
    return _made(plotted[name](), colours)


def _made(plot: Plot, colours: Mapping[str, str]) -> _Made | None:
    if all(table.empty for table in plot.tables):
        return None
    figure = plot.module.figure(*plot.tables, colours=colours)
    return plot.module.TITLE, plot.says, *plots.style.save(figure)


def _plotted(
    few: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    published: frames.References,
) -> dict[str, _Plotted]:
    return {
        "end_to_end": lambda: Plot(
            plots.end_to_end,
            [frames.end_to_end(few, published)],
            "Left is faster. Where the bars of two backends overlap, look at the verdict.",
        ),
        "throughput": lambda: Plot(
            plots.throughput,
            [frames.throughput(few, published)],
            "Right is faster. Without text encoding, VAE and the first step.",
        ),
        "warmup": lambda: Plot(
            plots.warmup,
            [frames.warmup(few, published)],
            "What has to be waited for once per process; a warm compile cache shortens it.",
        ),
        "breakeven": lambda: _breakeven(few),
        "memory": lambda: Plot(
            plots.memory,
            [frames.memory(few)],
            "Left is less. The cold peak decides what fits while compiling.",
        ),
        "stages": lambda: Plot(
            plots.stages,
            [frames.stages(few)],
            "Where the time goes, and so what a compiler of the denoiser can save at most.",
        ),
        "roofline": lambda: Plot(
            plots.roofline,
            [frames.roofline(few)],
            "The distance to the roof is what a faster program could still gain on this device.",
        ),
        "pareto": lambda: Plot(
            plots.pareto,
            [frames.pareto(few, likenesses)],
            "Right is faster, up is closer to the baseline's pictures; top right wins.",
        ),
        "sweep": lambda: Plot(
            plots.sweep,
            list(frames.sweep(few)),
            "The slope is the cost of a step, the height at 0 what every call costs besides.",
        ),
        "sizes": lambda: Plot(
            plots.sizes,
            [frames.sizes(few)],
            "The distance from the first mark to the last is the price of meeting a size.",
        ),
        "spread": lambda: Plot(
            plots.spread,
            [frames.spread(few)],
            "How far a figure moves from process to process and from call to call.",
        ),
        "trace": lambda: Plot(
            plots.trace,
            [frames.trace(few)],
            "Steady steps lie on a flat line; a rise points to throttling.",
        ),
    }


def _breakeven(few: Sequence[Comparison]) -> Plot:
    table = frames.breakeven(few)
    says = "A line below the baseline's has cost less time in all by then, one above it more."
    if plots.breakeven.marked(table):
        says = "Left of its mark a backend has cost more time in all than the baseline, right of "
        says += "it less."
    return Plot(plots.breakeven, [table], says)


NAMES = frozenset(
    {"end_to_end", "throughput", "warmup", "breakeven", "memory", "stages", "roofline", "pareto",
     "sweep", "sizes", "spread", "trace"}
)  # fmt: skip
"""Of all figures that a report may have; each is the name of its module in ``plots`` too, but for
those of sections, which may draw several with one.
"""
