"""JSON: pytest-benchmark's, and plain lists of rows such as ``bench export --format json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench.audit.build import build, refuse
from bench.audit.columns import Meaning
from bench.audit.table import Table

_STATS = {
    "min": "min_s",
    "max": "max_s",
    "mean": "mean_s",
    "median": "median_s",
    "stddev": "stddev_s",
    "rounds": "runs",
    "total": "total_s",
}


def read(shown: str, value: Any, maps: Mapping[str, Meaning]) -> Table:
    """Return the table of a JSON value.

    Raises:
        AuditError: it is neither pytest-benchmark's nor a list of objects.
    """
    if isinstance(value, dict) and isinstance(value.get("benchmarks"), list):
        return _pytest_benchmark(shown, value["benchmarks"], maps)
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list) or not value or not all(isinstance(r, dict) for r in value):
        raise refuse(shown, "its JSON is neither pytest-benchmark's nor a list of rows.")
    return _rows(shown, "JSON rows", [_flat(row) for row in value], maps)


def read_lines(shown: str, text: str, maps: Mapping[str, Meaning]) -> Table:
    """Return the table of a file with one JSON object a line.

    Raises:
        AuditError: a line is none.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise refuse(shown, f"line {number} is no JSON object.")
        rows.append(_flat(row))
    return _rows(shown, "JSON rows", rows, maps)


def _pytest_benchmark(shown: str, benchmarks: list[Any], maps: Mapping[str, Meaning]) -> Table:
    rows = []
    for entry in benchmarks:
        if not isinstance(entry, dict) or not isinstance(entry.get("stats"), dict):
            raise refuse(shown, "a benchmark in it has no stats.")
        name = str(entry.get("name", ""))
        row: dict[str, Any] = {
            key: value
            for source in (entry.get("extra_info"), entry.get("params"))
            if isinstance(source, dict)
            for key, value in _flat(source).items()
        }
        row |= {ours: entry["stats"].get(theirs) for theirs, ours in _STATS.items()}
        if "model" not in row and entry.get("group"):
            row["model"] = entry["group"]
        if "backend" not in row and "/" in name:
            row["backend"] = name.rpartition("/")[2]
        # The median is what the time of a call is compared by.
        row |= {"name": name, "e2e_s": entry["stats"].get("median")}
        rows.append(row)
    if not rows:
        raise refuse(shown, "it lists no benchmark.")
    return _rows(shown, "pytest-benchmark", rows, maps)


def _rows(shown: str, kind: str, rows: list[dict[str, Any]], maps: Mapping[str, Meaning]) -> Table:
    headers = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(header)) for header in headers] for row in rows]
    return build(shown, kind, headers, cells, range(1, len(rows) + 1), maps=maps, place="entry")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with the fields of objects within it beside its own."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {inner: v for inner, v in value.items() if not isinstance(v, (dict, list))}
        elif not isinstance(value, list):
            flat[key] = value
    return flat


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
