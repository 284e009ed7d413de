"""Our own records: a run folder, or its ``records.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.audit.build import build, refuse
from bench.audit.columns import Meaning
from bench.audit.table import AuditError, Table
from bench.store import RunFolder, StoreError
from bench.store.journal import Journal

_COLUMNS = {
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


def read(path: Path, maps: Mapping[str, Meaning]) -> Table:
    """Return one row for each record that counts.

    Raises:
        AuditError: there is no run, it cannot be read, or it has no records.
    """
    try:
        if path.is_dir() or (path.parent / "plan.json").is_file():
            folder = RunFolder.open(path if path.is_dir() else path.parent)
            rows = [row(record) for record in folder.records()]
        else:
            journal = Journal(path)
            chosen = sorted(journal.latest.values(), key=lambda entry: entry.line)
            rows = [row(record) for record in journal.read(iter(chosen))]
    except StoreError as error:
        raise AuditError(str(error)) from error
    return of_rows(str(path), rows, range(1, len(rows) + 1), maps)


def of_rows(
    shown: str,
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int],
    maps: Mapping[str, Meaning] | None = None,
) -> Table:
    """Return the table of these rows, each as `row` returns it.

    ``numbers`` are what the records are called by: their places among those of the run that count,
    from 1.

    Raises:
        AuditError: there are none.
    """
    if not rows:
        raise refuse(shown, "it has no records.")
    table = build(
        shown,
        "records of a run",
        list(_COLUMNS.values()),
        rows,
        numbers,
        maps=maps or {},
        place="record",
    )
    table.counted = True
    return table


def row(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one record's row; figures as `bench.tables` derives them."""
    flat = tables.row(record)
    asked = _table(_table(record.get("cell")).get("workload"))
    fingerprint = _table(record.get("fingerprint"))
    packages, gpu = _table(fingerprint.get("packages")), _table(fingerprint.get("gpu"))
    meter = next((m for m in tables.METERS if flat.get(f"peak_{m}_bytes") is not None), None)
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
    return tuple([_cell(told[key]) for key in _COLUMNS])


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
