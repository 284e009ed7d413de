"""The figures of a report: which there are, and the picture files of each."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context

import pandas as pd

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
) -> list[Drawn]:
    """Draw every figure that there is something for; workloads beyond a page are left out."""
    colours = plots.style.colours(
        [f.row.backend for c in comparisons for f in c.findings]
        + [p.backend for rows in published.values() for p in rows]
    )
    own = sections.figures(comparisons)
    plotted = {**_tables(comparisons, likenesses, published), **own}
    tables = {
        name: plot
        for name, plot in plotted.items()
        if not all(table.empty for table in plot.tables)
    }
    made = _saved(tables, colours)
    return [
        Drawn(name, plot.module.TITLE, plot.says, *made[name], in_section=name in own)
        for name, plot in tables.items()
    ]


def _saved(
    tables: Mapping[str, Plot], colours: Mapping[str, str]
) -> dict[str, tuple[bytes, bytes]]:
    """Draw each figure to (PNG, SVG), on all processors if there are several figures."""
    workers = min(os.cpu_count() or 1, len(tables), 8)
    if workers < 2 or "fork" not in get_all_start_methods():
        return {
            name: _one(plot.module.__name__, plot.tables, colours) for name, plot in tables.items()
        }
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        jobs = {
            name: pool.submit(_one, plot.module.__name__, plot.tables, colours)
            for name, plot in tables.items()
        }
        return {name: job.result() for name, job in jobs.items()}


def _one(name: str, tables: list[pd.DataFrame], colours: Mapping[str, str]) -> tuple[bytes, bytes]:
    module = importlib.import_module(name)
    return plots.style.save(module.figure(*tables, colours=colours))


def _tables(
    few: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    published: frames.References,
) -> dict[str, Plot]:
    return {
        "end_to_end": Plot(
            plots.end_to_end,
            [frames.end_to_end(few, published)],
            "Left is faster. Where the bars of two backends overlap, look at the verdict.",
        ),
        "throughput": Plot(
            plots.throughput,
            [frames.throughput(few, published)],
            "Right is faster. Without text encoding, VAE and the first step.",
        ),
        "warmup": Plot(
            plots.warmup,
            [frames.warmup(few, published)],
            "What has to be waited for once per process; a warm compile cache shortens it.",
        ),
        "breakeven": Plot(
            plots.breakeven,
            [frames.breakeven(few)],
            (
                "Left of its mark a backend has cost more time in all than the baseline, right "
                "of it "
                "less."
            ),
        ),
        "memory": Plot(
            plots.memory,
            [frames.memory(few)],
            "Left is less. The cold peak decides what fits while compiling.",
        ),
        "stages": Plot(
            plots.stages,
            [frames.stages(few)],
            "Where the time goes, and so what a compiler of the denoiser can save at most.",
        ),
        "roofline": Plot(
            plots.roofline,
            [frames.roofline(few)],
            "The distance to the roof is what a faster program could still gain on this device.",
        ),
        "pareto": Plot(
            plots.pareto,
            [frames.pareto(few, likenesses)],
            "Right is faster, up is closer to the baseline's pictures; top right wins.",
        ),
        "sweep": Plot(
            plots.sweep,
            list(frames.sweep(few)),
            "The slope is the cost of a step, the height at 0 what every call costs besides.",
        ),
        "sizes": Plot(
            plots.sizes,
            [frames.sizes(few)],
            "The distance from the first mark to the last is the price of meeting a size.",
        ),
        "spread": Plot(
            plots.spread,
            [frames.spread(few)],
            "How far a figure moves from process to process and from call to call.",
        ),
        "trace": Plot(
            plots.trace,
            [frames.trace(few)],
            "Steady steps lie on a flat line; a rise points to throttling.",
        ),
    }


NAMES = frozenset(
    {"end_to_end", "throughput", "warmup", "breakeven", "memory", "stages", "roofline", "pareto",
     "sweep", "sizes", "spread", "trace"}
)  # fmt: skip
"""Of all figures that a report may have; each is the name of its module in ``plots`` too, but for
those of sections, which may draw several with one.
"""
