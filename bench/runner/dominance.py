"""Cells that need not run: they ask for more than one that has run out of memory already.

A cell dominates another if both are alike in all but size, batch, name and seed, on one device and
under one set of limits, and the other asks for at least as many pictures, rows and columns, and for
more of one of them. A wider but lower picture is not more: which of the two needs more memory, only
a measurement says.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contract import Cell
from bench.records import alike


@dataclass(frozen=True, slots=True)
class Smaller:
    """The record of a cell that ran out of memory, and why another need not try."""

    record_id: str
    reason: str


class Dominance:
    """What has run out of memory so far in a run. Not in use, it finds nothing."""

    def __init__(self, *, use: bool = True) -> None:
        self._use = use
        self._known: dict[str, list[tuple[tuple[int, ...], str, str]]] = {}

    def ran_out(self, cell: Cell, device: str, record_id: str) -> None:
        """Keep that ``cell`` ended ``oom`` on ``device``."""
        known = self._known.setdefault(alike.but_for_size(cell, device), [])
        known.append((_asked(cell), record_id, cell["name"]))

    def smaller(self, cell: Cell, device: str) -> Smaller | None:
        """Return the record that makes ``cell`` hopeless on ``device``; None if there is none."""
        if not self._use or not self._known:
            return None
        asked = _asked(cell)
        for less, record_id, name in self._known.get(alike.but_for_size(cell, device), ()):
            if less != asked and all(a <= b for a, b in zip(less, asked, strict=True)):
                return Smaller(
                    record_id,
                    f"not run: {_told(asked)} asks for more than {_told(less)}, which ran out of "
                    f"memory in this run (cell {name}, record {record_id})",
                )
        return None


def _asked(cell: Cell) -> tuple[int, ...]:
    workload = cell["workload"]
    return workload["batch"], workload["height"], workload["width"]


def _told(asked: tuple[int, ...]) -> str:
    batch, height, width = asked
    return f"batch {batch} at {width}x{height}"
