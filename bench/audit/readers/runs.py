"""Our own records: a run folder, or its ``records.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from bench.audit.build import refuse
from bench.audit.columns import Meaning, kind_of
from bench.audit.table import AuditError, Numbers, Table
from bench.records.alike import READ
from bench.records.types import Record
from bench.store import RunFolder, StoreError
from bench.store.journal import Journal

Get = Callable[[Record], Any]


def _steady(record: Record) -> tuple[str | None, int | None]:
    """Return the most telling meter that read the steady phase, and its peak in bytes."""
    peaks = {m.meter: m.bytes for m in record.memory if m.phase == "steady" and m.bytes is not None}
    return next(((meter, peaks[meter]) for meter in READ if meter in peaks), (None, None))


def _package(name: str) -> Get:
    return lambda record: (record.fingerprint.get("packages") or {}).get(name)


def _figure(get: Get) -> Get:
    return lambda record: get(record) if record.outcome == "ok" else None


_COLUMNS: dict[str, Get] = {
    "name": attrgetter("name"),
    "round": attrgetter("round"),
    "task": attrgetter("workload.task"),
    "model": attrgetter("workload.model"),
    "backend": attrgetter("cell.backend.name"),
    "gpu": lambda record: (record.fingerprint.get("gpu") or {}).get("name") or record.device,
    "dtype": attrgetter("workload.dtype"),
    "scheduler": attrgetter("scheduler_class"),
    "outcome": attrgetter("outcome"),
    "meter": _figure(lambda record: _steady(record)[0]),
    "height": lambda record: record.size[0],
    "width": lambda record: record.size[1],
    "batch": attrgetter("workload.batch"),
    "guidance": attrgetter("workload.guidance"),
    "strength": attrgetter("workload.strength"),
    "steps": attrgetter("steps.requested"),
    "steps_effective": attrgetter("steps_effective"),
    "denoiser_calls": attrgetter("denoiser_calls"),
    "runs": _figure(lambda record: len(record.e2e_s)),
    "e2e_s": _figure(attrgetter("median_e2e_s")),
    "it_per_s": _figure(attrgetter("median_it_per_s")),
    "warmup_s": _figure(attrgetter("warmup_total_s")),
    "first_call_s": _figure(attrgetter("first_call_s")),
    "compile_s": _figure(attrgetter("compile_s")),
    "load_s": _figure(attrgetter("load_s")),
    "peak_bytes": _figure(lambda record: _steady(record)[1]),
    "torch": _package("torch"),
    "diffusers": _package("diffusers"),
}
"""By the audit's names; figures of records that are ok alone."""


def read(path: Path, maps: Mapping[str, Meaning]) -> Table:
    """Return one row for each record that counts.

    Raises:
        AuditError: there is no run, it cannot be read, it has no records, or columns are mapped.
    """
    if maps:
        raise refuse(str(path), "the columns of records have one meaning; leave --map away.")
    try:
        if path.is_dir() or (path.parent / "plan.json").is_file():
            folder = RunFolder.open(path if path.is_dir() else path.parent)
            records, journal = list(folder.records()), folder.journal
        else:
            journal = Journal(path)
            chosen = sorted(journal.latest.values(), key=lambda entry: entry.line)
            records = list(journal.read(chosen))
        journal.warn()
    except StoreError as error:
        raise AuditError(str(error)) from error
    return of_records(str(path), records, range(1, len(records) + 1))


def of_records(shown: str, records: Sequence[Record], numbers: Sequence[int]) -> Table:
    """Return the table of these records; their figures are exact.

    ``numbers`` are what they are called by: their places among those of the run that count, from 1.

    Raises:
        AuditError: there are none.
    """
    if not records:
        raise refuse(shown, "it has no records.")
    table = Table(shown, "records of a run", list(numbers), "record", counted=True)
    exact = np.zeros(len(records))
    for name, get in _COLUMNS.items():
        values = [get(record) for record in records]
        table.headers[name] = name
        kind = kind_of(name)
        if kind == "text":
            table.texts[name] = ["" if value is None else str(value) for value in values]
            continue
        unit = {"time": "s", "memory": "bytes"}.get(kind, "")
        floats = np.array([np.nan if value is None else value for value in values], dtype=float)
        step = 1.0 if kind in ("count", "memory") else 0.0
        table.numbers[name] = Numbers(name, floats, exact, step, unit, 1.0)
    table.memories = [("", table.numbers["peak_bytes"])]
    return table
