"""Many runs to series: each figure of each cell over time, with the places where it changed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from msgspec import to_builtins

from bench import files
from bench.gate import GateError, baselines, measured
from bench.gate.measured import FIGURES, MeasuredCell, Measurement
from bench.stats import changepoint
from bench.store import StoreError

COUNTS = ("steps_effective", "denoiser_calls", "graphs", "graph_breaks", "recompiles")
DEEPEST = 4
"""Folders below the given one that are searched for runs."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run: its label, and a value in the series' unit."""

    run: str
    value: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A change at the ``index``-th point, and a sentence on it."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one cell on one machine, in order of time.

    ``unit`` is ``s``, ``bytes`` or ``count``; ``enough`` says whether a change could be marked.
    """

    cell: str
    machine: str
    metric: str
    unit: str
    points: tuple[Point, ...]
    marks: tuple[Mark, ...]
    enough: bool


@dataclass(frozen=True, slots=True)
class History:
    """All series, and which folders or files could not be read, with the reason."""

    series: tuple[Series, ...]
    runs: int
    unread: tuple[str, ...]


def read(folder: Path) -> History:
    """Return the series of all runs and baselines under ``folder``, each run counted once.

    Raises:
        GateError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise GateError(f"{folder} is not a folder.")
    runs: dict[str, tuple[str, Measurement]] = {}
    unread: list[str] = []
    for path in _candidates(folder):
        try:
            if path.is_dir():
                label, measurement = path.name, measured.of_run(path, judge_images=False)
            else:
                label, measurement = path.parent.name, baselines.read(path)
        except (GateError, StoreError) as error:
            unread.append(str(error))
        else:
            runs.setdefault(measurement.runs[0].run_id, (label, measurement))
    if not runs:
        why = f": {unread[0]}" if unread else ""
        raise GateError(f"{folder} holds no run and no baseline{why}")
    in_time = sorted(runs.values(), key=lambda run: run[1].started_utc)
    return History(tuple(_series(in_time)), len(runs), tuple(unread))


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield run folders and baseline files, not what lies inside a run."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if "plan.json" in names:
            folders.clear()
            yield here
            continue
        if len(here.relative_to(folder).parts) >= DEEPEST:
            folders.clear()
        folders.sort()
        for name in sorted(names):
            if name.endswith(".json") and _is_baseline(here / name):
                yield here / name


def _is_baseline(path: Path) -> bool:
    try:
        return f'"kind": "{measured.KIND}"'.encode() in files.read(path)
    except OSError:
        return False


Place = tuple[str, MeasuredCell]
"""A run's label, and the cell that it measured."""


def _series(runs: Sequence[tuple[str, Measurement]]) -> Iterator[Series]:
    cells: dict[tuple[str, str, str], list[Place]] = {}
    for label, measurement in runs:
        for name, cell in measurement.cells.items():
            if cell.good:
                # A cell whose workload was changed under the same name begins its own series.
                at = (name, measured.key(cell.fingerprint), measured.key(to_builtins(cell.asked)))
                cells.setdefault(at, []).append((label, cell))
    for (name, machine, _), places in cells.items():
        for figure in FIGURES:
            values = [[median(arm) for arm in figure.arm(cell.good)] for _, cell in places]
            if points := _points(places, values):
                enough = len(points) >= changepoint.FEWEST
                marks = tuple(_moved(points))
                yield Series(name, machine, figure.name, figure.unit, points, marks, enough)
        for count in COUNTS:
            exact = [[getattr(p.counts, count) for p in cell.good] for _, cell in places]
            if points := _points(places, [[] if None in each else each for each in exact]):
                marks = tuple(_differing(points))
                yield Series(name, machine, count, "count", points, marks, enough=True)


def _points(places: Sequence[Place], values: Sequence[Sequence[float]]) -> tuple[Point, ...]:
    """Return the median over the processes of each run that has values."""
    return tuple(
        Point(label, median(each)) for (label, _), each in zip(places, values, strict=True) if each
    )


def _moved(points: Sequence[Point]) -> Iterator[Mark]:
    """Yield where the level of a figure changed."""
    for change in changepoint.change_points([point.value for point in points]):
        run = points[change.index].run
        reason = f"{change.change_pct:+.1f} % from {run} on (p = {change.p:.2g})"
        yield Mark(change.index, reason)


def _differing(points: Sequence[Point]) -> Iterator[Mark]:
    """Yield where a count changed."""
    for index, (one, two) in enumerate(itertools.pairwise(points), start=1):
        if one.value != two.value:
            reason = f"{one.value:g} → {two.value:g} at {two.run} (exact)"
            yield Mark(index, reason)
