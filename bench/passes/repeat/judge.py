"""Records of one cell → are equal calls equal, within a process and between them; is there a leak.

What is compared are the SHA-256 of the images' raw bytes, so "equal" means every bit. How far
images of two processes lie apart is read from the files that their records name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import files
from bench.passes.repeat import record as stored
from bench.records.types import Record
from bench.stats.leak import Leak, find_leak

Map = NDArray[np.uint8]
"""Largest absolute difference of a pixel over its channels and the calls compared; rows first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where one image of a call was not the same.

    Attributes:
        where: "within process 1", "between processes 1 and 2".
        index: of the image in its batch.
        calls: how many were different from the first one, or compared in the second process.
        max_abs: largest difference of a channel, of 255; None if it cannot be told.
        share: of the pixels that differ anywhere, 0 to 1.
        box: left, top, right and bottom of them, in pixels, all inside.
        map: None if there are no images to compare, or sizes differ; ``why`` then says so.
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
        number: its round, from 1.
        equal: how many calls were equal to the one that most were equal to, in all their images.
        memory_bytes: after each call; empty if it was not to be had.
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
        mode: the workload's ``deterministic``.
        without: operations that ran and have no deterministic algorithm.
        images: how many a call makes.
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
        """Whether all processes made the same images; None with fewer than two."""
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


def judge(records: Sequence[Record], run_dir: Path) -> Repeated:
    """Judge the records of one cell, one for each round.

    Args:
        records: of cells with ``repeat``.
        run_dir: where their images are.
    """
    records = sorted(records, key=lambda record: record.round)
    passed = [(record, part) for record in records if (part := record.part(stored.Fields)).repeat]
    processes = tuple([_process(record, part) for record, part in passed])
    ran = [name for record in records for name in record.deterministic.operations]
    within = [each for record, part in passed for each in _within(record, part, run_dir)]
    return Repeated(
        name=records[0].name,
        mode=records[0].workload.deterministic,
        without=tuple(dict.fromkeys(ran)),
        images=max((len(p.first) for p in processes), default=0),
        processes=processes,
        differences=(*within, *_between(passed, run_dir)),
        failed=tuple(
            f"process {record.round + 1} is {record.outcome}: {record.reason}"
            for record in records
            if not record.part(stored.Fields).repeat
        ),
    )


def _about(part: stored.Fields) -> stored.About:
    return part.repeat_about or stored.About()


def _process(record: Record, part: stored.Fields) -> Process:
    digests = [call.sha256 for call in part.repeat]
    memory = [call.memory_bytes for call in part.repeat]
    known = tuple([value for value in memory if value is not None])
    known = known if len(known) == len(memory) else ()
    about = _about(part)
    return Process(
        number=record.round + 1,
        calls=len(part.repeat),
        asked=about.calls or len(part.repeat),
        equal=Counter(digests).most_common(1)[0][1],
        first=digests[0],
        memory_bytes=known,
        meter=about.meter,
        leak=find_leak(known) if known else None,
    )


def _within(record: Record, part: stored.Fields, run_dir: Path) -> Iterator[Difference]:
    for entry in _about(part).differences:
        read = _opened(run_dir, entry.map)
        sizes = "the images differ in size" if entry.other_sizes else None
        yield Difference(
            f"within process {record.round + 1}",
            entry.index,
            entry.calls,
            entry.max_abs,
            entry.share,
            entry.box,
            None if read is None else read.max(axis=2).astype(np.uint8),
            sizes or (None if read is not None else "the map of differences is not there"),
        )


def _between(passed: Sequence[tuple[Record, stored.Fields]], run_dir: Path) -> Iterator[Difference]:
    """Compare the first call's images of each process with those of the first process."""
    for record, part in passed[1:]:
        first, first_part = passed[0]
        where = f"between processes {first.round + 1} and {record.round + 1}"
        one, two = (each.repeat[0].sha256 for each in (first_part, part))
        for index, (before, after) in enumerate(zip(one, two, strict=False)):
            if before != after:
                images = [_reference(each, index, run_dir) for each in (first_part, part)]
                yield _compared(where, index, *images)


def _reference(part: stored.Fields, index: int, run_dir: Path) -> Map | None:
    kept = _about(part).reference
    return _opened(run_dir, kept[index].path) if index < len(kept) else None


def _compared(where: str, index: int, one: Map | None, two: Map | None) -> Difference:
    if one is None or two is None:
        return Difference(where, index, 1, None, None, None, None, "a image is not there")
    if one.shape != two.shape:
        return Difference(where, index, 1, None, None, None, None, "the images differ in size")
    away: Map = np.abs(one.astype(np.int16) - two).max(axis=2).astype(np.uint8)
    rows, columns = np.nonzero(away)
    box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    return Difference(where, index, 1, int(away.max()), len(rows) / away.size, box, away)


def _opened(run_dir: Path, path: str | None) -> Map | None:
    if path is None:
        return None
    try:
        return np.asarray(files.image(files.inside(run_dir, path)))
    except OSError:
        return None
