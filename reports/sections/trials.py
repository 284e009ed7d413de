"""Records as trials of memory: what the sections on capacity and on sizes both read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.passes.capacity.judge import Trial, of_record
from bench.records import Record, alike
from bench.records.arms import Source
from reports.analyse import Comparison


class Tried(NamedTuple):
    """A trial, the backend that it is of, and what its run's plan says of a search."""

    trial: Trial
    backend: str
    search: Mapping[str, Any]


def of(comparisons: Sequence[Comparison]) -> list[Tried]:
    """Return each record as a trial.

    Left out is what was tried in one size and one batch only: it says nothing of how memory grows,
    and a large run may hold thousands.
    """
    shared: dict[tuple[object, ...], list[tuple[Source, Record]]] = {}
    for comparison in comparisons:
        for finding in comparison.findings:
            arm, asked = finding.arm, finding.arm.cell.workload
            key = (arm.cell.backend.name, comparison.group.device, asked.task, asked.model)
            shared.setdefault(key, []).extend((arm.source, record) for record in arm.records)
    return [
        Tried(of_record(record), record.cell.backend.name, source.plan.get("search") or {})
        for members in shared.values()
        if len({_size(record) for _, record in members}) > 1
        for source, record in members
    ]


def _size(record: Record) -> tuple[Any, ...]:
    return tuple(getattr(record.workload, name) for name in sorted(alike.SIZED))
