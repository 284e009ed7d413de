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
from typing import Any

import pandas as pd

import plots.low_memory
from bench import chains, comparable, modes, text
from bench.stats.bootstrap import Speedup, arm_summary, speedup
from reports import fidelity
from reports.analyse import Comparison, Finding
from reports.gather import Sample
from reports.sections.base import Plot, Section
from reports.view import Cell, Table

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


@dataclass(slots=True)
class _Cell:
    """One row of a comparison: ``images`` are those of a call, in a chain more than the ``batch``.

    Times are seconds per picture, by process; pauses are in them.
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

    def peaks(self, meter: str) -> list[list[float]]:
        found = [_peak(sample, meter) for sample in self.finding.row.good]
        return [[float(value)] for value in found if value]

    def gib(self, meter: str | None) -> float | None:
        """The median of the processes' peaks, so that ratios are those of what is shown."""
        peaks = [peak for peaks in self.peaks(meter or "") for peak in peaks]
        return median(peaks) / text.GIB if peaks else None


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
    row = cell.finding.row
    words = {name: word for name, word in cell.words.items() if name != axis}
    return repr((words, cell.batch, row.short, row.cache, row.first.source.label))


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    """Return the figure of time per image against memory."""
    return {
        "low_memory": Plot(
            plots.low_memory,
            [_points(_families(comparisons))],
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
    sources = {s.source.path for c in comparisons for f in c.findings for s in f.row.samples}
    pictures = fidelity.Pictures(fidelity.known(sorted(sources)))
    tables = [
        table
        for family in families
        for axis in AXES
        if family.varied(axis)
        for table in _tables(family, axis, pictures)
    ]
    return Section(
        "low-memory",
        "Memory against time",
        [
            (
                "Time per image is the time of a call and of what is done after it, divided by the "
                "pictures of the call. Ratios are medians over those of the cell named in the "
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
    own = {"name", "batch", *(name for fields in AXES.values() for name in fields)}
    for comparison in comparisons:
        sample = comparison.group.first
        told = {
            "workload": {k: v for k, v in comparison.group.workload.items() if k not in own},
            "device": sample.device,
            "threads": sample.alike.record["cell"]["threads"],
        }
        grouped.setdefault(json.dumps(told, sort_keys=True, default=str), []).append(comparison)
    found = []
    for members in grouped.values():
        if not any(c.group.workload.get(axis) for c in members for axis in AXES):
            continue
        cells = [_cell(finding, c.group.workload) for c in members for finding in c.findings]
        names = list(dict.fromkeys(str(c.group.workload.get("name")) for c in members))
        family = _Family(text.listed(names), cells)
        good = [cell for cell in cells if cell.measured]
        family.meter = comparable.shared_meter(c.finding.steady_meters() for c in good)
        _mark_front(family)
        found.append(family)
    titles = [family.title for family in found]
    for number, family in enumerate(found):
        if titles.count(family.title) > 1:
            family.title += f" ({titles[: number + 1].count(family.title)})"
    return found


def _cell(finding: Finding, workload: Mapping[str, Any]) -> _Cell:
    batch, images = int(workload.get("batch") or 1), chains.pictures(workload)
    cell = _Cell(finding, {axis: modes.word_of(workload, axis) for axis in AXES}, batch, images)
    for sample in finding.row.good:
        pauses = _pauses(sample)
        cell.times.append(
            [(e2e + pause) / images for e2e, pause in zip(sample.e2e_s, pauses, strict=True)]
        )
        cell.pauses += pauses
    return cell


def _pauses(sample: Sample) -> list[float]:
    """Return the seconds after each measured call; zeros where nothing was done."""
    given = sample.more.get("between_s")
    if not isinstance(given, list) or len(given) != len(sample.e2e_s):
        return [0.0] * len(sample.e2e_s)
    return [float(v) if isinstance(v, (int, float)) and v >= 0 else 0.0 for v in given]


def _peak(sample: Sample, meter: str) -> int | None:
    found = [p.bytes for p in sample.peaks if (p.meter, p.phase) == (meter, "steady")]
    return max(found, default=None)


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


def _points(families: Iterable[_Family]) -> pd.DataFrame:
    rows = []
    for family in families:
        for cell in family.cells:
            gib = cell.gib(family.meter)
            if not cell.measured or gib is None:
                continue
            name = _label(family, cell) or cell.words["memory"]
            summary = arm_summary(cell.times)
            rows.append(
                {
                    "workload": family.title,
                    "label": f"{name}, batch {cell.batch}",
                    "backend": name,
                    "batch": cell.batch,
                    "seconds": summary.median_s,
                    "low": summary.low_s,
                    "high": summary.high_s,
                    "gib": gib,
                    "meter": family.meter,
                    "optimal": cell.optimal,
                    "processes": cell.finding.processes,
                    "calls": cell.finding.calls,
                }
            )
    return pd.DataFrame(rows)


def _label(family: _Family, cell: _Cell, without: str = "") -> str:
    """Name a cell by what varies in its family."""
    parts = [cell.words[axis] for axis in AXES if axis != without and family.varied(axis)]
    if len({other.finding.row.short for other in family.cells}) > 1:
        parts.append(cell.finding.row.short)
    return " · ".join(parts)


def _tables(family: _Family, axis: str, pictures: fidelity.Pictures) -> Iterable[Table]:
    first = family.first(axis)
    rows: list[list[Cell]] = []
    failed: dict[tuple[str, str], list[_Cell]] = {}
    order = sorted(family.swept(axis), key=lambda cell: (_label(family, cell, axis), cell.batch))
    paused = axis == "between"
    host = family.meter is not None and family.meter not in HOST
    for cell in order:
        if not cell.measured:
            for reason in cell.finding.reasons:
                failed.setdefault((cell.words[axis], reason), []).append(cell)
            continue
        other = family.reference(cell, axis)
        rows.append(_row(family, axis, cell, other, pictures, paused=paused, host=host))
    within = any(_label(family, cell, axis) for cell in order)
    head = [
        axis,
        *(["of"] if within else []),
        "batch",
        "time per image [s]",
        *(["of it between calls [s]"] if paused else []),
        f"time ÷ that of {first}",
        "memory [GiB]",
        f"memory ÷ that of {first}",
        *(["host memory [GiB]"] if host else []),
        "front",
        f"same picture as {first}?",
        "note",
    ]
    if rows:
        yield Table(
            f"{family.title}: {TITLES[axis].lower()}",
            head,
            rows,
            f"Memory: {family.meter or 'no meter has a value'}, the peak while steady, the median "
            "over processes.",
        )
    if failed:
        yield Table(
            f"{family.title}: {TITLES[axis].lower()}, not measured",
            [axis, "batch", "why"],
            [
                [
                    Cell(word),
                    Cell(", ".join(str(b) for b in sorted({c.batch for c in cells}))),
                    Cell(reason),
                ]
                for (word, reason), cells in failed.items()
            ],
        )


def _row(
    family: _Family,
    axis: str,
    cell: _Cell,
    other: _Cell | None,
    pictures: fidelity.Pictures,
    *,
    paused: bool,
    host: bool,
) -> list[Cell]:
    within = _label(family, cell, axis)
    against, why_not = _held_against(cell, other, axis)
    time = memory = None
    likeness = text.DASH
    if against is not None and against is not cell:
        time = speedup(cell.times, against.times)
        likeness = _same(cell, against, pictures)
        if family.meter:
            peaks = cell.peaks(family.meter), against.peaks(family.meter)
            memory = speedup(*peaks) if all(peaks) else None
    elif against is cell:
        likeness = "itself"
    seconds, gib = cell.seconds, cell.gib(family.meter)
    pause = sum(cell.pauses) / max(1, len(cell.pauses)) / cell.images
    notes = [*([why_not] if why_not else []), *_notes(cell)]
    return [
        Cell(cell.words[axis]),
        *([Cell(within)] if within else []),
        Cell(str(cell.batch), cell.batch, "number"),
        Cell(text.seconds(seconds), seconds, "number"),
        *([Cell(text.seconds(pause), pause, "number")] if paused else []),
        _ratio(time, text.ratio, itself=against is cell),
        Cell(text.DASH if gib is None else f"{gib:.3f}", gib, "number"),
        _ratio(memory, text.ratio, itself=against is cell),
        *([_host(cell)] if host else []),
        Cell("front" if cell.optimal else ""),
        Cell(likeness),
        Cell("; ".join(notes)),
    ]


def _held_against(cell: _Cell, other: _Cell | None, axis: str) -> tuple[_Cell | None, str | None]:
    """Return the cell to divide by, or why there is none."""
    if other is None:
        return None, "nothing to hold it against was planned"
    if not other.measured:
        return None, f"what it is held against is {other.finding.outcome}"
    unlike = comparable.difference(_without(cell, axis), _without(other, axis))
    if unlike is not None:
        return None, f"not comparable: {unlike}"
    return other, None


def _without(cell: _Cell, axis: str) -> dict[str, Any]:
    """Return what must be alike in two cells that differ in an axis."""
    record = dict(cell.finding.row.good[0].alike.record)
    asked = dict(record["cell"]["workload"])
    for name in ("name", *AXES[axis]):
        asked.pop(name, None)
    record["cell"] = {**record["cell"], "workload": asked}
    return record


def _same(cell: _Cell, other: _Cell, pictures: fidelity.Pictures) -> str:
    moved = [modes.offload(each.words["memory"]) is not None for each in (cell, other)]
    if cell.finding.row.first.synthetic and moved[0] != moved[1]:
        return "not compared: other random weights"
    found = fidelity.likeness(cell.finding, other.finding, pictures)
    worst = found.worst
    if worst is None or worst.figures is None or worst.figures.identical:
        return fidelity.same(found)
    psnr = worst.figures.psnr_db
    return fidelity.same(found) + (f" ({psnr:.1f} dB)" if psnr is not None else "")


def _notes(cell: _Cell) -> list[str]:
    """Return which modes change nothing at this size, and how often the cell failed."""
    seen = cell.finding.row.good[0].more.get("memory_modes")
    idle = seen.get("idle") if isinstance(seen, Mapping) else None
    told = [f"{mode} changes nothing: {why}" for mode, why in (idle or {}).items()]
    return [*told, *cell.finding.reasons]


def _ratio(found: Speedup | None, show: Callable[[float | None], str], *, itself: bool) -> Cell:
    if itself:
        return Cell("1", 1.0, "number")
    if found is None:
        return Cell(text.DASH, None, "number")
    return Cell(text.with_interval(found.ratio, found.low, found.high, show), found.ratio, "number")


def _host(cell: _Cell) -> Cell:
    peak = next((p for m in HOST if (p := cell.finding.peak(m)) is not None), None)
    return Cell(text.gib(peak), None if peak is None else peak / text.GIB, "number")
