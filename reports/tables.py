"""Tables of a report as data: a list of columns, read from rows of anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import text

Getter = str | Callable[[Any], Any]
"""What to read from a row: the path of an attribute, or a function."""


def get(row: Any, what: Getter) -> Any:
    """Return what a row has at a path such as ``finding.e2e.value``; None if a part of it is."""
    if not isinstance(what, str):
        return what(row)
    for name in what.split("."):
        row = None if row is None else getattr(row, name)
    return row


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; ``value`` is the unrounded figure behind the text."""

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: list[str]
    rows: list[list[Cell]]
    note: str = ""
    folded: bool = False

    @property
    def aligned(self) -> list[tuple[str, bool]]:
        """The head, each name with whether its column holds numbers."""
        return [
            (name, any(row[place].kind == "number" for row in self.rows))
            for place, name in enumerate(self.head)
        ]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, what it reads from a row (see `get`), and how a figure is shown.

    Without ``show`` it holds text, of which ``kind`` says what it is. ``value`` may return a `Cell`
    where the text and the figure behind it are not of one piece.
    """

    head: str
    value: Getter
    show: Callable[[Any], str] | None = None
    kind: str = ""

    def cell(self, row: Any) -> Cell:
        value = get(row, self.value)
        if isinstance(value, Cell):
            return value
        if self.show is None:
            return Cell("" if value is None else str(value), None, self.kind)
        return Cell(self.show(value), value, "number")


def table(
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Any],
    note: str = "",
    *,
    folded: bool = False,
) -> Table | None:
    """Return the table of these columns; None without rows."""
    made = [[column.cell(row) for column in columns] for row in rows]
    head = [column.head for column in columns]
    return Table(title, head, made, note, folded) if made else None


def present(*tables: Table | None) -> list[Table]:
    """Return those tables that there are."""
    return [each for each in tables if each is not None]


def interval(
    low: float | None, high: float | None, show: Callable[[float | None], str] = text.seconds
) -> Cell:
    return Cell(text.interval(low, high, show), None, "number")


def spread(value: Any, show: Callable[[float | None], str] = text.seconds) -> Cell:
    """Return the interval of what has a ``low`` and a ``high``; a dash of None."""
    return interval(value.low, value.high, show) if value else interval(None, None)
