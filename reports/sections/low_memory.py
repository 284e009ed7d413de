"""What memory modes, precisions and pauses between calls save, and what they cost.

A *family* is one workload in all its modes, precisions, pauses and batches. Modes change what is
compared, so their cells never meet in a backend's speedup; here each is set against the cell that
differs in just that one thing, at the same batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import plots.low_memory
from bench import modes, text
from bench.records import Record, alike
from bench.stats.bootstrap import Speedup, arm_summary, speedup
from reports import fidelity, frames
from reports.analyse import Comparison, Finding
from reports.sections.base import Plot, Section
from reports.tables import Cell, Column, Table, present, table

AXES = {"memory": ("memory",), "precision": ("precision", "dtype"), "between": ("between",)}
"""What cells of a family differ in besides the batch, with the workload's fields behind it."""

TITLES = {
    "memory": "Memory modes",
    "precision": "Precision",
    "between": "What is done between calls",
}
FIRST = ("none", "fp32", "float32", "fp16", "bf16")
"""Of the values of an axis, the first of these that a family has is what the others are held
against."""

HOST = ("rss", "rss (spawned)")


@dataclass(slots=True, eq=False)
class _Cell:
    """One row of a comparison: ``images`` are those of a call, in a chain more than the ``batch``.

    Times are seconds per image, by process; pauses are in them.
    """

    finding: Finding
    words: dict[str, str]
    batch: int
    images: int
    times: list[list[float]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    optimal: bool = False

    @property
    def measured(self) -> bool:
        return bool(self.times)

    @property
    def seconds(self) -> float:
        return arm_summary(self.times).median_s

    @property
    def pause_s(self) -> float:
        """For each image, the mean over the calls."""
        return sum(self.pauses) / max(1, len(self.pauses)) / self.images

    def peaks(self, meter: str | None) -> list[list[float]]:
        found = [record.peaks.get((meter or "", "steady")) for record in self.finding.arm.good]
        return [[float(value)] for value in found if value]

    def gib(self, meter: str | None) -> float | None:
        """The median of the processes' peaks, so that ratios are those of what is shown."""
        peaks = [peak for peaks in self.peaks(meter) for peak in peaks]
        return text.in_gib(median(peaks)) if peaks else None

    @property
    def host_gib(self) -> float | None:
        peaks = (self.finding.peak(meter) for meter in HOST)
        return text.in_gib(next((peak for peak in peaks if peak is not None), None))


@dataclass(slots=True)
class _Family:
    title: str
    cells: list[_Cell]
    meter: str | None = None

    def varied(self, axis: str) -> bool:
        return len({cell.words[axis] for cell in self.cells}) > 1

    def swept(self, axis: str) -> list[_Cell]:
        """The cells that have a partner which differs from them in an axis and nothing else."""
        values: dict[str, set[str]] = {}
        for cell in self.cells:
            values.setdefault(_slice(cell, axis), set()).add(cell.words[axis])
        return [cell for cell in self.cells if len(values[_slice(cell, axis)]) > 1]

    def first(self, axis: str) -> str:
        """The value of an axis that the others are held against."""
        values = list(dict.fromkeys(cell.words[axis] for cell in self.cells))
        return next((word for word in FIRST if word in values), values[0])

    def reference(self, cell: _Cell, axis: str) -> _Cell | None:
        """The cell that differs from ``cell`` in nothing but ``axis``, which is at its first."""
        return next(
            (
                other
                for other in self.cells
                if other.words[axis] == self.first(axis)
                and _slice(other, axis) == _slice(cell, axis)
            ),
            None,
        )


def _slice(cell: _Cell, axis: str) -> str:
    """Return what cells share that differ in nothing but an axis."""
    arm = cell.finding.arm
    words = {name: word for name, word in cell.words.items() if name != axis}
    return repr((words, cell.batch, arm.short, arm.cache, arm.source.label))


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure of time per image against memory."""
    return {
        "low_memory": Plot(
            plots.low_memory,
            lambda: [frames.frame(POINTS, _points(_families(comparisons)))],
            (
                "Left needs less memory, down is quicker; on the line is what nothing else beats "
                "in both."
            ),
        )
    }


def section(comparisons: Sequence[Comparison]) -> Section | None:
    """Return the tables of every family; None if no workload has a mode, precision or pause."""
    families = _families(comparisons)
    if not families:
        return None
    sources = {f.arm.source.path for c in comparisons for f in c.findings}
    pictures = fidelity.Pictures(fidelity.known(sorted(sources)))
    tables = [
        table
        for family in families
        for axis in AXES
        if family.varied(axis)
        for table in _tables(_Axis(family, axis, pictures))
    ]
    return Section(
        "low-memory",
        "Memory against time",
        [
            (
                "Time per image is the time of a call and of what is done after it, divided by the "
                "images of the call. Ratios are medians over those of the cell named in the "
                "column, at the same batch, with their 95 % interval over processes and calls; "
                "below 1 is less. They compare modes with each other and enter no speedup of a "
                "backend, whose baseline always has the same modes."
            ),
            (
                "Marked 'front' is what no other row of the family beats in both time per image "
                "and memory, by the medians: where intervals overlap, chance decides."
            ),
        ],
        figures=["low_memory"],
        tables=tables,
    )


def _families(comparisons: Sequence[Comparison]) -> list[_Family]:
    grouped: dict[str, list[Comparison]] = {}
    varied = {"name", "batch", *(name for fields in AXES.values() for name in fields)}
    for comparison in comparisons:
        cell = comparison.group.cell
        shared = {k: v for k, v in cell.raw["workload"].items() if k not in varied}
        key = json.dumps([shared, comparison.group.device, cell.threads], sort_keys=True)
        grouped.setdefault(key, []).append(comparison)
    found = []
    for members in grouped.values():
        asked = [comparison.group.cell.raw["workload"] for comparison in members]
        if not any(each.get(axis) for each in asked for axis in AXES):
            continue
        cells = [_cell(finding) for c in members for finding in c.findings]
        names = dict.fromkeys(comparison.group.cell.workload.name for comparison in members)
        family = _Family(text.listed(names), cells)
        measured = [cell.finding.arm for cell in cells if cell.measured]
        family.meter = alike.shared_meter(arm.steady_peaks for arm in measured)
        _mark_front(family)
        found.append(family)
    titles = [family.title for family in found]
    for number, family in enumerate(found):
        if titles.count(family.title) > 1:
            family.title += f" ({titles[: number + 1].count(family.title)})"
    return found


def _cell(finding: Finding) -> _Cell:
    asked = finding.arm.cell.workload
    raw = finding.arm.cell.raw["workload"]
    images = asked.images_per_call
    cell = _Cell(finding, {axis: modes.word_of(raw, axis) for axis in AXES}, asked.batch, images)
    for record in finding.arm.good:
        pauses = _pauses(record)
        cell.times.append(
            [(e2e + pause) / images for e2e, pause in zip(record.e2e_s, pauses, strict=True)]
        )
        cell.pauses += pauses
    return cell


def _pauses(record: Record) -> list[float]:
    """Return the seconds after each measured call; zeros where nothing was done."""
    if len(record.between_s) != len(record.e2e_s):
        return [0.0] * len(record.e2e_s)
    return [max(0.0, seconds) for seconds in record.between_s]


def _mark_front(family: _Family) -> None:
    known = [
        (cell, cell.seconds, gib)
        for cell in family.cells
        if cell.measured and (gib := cell.gib(family.meter)) is not None
    ]
    for cell, seconds, gib in known:
        cell.optimal = not any(
            other_s <= seconds and other_gib <= gib and (other_s, other_gib) != (seconds, gib)
            for _, other_s, other_gib in known
        )


class _Point(NamedTuple):
    family: _Family
    cell: _Cell
    name: str


POINTS: frames.Columns = {
    "workload": "family.title",
    "label": lambda row: f"{row.name}, batch {row.cell.batch}",
    "backend": "name",
    "batch": "cell.batch",
    "seconds": "cell.seconds",
    "low": lambda row: arm_summary(row.cell.times).low_s,
    "high": lambda row: arm_summary(row.cell.times).high_s,
    "gib": lambda row: row.cell.gib(row.family.meter),
    "meter": "family.meter",
    "optimal": "cell.optimal",
    "processes": "cell.finding.processes",
    "calls": "cell.finding.calls",
}


def _points(families: Iterable[_Family]) -> Iterable[_Point]:
    for family in families:
        for cell in family.cells:
            if cell.measured and cell.gib(family.meter) is not None:
                yield _Point(family, cell, _label(family, cell) or cell.words["memory"])


def _label(family: _Family, cell: _Cell, without: str = "") -> str:
    """Name a cell by what varies in its family."""
    parts = [cell.words[axis] for axis in AXES if axis != without and family.varied(axis)]
    if len({other.finding.arm.short for other in family.cells}) > 1:
        parts.append(cell.finding.arm.short)
    return " · ".join(parts)


class _Axis(NamedTuple):
    """What one table of a family is about."""

    family: _Family
    name: str
    pictures: fidelity.Pictures


@dataclass(slots=True)
class _Held:
    """A cell, and the one that it is held against; without one, ``why`` there is none.

    ``time`` and ``memory`` are ratios to it.
    """

    cell: _Cell
    label: str
    gib: float | None
    against: _Cell | None = None
    why: str | None = None
    time: Speedup | None = None
    memory: Speedup | None = None
    same: str = text.DASH

    @property
    def itself(self) -> bool:
        return self.against is self.cell

    @property
    def notes(self) -> list[str]:
        """Why there is no ratio, which modes change nothing here, how often the cell failed."""
        found = self.cell.finding.arm.good[0].memory_modes
        reasons = found.idle if found else {}
        idle = [f"{mode} changes nothing: {why}" for mode, why in reasons.items()]
        return [*([self.why] if self.why else []), *idle, *self.cell.finding.reasons]


def _held(axis: _Axis, cell: _Cell) -> _Held:
    meter = axis.family.meter
    held = _Held(cell, _label(axis.family, cell, axis.name), cell.gib(meter))
    other = axis.family.reference(cell, axis.name)
    held.why = _why_not(cell, other, axis.name)
    if other is None or held.why:
        return held
    held.against = other
    if other is cell:
        held.same = "itself"
        return held
    held.time = speedup(cell.times, other.times)
    held.same = _same(cell, other, axis.pictures)
    peaks = cell.peaks(meter), other.peaks(meter)
    held.memory = speedup(*peaks) if meter and all(peaks) else None
    return held


def _why_not(cell: _Cell, other: _Cell | None, axis: str) -> str | None:
    """Return why nothing can be divided by ``other``."""
    if other is None:
        return "nothing to hold it against was planned"
    if not other.measured:
        return f"what it is held against is {other.finding.outcome}"
    one, two = (each.finding.arm.good[0] for each in (cell, other))
    unlike = alike.difference(one, two, without=AXES[axis])
    return f"not comparable: {unlike}" if unlike else None


def _same(cell: _Cell, other: _Cell, pictures: fidelity.Pictures) -> str:
    moved = [modes.offload(each.words["memory"]) is not None for each in (cell, other)]
    if cell.finding.arm.good[0].synthetic and moved[0] != moved[1]:
        return "not compared: other random weights"
    found = fidelity.likeness(cell.finding, other.finding, pictures)
    worst = found.worst
    if worst is None or worst.figures is None or worst.figures.identical:
        return fidelity.same(found)
    psnr = worst.figures.psnr_db
    return fidelity.same(found) + (f" ({psnr:.1f} dB)" if psnr is not None else "")


def _ratio(name: str) -> Callable[[_Held], Cell]:
    def get(row: _Held) -> Cell:
        found: Speedup | None = getattr(row, name)
        if row.itself:
            return Cell("1", 1.0, "number")
        if found is None:
            return Cell(text.DASH, None, "number")
        shown = text.with_interval(found.ratio, found.low, found.high, text.ratio)
        return Cell(shown, found.ratio, "number")

    return get


def _in_gib(value: float | None) -> str:
    return text.DASH if value is None else f"{value:.3f}"


def _columns(axis: _Axis, rows: Sequence[_Held]) -> Iterable[Column]:
    first, meter = axis.family.first(axis.name), axis.family.meter
    yield Column(axis.name, lambda row: row.cell.words[axis.name])
    if any(row.label for row in rows):
        yield Column("of", "label")
    yield Column("batch", "cell.batch", text.whole)
    yield Column("time per image [s]", "cell.seconds", text.seconds)
    if axis.name == "between":
        yield Column("of it between calls [s]", "cell.pause_s", text.seconds)
    yield Column(f"time ÷ that of {first}", _ratio("time"))
    yield Column("memory [GiB]", "gib", _in_gib)
    yield Column(f"memory ÷ that of {first}", _ratio("memory"))
    if meter is not None and meter not in HOST:
        yield Column("host memory [GiB]", "cell.host_gib", _in_gib)
    yield Column("front", lambda row: "front" if row.cell.optimal else "")
    yield Column(f"same image as {first}?", "same")
    yield Column("note", lambda row: "; ".join(row.notes))


def _tables(axis: _Axis) -> list[Table]:
    family = axis.family
    order = sorted(
        family.swept(axis.name), key=lambda cell: (_label(family, cell, axis.name), cell.batch)
    )
    rows = [_held(axis, cell) for cell in order if cell.measured]
    failed: dict[tuple[str, str], set[int]] = {}
    for cell in order:
        for reason in () if cell.measured else cell.finding.reasons:
            failed.setdefault((cell.words[axis.name], reason), set()).add(cell.batch)
    title = f"{family.title}: {TITLES[axis.name].lower()}"
    return present(
        table(
            title,
            list(_columns(axis, rows)),
            rows,
            f"Memory: {family.meter or 'no meter has a value'}, the peak while steady, the median "
            "over processes.",
        ),
        table(
            f"{title}, not measured",
            (
                Column(axis.name, lambda row: row[0][0]),
                Column("batch", lambda row: ", ".join(map(str, sorted(row[1])))),
                Column("why", lambda row: row[0][1]),
            ),
            failed.items(),
        ),
    )
