"""Tables → what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.audit import readers
from bench.audit.checks import CHECKS
from bench.audit.columns import Meaning
from bench.audit.finding import Finding, Note
from bench.audit.table import AuditError, Table

SCHEMA = 1
"""Version of `as_json`; a change of meaning raises it, a further field does not."""


@dataclass(frozen=True, slots=True)
class Audited:
    """A table with what was found, findings by falling weight."""

    table: Table
    findings: list[Finding]
    notes: list[Note]


def audit(paths: Sequence[Path], maps: Mapping[str, Meaning] | None = None) -> list[Audited]:
    """Return the tables of all files, audited, in the order given.

    Raises:
        AuditError: a file cannot be read, holds no table, or none of its columns is known; or a
            mapped header stands in no file.
    """
    tables = [table for path in paths for table in readers.read(path, maps or {})]
    headers = {h for table in tables for h in (*table.headers.values(), *table.ignored)}
    for header in maps or {}:
        if header not in headers:
            raise AuditError(
                f"--map {header}=…: no table has a column {header!r}; there are: "
                f"{', '.join(sorted(headers))}."
            )
    for table in tables:
        if not table.numbers:
            unknown = [header.strip() for header in table.ignored if header.strip()]
            raise AuditError(
                f"{table.file} cannot be audited: no column of figures is known in it "
                f"({', '.join(unknown[:12])}); name them with --map, for example --map "
                f"'{(unknown or ['time'])[0]}=e2e'."
            )
    return [examine(table) for table in tables]


def examine(table: Table) -> Audited:
    """Return what all checks say of a table. Rows that did not end ok have no figures to check."""
    table = _ended_ok(table)
    findings: list[Finding] = []
    notes: list[Note] = []
    if len(table):
        for check in CHECKS:
            found, told = check(table)
            findings += found
            notes += told
    findings.sort(key=lambda finding: -finding.weight)
    return Audited(table, findings, notes)


_ENDED = {"", "ok", "success", "passed", "pass", "done", "completed", "true"}


def _ended_ok(table: Table) -> Table:
    outcomes = table.text("outcome")
    failed = [i for i, outcome in enumerate(outcomes) if outcome.lower() not in _ENDED]
    if not failed or len(failed) > 0.9 * len(table):
        return table
    at = np.array(failed)
    for column in (*table.numbers.values(), *(column for _, column in table.memories)):
        if column.header not in {table.header(n) for n in ("height", "width", "batch", "steps")}:
            column.values[at] = np.nan
    return table


def as_json(audited: Sequence[Audited]) -> dict[str, Any]:
    """Return the result as JSON values; docs/audit.md holds the schema."""
    return {
        "schema": SCHEMA,
        "findings": sum(len(one.findings) for one in audited),
        "notes": sum(len(one.notes) for one in audited),
        "tables": [
            {
                "file": one.table.file,
                "title": one.table.title,
                "kind": one.table.kind,
                "rows": len(one.table),
                "columns": dict(one.table.headers),
                "guesses": one.table.guesses,
                "ignored": one.table.ignored,
                "findings": [
                    {
                        "check": finding.check,
                        "sure": finding.sure,
                        "weight": round(finding.weight, 4),
                        "says": finding.says,
                        "rows": _rows(one.table, finding.rows),
                        "arithmetic": finding.arithmetic,
                        "settle": finding.settle,
                    }
                    for finding in one.findings
                ],
                "notes": [
                    {"check": note.check, "says": note.says, "rows": _rows(one.table, note.rows)}
                    for note in one.notes
                ],
            }
            for one in audited
        ],
    }


def _rows(table: Table, rows: Sequence[int]) -> list[dict[str, Any]]:
    return [{"row": i + 1, table.place: table.lines[i]} for i in rows]
