"""How amounts, durations and tables are written in the terminal."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {"ok": "green", "limited": "yellow", "missing": "bold red"}


def duration(seconds: float) -> str:
    """Return a duration: 0.4 s, 37 s, 4 min, 1 h 20 min, 2.1 days."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 36 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 1440:.1f} days"


def disk(amount: int) -> str:
    """Return an amount of disk in powers of 1000, such as ``25.1 GB``."""
    left, units = float(amount), ["B", "kB", "MB", "GB", "TB"]
    while left >= 1000 and len(units) > 1:
        left /= 1000
        units.pop(0)
    return f"{left:.3g} {units[0]}"


def console(**settings: Any) -> Console:
    """Return a terminal in which text is text: no markup, no emoji, nothing highlighted."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **settings)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def print_table(
    headings: Iterable[str], rows: Iterable[Iterable[str | Text]], *, right: Container[int] = ()
) -> None:
    """Print a table without lines, and without headings if there are none.

    Args:
        right: columns, from 0, whose text is aligned to the right.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place in right else "left")
    table.show_header = bool(table.columns)
    for row in rows:
        cells = (Text(plain(e), overflow="fold") if isinstance(e, str) else e for e in row)
        table.add_row(*cells)
    terminal = console()
    if not terminal.is_terminal:
        terminal.width = 200
    terminal.print(table)


def shown_path(path: Path) -> str:
    """Return a path relative to the working folder if it lies below it, else the whole one."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
