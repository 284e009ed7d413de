"""CSV and its kin: commas, semicolons, tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from bench.audit.build import build, refuse
from bench.audit.columns import Meaning
from bench.audit.table import Table

_MARKS = (",", ";", "\t", "|")


def read(shown: str, text: str, maps: Mapping[str, Meaning]) -> Table:
    """Return the table of a delimited text; lines that begin with # before it are left aside.

    Raises:
        AuditError: there is no header of two columns, or no row.
    """
    lines = text.splitlines(keepends=True)
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].startswith("#")):
        skipped += 1
    if skipped == len(lines):
        raise refuse(shown, "it holds no table.")
    mark = max(_MARKS, key=lambda m: _columns(lines[skipped], m))
    reader = csv.reader(io.StringIO("".join(lines[skipped:])), delimiter=mark)
    rows: list[list[str]] = []
    places: list[int] = []
    try:
        headers = next(reader)
        start = reader.line_num
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                rows.append(row)
                places.append(skipped + start + 1)
            start = reader.line_num
    except csv.Error as error:
        raise refuse(shown, f"line {skipped + reader.line_num} is no CSV ({error}).") from error
    if len(headers) < 2:
        raise refuse(
            shown, "no table was found in it: neither columns, nor a Markdown table, nor the lines "
            "that OneDiff's script prints."
        )  # fmt: skip
    if not rows:
        raise refuse(shown, "it has a header and no rows.")
    return build(shown, "CSV", headers, rows, places, maps=maps)


def _columns(line: str, mark: str) -> int:
    return len(next(csv.reader([line], delimiter=mark)))
