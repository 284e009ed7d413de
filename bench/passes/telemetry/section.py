"""Telemetry: what the machine did while calls were repeated, and what to beware of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

import plots.telemetry
from bench import text
from bench.passes.telemetry.judge import Summary, points, summarise
from bench.passes.telemetry.record import Fields, Telemetry
from bench.records import Record
from reports import frames
from reports.analyse import Comparison
from reports.sections.base import Plot, Section
from reports.tables import Column, Table, present, table

QUANTITIES: tuple[tuple[str, str, float], ...] = (
    ("gpu_pct", "GPU busy [%]", 1),
    ("gpu_memory_pct", "GPU memory busy [%]", 1),
    ("device_used_bytes", "GPU memory, all [GiB]", text.GIB),
    ("process_used_bytes", "GPU memory, worker [GiB]", text.GIB),
    ("power_w", "power [W]", 1),
    ("sm_clock_mhz", "SM clock [MHz]", 1),
    ("temperature_c", "temperature [°C]", 1),
    ("cpu_pct", "CPU [%]", 1),
    ("rss_bytes", "host memory [GiB]", text.GIB),
)
"""Quantity, head of its column, and what it is divided by."""

SAYS = (
    "Each strip is one quantity of one process, sampled from outside; calls are shaded. A quantity "
    "that falls while calls go on, or a clock below its usual, is a machine that is held back."
)


class _Pass(NamedTuple):
    """One process that has telemetry, with a title of its own."""

    title: str
    record: Record
    telemetry: Telemetry
    summary: Summary


def _passes(comparisons: Sequence[Comparison]) -> Iterator[_Pass]:
    for comparison, finding, _ in frames.rows(comparisons):
        for record in finding.arm.records:
            telemetry = record.part(Fields).telemetry
            if telemetry is not None:
                several = finding.arm.cell.protocol.rounds > 1
                which = f", process {record.round + 1}" if several else ""
                title = f"{comparison.group.title} / {finding.arm.label}{which}"
                yield _Pass(title, record, telemetry, summarise(telemetry, record.null_reasons))


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure, whose tables are empty without telemetry."""
    return {"telemetry": Plot(plots.telemetry, lambda: _frames(comparisons), SAYS)}


class _Sample(NamedTuple):
    workload: str
    label: str
    backend: str
    quantity: str
    t_s: float
    value: float


class _Call(NamedTuple):
    workload: str
    label: str
    begin_s: float
    end_s: float


def _frames(comparisons: Sequence[Comparison]) -> list[pd.DataFrame]:
    samples, calls = [], []
    for title, record, telemetry, _ in _passes(comparisons):
        backend, times = record.cell.backend.name, telemetry.columns.get("t_s") or ()
        for name in plots.telemetry.QUANTITIES:
            at = points(times, telemetry.columns.get(name) or (None,) * len(times))
            samples += [_Sample(title, title, backend, name, *each) for each in at]
        calls += [_Call(title, title, *call[:2]) for call in telemetry.calls]
    return [
        pd.DataFrame(samples, columns=_Sample._fields),
        pd.DataFrame(calls, columns=_Call._fields),
    ]


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section; None if no record has telemetry."""
    passes = list(_passes(comparisons))
    if not passes:
        return None
    sampled = [each.telemetry for each in passes]
    periods = [each.achieved_s for each in sampled if each.achieved_s is not None]
    asked = sorted({each.period_s for each in sampled})
    cpus = sorted({each.cpus for each in sampled if each.cpus})
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
            f"({_listed(cpus, '')})."
        ),
    ]
    flagged = [f"{each.title}: {flag}" for each in passes for flag in each.summary.flags]
    if flagged:
        says.append(f"To beware of: {'; '.join(flagged)}.")
    else:
        gpu = any(each.columns.get("throttle_bits") for each in sampled)
        looked = "throttling, other processes on the GPU, " if gpu else ""
        says.append(f"Nothing to beware of: {looked}drift and late samples were looked for.")
    return Section(
        "telemetry",
        "Telemetry",
        says,
        figures=["telemetry"],
        tables=present(
            table("Averages, peaks and energy", _columns(passes), passes), _nulls(passes)
        ),
    )


def _quantity(name: str, which: str, scale: float) -> Callable[[_Pass], float | None]:
    def get(row: _Pass) -> float | None:
        quantity = row.summary.quantities.get(name)
        value: float | None = getattr(quantity, which, None)
        return None if value is None else value / scale

    return get


def _columns(passes: Sequence[_Pass]) -> list[Column]:
    known = {name for each in passes for name in each.summary.quantities}
    columns = [
        Column("cell", "title"),
        Column("calls", "summary.calls", text.whole),
        Column("images", "summary.images", text.whole),
    ]
    for name, head, scale in QUANTITIES:
        if name in known:
            columns += [
                Column(f"{head} average", _quantity(name, "average", scale), text.number),
                Column("peak", _quantity(name, "peak", scale), text.number),
                Column("idle", _quantity(name, "before", scale), text.number),
            ]
    measured = any(each.summary.energy.per_image_j is not None for each in passes)
    return columns + (ENERGY if measured else [])


ENERGY = [
    Column("energy per image [J]", "summary.energy.per_image_j", text.number),
    Column("by counter [J]", "summary.energy.counter_per_image_j", text.number),
    Column("differs by [%]", "summary.energy.disagreement_pct", text.number),
]

NULLS = (
    Column("cell", lambda row: row[0][0]),
    Column("quantities", lambda row: ", ".join(row[1])),
    Column("why", lambda row: row[0][1]),
)


def _nulls(passes: Sequence[_Pass]) -> Table | None:
    """Return the table of what could not be sampled, and why; quantities of one reason together."""
    why: dict[tuple[str, str], list[str]] = {}
    for each in passes:
        for name, reason in each.record.null_reasons.items():
            if name.startswith("telemetry."):
                why.setdefault((each.title, reason), []).append(name.removeprefix("telemetry."))
        if each.summary.energy.reason is not None:
            why.setdefault((each.title, each.summary.energy.reason), []).append("energy per image")
    return table("What could not be sampled", NULLS, why.items(), folded=True)


def _listed(values: Sequence[Any], unit: str = " s") -> str:
    return ", ".join(f"{value:g}{unit}" for value in values)
