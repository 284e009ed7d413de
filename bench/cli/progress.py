"""What a run shows meanwhile: a live display in a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.cli.terminal import duration, shown_path
from bench.contract import Record
from bench.passes.base import counted, doing
from bench.runner import RunSummary, Silent, Task
from bench.store import StoreError
from bench.text import plain

_STYLE = {"ok": "green", "fallback": "yellow", "unsupported": "yellow", "skipped": "yellow"}


def display(console: Console, *, quiet: bool = False) -> Notes:
    """Return the display that fits ``console``; ``quiet`` leaves only what a user must know."""
    if quiet:
        return Notes(console)
    return LiveDisplay(console) if console.is_terminal else Lines(console)


@contextlib.contextmanager
def measuring(ui: Notes) -> Iterator[None]:
    """Give the terminal back, and turn how measuring ended into an exit code.

    Raises:
        typer.Exit: interrupted, or a record could not be stored.
        bench.store.StoreError: nothing was started.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except StoreError as error:
        if not ui.started:
            raise
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        ui.close()


def _plain(text: str | Text) -> str | Text:
    if isinstance(text, str):
        return plain(text)
    text.plain = plain(text.plain)
    return text


class Notes(Silent):
    """Sentences that must be read, and nothing else. The base of the other displays.

    Attributes:
        started: whether measuring began.
        after_interrupt: what is printed after an interruption.
    """

    after_interrupt = "The same command with --resume continues it."

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = False

    def close(self) -> None:
        """Give the terminal back, however the run ended."""

    def print(self, *text: str | Text) -> None:
        """Print, unless whoever read it is gone: a run goes on without an audience."""
        with _outliving_the_reader():
            self.console.print(*map(_plain, text), soft_wrap=True, highlight=False, markup=False)

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None:
        self.started = True

    def note(self, text: str) -> None:
        self.print(text)

    def run_finished(self, summary: RunSummary) -> None:
        if summary.interrupted:
            self.print(
                f"Interrupted: {summary.executed} cell(s) measured now, {summary.missing} missing. "
                + self.after_interrupt
            )


class Lines(Notes):
    """One line for each cell that ends."""

    tick_s = 1.0

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._done = 0
        self._total = 0
        self._left_s: float | None = None

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None:
        super().run_started(run_dir, tasks, reused)
        self._total, self._done = tasks, reused
        known = f", {reused} of them measured before" if reused else ""
        self.print(f"{tasks} measurement(s){known}, into {shown_path(run_dir)}")

    def tick(self, left_s: float) -> None:
        self._left_s = left_s

    def cell_finished(self, task: Task, record: Record) -> None:
        self._done += 1
        self.print(self._line(task, record))

    def _line(self, task: Task, record: Record) -> Text:
        width = len(str(self._total))
        line = Text(f"[{self._done:>{width}}/{self._total}] {label(task)}  ")
        outcome = record["outcome"]
        line.append(outcome, style=_STYLE.get(outcome, "red"))
        calls = record.get("e2e_s") or []
        if calls:
            line.append(f"  {sorted(calls)[len(calls) // 2]:.3g} s a call")
        if record.get("reason"):
            line.append(f"  {record['reason']}")
        line.append(f"  ({duration(record['process']['wall_s'])}{self._left()})", style="dim")
        return line

    def _left(self) -> str:
        if self._left_s is None or self._done >= self._total:
            return ""
        return f", about {duration(self._left_s)} left"


class LiveDisplay(Lines):
    """Lines for cells that have ended, above a few on those that run.

    It is drawn when something is reported and once a second between measurements; while a worker
    measures, the parent sleeps.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console)
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._running: dict[tuple[str, int], tuple[Task, float, str, int]] = {}

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None:
        super().run_started(run_dir, tasks, reused)
        self._live.start()

    def preparing(self, task: Task, what: str) -> None:
        self._now(task, what, 0)

    def cell_started(self, task: Task) -> None:
        self._running[task.key] = (task, self._clock(), "starting", 0)
        self._draw()

    def cell_event(self, task: Task, event: dict[str, Any]) -> None:
        if event["event"] == "phase":
            texts = _DOING | doing(task.cell)
            self._now(task, texts.get(event["phase"], event["phase"]), 0)
        elif event["event"] == "append" and (_CALLS | counted(task.cell)) & event["fields"].keys():
            _, _, what, calls = self._running[task.key]
            self._now(task, what, calls + 1)

    def cell_finished(self, task: Task, record: Record) -> None:
        self._running.pop(task.key, None)
        super().cell_finished(task, record)
        self._draw()

    def tick(self, left_s: float) -> None:
        super().tick(left_s)
        self._draw()

    def run_finished(self, summary: RunSummary) -> None:
        self.close()
        super().run_finished(summary)

    def close(self) -> None:
        with _outliving_the_reader():
            self._live.stop()

    def _now(self, task: Task, what: str, calls: int) -> None:
        begun = self._running.get(task.key, (task, self._clock(), "", 0))[1]
        self._running[task.key] = (task, begun, what, calls)
        self._draw()

    def _draw(self) -> None:
        text = Text(f"{self._done}/{self._total} done{self._left()}", style="bold")
        for task, begun, what, calls in self._running.values():
            counted = f", call {calls}" if calls else ""
            text.append(
                f"\n  {label(task)}: {what}{counted}, {duration(self._clock() - begun)}",
                style="not bold",
            )
        text.no_wrap, text.overflow = True, "ellipsis"
        with _outliving_the_reader():
            self._live.update(text, refresh=True)


_CALLS = {"e2e_s", "warmup_s"}
"""Fields to which a worker appends one item a call, besides those of passes."""

_DOING = {
    "load": "loading",
    "prepare": "preparing the backend",
    "warmup": "warming up",
    "steady": "measuring",
    "finish": "saving images",
}


def label(task: Task) -> str:
    """Return a task's name: its cell, its round if there are several, its device."""
    rounds = task.cell["protocol"]["rounds"]
    which = f" round {task.round + 1} of {rounds}" if rounds > 1 else ""
    again = " again" if task.attempt else ""
    return f"{task.cell['name']}{which}{again} on {task.device}"


@contextlib.contextmanager
def _outliving_the_reader() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, SystemExit):  # rich turns the first into the second
        # Whatever is printed from now on goes nowhere, also at the interpreter's own exit.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
