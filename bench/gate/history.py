"""Many runs to series: each figure of each cell over time, with the places where it changed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.gate import GateError, baselines, measured
from bench.stats import changepoint
from bench.store import StoreError

FIGURES = ("speed", "warmup", "memory")
UNITS = {"speed": "s", "warmup": "s", "memory": "bytes"}
COUNTS = ("steps_effective", "denoiser_calls", "graphs", "graph_breaks", "recompiles")
DEEPEST = 4
"""Folders below the given one that are searched for runs."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run: its label, when it began (UTC, ISO 8601), and a value in the series' unit."""

    run: str
    started_utc: str
    value: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A change at the ``index``-th point: levels before and after, and a sentence."""

    index: int
    before: float
    after: float
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
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    unread: list[str] = []
    for path in _candidates(folder):
        try:
            if path.is_dir():
                content = measured.of_run(path, judge_pictures=False)
            else:
                content = baselines.read(path).content
        except (GateError, StoreError) as error:
            unread.append(str(error))
            continue
        label = path.name if path.is_dir() else path.parent.name
        found.setdefault(str(content["runs"][0]["run_id"]), (label, content))
    if not found:
        why = f": {unread[0]}" if unread else ""
        raise GateError(f"{folder} holds no run and no baseline{why}")
    runs = sorted(found.values(), key=lambda run: _started(run[1]))
    return History(tuple(_series(runs)), len(runs), tuple(unread))


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield run folders and baseline files, not what lies inside a run."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if "plan.json" in files:
            folders.clear()
            yield here
            continue
        if len(here.relative_to(folder).parts) >= DEEPEST:
            folders.clear()
        folders.sort()
        for name in sorted(files):
            if name.endswith(".json") and _is_baseline(here / name):
                yield here / name


def _is_baseline(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return f'"kind": "{baselines.KIND}"' in file.read()
    except OSError:
        return False


def _started(content: Mapping[str, Any]) -> str:
    return str(content["runs"][0].get("started_utc") or "")


def _series(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Series]:
    cells: dict[tuple[str, str, str], list[tuple[str, str, Mapping[str, Any]]]] = {}
    for label, content in runs:
        for name, cell in content["cells"].items():
            if not measured.good(cell):
                continue
            # A cell whose workload was changed under the same name begins a series of its own.
            at = (name, measured.key(cell["fingerprint"]), measured.key(cell["asked"]))
            cells.setdefault(at, []).append((label, _started(content), cell))
    for (name, machine, _), found in cells.items():
        for metric in FIGURES:
            yield from _figure(name, machine, metric, found)
        for metric in COUNTS:
            yield from _count(name, machine, metric, found)


def _figure(
    name: str, machine: str, metric: str, found: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> Iterator[Series]:
    points = []
    for label, started, cell in found:
        values = [value for p in measured.good(cell) if (value := _value(p, metric)) is not None]
        if values:
            points.append(Point(label, started, median(values)))
    if not points:
        return
    changes = changepoint.change_points([point.value for point in points])
    marks = tuple(
        Mark(
            change.index,
            change.before,
            change.after,
            f"{change.change_pct:+.1f} % from {points[change.index].run} on (p = {change.p:.2g})",
        )
        for change in changes
    )
    enough = len(points) >= changepoint.FEWEST
    yield Series(name, machine, metric, UNITS[metric], tuple(points), marks, enough)


def _value(process: Mapping[str, Any], metric: str) -> float | None:
    if metric == "speed":
        return median(process["e2e_s"]) if process["e2e_s"] else None
    if metric == "warmup":
        return sum(process["warmup_s"]) or None
    return process["memory_bytes"] or None


def _count(
    name: str, machine: str, metric: str, found: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> Iterator[Series]:
    points = []
    for label, started, cell in found:
        values = [p["counts"][metric] for p in measured.good(cell)]
        if None not in values:
            points.append(Point(label, started, median(values)))
    if not points:
        return
    marks = tuple(
        Mark(i, one.value, two.value, f"{one.value:g} → {two.value:g} at {two.run} (exact)")
        for i, (one, two) in enumerate(itertools.pairwise(points), start=1)
        if one.value != two.value
    )
    yield Series(name, machine, metric, "count", tuple(points), marks, enough=True)
