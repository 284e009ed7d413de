"""Markdown tables, as many as a page holds."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.audit.build import build
from bench.audit.columns import Meaning
from bench.audit.table import Table

_RULE = re.compile(r"^\s*\|?\s*:?-{1,}:?\s*(?:\|\s*:?-{1,}:?\s*)*\|?\s*$")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_BOLD = re.compile(r"(\*\*|__|`)(.+?)\1")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


def read(shown: str, text: str, maps: Mapping[str, Meaning]) -> list[Table]:
    """Return the tables that hold a figure which some check reads; none is no error."""
    lines = text.splitlines()
    tables = []
    title = ""
    at = 0
    fenced = False
    while at < len(lines):
        if _FENCE.match(lines[at]):
            fenced = not fenced
        heading = _HEADING.match(lines[at])
        if heading and not fenced:
            title = plain(heading[1])
        if "|" in lines[at] and at + 1 < len(lines) and _is_rule(lines[at], lines[at + 1]):
            end = at + 2
            while end < len(lines) and "|" in lines[end] and lines[end].strip():
                end += 1
            table = build(
                shown,
                "Markdown table",
                [plain(cell) for cell in cells(lines[at])],
                [[plain(cell) for cell in cells(line)] for line in lines[at + 2 : end]],
                range(at + 3, end + 1),
                maps=maps,
                title=title,
            )
            if len(table) and table.numbers:
                tables.append(table)
            at = end
            continue
        at += 1
    return tables


def _is_rule(head: str, rule: str) -> bool:
    return "-" in rule and bool(_RULE.match(rule)) and len(cells(head)) == len(cells(rule))


def cells(line: str) -> list[str]:
    """Return the cells of a table's line; an escaped bar stays within its cell."""
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", inner)]


def plain(cell: str) -> str:
    """Return a cell's text without emphasis, code marks and links."""
    text = _LINK.sub(r"\1", cell.replace("<br>", " ").replace("&nbsp;", " "))
    previous = None
    while previous != text:
        previous, text = text, _BOLD.sub(r"\2", text)
    return text.replace("\\_", "_").replace("\\*", "*").strip()
