"""Samples as trials of memory: what the sections on capacity and on sizes both read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench import chains, comparable
from bench.passes.capacity.judge import FITTED, RESERVED, RSS, Trial
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
    names = [peak.meter for peak in sample.peaks]
    meter = next((name for name in names if name.startswith(RSS)), RSS)
    if sample.device.startswith("cuda"):
        meter = RESERVED
    found = {(peak.meter, peak.phase): peak.bytes for peak in sample.peaks}
    beside = [
        used - found[RESERVED, phase]
        for (name, phase), used in found.items()
        if name == "device_used" and used > found.get((RESERVED, phase), used)
    ]
    complete = sample.outcome in FITTED
    values = [value for (name, _), value in found.items() if name == meter]
    asked = None
    if "asked_height" in sample.workload:
        asked = (int(sample.workload["asked_height"]), int(sample.workload["asked_width"]))
    made = sample.more.get("output_height"), sample.more.get("output_width")
    return Trial(
        subject=comparable.but_for_size(cell, sample.device),
        name=str(sample.workload.get("name", "")),
        batch=int(sample.workload["batch"]),
        images=chains.pictures(sample.workload),
        height=int(sample.workload["height"]),
        width=int(sample.workload["width"]),
        outcome=sample.outcome,
        reason=sample.reason,
        meter=meter,
        peak_bytes=max(values) if values and complete else None,
        beside_bytes=min(beside, default=None),
        limit_bytes=limit.get("limit_bytes"),
        e2e_s=tuple(sample.e2e_s) if complete else (),
        record_id=sample.record_id,
        asked=asked,
        output=None if None in made else (int(made[0] or 0), int(made[1] or 0)),
        dominated_by=sample.more.get("dominated_by"),
    )
