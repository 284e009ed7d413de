"""The records of runs, grouped: a group a workload, an arm a backend, a record a process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import median as _median
from typing import Any

from bench import modes
from bench.records import alike
from bench.records.types import LOSSY, Cell, Record, median

NO_RECORD = "no record"
"""Outcome of a planned round of which no process has ended yet."""


@dataclass(frozen=True, eq=False)
class Source:
    """A run folder as it was when it was read.

    Attributes:
        label: its name, made unique among the runs that were read together.
        cells: of its plan.
        records: the valid one of each (cell, round) of the plan, in the order measured.
        plan: plan.json's ``plan``.
        host: machine and software that the run began on.
        version: of bench, that wrote it.
    """

    label: str
    path: Path
    run_id: str
    name: str
    created_utc: str
    version: str
    host: Mapping[str, Any]
    plan: Mapping[str, Any] = field(repr=False)
    cells: Sequence[Cell] = field(repr=False)
    records: Sequence[Record] = field(repr=False)

    @cached_property
    def numbers(self) -> dict[int, int]:
        """What each record is called by, by its ``id()``: its place in ``records``, from 1."""
        return {id(record): number for number, record in enumerate(self.records, 1)}


@dataclass(eq=False)
class Arm:
    """One backend of one workload in one run: all its processes that may be pooled.

    Attributes:
        records: one for each process that ended, by round; may be empty.
        label: unique in its group; ``short`` is it without what tells compile caches apart.
        split: the field in which they differ from the cell's other records, if there are such.
        planned: how many records there are when the run is complete; 0 if another arm counts them.
    """

    source: Source
    cell: Cell
    records: list[Record]
    label: str = ""
    short: str = ""
    split: str | None = None
    planned: int = 0

    @cached_property
    def good(self) -> list[Record]:
        """Those whose figures count."""
        return [record for record in self.records if record.ok]

    @property
    def first(self) -> Record | None:
        """The first whose figures count, else the first; None without any."""
        return next(iter(self.good or self.records), None)

    @property
    def is_baseline(self) -> bool:
        return self.cell.is_baseline

    @property
    def lossy(self) -> bool:
        """Whether it changes the image on purpose."""
        return any(record.backend.lossy for record in self.records)

    @property
    def choice(self) -> tuple[str, str]:
        """Its backend, environment and options: all but the compile cache and the run."""
        options = json.dumps(self.cell.backend.options, sort_keys=True)
        return self.cell.backend.place, options

    @property
    def cache(self) -> str:
        return self.records[0].actual_cache if self.records else self.cell.cache

    @cached_property
    def outcomes(self) -> Counter[str]:
        """Rounds by outcome, and those of the plan without a record."""
        found = Counter(str(record.outcome) for record in self.records)
        if self.planned > found.total():
            found[NO_RECORD] = self.planned - found.total()
        return found

    def outcome(self, share: str = "{} {} of {}") -> str:
        """Return ``ok``, or the commonest other outcome; with its share if rounds differ."""
        counts = self.outcomes
        if not counts:
            return NO_RECORD
        name = max(counts, key=lambda key: (key == "ok", key != NO_RECORD, counts[key]))
        total = counts.total()
        return name if counts[name] == total else share.format(name, counts[name], total)

    @property
    def reasons(self) -> list[str]:
        """Of the rounds that are not ok, each once, with the outcome in front."""
        return each_once(
            f"{record.outcome}: {record.reason or 'no reason was given'}"
            for record in self.records
            if record.outcome != "ok"
        )

    @property
    def warnings(self) -> list[str]:
        """Of all rounds, each once."""
        return each_once(
            warning
            for record in self.records
            for warning in (*record.warnings, *filter(None, [record.busy]))
        )

    # Figures of all calls of all processes that count; None where there are none.

    @property
    def calls_s(self) -> list[list[float]]:
        """End-to-end times by process."""
        return [list(record.e2e_s) for record in self.good]

    def pooled(self, values: Callable[[Record], Iterable[float | None]]) -> float | None:
        """Return the median over all calls of all processes."""
        return median(chain.from_iterable(values(record) for record in self.good))

    def middle(self, value: Callable[[Record], float | None]) -> float | None:
        """Return the median over processes of a figure that each has once."""
        return median(value(record) for record in self.good)

    @property
    def e2e_range_s(self) -> tuple[float, float] | None:
        """With one process, the 95 % interval of its median; with more, the range of theirs."""
        if len(self.good) == 1:
            return self.good[0].e2e_interval_s
        medians = [_median(record.e2e_s) for record in self.good]
        return (min(medians), max(medians)) if medians else None

    @cached_property
    def steady_peaks(self) -> dict[str, int]:
        """Bytes by meter, of the steady phase."""
        return {meter: value for (meter, phase), value in self.peaks.items() if phase == "steady"}

    def by_round(self) -> dict[int, Arm]:
        """Return an arm for each round, under a label that says which."""
        whole = self.planned == self.cell.protocol.rounds
        numbers = {*(range(self.planned) if whole else ()), *(r.round for r in self.records)}
        return {
            number: replace(
                self,
                records=[record for record in self.records if record.round == number],
                label=f"{self.label} round {number + 1}",
                planned=1,
            )
            for number in sorted(numbers)
        }

    @cached_property
    def peaks(self) -> dict[tuple[str, str], int]:
        """Bytes by (meter, phase); the largest over the processes."""
        found: dict[tuple[str, str], int] = {}
        for record in self.good:
            for place, value in record.peaks.items():
                found[place] = max(value, found.get(place, 0))
        return found


@dataclass(eq=False)
class ArmGroup:
    """All backends of one workload on one device: what one table, panel or answer is about.

    Attributes:
        title: the workload's name, with what tells it from others of that name.
    """

    title: str
    arms: list[Arm]

    @property
    def cell(self) -> Cell:
        return self.arms[0].cell

    @property
    def first(self) -> Record | None:
        """A record whose figures count, if there is one."""
        records = [arm.first for arm in self.arms if arm.first]
        return next((record for record in records if record.ok), next(iter(records), None))

    @property
    def synthetic(self) -> bool:
        return any(record.synthetic for arm in self.arms for record in arm.records)

    @property
    def device(self) -> str:
        return self.first.actual_device if self.first else self.cell.device


def group(sources: Sequence[Source]) -> list[ArmGroup]:
    """Group the records of runs by workload and device, and pool the rounds of each cell.

    Records of one cell that may not be pooled, such as those of two machines, are two arms. A
    planned cell without a record gets an arm too. Baselines come first, then the order of the plan.
    """
    grouped: dict[str, list[Arm]] = {}
    for source in sources:
        by_cell: dict[str, list[Record]] = {}
        for record in source.records:
            by_cell.setdefault(record.cell_id, []).append(record)
        # A plan may ask for any device; which one that is, the records say.
        devices = {r.cell.device: r.device for r in source.records if r.device}
        planned = {cell.cell_id: cell for cell in source.cells}
        for cell_id in dict.fromkeys((*planned, *by_cell)):
            records = sorted(by_cell.get(cell_id, ()), key=lambda r: (r.round, r.attempt))
            cell = records[0].cell if records else planned[cell_id]
            device = records[0].actual_device if records else devices.get(cell.device, cell.device)
            place = json.dumps([cell.raw["workload"], device, cell.threads], sort_keys=True)
            grouped.setdefault(place, []).extend(_arms(source, cell, records))
    groups = [ArmGroup(arms[0].cell.workload.name, arms) for arms in grouped.values()]
    for each in groups:
        each.arms.sort(key=lambda arm: not arm.is_baseline)
        _label(each.arms)
    _tell_apart(groups)
    return groups


def _arms(source: Source, cell: Cell, records: Sequence[Record]) -> Iterable[Arm]:
    """Yield the arms of one cell: one for each set of records that may be pooled."""
    pools: dict[str, list[Record]] = {}
    for record in records:
        if record.ok:
            pools.setdefault(alike.key(record), []).append(record)
    first, *others = pools.values() or [[]]
    # A record without figures says nothing of what it is like: it joins its cell.
    rest = [record for record in records if not record.ok]
    joined = sorted([*first, *rest], key=lambda r: (r.round, r.attempt))
    yield Arm(source, cell, joined, planned=cell.protocol.rounds - sum(map(len, others)))
    for pool in others:
        yield Arm(source, cell, pool, split=alike.difference(pool[0], first[0]))


def _label(arms: Sequence[Arm]) -> None:
    """Label arms by backend and options, and by cache, run or number where several share that."""
    caches: dict[str, set[str]] = {}
    for arm in arms:
        caches.setdefault(arm.cell.label, set()).add(arm.cache)
    labels = [
        f"{arm.cell.label} cache={arm.cache}" if len(caches[arm.cell.label]) > 1 else arm.cell.label
        for arm in arms
    ]
    runs: dict[str, set[str]] = {}
    for arm, label in zip(arms, labels, strict=True):
        runs.setdefault(label, set()).add(arm.source.label)
    seen: Counter[str] = Counter()
    for arm, label in zip(arms, labels, strict=True):
        more = [LOSSY] if arm.lossy else []
        if len(runs[label]) > 1:
            more.append(f"in {arm.source.label}")
        if arm.split:
            more.append(f"({arm.split.split(' (')[0]} differs)")
        whole = " ".join([label, *more])
        seen[whole] += 1
        if seen[whole] > 1:
            more.append(f"#{seen[whole]}")
        arm.short, arm.label = " ".join([arm.cell.label, *more]), " ".join([label, *more])


TOLD_FIRST = ("model", "task", "size", "batch", "steps", "dtype", "device", "scheduler", "guidance")
"""Facts by which workloads of one name are told apart, the most telling first."""

TOLD_LAST = ("prompt", "negative_prompt", "seed")
BY_ITSELF = frozenset({"model", "task", "size", "dtype", "device"})
"""Facts whose value says what it is."""


def _tell_apart(groups: Sequence[ArmGroup]) -> None:
    """Add to titles that occur twice what it takes to tell their workloads apart, no more."""
    by_title: dict[str, list[ArmGroup]] = {}
    for each in groups:
        by_title.setdefault(each.title, []).append(each)
    for title, same in by_title.items():
        if len(same) == 1:
            continue
        facts = [_identity(each) for each in same]
        # Of keys that only some workloads have, those that lack one are at its default.
        known = dict.fromkeys(name for each in facts for name in each)
        rest = sorted(n for n in known if n not in TOLD_FIRST and n not in TOLD_LAST)
        chosen: list[str] = []
        kinds = [0] * len(same)
        for name in (*TOLD_FIRST, *rest, *TOLD_LAST):
            numbers: dict[tuple[int, str | None], int] = {}
            finer = [
                numbers.setdefault((kind, each.get(name)), len(numbers))
                for kind, each in zip(kinds, facts, strict=True)
            ]
            if len(numbers) > len({*kinds}):
                chosen.append(name)
                kinds = finer
        for each, own in zip(same, facts, strict=True):
            texts = [own[n] if n in BY_ITSELF else f"{n} {own[n]}" for n in chosen if n in own]
            each.title = " · ".join([title, *(text[:40] for text in texts)])


def _identity(group: ArmGroup) -> dict[str, str]:
    """Return what can differ between workloads of one name, as text."""
    workload = group.cell.raw["workload"]
    known = {
        **workload,
        "size": f"{workload['width']}×{workload['height']}",
        "device": group.device,
        "threads": group.cell.threads,
    }
    return {
        name: "+".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in known.items()
        if value is not None and name not in ("height", "width")
    }


class Baselines:
    """The records of baselines, by what others must share with them for a speedup.

    Args:
        pools: the records of each baseline that count and may be pooled.
    """

    def __init__(self, pools: Iterable[Sequence[Record]]) -> None:
        self._alike: dict[tuple[str, str], list[Sequence[Record]]] = {}
        self._first: dict[tuple[str, str], Record] = {}
        for pool in filter(None, pools):
            name, environment = _place(pool[0])
            self._alike.setdefault((name, alike.key(pool[0])), []).append(pool)
            # Of its own environment, if there is one: what that lacks is the reason worth reading.
            for key in ((name, environment), (name, "")):
                self._first.setdefault(key, pool[0])

    def speedup(self, records: Sequence[Record]) -> tuple[float | None, str | None]:
        """Return (ratio of medians, None), or (None, what differs); both None without a baseline.

        Args:
            records: that count and may be pooled.
        """
        if not records:
            return None, None
        name, environment = _place(records[0])
        first = self._first.get((name, environment)) or self._first.get((name, ""))
        if first is None:
            return None, None
        for pool in self._alike.get((name, alike.key(records[0])), ()):
            # Only rounds in which both ran: that is what interleaving them is for.
            common = {r.round for r in records} & {r.round for r in pool}
            if common:
                times = (
                    _median(chain.from_iterable(r.e2e_s for r in each if r.round in common))
                    for each in (pool, records)
                )
                return next(times) / next(times), None
        return None, alike.difference(records[0], first) or "no round in which both are ok"


def _place(record: Record) -> tuple[str, str]:
    return record.workload.name, record.cell.backend.environment


def facts(group: ArmGroup) -> list[str]:
    """Return what the arms of a group share, as short texts: the line under its title."""
    asked, record = group.cell.workload, group.first
    height, width = record.size if record else (asked.height, asked.width)
    found = [asked.task, asked.model]
    if record and record.synthetic_weights:
        found.append("synthetic weights")
    found.append(f"{width}×{height}")
    if asked.samples is not None:
        found.append(f"{asked.samples} images, {asked.max_batch} at a time")
    elif asked.batch != 1:
        found.append(f"batch {asked.batch}")
    found += [asked.dtype, group.device, *modes.facts(group.cell.raw["workload"])]
    steps = each_once(str(arm.good[0].steps) for arm in group.arms if arm.good)
    return [*found, "; ".join(steps) or f"{asked.steps} steps"]


def each_once(texts: Iterable[str]) -> list[str]:
    """Return the texts in order, without repetitions."""
    return list(dict.fromkeys(texts))
