"""Repeated calls: equal or not, where and by how much, and does memory grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

import plots.repeat
from bench import text
from bench.passes.repeat.judge import Difference, Process, Repeated, judge
from bench.passes.repeat.record import Fields
from bench.stats.leak import Leak
from reports import frames
from reports.analyse import Comparison
from reports.sections.base import Plot, Section, Shown, shown
from reports.tables import Cell, Column, present, table

MIB = 1024**2
KIB = 1024
DASH = "—"
SHOWN_SIDE = 256
MOST_PICTURES = 12

MODES: Mapping[bool | str, str] = {False: "off", True: "on", "strict": "on, strictly"}

SAYS = (
    "A leak is a line whose whole band rises. Memory that grows at once and stays, or in the first "
    "calls alone, is an allocator at work."
)


class _Judged(NamedTuple):
    """A cell with repeated calls, and what was found of them."""

    row: frames.Row
    repeated: Repeated

    @property
    def name(self) -> str:
        return f"{self.row.comparison.group.title} / {self.row.finding.arm.label}"


def _judged(comparisons: Sequence[Comparison]) -> Iterator[_Judged]:
    for row in frames.rows(comparisons):
        arm = row.finding.arm
        if any(record.part(Fields).repeat for record in arm.records):
            yield _Judged(row, judge(arm.records, arm.source.path))


class _Reading(NamedTuple):
    """Memory after one call."""

    judged: _Judged
    process: Process
    leak: Leak
    call: int
    held: int

    @property
    def start_mib(self) -> float | None:
        start = self.leak.start_bytes
        return None if start is None else (start - self.process.memory_bytes[0]) / MIB


def _mib(name: str) -> Callable[[_Reading], float | None]:
    def get(row: _Reading) -> float | None:
        value = getattr(row.leak, name)
        return None if value is None else value / MIB

    return get


READINGS: frames.Columns = {
    "workload": "judged.row.comparison.group.title",
    "label": "judged.row.finding.arm.label",
    "backend": "judged.row.finding.arm.cell.backend.name",
    "process": "process.number",
    "call": lambda row: row.call + 1,
    "memory_mib": lambda row: (row.held - row.process.memory_bytes[0]) / MIB,
    "counts": lambda row: row.call >= row.leak.first,
    "slope_mib": _mib("bytes_per_call"),
    "low_mib": _mib("low"),
    "high_mib": _mib("high"),
    "start_mib": "start_mib",
    "start_call": lambda row: row.leak.first + 1,
    "verdict": lambda row: {"none": "no leak", "leak": "LEAK", "unclear": "unclear"}[
        row.leak.verdict
    ],
}


def _readings(comparisons: Sequence[Comparison]) -> Iterator[_Reading]:
    for each in _judged(comparisons):
        for process in each.repeated.processes:
            if process.leak is not None:
                for call, held in enumerate(process.memory_bytes):
                    yield _Reading(each, process, process.leak, call, held)


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure, whose table is empty without repeated calls."""

    def tables() -> list[pd.DataFrame]:
        return [frames.frame(READINGS, _readings(comparisons))]

    return {"repeat": Plot(plots.repeat, tables, SAYS)}


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the section; None if no record has repeated calls."""
    cells = list(_judged(comparisons))
    if not cells:
        return None
    unequal = [
        each.name
        for each in cells
        if not each.repeated.equal_within or each.repeated.equal_between is False
    ]
    leaking = [
        each.name
        for each in cells
        if any(p.leak is not None and p.leak.verdict == "leak" for p in each.repeated.processes)
    ]
    says = [
        (
            "Equal calls (same seed, same inputs) were repeated after the measured ones, in each "
            "process. Images are equal if every bit is. Memory is read after each call once "
            "garbage is collected, by a meter that is named; the growth per image is its mean "
            "growth from call to call, with a 95 % interval, after the first fifth of the calls "
            "and with up to three steps set aside. It is a leak if the whole interval lies above 0."
        ),
        f"Different images: {', '.join(unequal)}."
        if unequal
        else f"All images are equal in {text.plural(len(cells), 'cell')}.",
        f"Leaks: {', '.join(leaking)}." if leaking else "No leak was found.",
        *(
            f"{each.name}: these operations ran and have no deterministic algorithm: "
            f"{', '.join(each.repeated.without)}."
            for each in cells
            if each.repeated.without
        ),
    ]
    differences = [(each.name, one) for each in cells for one in each.repeated.differences]
    return Section(
        "repeat",
        "Repeated calls",
        says,
        figures=["repeat"],
        pictures=list(_pictures(differences)),
        tables=present(
            table("Equal calls and memory", EQUAL, _processes(cells)),
            table("Differences", DIFFERENCES, differences),
        ),
    )


class _Row(NamedTuple):
    """A process of a cell, or why there is none."""

    cell: _Judged
    process: Process | None
    why: str = ""

    @property
    def leak(self) -> Leak | None:
        """What is known of its growth."""
        leak = self.process.leak if self.process else None
        return leak if leak and leak.bytes_per_call is not None else None


def _processes(cells: Sequence[_Judged]) -> Iterator[_Row]:
    for each in cells:
        yield from (_Row(each, process) for process in each.repeated.processes)
        yield from (_Row(each, None, why) for why in each.repeated.failed)


def _of_process(get: Callable[[Process], Any]) -> Callable[[_Row], Any]:
    return lambda row: DASH if row.process is None else get(row.process)


def _number(row: _Row) -> Cell:
    if row.process is None:
        return Cell(row.why)
    return Cell(str(row.process.number), row.process.number, "number")


def _same(row: _Row) -> str:
    first = row.cell.repeated.processes[0] if row.process else None
    if row.process is first:
        return DASH
    return "yes" if first and row.process and row.process.first == first.first else "NO"


def _each_kib(row: _Row, value: float | None) -> float:
    """Return bytes a call as KiB an image."""
    return (value or 0.0) / (KIB * max(1, row.cell.repeated.images))


def _growth(row: _Row) -> Cell:
    if row.leak is None:
        return Cell(DASH)
    growth = _each_kib(row, row.leak.bytes_per_call)
    return Cell(f"{growth:.1f}", growth, "number")


def _interval(row: _Row) -> str:
    if row.leak is None:
        return DASH
    return f"{_each_kib(row, row.leak.low):.1f} to {_each_kib(row, row.leak.high):.1f}"


def _leak(process: Process) -> str:
    leak = process.leak
    if leak is None:
        return "no reading"
    known = leak.bytes_per_call is not None and leak.verdict in ("none", "leak")
    return {"none": "none", "leak": "LEAK"}[leak.verdict] if known else leak.reason or ""


EQUAL = (
    Column("cell", "cell.name"),
    Column("deterministic algorithms", lambda row: MODES.get(row.cell.repeated.mode, "")),
    Column("process", _number),
    Column("calls equal", _of_process(lambda p: f"{p.equal} of {p.calls}")),
    Column("equal to process 1", _same),
    Column("meter", _of_process(lambda process: process.meter)),
    Column("growth per image [KiB]", _growth),
    Column("95 % interval [KiB]", _interval),
    Column("leak", _of_process(_leak)),
)

DIFFERENCES = (
    Column("cell", lambda row: row[0]),
    Column("where", lambda row: row[1].where),
    Column("image", lambda row: row[1].index, text.whole),
    Column("largest difference of 255", lambda row: row[1].max_abs, text.count),
    Column(
        "pixels",
        lambda row: row[1].share,
        lambda share: DASH if share is None else f"{share:.2%}",
    ),
    Column(
        "place",
        lambda row: "({}, {}) to ({}, {})".format(*row[1].box) if row[1].box else DASH,
    ),
    Column("note", lambda row: row[1].why),
)


def _pictures(differences: Sequence[tuple[str, Difference]]) -> Iterator[Shown]:
    mapped = [(name, each) for name, each in differences if each.map is not None]
    for number, (name, each) in enumerate(mapped[:MOST_PICTURES]):
        image, factor = amplified(each)
        caption = (
            f"{name}, image {each.index} {each.where}: largest difference of each pixel, "
            f"{factor} times amplified (at most {each.max_abs} of 255)"
        )
        yield shown(f"repeat-difference-{number:03d}", image, caption, optimize=False)


def amplified(difference: Difference) -> tuple[Image.Image, int]:
    """Return a difference as an image, and the factor that it is scaled by.

    The factor is the largest whole number that keeps the largest difference below 256.
    """
    assert difference.map is not None
    factor = max(1, 255 // max(1, int(difference.map.max())))
    image = Image.fromarray((difference.map.astype(np.uint16) * factor).astype(np.uint8))
    # Small images are shown larger, each pixel as a square.
    zoom = max(1, SHOWN_SIDE // max(image.size))
    size = (image.width * zoom, image.height * zoom)
    return image.resize(size, Image.Resampling.NEAREST), factor
