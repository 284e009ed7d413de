"""The result in the terminal: findings by weight, then notes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from bench.audit.examine import Audited
from bench.audit.finding import Note

MOST_FINDINGS = 40
MOST_NOTES = 12
"""Shown of one kind; --json has all."""

_TITLES = {
    "break-even": "When warm-up pays",
    "memory-change": "Memory against the baseline",
    "fixed-cost": "Steps that fit, and the fixed cost they leave",
    "implied-steps": "Steps that fit, and the fixed cost they leave",
    "effective-steps": "Steps that ran",
    "slow-row": "Time against calls of the denoiser",
    "memory-line": "Memory against picture size",
    "sample-size": "Not said",
    "mixed-meters": "Not said",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def render(audited: Sequence[Audited], width: int = 100) -> str:
    """Return the text of all tables. Control characters of the files do not reach the terminal."""
    width = max(60, min(width, 110))
    parts = [_table(one, width) for one in audited]
    if len(audited) > 1:
        found = sum(len(one.findings) for one in audited)
        parts.append(f"All: {_count(found, 'finding')} in {len(audited)} tables.\n")
    return _CONTROL.sub("�", "\n".join(parts))


def _table(one: Audited, width: int) -> str:
    table = one.table
    title = f" · {table.title}" if table.title else ""
    lines = [f"{table.file}{title} · {table.kind}, {_count(len(table), 'row')}"]
    for guess in table.guesses:
        lines += _wrapped(f"guess: {guess} (--map overrides)", width, "  ")
    if table.ignored:
        shown = ", ".join(table.ignored[:12])
        more = f" and {len(table.ignored) - 12} more" if len(table.ignored) > 12 else ""
        lines += _wrapped(f"not read: {shown}{more}", width, "  ")
    lines.append("")
    if not one.findings:
        lines.append("No findings: nothing in it contradicts itself.")
    else:
        lines.append(f"{_count(len(one.findings), 'finding')}, weightiest first")
    for number, finding in enumerate(one.findings[:MOST_FINDINGS], 1):
        lines.append("")
        head = f"{number}. [{finding.sure}] "
        lines += _wrapped(finding.says, width, head, " " * 3)
        lines += _wrapped(finding.arithmetic, width, "   sum:     ", " " * 12)
        if len(finding.rows) > 1 or not re.search(rf"{table.place} \d", finding.says):
            where = ", ".join(str(table.lines[i]) for i in finding.rows[:16])
            more = f" and {len(finding.rows) - 16} more" if len(finding.rows) > 16 else ""
            lines += _wrapped(f"{table.place} {where}{more}", width, "   where:   ", " " * 12)
        lines += _wrapped(finding.settle, width, "   settles: ", " " * 12)
        lines.append(f"   check:   {finding.check}")
    if len(one.findings) > MOST_FINDINGS:
        lines += ["", f"… and {len(one.findings) - MOST_FINDINGS} more; --json lists all."]
    lines += _notes(one.notes, width)
    return "\n".join(lines) + "\n"


def _notes(notes: Sequence[Note], width: int) -> list[str]:
    if not notes:
        return []
    by_title: dict[str, list[Note]] = {}
    for note in notes:
        by_title.setdefault(_TITLES[note.check], []).append(note)
    lines = ["", f"{_count(len(notes), 'note')}"]
    for title in dict.fromkeys(t for t in _TITLES.values() if t in by_title):
        lines += ["", title]
        members = by_title[title]
        for note in members[:MOST_NOTES]:
            lines += _wrapped(note.says, width, "  - ", "    ")
        if len(members) > MOST_NOTES:
            lines.append(f"  … and {len(members) - MOST_NOTES} more; --json lists all.")
    return lines


def _wrapped(text: str, width: int, first: str, rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number:,} {word}s"
