"""Our own records: a run folder, or its ``records.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import audited
from bench.audit.build import build, refuse
from bench.audit.columns import Meaning
from bench.audit.table import AuditError, Table
from bench.store import RunFolder, StoreError
from bench.store.journal import Journal


def read(path: Path, maps: Mapping[str, Meaning]) -> Table:
    """Return one row for each record that counts.

    Raises:
        AuditError: there is no run, it cannot be read, or it has no records.
    """
    try:
        if path.is_dir() or (path.parent / "plan.json").is_file():
            folder = RunFolder.open(path if path.is_dir() else path.parent)
            rows = [audited.row(record) for record in folder.raw_records()]
        else:
            journal = Journal(path)
            chosen = sorted(journal.latest.values(), key=lambda entry: entry.line)
            rows = [audited.row(json.loads(line)) for _, line in journal.lines(chosen)]
    except StoreError as error:
        raise AuditError(str(error)) from error
    return of_rows(str(path), rows, range(1, len(rows) + 1), maps)


def of_rows(
    shown: str,
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int],
    maps: Mapping[str, Meaning] | None = None,
) -> Table:
    """Return the table of these rows, each as `bench.audited.row` returns it.

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
        list(audited.COLUMNS.values()),
        rows,
        numbers,
        maps=maps or {},
        place="record",
    )
    table.counted = True
    return table
