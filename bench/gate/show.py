"""A comparison as a table for people, and as JSON and JUnit XML for machines."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from bench import text
from bench.gate.compare import STATUSES, STOPS, Comparison, Row, Status
from bench.gate.measured import COUNTS

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMATS = ("terminal", "markdown", "json", "junit")

_LOOKS: dict[Status, tuple[str, str]] = {
    "regression": ("bold red", "❌"),
    "not comparable": ("yellow", "⚠️"),
    "unclear": ("yellow", "⚠️"),
    "implausible": ("yellow", "⚠️"),
    "improved": ("green", "✅"),
    "passed": ("green", "✅"),
    "not gated": ("dim", "➖"),
}
"""Colour and mark of each status."""

_COLUMNS = ("cell", "figure", "baseline", "now", "change", "allowed", "")


def texts(found: Sequence[Comparison], kind: str) -> str:
    """Return comparisons as one ``markdown``, ``json`` or ``junit`` document.

    JSON is the first one's, with further ones under ``more``.
    """
    if kind == "junit":
        return junit(found)
    if kind == "markdown":
        return "\n".join(markdown(comparison) for comparison in found)
    first, *more = map(as_json, found)
    return json.dumps({**first, "more": more}, indent=1, ensure_ascii=False) + "\n"


def as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values; figures unrounded, in the row's ``unit``."""
    return {
        "schema": 1,
        "exit_code": found.exit_code,
        "headline": found.headline,
        "confirmed": found.confirmed,
        "suspects": list(found.suspects),
        "baseline": dict(found.baseline),
        "candidate": dict(found.candidate),
        "rows": [dataclasses.asdict(row) for row in found.rows],
        "notes": list(found.notes),
    }


def terminal(found: Comparison) -> RenderableType:
    """Return what `rich` prints: a small table for each cell, the gravest first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, style="dim") for line in _sources(found)]
    for cell, rows in _by_cell(found.rows).items():
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=16)
        for width in (12, 12, None, None):
            table.add_column(min_width=width, justify="right")
        table.add_column(no_wrap=True)
        for row in rows:
            *texts, status = _texts(row)
            table.add_row(f"  {texts[1]}", *texts[2:], Text(status, style=_LOOKS[row.status][0]))
        parts += [Text(""), Text(cell, style="bold"), table]
    parts.append(Text(""))
    parts += [Text(f"• {line}") for line in _remarks(found)]
    parts.append(Text(found.headline, style="bold"))
    return Group(*parts)


def markdown(found: Comparison) -> str:
    """Return a page for a job summary or a comment."""
    mark = {0: "✅", 1: "❌"}.get(found.exit_code, "⚠️")
    lines = [f"## {mark} {_escaped(found.headline)}", ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |", "| --- | --- | --: | --: | --: | --: | --- |"]
    for rows in _by_cell(found.rows).values():
        for row in rows:
            *cells, status = _texts(row)
            shown = [_escaped(cell) for cell in cells]
            lines.append("| " + " | ".join([*shown, f"{_LOOKS[row.status][1]} {status}"]) + " |")
    lines += ["", *(f"- {_escaped(line)}" for line in _remarks(found))]
    lines += ["", *(f"{_escaped(line)}  " for line in _sources(found))]
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


def _remarks(found: Comparison) -> list[str]:
    """Return what the table cannot say: reasons, the same one once for all cells it holds for."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in sorted(found.rows, key=_gravity):
        shown = row.status == "not gated" and None not in (row.baseline, row.candidate)
        plain = row.status == "improved" and row.change_pct is not None
        if row.status == "passed" or shown or (plain and not row.reason.startswith("acknow")):
            continue
        word = "not gated: " if row.status == "not gated" else ""
        said.setdefault((row.metric, word + row.reason), []).append(row.cell)
    lines = []
    for (metric, reason), cells in said.items():
        where = cells[0] if len(cells) == 1 else f"{len(cells)} cells"
        lines.append(f"{where}, {metric}: {reason}")
    return [*lines, *found.notes]


def junit(found: Sequence[Comparison]) -> str:
    """Return JUnit XML: a suite for each comparison, a test case for each figure.

    A regression is a failure, what could not be said is an error, and what is not gated is skipped.
    """
    root = ElementTree.Element("testsuites", _numbers([row for one in found for row in one.rows]))
    for comparison in found:
        name = f"bench against {comparison.baseline['name']}"
        attributes = {"name": _legal(name), **_numbers(comparison.rows)}
        _suite(ElementTree.SubElement(root, "testsuite", attributes), comparison)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _numbers(rows: Sequence[Row]) -> dict[str, str]:
    return {
        "tests": str(len(rows)),
        "failures": str(sum(row.status == "regression" for row in rows)),
        "errors": str(sum(row.status in STOPS for row in rows)),
        "skipped": str(sum(row.status == "not gated" for row in rows)),
    }


def _suite(suite: ElementTree.Element, found: Comparison) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    for side, facts in (("baseline", found.baseline), ("candidate", found.candidate)):
        for name, value in facts.items():
            attributes = {"name": f"{side}.{name}", "value": _legal(value)}
            ElementTree.SubElement(properties, "property", attributes)
    for row in found.rows:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _legal(row.cell), "name": row.metric, "time": "0"}
        )
        reason = _legal(row.reason)
        if row.status == "regression":
            ElementTree.SubElement(case, "failure", {"message": reason}).text = reason
        elif row.status in STOPS:
            attributes = {"message": f"{row.status}: {reason}", "type": row.status}
            ElementTree.SubElement(case, "error", attributes).text = reason
        elif row.status == "not gated":
            ElementTree.SubElement(case, "skipped", {"message": reason})


def _legal(text: str) -> str:
    """Drop the control characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, HTML included, on one line of a table."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|~\[\]])", r"\\\1", flat)


def _sources(found: Comparison) -> list[str]:
    return [
        f"{side}: {facts['name']}, {facts['n']}, commit {facts['commit']}, "
        f"machine {facts['machine']}, run {facts['runs']}, {facts['measured']}"
        for side, facts in (("Baseline", found.baseline), ("Now", found.candidate))
    ]


def _texts(row: Row) -> list[str]:
    change = "" if row.change_pct is None else text.signed_percent(row.change_pct)
    if row.low_pct is not None and row.high_pct is not None:
        change += f" [{text.signed_percent(row.low_pct)}, {text.signed_percent(row.high_pct)}]"
    return [
        row.cell,
        row.metric,
        value(row.baseline, row.unit),
        value(row.candidate, row.unit),
        change,
        "" if row.allowed_pct is None else f"+{row.allowed_pct:g} %",
        row.status,
    ]


def value(figure: Any, unit: str | None) -> str:
    """Return a figure with its unit, and anything else as it is."""
    if figure is None:
        return text.DASH
    if unit == "bytes":
        return f"{text.gib(figure)} GiB"
    return f"{figure:.4g} s" if unit == "s" else str(figure)
