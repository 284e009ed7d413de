"""A comparison as a table for people, and as JSON and JUnit XML for machines."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from bench import text
from bench.gate.compare import STATUSES, STOPS, Comparison, Row, Status
from bench.gate.measured import COUNTS

if TYPE_CHECKING:
    from rich.console import RenderableType


class _Look(NamedTuple):
    """How a status is shown: its style, its mark, and its element of JUnit XML, if any."""

    style: str
    mark: str
    junit: str = ""


_LOOKS: dict[Status, _Look] = {
    "regression": _Look("bold red", "❌", "failure"),
    **dict.fromkeys(STOPS, _Look("yellow", "⚠️", "error")),
    "improved": _Look("green", "✅"),
    "passed": _Look("green", "✅"),
    "not gated": _Look("dim", "➖", "skipped"),
}

_COLUMNS = ("cell", "figure", "baseline", "now", "change", "allowed", "")


def texts(comparisons: Sequence[Comparison], kind: str) -> str:
    """Return comparisons as one ``markdown``, ``json`` or ``junit`` document.

    JSON is the first one's, with further ones under ``more``.
    """
    if kind == "junit":
        return junit(comparisons)
    if kind == "markdown":
        return "\n".join(markdown(comparison) for comparison in comparisons)
    first, *more = map(as_json, comparisons)
    return json.dumps({**first, "more": more}, indent=1, ensure_ascii=False) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values; figures unrounded, in the row's ``unit``."""
    head = {"schema": 1, "exit_code": comparison.exit_code, "headline": comparison.headline}
    return {**head, **dataclasses.asdict(comparison)}


def terminal(comparison: Comparison) -> RenderableType:
    """Return what `rich` prints: a small table for each cell, the gravest first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, style="dim") for line in _sources(comparison)]
    for cell, rows in _by_cell(comparison.rows).items():
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=16)
        for width in (12, 12, None, None):
            table.add_column(min_width=width, justify="right")
        table.add_column(no_wrap=True)
        for row in rows:
            *texts, status = _texts(row)
            table.add_row(f"  {texts[1]}", *texts[2:], Text(status, style=_LOOKS[row.status].style))
        parts += [Text(""), Text(cell, style="bold"), table]
    parts.append(Text(""))
    parts += [Text(f"• {line}") for line in _remarks(comparison)]
    parts.append(Text(comparison.headline, style="bold"))
    return Group(*parts)


def markdown(comparison: Comparison) -> str:
    """Return a page for a job summary or a comment."""
    mark = {0: "✅", 1: "❌"}.get(comparison.exit_code, "⚠️")
    lines = [f"## {mark} {_escaped(comparison.headline)}", ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |", "| --- | --- | --: | --: | --: | --: | --- |"]
    for rows in _by_cell(comparison.rows).values():
        for row in rows:
            *cells, status = _texts(row)
            shown = [_escaped(cell) for cell in cells]
            lines.append("| " + " | ".join([*shown, f"{_LOOKS[row.status].mark} {status}"]) + " |")
    lines += ["", *(f"- {_escaped(line)}" for line in _remarks(comparison))]
    lines += ["", *(f"{_escaped(line)}  " for line in _sources(comparison))]
    return "\n".join(lines) + "\n"


def _by_cell(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows worth a line, by cell; cells and figures with what is grave come first.

    Counts that are exactly as before share a line, and what has no value on either side has none.
    """
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    shown: dict[str, list[Row]] = {}
    for cell in sorted(cells, key=lambda name: min(map(_gravity, cells[name]))):
        exact = [row for row in cells[cell] if row.status == "passed" and row.metric in COUNTS]
        kept = [
            row
            for row in cells[cell]
            if row not in exact
            and not (row.metric == "outcome" and row.status == "passed")
            and not (row.status == "not gated" and row.baseline is None and row.candidate is None)
        ]
        if exact:
            names = f"{len(exact)} counts" if len(exact) > 1 else "1 count"
            kept.append(Row(cell, names, "passed", "", "exactly", "as before"))
        shown[cell] = sorted(kept, key=_gravity)
    return shown


