"""Run a plan: the loop that sleeps until something happens, and what comes before and after it."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, cast

import bench
from bench.contract import OUTCOMES, Cell
from bench.environments import CURRENT, EnvironmentUnavailable, Interpreter, resolve
from bench.redact import Logs, Redactor
from bench.runner import budget, host, schedule
from bench.runner.devices import DeviceError, Machine, Unsupported
from bench.runner.dominance import Dominance
from bench.runner.forecast import Forecast
from bench.runner.lane import FRESH_PREFIX, Context, Lane, Patience, RunnerError, Start, record_id
from bench.runner.launch import Program
from bench.runner.ui import RunSummary, Silent, Task, Ui
from bench.store import RunFolder


class RunPlan(Protocol):
    """What the runner needs of a plan; `bench.config.Plan` has it."""

    @property
    def cells(self) -> Sequence[Cell]: ...

    @property
    def devices(self) -> Sequence[str]: ...

    def to_json(self) -> dict[str, Any]: ...


def execute(
    plan: RunPlan,
    run_dir: Path | str,
    *,
    resume: bool = False,
    retry: Collection[str] = (),
    devices: Sequence[str] = (),
    start: Start = "auto",
    allow_other_host: bool = False,
    skip_dominated: bool = True,
    ui: Ui | None = None,
    estimate: Callable[[Cell], float] | None = None,
    program: Program | None = None,
    interpreters: Callable[[str], Interpreter] = resolve,
    machine: Machine | None = None,
    clock: Callable[[], float] = time.monotonic,
    load_average_1m: Callable[[], float | None] = host.load_average_1m,
    patience: Patience | None = None,
) -> RunSummary:
    """Measure every cell and round of ``plan`` that has no record in ``run_dir`` yet.

    Ctrl-C, SIGTERM and SIGHUP end the workers; the run stays readable and can be resumed. A cell
    that fails is a record, not an exception.

    Args:
        plan: cells, in the order of their first round.
        run_dir: made if need be; locked meanwhile.
        resume: accept records that are there, and add what is missing. Records of cells that the
            plan no longer has stay in the file, and are not current any more.
        retry: outcomes to measure once more; implies ``resume``.
        devices: where cells whose device is ``auto`` or ``cuda`` run, instead of the plan's own
            list. Several GPUs are used at the same time, each for all backends of its workloads.
        start: how workers are started; ``auto`` forks a template where that is safe.
        allow_other_host: resume although machine or software are not those of the first records.
        skip_dominated: do not run a cell that asks for more than one that ran out of memory; it is
            recorded ``skipped``. See `bench.runner.dominance`.
        ui: observer.
        estimate: seconds that one round of a cell will take, as a first guess.
        program: what workers run.
        interpreters: environment → Python; raises EnvironmentUnavailable.
        machine: what devices there are.
        clock: monotonic seconds.
        load_average_1m: the system's load average; None where it has none.
        patience: waiting times.

    Returns:
        The summary, with the exit code.

    Raises:
        RunnerError: this run cannot begin as asked; nothing was started.
        StoreError: the folder cannot be used, or a record could not be stored.
    """
    ui = ui or Silent()
    machine = machine or Machine(os.environ)
    retry = check_outcomes(retry)
    resume = resume or bool(retry)
    if retry and not RunFolder.holds_run(run_dir):
        raise RunnerError(
            f"There is no run in {run_dir}, so there is nothing to retry. Name its folder with "
            "--out, or begin a run without --retry."
        )
    if (why := budget.blind(plan.cells)) is not None:
        raise RunnerError(why)
    with RunFolder.acquire(run_dir) as folder:
        if folder.journal.entries and not resume:
            raise RunnerError(
                f"{folder.path} already has {len(folder.journal.entries)} record(s). To go on with "
                "that run, add --resume; to begin another one, choose its folder with --out."
            )
        resolved = _resolve_devices(devices or plan.devices, machine)
        here = host.describe(machine)
        assigned = schedule.assign_devices(plan.cells, machine, resolved, folder.latest())
        if not allow_other_host:
            _refuse_other_host(folder, here, assigned)
        tasks = schedule.order(plan.cells, assigned, folder.latest(), retry)
        # Builds what is missing, which may take long: after all that could refuse the run.
        found = _interpreters(tasks, interpreters)
        here = host.describe(machine, {**_environments(folder), **_identities(found)})
        if not allow_other_host:
            _refuse_other_host(folder, here, assigned)
        notes = _recover(folder)
        redactor = Redactor(os.environ)
        folder.write_plan(redactor.value(plan.to_json()), here, bench.__version__)
        total = sum(cell["protocol"]["rounds"] for cell in plan.cells)
        ui.run_started(folder.path, total, total - len(tasks))
        if not tasks:
            notes.append("Every cell of this plan has a record already; nothing was measured.")
        others = len(folder.journal.latest) - (total - _missing(folder))
        if others:
            notes.append(
                f"{others} record(s) are of cells outside this plan, not selected or changed "
                "since; they stay in records.jsonl, shown when a plan has their cells again."
            )
        for note in notes:
            ui.note(note)
        with (
            ExitStack() as held,
            selectors.DefaultSelector() as selector,
            _Interrupts(selector) as interrupts,
        ):
            for interpreter in found.values():
                if isinstance(interpreter, Interpreter):
                    held.enter_context(interpreter.in_use())
            logs = held.enter_context(closing(Logs(os.environ)))
            context = Context(
                folder=folder,
                names=schedule.folder_names(plan.cells, list(folder.journal.latest.values())),
                host=here,
                program=program or Program(),
                interpreter_for=_looked_up(found),
                start=start,
                environment=dict(os.environ),
                redactor=redactor,
                logs=logs,
                ui=ui,
                selector=selector,
                clock=clock,
                load_average_1m=load_average_1m,
                patience=patience or Patience(),
                forecast=_forecast(plan.cells, folder, estimate),
                dominance=_dominance(
                    folder, tasks, use=skip_dominated, remember=not allow_other_host
                ),
                uuids=lambda: [gpu.uuid for gpu in machine.gpus],
            )
            executed = _run(context, schedule.lanes(tasks), interrupts)
            interrupted = interrupts.count > 0
        folder.check()
        summary = RunSummary(
            run_dir=folder.path,
            outcomes=_outcomes(folder),
            executed=executed,
            reused=total - len(tasks),
            missing=_missing(folder),
            interrupted=interrupted,
            notes=notes,
        )
    ui.run_finished(summary)
    return summary


def check_outcomes(names: Collection[str]) -> frozenset[str]:
    """Return ``names`` as a set.

    Raises:
        RunnerError: one of them is no outcome.
    """
    for name in names:
        if name not in OUTCOMES:
            raise RunnerError(f"{name!r} is not an outcome; there are {', '.join(OUTCOMES)}.")
    return frozenset(names)


_Found = dict[str, Interpreter | EnvironmentUnavailable]


def _interpreters(tasks: Sequence[Task], find: Callable[[str], Interpreter]) -> _Found:
    """Look each environment up once, so that all cells of a run have the same."""
    found: _Found = {}
    needed = [task.cell["backend"]["environment"] for task in tasks if task.unsupported is None]
    for name in dict.fromkeys(needed):
        try:
            found[name] = find(name)
        except EnvironmentUnavailable as error:
            found[name] = error
    return found


def _identities(found: _Found) -> dict[str, str | None]:
    return {
        name: each.identity
        for name, each in found.items()
        if name != CURRENT and isinstance(each, Interpreter)
    }


def _environments(folder: RunFolder) -> dict[str, str | None]:
    """What the folder's records were measured in; this call may need fewer."""
    return dict(folder.host.get(host.ENVIRONMENTS) or {})


