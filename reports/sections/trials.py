"""Samples as trials of memory: what the sections on capacity and on sizes both read."""

from __future__ import annotations

from collections.abc import Sequence

from bench.capacity import trials
from bench.capacity.trials import Trial
from reports.analyse import Comparison
from reports.gather import Sample


def of(comparisons: Sequence[Comparison]) -> list[tuple[Trial, str]]:
    """Return each record as a trial, with the backend that it is of."""
    return [
        (_trial(sample), sample.backend)
        for comparison in comparisons
        for finding in comparison.findings
        for sample in finding.row.recorded
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
