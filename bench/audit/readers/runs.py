"""Our own records: a run folder, or its ``records.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.audit.build import build, refuse
from bench.audit.columns import Meaning
from bench.audit.table import AuditError, Table
from bench.contract import Record
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
            records: Iterable[Record] = list(
                RunFolder.open(path if path.is_dir() else path.parent).records()
            )
        else:
            journal = Journal(path)
            chosen = sorted(journal.latest.values(), key=lambda entry: entry.line)
            records = [_record(value) for value in journal.read(iter(chosen))]
    except StoreError as error:
        raise AuditError(str(error)) from error
    return of_records(str(path), list(records), maps)


def of_records(
    shown: str,
    records: list[Record],
    maps: Mapping[str, Meaning] | None = None,
    lines: Sequence[int] = (),
) -> Table:
    """Return one row for each record; figures as `bench.tables` derives them.

    ``lines`` are the numbers that the records are called by; from 1 without them.

    Raises:
        AuditError: there are none.
    """
    if not records:
        raise refuse(shown, "it has no records.")
    flat = [_row(row, record) for row, record in zip(tables.rows(records), records, strict=True)]
    cells = [[_cell(row[key]) for key in _COLUMNS] for row in flat]
    table = build(
        shown,
        "records of a run",
        list(_COLUMNS.values()),
        cells,
        lines or range(1, len(records) + 1),
        maps=maps or {},
        place="record",
    )
    table.counted = True
    return table


def _record(value: dict[str, Any]) -> Record:
    return value  # type: ignore[return-value]


def _row(row: Mapping[str, Any], record: Record) -> dict[str, Any]:
    whole: Mapping[str, Any] = dict(record)
    asked = (whole.get("cell") or {}).get("workload") or {}
    packages = (whole.get("fingerprint") or {}).get("packages") or {}
    machine = (whole.get("fingerprint") or {}).get("gpu") or {}
    meter = next((m for m in tables.METERS if row.get(f"peak_{m}_bytes") is not None), None)
    return {
        **row,
        "device": (machine.get("name") if isinstance(machine, dict) else None) or row["device"],
        "scheduler": whole.get("scheduler_class"),
        "guidance": asked.get("guidance"),
        "strength": asked.get("strength"),
        "meter": meter,
        "peak_bytes": row.get(f"peak_{meter}_bytes") if meter else None,
        "torch": packages.get("torch"),
        "diffusers": packages.get("diffusers"),
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