def _looked_up(found: _Found) -> Callable[[str], Interpreter]:
    def look_up(name: str) -> Interpreter:
        each = found[name]
        if isinstance(each, EnvironmentUnavailable):
            raise each
        return each

    return look_up


def _run(context: Context, stages: Sequence[dict[str, list[Any]]], interrupts: _Interrupts) -> int:
    executed = 0
    stages = list(stages)
    while stages and not interrupts.count:
        stage = stages.pop(0)
        running = [Lane(context, name, tasks) for name, tasks in stage.items()]
        later = sum(
            max(
                context.forecast.left((task.cell for task in tasks), ()) for tasks in lanes.values()
            )
            for lanes in stages
        )
        try:
            _serve(context, running, later, interrupts)
        finally:
            executed += sum(lane.executed for lane in running)
            for lane in running:
                lane.close()
    return executed


def _serve(context: Context, running: list[Lane], later_s: float, interrupts: _Interrupts) -> None:
    handled = 0
    next_tick = context.clock()
    while True:
        if interrupts.count > handled:
            handled = interrupts.count
            context.ui.note(
                "Stopping: the cell under way is given up." if handled == 1 else "Stopping at once."
            )
            for lane in running:
                lane.stop(now=handled > 1)
        for lane in running:
            lane.advance()
        if all(lane.done for lane in running):
            return
        now = context.clock()
        deadlines = [lane.deadline for lane in running if lane.deadline is not None]
        if context.ui.tick_s is not None and not any(lane.measuring for lane in running):
            if now >= next_tick:
                context.ui.tick(later_s + max(lane.left_s() for lane in running))
                next_tick = now + context.ui.tick_s
            deadlines.append(next_tick)
        timeout = max(0.0, min(deadlines) - now) if deadlines else None
        for key, _ in context.selector.select(timeout):
            key.data()
        for lane in running:
            lane.check_deadline()


