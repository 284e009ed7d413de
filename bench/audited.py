"""A record as a row of the audit: cells of text, under the columns that its checks know.

Apart from `bench.audit`, which needs numpy, so that a run is read in a moment where nothing is
audited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import comparable, tables

COLUMNS = {
    "name": "name",
    "round": "round",
    "task": "task",
    "model": "model",
    "backend": "backend",
    "device": "gpu",
    "dtype": "dtype",
    "scheduler": "scheduler",
    "outcome": "outcome",
    "meter": "meter",
    "height": "height",
    "width": "width",
    "batch": "batch",
    "guidance": "guidance",
    "strength": "strength",
    "steps_requested": "steps",
    "steps_effective": "steps_effective",
    "denoiser_calls": "denoiser_calls",
    "calls": "runs",
    "e2e_s": "e2e_s",
    "it_per_s": "it_per_s",
    "warmup_s": "warmup_s",
    "first_call_s": "first_call_s",
    "compile_s": "compile_s",
    "load_s": "load_s",
    "peak_bytes": "peak_bytes",
    "torch": "torch",
    "diffusers": "diffusers",
}
"""Names of the audit's columns by the names that `bench.tables.row` gives them and `row` adds."""


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one record's row; figures as `bench.tables` derives them."""
    flat = tables.row(record)
    asked = _table(_table(record.get("cell")).get("workload"))
    fingerprint = _table(record.get("fingerprint"))
    packages, gpu = _table(fingerprint.get("packages")), _table(fingerprint.get("gpu"))
    meter = next((m for m in comparable.READ if flat.get(f"peak_{m}_bytes") is not None), None)
    told = {
        **flat,
        "device": gpu.get("name") or flat["device"],
        "scheduler": record.get("scheduler_class"),
        "guidance": asked.get("guidance"),
        "strength": asked.get("strength"),
        "meter": meter,
        "peak_bytes": flat.get(f"peak_{meter}_bytes") if meter else None,
        "torch": packages.get("torch"),
        "diffusers": packages.get("diffusers"),
    }
    return tuple([_cell(told[key]) for key in COLUMNS])


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
