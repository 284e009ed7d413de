"""The figures of a report: which there are, and the image files of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context

import pandas as pd

import plots.breakeven
import plots.end_to_end
import plots.memory
import plots.pareto
import plots.spread
import plots.stages
import plots.style
import plots.throughput
import plots.trace
import plots.warmup
from reports import frames, sections
from reports.analyse import Comparison
from reports.fidelity import Likeness
from reports.reference import References
from reports.sections.base import Plot


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure: ``name`` is its file's, ``says`` one sentence on how to read it."""

    name: str
    title: str
    says: str
    png: bytes
    svg: bytes


def draw(
    comparisons: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    published: References,
) -> Callable[[], list[Drawn]]:
    """Start to draw every figure that there is something for; what is returned waits for them.

    Drawing takes other processes, so that there is time for something else until then. Workloads
    beyond a page are left out.
    """
    colours = plots.style.colours(
        [f.arm.cell.backend.name for c in comparisons for f in c.findings]
        + [p.backend for rows in published.values() for p in rows]
    )
    plotted = _plotted(comparisons, likenesses, published) | sections.figures(comparisons)
    workers = min(os.cpu_count() or 1, len(plotted), 8)
    if workers < 2 or "fork" not in get_all_start_methods():
        made = [_drawn(name, plot, colours) for name, plot in plotted.items()]
        return lambda: [each for each in made if each is not None]
    pool = ProcessPoolExecutor(
        workers, get_context("fork"), initializer=_inherit, initargs=(plotted, colours)
    )
    jobs = [pool.submit(_inherited, name) for name in plotted]

    def finished() -> list[Drawn]:
        with pool:
            return [each for job in jobs if (each := job.result()) is not None]

    return finished


_INHERITED: list[tuple[Mapping[str, Plot], Mapping[str, str]]] = []
"""In a forked worker, all that there is to draw, so that nothing has to be sent there."""


def _inherit(plotted: Mapping[str, Plot], colours: Mapping[str, str]) -> None:
    _INHERITED.append((plotted, colours))


def _inherited(name: str) -> Drawn | None:
    (plotted, colours), *_ = _INHERITED
    return _drawn(name, plotted[name], colours)


def _drawn(name: str, plot: Plot, colours: Mapping[str, str]) -> Drawn | None:
    tables = plot.tables()
    if all(table.empty for table in tables):
        return None
    figure = plot.module.figure(*tables, colours=colours)
    says = plot.says if isinstance(plot.says, str) else plot.says(*tables)
    return Drawn(name, plot.module.TITLE, says, *plots.style.save(figure))


def _breakeven_says(table: pd.DataFrame) -> str:
    if plots.breakeven.marked(table):
        return (
            "Left of its mark a backend has cost more time in all than the baseline, right of it "
            "less."
        )
    return "A line below the baseline's has cost less time in all by then, one above it more."


def _plotted(
    few: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    published: References,
) -> dict[str, Plot]:
    """Return the figures of every report; sections have more."""
    return {
        "end_to_end": Plot(
            plots.end_to_end,
            lambda: [frames.end_to_end(few, published)],
            "Left is faster. Where the bars of two backends overlap, look at the verdict.",
        ),
        "throughput": Plot(
            plots.throughput,
            lambda: [frames.throughput(few, published)],
            "Right is faster. Without text encoding, VAE and the first step.",
        ),
        "warmup": Plot(
            plots.warmup,
            lambda: [frames.warmup(few, published)],
            "What has to be waited for once per process; a warm compile cache shortens it.",
        ),
        "breakeven": Plot(plots.breakeven, lambda: [frames.breakeven(few)], _breakeven_says),
        "memory": Plot(
            plots.memory,
            lambda: [frames.memory(few)],
            "Lower is better. The cold peak decides what fits while compiling.",
        ),
        "stages": Plot(
            plots.stages,
            lambda: [frames.stages(few)],
            "Where the time goes, and so what a compiler of the denoiser can save at most.",
        ),
        "pareto": Plot(
            plots.pareto,
            lambda: [frames.pareto(few, likenesses)],
            "Right is faster, up is closer to the baseline's images; top right wins.",
        ),
        "spread": Plot(
            plots.spread,
            lambda: [frames.spread(few)],
            "How far a figure moves from process to process and from call to call.",
        ),
        "trace": Plot(
            plots.trace,
            lambda: [frames.trace(few)],
            "Steady steps lie on a flat line; a rise points to throttling.",
        ),
    }


NAMES = frozenset(_plotted([], [], {}))
"""Of the figures that every report may have."""