def _resolve_devices(devices: Sequence[str], machine: Machine) -> list[str]:
    resolved = []
    for name in devices:
        try:
            device = machine.resolve(name)
        except DeviceError as error:
            raise RunnerError(str(error)) from error
        if isinstance(device, Unsupported):
            raise RunnerError(f"{device.reason[0].upper()}{device.reason[1:]}.")
        if device not in resolved:
            resolved.append(device)
    return resolved


def _refuse_other_host(
    folder: RunFolder, here: dict[str, Any], devices: dict[str, str | Unsupported]
) -> None:
    if not folder.journal.entries:
        return
    changed = host.differences(folder.host, here)
    for entry in folder.latest().values():
        now = devices.get(entry.cell_id)
        if isinstance(now, str) and entry.outcome == "ok" and entry.device != now:
            changed.append(f"device of {entry.name}: {entry.device} → {now}")
            break
    if changed:
        raise RunnerError(
            f"{folder.path} was measured under other conditions ({'; '.join(changed)}), and "
            "figures of both would stand in one table. Choose another folder with --out, or add "
            "--allow-other-host to mix them."
        )


def _recover(folder: RunFolder) -> list[str]:
    with suppress(OSError):
        for leftover in (folder.path / "cache").glob(f"{FRESH_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    aside = folder.journal.recover()
    notes = folder.journal.notes()
    if aside is not None:
        notes.append(
            "The last run ended while a record was being written: that cell will run again. The "
            f"unfinished line is in {aside.name}."
        )
    return notes


def _forecast(
    cells: Sequence[Cell], folder: RunFolder, estimate: Callable[[Cell], float] | None
) -> Forecast:
    forecast = Forecast(estimate)
    by_id = {cell["cell_id"]: cell for cell in cells}
    for entry in folder.latest().values():
        if entry.seconds is not None and entry.outcome == "ok" and entry.cell_id in by_id:
            forecast.learn(by_id[entry.cell_id], entry.seconds)
    return forecast


def _dominance(folder: RunFolder, tasks: Sequence[Task], *, use: bool, remember: bool) -> Dominance:
    """Remember what ran out of memory in this run before, unless it is tried again now.

    Under other conditions it might not have, so ``remember`` is false where those are mixed.
    """
    dominance = Dominance(use=use)
    again = {task.key for task in tasks}
    entries = [
        entry
        for entry in folder.latest().values()
        if remember and entry.outcome == "oom" and entry.key not in again
    ]
    for entry, record in zip(entries, folder.journal.read(entries), strict=True):
        named = record_id(folder, entry.cell_id, entry.round, entry.attempt)
        dominance.ran_out(cast(Cell, record.cell.raw), str(entry.device), named)
    return dominance


def _missing(folder: RunFolder) -> int:
    return len(folder.current_keys() - folder.journal.latest.keys())


def _outcomes(folder: RunFolder) -> Counter[str]:
    latest = folder.journal.latest
    return Counter(latest[key].outcome for key in folder.current_keys() if key in latest)


class _Interrupts:
    """Counts Ctrl-C and friends instead of raising, and wakes the loop.

    Outside the main thread Python takes no signal handlers; there, `count` stays 0.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.count = 0
        self._selector = selector
        self._read, self._write = socket.socketpair()
        self._before: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> _Interrupts:
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._selector.register(self._read, selectors.EVENT_READ, self._drain)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._on_signal)
            self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._selector.unregister(self._read)
        self._read.close()
        self._write.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._read.recv(4096):
                pass