def _gravity(row: Row) -> int:
    return STATUSES.index(row.status)


def _remarks(comparison: Comparison) -> list[str]:
    """Return what the table cannot say: reasons, the same one once for all cells it holds for."""
    remarks: dict[tuple[str, str], list[str]] = {}
    for row in sorted(comparison.rows, key=_gravity):
        shown = row.status == "not gated" and None not in (row.baseline, row.candidate)
        plain = row.status == "improved" and row.change_pct is not None
        if row.status == "passed" or shown or (plain and not row.reason.startswith("acknow")):
            continue
        word = "not gated: " if row.status == "not gated" else ""
        remarks.setdefault((row.metric, word + row.reason), []).append(row.cell)
    lines = []
    for (metric, reason), cells in remarks.items():
        where = cells[0] if len(cells) == 1 else f"{len(cells)} cells"
        lines.append(f"{where}, {metric}: {reason}")
    return [*lines, *comparison.notes]


def junit(comparisons: Sequence[Comparison]) -> str:
    """Return JUnit XML: a suite for each comparison, a test case for each figure.

    A regression is a failure, what could not be compared an error, and what is not gated skipped.
    """
    root = ElementTree.Element(
        "testsuites", _numbers([row for each in comparisons for row in each.rows])
    )
    for comparison in comparisons:
        name = _legal(f"bench against {comparison.baseline['name']}")
        attributes = {"name": name, **_numbers(comparison.rows)}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        properties = ElementTree.SubElement(suite, "properties")
        for side in ("baseline", "candidate"):
            for name, value in getattr(comparison, side).items():
                attributes = {"name": f"{side}.{name}", "value": _legal(value)}
                ElementTree.SubElement(properties, "property", attributes)
        for row in comparison.rows:
            _case(suite, row)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _numbers(rows: Sequence[Row]) -> dict[str, str]:
    kinds = Counter(_LOOKS[row.status].junit for row in rows)
    return {
        "tests": str(len(rows)),
        "failures": str(kinds["failure"]),
        "errors": str(kinds["error"]),
        "skipped": str(kinds["skipped"]),
    }


def _case(suite: ElementTree.Element, row: Row) -> None:
    place = {"classname": _legal(row.cell), "name": row.metric, "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", place)
    kind, reason = _LOOKS[row.status].junit, _legal(row.reason)
    if kind == "skipped":
        ElementTree.SubElement(case, kind, message=reason)
    elif kind:
        typed = {"message": f"{row.status}: {reason}", "type": row.status}
        attributes = typed if kind == "error" else {"message": reason}
        ElementTree.SubElement(case, kind, attributes).text = reason


def _legal(text: str) -> str:
    """Drop the control characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, HTML included, on one line of a table."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|~\[\]])", r"\\\1", flat)


def _sources(comparison: Comparison) -> list[str]:
    return [
        f"{side}: {facts['name']}, {facts['n']}, commit {facts['commit']}, "
        f"machine {facts['machine']}, run {facts['runs']}, {facts['measured']}"
        for side, facts in (("Baseline", comparison.baseline), ("Now", comparison.candidate))
    ]


def _texts(row: Row) -> list[str]:
    change = "" if row.change_pct is None else text.signed_percent(row.change_pct)
    if row.low_pct is not None and row.high_pct is not None:
        change += f" [{text.signed_percent(row.low_pct)}, {text.signed_percent(row.high_pct)}]"
    return [
        row.cell,
        row.metric,
        _value(row.baseline, row.unit),
        _value(row.candidate, row.unit),
        change,
        "" if row.allowed_pct is None else f"+{row.allowed_pct:g} %",
        row.status,
    ]


def _value(value: Any, unit: str | None) -> str:
    if value is None:
        return text.DASH
    return str(value) if unit is None else text.with_unit(value, unit)
