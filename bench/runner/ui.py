"""What a run shows to whoever watches: the command line, the API, a test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.contract import Cell, Record


@dataclass(frozen=True, slots=True)
class Task:
    """One cell in one round.

    Attributes:
        device: where it runs: cpu, cuda:N or mps; the name asked for if that is not there.
        unsupported: why it cannot run at all, if so.
    """

    cell: Cell
    round: int
    attempt: int
    device: str
    unsupported: str | None

    @property
    def key(self) -> tuple[str, int]:
        return self.cell["cell_id"], self.round


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        run_dir: absolute.
        outcomes: of all current cells and rounds that have a record.
        executed: how many were measured now.
        reused: how many had a record already.
        missing: how many have none (interrupted).
        interrupted: by Ctrl-C or a signal.
        notes: sentences for the user.
    """

    run_dir: Path
    outcomes: Counter[str]
    executed: int
    reused: int
    missing: int
    interrupted: bool
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if every cell is ok, 1 if some cell is not, 130 after an interruption."""
        if self.interrupted:
            return 130
        return 0 if set(self.outcomes) <= {"ok"} and not self.missing else 1


class Ui(Protocol):
    """Observer of a run; called from the runner's own thread, between its events.

    ``tick_s``: how often `tick` is called while no worker measures; None for never. While one
    measures, nothing is called except for what it reports, so that the parent sleeps.
    """

    tick_s: float | None

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None: ...

    def note(self, text: str) -> None:
        """A sentence that the user should read."""
        ...

    def preparing(self, task: Task, what: str) -> None:
        """Before the cell itself: importing libraries, or filling its compile cache."""
        ...

    def cell_started(self, task: Task) -> None: ...

    def cell_event(self, task: Task, event: dict[str, Any]) -> None: ...

    def cell_finished(self, task: Task, record: Record) -> None: ...

    def tick(self, left_s: float) -> None:
        """Time left for the whole run, in seconds."""
        ...

    def run_finished(self, summary: RunSummary) -> None: ...


class Silent:
    """Shows nothing."""

    tick_s: float | None = None

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def preparing(self, task: Task, what: str) -> None:
        pass

    def cell_started(self, task: Task) -> None:
        pass

    def cell_event(self, task: Task, event: dict[str, Any]) -> None:
        pass

    def cell_finished(self, task: Task, record: Record) -> None:
        pass

    def tick(self, left_s: float) -> None:
        pass

    def run_finished(self, summary: RunSummary) -> None:
        pass
