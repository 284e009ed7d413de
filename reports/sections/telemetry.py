"""Telemetry: what the machine did while calls were repeated, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

import plots.telemetry
from bench import text
from bench.telemetry import derive
from reports.analyse import Comparison
from reports.gather import Sample
from reports.sections.base import Plot, Section
from reports.view import Cell, Table

COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("gpu_pct", "GPU busy [%]", 1),
    ("gpu_memory_pct", "GPU memory busy [%]", 1),
    ("device_used_bytes", "GPU memory, all [GiB]", 1024**3),
    ("process_used_bytes", "GPU memory, worker [GiB]", 1024**3),
    ("power_w", "power [W]", 1),
    ("sm_clock_mhz", "SM clock [MHz]", 1),
    ("temperature_c", "temperature [°C]", 1),
    ("cpu_pct", "CPU [%]", 1),
    ("rss_bytes", "host memory [GiB]", 1024**3),
)
"""Quantity, head of its column, and what it is divided by."""

SAYS = (
    "Each strip is one quantity of one process, sampled from outside; calls are shaded. A quantity "
    "that falls while calls go on, or a clock below its usual, is a machine that is held back."
)


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure, whose tables are empty without telemetry."""
    samples, calls = [], []
    for title, sample in _passes(comparisons):
        found = sample.more["telemetry"]
        for name in plots.telemetry.QUANTITIES:
            values = found["columns"].get(name)
            if values is None:
                continue
            for when, value in derive.points(found["columns"]["t_s"], values):
                samples.append((title, title, sample.backend, name, when, value))
        calls += [(title, title, call[0], call[1]) for call in found["calls"]]
    columns = ["workload", "label", "backend", "quantity", "t_s", "value"]
    tables = [
        pd.DataFrame(samples, columns=columns),
        pd.DataFrame(calls, columns=["workload", "label", "begin_s", "end_s"]),
    ]
    return {"telemetry": Plot(plots.telemetry, tables, SAYS)}


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section; None if no record has telemetry."""
    passes = [
        (title, sample, derive.summary(sample.more["telemetry"], sample.null_reasons))
        for title, sample in _passes(comparisons)
    ]
    if not passes:
        return None
    told = [sample.more["telemetry"] for _, sample, _ in passes]
    periods = [found["achieved_s"] for found in told if found["achieved_s"] is not None]
    asked = sorted({found["period_s"] for found in told})
    says = [
        "After the measured calls, equal calls were repeated while the parent process sampled from "
        f"outside, every {_listed(asked)} as asked"
        + (f" and every {min(periods):.3g} to {max(periods):.3g} s in fact" if periods else "")
        + ". None of it ran during timed calls. Averages and peaks are of the samples from the "
        "first call's begin to the last call's end; idle is the second or so before and after.",
        (
            "Energy per image is the integral of sampled power over these calls (trapezoid rule), "
            "divided by their images; beside it, where the GPU has one, its own energy counter "
            "over the same span. It is the GPU's energy alone, idle power included."
        ),
        (
            "CPU is that of the worker and its children; 100 % is every logical CPU of the machine "
            f"({_listed(sorted({f['cpus'] for f in told if f['cpus']}), '')})."
        ),
    ]
    flagged = [(title, flag) for title, _, found in passes for flag in found.flags]
    if flagged:
        says.append(
            "To beware of: " + "; ".join(f"{title}: {flag}" for title, flag in flagged) + "."
        )
    else:
        looked = "throttling, other processes on the GPU, " if _has_gpu(told) else ""
        says.append(f"Nothing to beware of: {looked}drift and late samples were looked for.")
    return Section(
        "telemetry",
        "Telemetry",
        says,
        figures=["telemetry"],
        tables=[_table(passes), *_nulls(passes)],
    )


def _passes(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, Sample]]:
    """Yield each process that has telemetry, with a title of its own."""
    for comparison in comparisons:
        for finding in comparison.findings:
            for sample in finding.row.recorded:
                if sample.more.get("telemetry"):
                    which = f", process {sample.round + 1}" if sample.rounds_planned > 1 else ""
                    yield f"{comparison.group.title} / {finding.row.label}{which}", sample


def _table(passes: Sequence[tuple[str, Sample, derive.Summary]]) -> Table:
    known = [c for c in COLUMNS if any(c[0] in found.quantities for _, _, found in passes)]
    energy = any(found.energy.per_image_j is not None for _, _, found in passes)
    head = ["cell", "calls", "images"]
    for _, name, _ in known:
        head += [f"{name} average", "peak", "idle"]
    if energy:
        head += ["energy per image [J]", "by counter [J]", "differs by [%]"]
    rows = []
    for title, _, found in passes:
        row = [Cell(title)]
        row += [Cell(str(n), n, "number") for n in (found.calls, found.images)]
        for key, _, scale in known:
            each = found.quantities.get(key, derive.Quantity(None, None, None, None, 0))
            row += [_figure(each.average, scale), _figure(each.peak, scale)]
            row.append(_figure(each.before, scale))
        if energy:
            one = found.energy
            row += [_figure(one.per_image_j), _figure(one.counter_per_image_j)]
            row.append(_figure(one.disagreement_pct))
        rows.append(row)
    return Table("Averages, peaks and energy", head, rows)


def _nulls(passes: Sequence[tuple[str, Sample, derive.Summary]]) -> list[Table]:
    """Return the table of what could not be sampled, and why; quantities of one reason together."""
    why: dict[tuple[str, str], list[str]] = {}
    for title, sample, found in passes:
        for name, reason in sample.null_reasons.items():
            if name.startswith("telemetry."):
                why.setdefault((title, reason), []).append(name.removeprefix("telemetry."))
        if found.energy.reason is not None:
            why.setdefault((title, found.energy.reason), []).append("energy per image")
    if not why:
        return []
    rows = [[Cell(title), Cell(", ".join(n)), Cell(reason)] for (title, reason), n in why.items()]
    return [Table("What could not be sampled", ["cell", "quantities", "why"], rows, folded=True)]


def _has_gpu(told: Sequence[Mapping[str, Any]]) -> bool:
    return any(found["columns"].get("throttle_bits") for found in told)


def _figure(value: float | None, scale: float = 1) -> Cell:
    scaled = None if value is None else value / scale
    return Cell(text.number(scaled), scaled, "number")


def _listed(values: Sequence[float], unit: str = " s") -> str:
    return ", ".join(f"{value:g}{unit}" for value in values)
