"""Samples as trials of memory: what the sections on capacity and on sizes both read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench import comparable
from bench.capacity import trials
from bench.capacity.trials import Trial
from reports.analyse import Comparison
from reports.gather import Sample


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
    alike: dict[tuple[object, ...], list[Sample]] = {}
    for comparison in comparisons:
        for finding in comparison.findings:
            for sample in finding.row.recorded:
                asked = sample.workload
                key = (sample.backend, sample.device, asked.get("task"), asked.get("model"))
                alike.setdefault(key, []).append(sample)
    sources = {s.source.path: s.source for samples in alike.values() for s in samples}
    searches = {path: source.folder.plan.get("search") or {} for path, source in sources.items()}
    return [
        Tried(_trial(sample), sample.backend, searches[sample.source.path])
        for samples in alike.values()
        if len({tuple(map(s.workload.get, comparable.SIZED)) for s in samples}) > 1
        for sample in samples
    ]


def _trial(sample: Sample) -> Trial:
    limit = sample.more.get("memory_limit") or {}
    cell = {
        "workload": sample.workload,
        "backend": {
            "name": sample.backend,
            "options": sample.options,
            "environment": sample.environment,
        },
        "cache": sample.cache,
        "threads": sample.alike.record["cell"]["threads"],
        "limits": {str(limit.get("meter")): limit.get("limit_bytes")},
    }
    record = {
        **sample.more,
        "outcome": sample.outcome,
        "reason": sample.reason,
        "record_id": sample.record_id,
    }
    peaks = [(peak.meter, peak.phase, peak.bytes) for peak in sample.peaks]
    return trials.make(record, cell, sample.device, peaks, sample.e2e_s)
