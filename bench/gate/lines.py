"""Progress for places that have no terminal of their own: one line for each process that ends."""

from __future__ import annotations

from collections.abc import Callable

from bench.contract import Record
from bench.runner import Silent, Task


class Lines(Silent):
    """Says what ended.

    Args:
        say: is given each line.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say

    def note(self, text: str) -> None:
        self._say(text)

    def cell_finished(self, task: Task, record: Record) -> None:
        rounds = task.cell["protocol"]["rounds"]
        wall_s = (record.get("process") or {}).get("wall_s")
        took = "" if wall_s is None else f"  ({wall_s:.0f} s)"
        outcome = record["outcome"]
        self._say(f"{task.cell['name']} round {task.round + 1} of {rounds}  {outcome}{took}")
