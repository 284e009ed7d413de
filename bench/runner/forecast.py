"""How long a run will still take: the plan's estimates, corrected by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench.contract import Cell

UNKNOWN_S = 60.0
"""For a cell whose time nobody can guess."""


class Forecast:
    """Learns from finished cells.

    A cell that ran in an earlier round is expected to take as long again. Others take their
    estimate times the factor by which estimates of the same backend were off, or of all backends
    as long as that one has not finished a cell.

    Args:
        estimate: seconds for one round of a cell; None if nobody knows.
    """

    def __init__(self, estimate: Callable[[Cell], float] | None = None) -> None:
        self._guess = estimate
        self._seen: dict[str, list[float]] = {}
        self._sums: dict[str, tuple[float, float]] = {}

    def learn(self, cell: Cell, seconds: float) -> None:
        """A round of ``cell`` took ``seconds``."""
        self._seen.setdefault(cell["cell_id"], []).append(seconds)
        for group in (cell["backend"]["name"], ""):
            measured, estimated = self._sums.get(group, (0.0, 0.0))
            self._sums[group] = (measured + seconds, estimated + self._estimate(cell))

    def expected(self, cell: Cell) -> float:
        """Seconds for one round of ``cell``."""
        seen = self._seen.get(cell["cell_id"])
        if seen:
            return sum(seen) / len(seen)
        measured, estimated = (
            self._sums.get(cell["backend"]["name"]) or self._sums.get("") or (1.0, 1.0)
        )
        return self._estimate(cell) * measured / estimated

    def left(self, waiting: Iterable[Cell], running: Iterable[tuple[Cell, float]]) -> float:
        """Seconds until one lane is done.

        Args:
            waiting: cells not begun.
            running: cells begun, with the seconds that they have taken so far.
        """
        ahead = sum(self.expected(cell) for cell in waiting)
        return ahead + sum(max(0.0, self.expected(cell) - so_far) for cell, so_far in running)

    def _estimate(self, cell: Cell) -> float:
        return max(UNKNOWN_S if self._guess is None else self._guess(cell), 0.001)
