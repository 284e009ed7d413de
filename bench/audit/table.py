"""The neutral table that every reader makes and every check reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class AuditError(Exception):
    """A file cannot be audited; ``str()`` is the whole message for the user."""


@dataclass(slots=True)
class Numbers:
    """One column of figures.

    Attributes:
        header: as the file has it.
        values: (rows,) in the unit of the column's name (seconds, bytes, …); NaN where none stands.
        half: (rows,) half a unit of the last printed digit, in the same unit; 0 for exact values.
        step: the column's finest printed step, in the same unit: what tells two values apart.
        unit: as printed.
        scale: what one printed unit is in the unit of the column's name.
    """

    header: str
    values: Floats
    half: Floats
    step: float
    unit: str
    scale: float

    def take(self, rows: NDArray[np.int64]) -> Numbers:
        """Return the column of these rows alone."""
        return replace(self, values=self.values[rows], half=self.half[rows])


@dataclass(slots=True)
class Table:
    """Rows with named columns, and where each stood.

    Attributes:
        file: as named by the user.
        kind: what the reader took the file for.
        lines: (rows,) line in the file, from 1; for JSON the number of the entry.
        place: what ``lines`` counts: "line" or "entry".
        numbers: by name of `bench.audit.columns.QUANTITIES`.
        texts: by name of `bench.audit.columns.FACTS`; empty texts where nothing stands.
        headers: which header each name was read from.
        guesses: one sentence for each column whose meaning was guessed.
        ignored: headers that no check reads.
        summaries: rows that sum up others ("average"), which only the check of averages reads.
        counted: steps were counted by hooks rather than claimed by an author.
        memories: every column of peak memory as (meter, figures); ``peak_bytes`` is the first.
    """

    file: str
    kind: str
    lines: list[int]
    place: str = "line"
    title: str = ""
    numbers: dict[str, Numbers] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    guesses: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    summaries: Table | None = None
    counted: bool = False
    memories: list[tuple[str, Numbers]] = field(default_factory=list)
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What the checks derive from a finished table and ask for again."""
    _absent: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def values(self, name: str) -> Floats:
        """Return a column of figures, (rows,); all NaN where the table has none."""
        column = self.numbers.get(name)
        return self._nothing("nan", np.nan) if column is None else column.values

    def half(self, name: str) -> Floats:
        """Return the column's rounding half-widths, (rows,); 0 where the table has none."""
        column = self.numbers.get(name)
        return self._nothing("zero", 0.0) if column is None else column.half

    def text(self, name: str) -> list[str]:
        """Return a column of texts, (rows,); all empty where the table has none."""
        found: list[str] | None = self.texts.get(name)
        if found is None:
            # Asked for row by row: made once.
            if "text" not in self._absent:
                self._absent["text"] = [""] * len(self)
            found = self._absent["text"]
        assert found is not None
        return found

    def _nothing(self, kind: str, value: float) -> Floats:
        column = self._absent.get(kind)
        if column is None:
            column = self._absent[kind] = np.full(len(self), value)
            column.setflags(write=False)
        return np.asarray(column)

    def has(self, *names: str) -> bool:
        return all(name in self.numbers or name in self.texts for name in names)

    def header(self, name: str) -> str:
        return self.headers.get(name, name)

    def subset(self, rows: Sequence[int]) -> Table:
        """Return a table of these rows alone, in this order."""
        at = np.asarray(rows, dtype=np.int64)
        return Table(
            file=self.file,
            kind=self.kind,
            lines=[self.lines[i] for i in rows],
            place=self.place,
            title=self.title,
            numbers={name: column.take(at) for name, column in self.numbers.items()},
            texts={name: [column[i] for i in rows] for name, column in self.texts.items()},
            headers=self.headers,
            counted=self.counted,
            memories=[(meter, column.take(at)) for meter, column in self.memories],
        )
