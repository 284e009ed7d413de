"""Records of one cell → are equal calls equal, within a process and between them; is there a leak.

What is compared are the SHA-256 of the pictures' raw bytes, so "equal" means every bit. How far
pictures of two processes lie apart is read from the files that their records name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.stats.leak import Leak, find_leak

Map = NDArray[np.uint8]
"""Largest absolute difference of a pixel over its channels and the calls compared; rows first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where one picture of a call was not the same.

    Attributes:
        where: "within process 1", "between processes 1 and 2".
        index: of the picture in its batch.
        calls: how many were different from the first one, or compared in the second process.
        max_abs: largest difference of a channel, of 255; None if it cannot be told.
        share: of the pixels that differ anywhere, 0 to 1.
        box: left, top, right and bottom of them, in pixels, all inside.
        map: None if there are no pictures to compare, or sizes differ; ``why`` then says so.
    """

    where: str
    index: int
    calls: int
    max_abs: int | None
    share: float | None
    box: tuple[int, int, int, int] | None
    map: Map | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """One record's pass.

    Attributes:
        number: from 1, its round.
        calls, asked: made, and asked for.
        equal: how many were equal to the one that most were equal to, in all their pictures.
        memory_bytes: after each call; empty if it was not to be had.
        leak: None without readings.
    """

    number: int
    calls: int
    asked: int
    equal: int
    first: tuple[str, ...]
    memory_bytes: tuple[int, ...]
    meter: str
    leak: Leak | None


@dataclass(frozen=True, slots=True)
class Repeated:
    """All processes of one cell.

    Attributes:
        name: of the cell.
        mode: the workload's ``deterministic``.
        without: operations that ran and have no deterministic algorithm.
        images: pictures of a call.
        differences: of pictures that were not the same.
        failed: why there is no pass to judge, for each process without one.
    """

    name: str
    mode: bool | str
    without: tuple[str, ...]
    images: int
    processes: tuple[Process, ...]
    differences: tuple[Difference, ...]
    failed: tuple[str, ...]

    @property
    def equal_within(self) -> bool:
        return all(process.equal == process.calls for process in self.processes)

    @property
    def equal_between(self) -> bool | None:
        """Whether all processes made the same pictures; None with fewer than two."""
        if len(self.processes) < 2:
            return None
        return len({process.first for process in self.processes}) == 1

    @property
    def complete(self) -> bool:
        return not self.failed and all(p.calls == p.asked for p in self.processes)

    @property
    def leak(self) -> Process | None:
        """The process to show: one with a leak, else one that is unclear, else any; or None."""
        rank = {"leak": 0, "unclear": 1, "none": 2}
        judged = [p for p in self.processes if p.leak is not None]
        return min(judged, key=lambda p: rank[p.leak.verdict] if p.leak else 3, default=None)

    @property
    def found(self) -> bool:
        """Whether there is something to know of: a difference, a leak, or unclear growth."""
        leaks = any(p.leak is not None and p.leak.verdict != "none" for p in self.processes)
        return leaks or not self.equal_within or self.equal_between is False


def judge(records: Sequence[Mapping[str, Any]], run_dir: Path) -> Repeated:
    """Judge the records of one cell, one for each round.

    Args:
        records: of cells with ``repeat``.
        run_dir: where their pictures are.
    """
    records = sorted(records, key=lambda record: record["round"])
    passed = [record for record in records if record.get("repeat")]
    processes = tuple(map(_process, passed))
    told = [record.get("deterministic") or {} for record in records]
    within = [difference for record in passed for difference in _within(record, run_dir)]
    return Repeated(
        name=str(records[0]["name"]),
        mode=records[0]["cell"]["workload"].get("deterministic", False),
        without=tuple(dict.fromkeys(name for one in told for name in one.get("operations", ()))),
        images=max((len(p.first) for p in processes), default=0),
        processes=processes,
        differences=(*within, *_between(passed, run_dir)),
        failed=tuple(
            f"process {record['round'] + 1} is {record['outcome']}: {record.get('reason')}"
            for record in records
            if not record.get("repeat")
        ),
    )


def _process(record: Mapping[str, Any]) -> Process:
    calls = record["repeat"]
    digests = [tuple(call["sha256"]) for call in calls]
    memory = [call["memory_bytes"] for call in calls]
    known = tuple(memory) if None not in memory else ()
    about = record.get("repeat_about") or {}
    return Process(
        number=record["round"] + 1,
        calls=len(calls),
        asked=int(about.get("calls", len(calls))),
        equal=Counter(digests).most_common(1)[0][1],
        first=digests[0],
        memory_bytes=known,
        meter=str(about.get("meter", "")),
        leak=find_leak(known) if known else None,
    )


def _within(record: Mapping[str, Any], run_dir: Path) -> list[Difference]:
    found = []
    for entry in (record.get("repeat_about") or {}).get("differences", ()):
        read = _opened(run_dir, entry["map"])
        sizes = "the pictures differ in size" if entry.get("other_sizes") else None
        found.append(
            Difference(
                f"within process {record['round'] + 1}",
                entry["index"],
                entry["calls"],
                entry["max_abs"],
                entry["share"],
                tuple(entry["box"]) if entry["box"] else None,
                None if read is None else read.max(axis=2).astype(np.uint8),
                sizes or (None if read is not None else "the map of differences is not there"),
            )
        )
    return found


def _between(records: Sequence[Mapping[str, Any]], run_dir: Path) -> list[Difference]:
    """Compare the first call's pictures of each process with those of the first process."""
    found = []
    for other in records[1:]:
        first = records[0]
        where = f"between processes {first['round'] + 1} and {other['round'] + 1}"
        one, two = (record["repeat"][0]["sha256"] for record in (first, other))
        for index, (before, after) in enumerate(zip(one, two, strict=False)):
            if before != after:
                pictures = [_reference(record, index, run_dir) for record in (first, other)]
                found.append(_compared(where, index, *pictures))
    return found


def _reference(record: Mapping[str, Any], index: int, run_dir: Path) -> Map | None:
    kept = (record.get("repeat_about") or {}).get("reference", ())
    return _opened(run_dir, kept[index]["path"]) if index < len(kept) else None


def _compared(where: str, index: int, one: Map | None, two: Map | None) -> Difference:
    if one is None or two is None:
        return Difference(where, index, 1, None, None, None, None, "a picture is not there")
    if one.shape != two.shape:
        return Difference(where, index, 1, None, None, None, None, "the pictures differ in size")
    away: Map = np.abs(one.astype(np.int16) - two).max(axis=2).astype(np.uint8)
    rows, columns = np.nonzero(away)
    box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    return Difference(where, index, 1, int(away.max()), len(rows) / away.size, box, away)


def _opened(run_dir: Path, path: str | None) -> Map | None:
    if path is None:
        return None
    file = (run_dir / path).resolve()
    # A record may come from elsewhere: it must not make us read any file of this disk.
    if not file.is_relative_to(run_dir.resolve()):
        return None
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except OSError:
        return None
