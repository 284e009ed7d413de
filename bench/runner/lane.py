"""One lane: its tasks one after the other, each in a worker process of its own.

A lane never waits. It reacts to what its launcher says, to the worker's events and to its one
deadline; `bench.runner.execute` sleeps until one of them is there.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast

from bench import files
from bench.contract import (
    FOLDER_INPUTS,
    LOG,
    SCHEMA_VERSION,
    Cell,
    Job,
    Record,
    Workload,
)
from bench.environments import CURRENT, EnvironmentUnavailable, Interpreter
from bench.passes.base import Watch, asked_parts, watched_fields
from bench.records.read import unreadable
from bench.redact import Logs, Redactor
from bench.runner import budget
from bench.runner.dominance import Dominance
from bench.runner.draft import OWN, Draft, finite
from bench.runner.ending import Exit, Verdict, conclude, oom_kills, read_tail
from bench.runner.forecast import Forecast
from bench.runner.host import ENVIRONMENTS
from bench.runner.launch import Launcher, Limit, Program
from bench.runner.ui import Task, Ui
from bench.store import RunFolder, StoreError
from bench.store.journal import remedy, why
from bench.tasks import TASKS
from bench.worker import families
from compilers import registry

Start = Literal["auto", "fork", "spawn"]

_READ_BYTES = 2**18

_QUIET = (None, "load", "prepare", "warmup", "finish")
"""Phases in which nothing is measured that a display could disturb."""


_STOP_TERM_S = 1.0
_STOP_KILL_S = 1.0
"""As in `Patience`, at most, for a user who waits at the terminal after Ctrl-C."""


class RunnerError(Exception):
    """A run that cannot begin or go on as asked; ``str()`` is the whole message for the user."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what should take no time, in seconds.

    Attributes:
        ready_s: for a launcher's imports.
        launch_s: for a launcher to start a worker.
        term_s: between SIGTERM and SIGKILL.
        exit_s: for a worker to leave after its ``end``.
        kill_s: for a killed worker to be gone; more than the launcher's own clean-up takes.
    """

    ready_s: float = 600.0
    launch_s: float = 60.0
    term_s: float = 3.0
    exit_s: float = 10.0
    kill_s: float = 15.0


@dataclass(frozen=True)
class Context:
    """What all lanes of a run share."""

    folder: RunFolder
    names: Mapping[str, str]
    host: Mapping[str, Any]
    program: Program
    interpreter_for: Callable[[str], Interpreter]
    start: Start
    environment: Mapping[str, str]
    redactor: Redactor
    logs: Logs
    ui: Ui
    selector: selectors.BaseSelector
    clock: Callable[[], float]
    load_average_1m: Callable[[], float | None]
    patience: Patience
    forecast: Forecast
    dominance: Dominance
    uuids: Callable[[], Sequence[str]]
    resident_bytes: Callable[[int], int | None] = budget.resident_bytes


@dataclass
class _Flight:
    """A task under way. ``stage`` says what its deadline means."""

    task: Task
    begun: float
    started_utc: str
    interpreter: Interpreter | None = None
    stage: Literal["waiting", "launching", "running", "ended", "terminating", "killing"] = "waiting"
    draft: Draft = field(default_factory=Draft)
    priming: bool = False
    log: Path = Path()
    log_name: bytes = b""
    cache: Path | None = None
    before_bytes: int | None = None
    prime_s: float | None = None
    launched: float | None = None
    startup_s: float | None = None
    pid: int | None = None
    events: int | None = None
    timed_out: bool = False
    oom_kills: int | None = None
    over_bytes: int | None = None
    looked: float = 0.0
    loads: list[float | None] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)


class Lane:
    """Runs ``tasks`` in order, one at a time.

    Attributes:
        executed: how many have a record now.
        stopping: interrupted; nothing more is started.
    """

    def __init__(self, context: Context, name: str, tasks: Sequence[Task]) -> None:
        self.name = name
        self.executed = 0
        self.stopping = False
        self._context = context
        self._waiting = deque(tasks)
        self._flight: _Flight | None = None
        self._deadline: float | None = None
        self._launcher: Launcher | None = None
        self._launcher_for: tuple[Interpreter, int] | None = None
        self._launcher_log = Path()
        self._launcher_log_name = b""
        self._ready = False
        self._forks = False
        self._why_not_fork: dict[str, str] = {}

    @property
    def done(self) -> bool:
        return self._flight is None and (self.stopping or not self._waiting)

    @property
    def deadline(self) -> float | None:
        """When `check_deadline` wants to be called, on the context's clock."""
        if self._next_look is None or self._deadline is None:
            return self._deadline
        return min(self._deadline, self._next_look)

    @property
    def _next_look(self) -> float | None:
        """When to look at the worker's resident memory; None if it has no limit there."""
        flight = self._flight
        if flight is None or flight.stage != "running":
            return None
        watched = "rss_bytes" in flight.task.cell["limits"]
        return flight.looked + budget.LOOK_S if watched else None

    @property
    def measuring(self) -> bool:
        return self._flight is not None and self._flight.draft.phase not in _QUIET

    def left_s(self) -> float:
        running = []
        if self._flight is not None:
            taken = self._context.clock() - self._flight.begun
            running.append((self._flight.task.cell, taken))
        return self._context.forecast.left((task.cell for task in self._waiting), running)

    def advance(self) -> None:
        """Start the next task if none is under way.

        Raises:
            StoreError: a record could not be stored.
        """
        while self._flight is None and self._waiting and not self.stopping:
            self._begin(self._waiting.popleft())

    def check_deadline(self) -> None:
        flight = self._flight
        if self._next_look is not None and self._context.clock() >= self._next_look:
            self._look_at_memory()
        if flight is None or self._deadline is None or self._context.clock() < self._deadline:
            return
        patience = self._context.patience
        if flight.stage == "running":
            flight.timed_out = True
            self._signal(flight, signal.SIGTERM, "terminating", patience.term_s)
        elif flight.stage in ("ended", "terminating"):
            self._signal(flight, signal.SIGKILL, "killing", self._kill_s)
        else:
            self._lose_launcher(hangs=True)

    @property
    def _kill_s(self) -> float:
        patience_s = self._context.patience.kill_s
        return min(patience_s, _STOP_KILL_S) if self.stopping else patience_s

    def _look_at_memory(self) -> None:
        """End a worker that holds more than it may: at once, before the machine begins to swap."""
        flight = self._flight
        assert flight is not None
        flight.looked = self._context.clock()
        used = None if flight.pid is None else self._context.resident_bytes(flight.pid)
        if used is not None and used > flight.task.cell["limits"]["rss_bytes"]:
            flight.over_bytes = used
            self._signal(flight, signal.SIGKILL, "killing", self._context.patience.kill_s)

    def stop(self, *, now: bool) -> None:
        """End the worker under way without a record; ``now`` leaves it no time to clean up."""
        self.stopping = True
        flight = self._flight
        if flight is None:
            return
        patience = self._context.patience
        if flight.stage in ("waiting", "launching"):
            # It imports, and listens to nobody meanwhile.
            if self._launcher is not None:
                self._context.selector.unregister(self._launcher.control)
                self._launcher.kill(flight.pid, hangs=True)
                self._launcher = None
            self._discard(flight)
        elif now:
            self._signal(flight, signal.SIGKILL, "killing", self._kill_s)
        elif flight.stage != "killing":
            self._signal(flight, signal.SIGTERM, "terminating", min(patience.term_s, _STOP_TERM_S))

    def close(self) -> None:
        """Leave no process and no temporary folder behind, whatever was under way."""
        if self._launcher is not None:
            self._context.selector.unregister(self._launcher.control)
            self._launcher.close(*((_STOP_KILL_S,) if self.stopping else ()))
            self._launcher = None
        if self._flight is not None:
            self._discard(self._flight)

    # A task begins: device and interpreter, launcher, compile cache, worker.

    def _begin(self, task: Task) -> None:
        context = self._context
        flight = _Flight(task, context.clock(), _utc())
        self._flight = flight
        context.ui.cell_started(task)
        if task.unsupported is not None:
            self._finish(flight, Verdict("unsupported", task.unsupported), Exit())
            return
        smaller = context.dominance.smaller(task.cell, task.device)
        if smaller is not None:
            verdict = Verdict("skipped", smaller.reason)
            self._finish(flight, verdict, Exit(), dominated_by=smaller.record_id)
            return
        try:
            flight.interpreter = context.interpreter_for(task.cell["backend"]["environment"])
        except EnvironmentUnavailable as error:
            self._finish(flight, Verdict("unavailable", str(error)), Exit())
            return
        self._provide_caches(flight)
        # A template for each round, so that rounds do not share an address-space layout.
        if self._launcher is not None and self._launcher_for != (flight.interpreter, task.round):
            self._drop_launcher()
        if self._launcher is None:
            self._open_launcher(flight)
        elif self._ready:
            self._launch(flight)

    def _open_launcher(self, flight: _Flight) -> None:
        context = self._context
        assert flight.interpreter is not None
        fork = context.start != "spawn" and flight.interpreter.path not in self._why_not_fork
        if fork:
            context.ui.preparing(flight.task, "importing libraries")
        name = f"launcher-{self.name.replace(':', '')}-r{flight.task.round}.log"
        self._launcher_log = context.folder.path / "logs" / name
        try:
            self._launcher_log_name, log = context.logs.open(self._launcher_log)
            try:
                self._launcher = Launcher(
                    flight.interpreter,
                    context.program,
                    fork=fork,
                    log=log,
                    environment=context.environment,
                )
            finally:
                os.close(log)
        except OSError as error:
            reason = f"{flight.interpreter.path} could not be started: {why(error)}"
            self._finish(flight, Verdict("failed", reason), Exit())
            return
        self._launcher_for = (flight.interpreter, flight.task.round)
        self._ready = False
        self._deadline = context.clock() + context.patience.ready_s
        context.selector.register(self._launcher.control, selectors.EVENT_READ, self._on_control)

    def _provide_caches(self, flight: _Flight) -> None:
        cell = flight.task.cell
        root = self._context.folder.path / "cache"
        try:
            if cell["cache"] == "warm":
                flight.cache = root / cell["cell_id"]
                compiles = registry.traits(cell["backend"]["name"]).compiles != "nothing"
                flight.priming = compiles and not self._filled(flight)
                if flight.priming:
                    shutil.rmtree(flight.cache, ignore_errors=True)
                files.folder(flight.cache)
            else:
                flight.cache = Path(tempfile.mkdtemp(prefix=FRESH_PREFIX, dir=root))
        except OSError as error:
            raise self._cannot_write(root, error) from error

    def _filled(self, flight: _Flight) -> bool:
        """Whether the cache was filled to its end, and by this software on this machine."""
        assert flight.cache is not None
        try:
            marker = json.loads(files.read(_marker(flight.cache)))
        except (OSError, ValueError, RecursionError):
            return False
        return bool(marker == self._conditions(flight))

    def _conditions(self, flight: _Flight) -> dict[str, Any]:
        assert flight.interpreter is not None
        host = {name: value for name, value in self._context.host.items() if name != ENVIRONMENTS}
        return {**host, "environment": flight.interpreter.record()}

    def _launch(self, flight: _Flight) -> None:
        context = self._context
        assert self._launcher is not None
        assert flight.cache is not None
        task, cell = flight.task, flight.task.cell
        suffix = f"r{task.round}" + (f"-a{task.attempt}" if task.attempt else "")
        name = f"{context.names[cell['cell_id']]}-{suffix}{'-prime' if flight.priming else ''}"
        logs = context.folder.path / "logs"
        flight.log = logs / f"{name}.log"
        flight.draft = Draft(OWN | watched_fields(cell))
        flight.before_bytes = folder_bytes(flight.cache)
        pictures = context.folder.path / "pictures" / context.names[cell["cell_id"]] / suffix
        job = Job(
            cell=located(cell),
            round=task.round,
            device=task.device,
            pictures_dir=str(pictures),
            pictures_relative_to=str(context.folder.path),
            cache_dir=str(flight.cache),
            prime_only=flight.priming,
        )
        job_file = logs / f"{name}.job.json"
        log = None
        try:
            if not _continued(cell, pictures):
                shutil.rmtree(pictures, ignore_errors=True)
            files.folder(pictures.parent)
            files.folder(pictures)
            # For whoever wants to run it by hand; the worker gets it with its secrets.
            files.write(job_file, json.dumps(context.redactor.value(job), indent=1) + "\n")
            flight.log_name, log = context.logs.open(flight.log)
        except OSError as error:
            if log is not None:
                os.close(log)
            raise self._cannot_write(context.folder.path, error) from error
        if flight.priming:
            context.ui.preparing(task, "filling its compile cache")
        flight.oom_kills = oom_kills()
        flight.launched = context.clock()
        flight.startup_s = None
        flight.pid = None
        flight.timed_out = False
        flight.stage = "launching"
        self._deadline = flight.launched + context.patience.launch_s
        flight.events, theirs = os.pipe()
        os.set_blocking(flight.events, False)
        context.selector.register(
            flight.events, selectors.EVENT_READ, lambda: self._on_events(flight)
        )
        try:
            self._launcher.start(
                json.dumps(job),
                events=theirs,
                log=log,
                environment=worker_environment(cell["threads"]) | {LOG: str(flight.log)},
                limit=_limit(cell["limits"]["memory_bytes"], task.device),
            )
        except OSError:
            # The launcher is gone; the end of its control socket says so as well, and is acted on.
            pass
        finally:
            os.close(theirs)
            os.close(log)

    def _cannot_write(self, where: Path, error: OSError) -> StoreError:
        try:
            self._context.folder.check()
        except StoreError as changed:
            return changed
        return StoreError(
            f"{where} cannot be written: {why(error)}. All records so far are safe. {remedy(error)}"
        )

    # What the launcher and the worker say.

    def _on_control(self) -> None:
        launcher, flight = self._launcher, self._flight
        if launcher is None:
            return
        messages = launcher.receive()
        if messages is None:
            if flight is None:
                self._drop_launcher()
            else:
                self._lose_launcher(hangs=False)
            return
        for message in messages:
            if message["say"] == "ready":
                self._on_ready(message["why_not_fork"])
            elif flight is not None and message["say"] == "started":
                flight.pid = message["pid"]
                if flight.stage == "launching":
                    assert flight.launched is not None
                    flight.stage = "running"
                    self._deadline = flight.launched + flight.task.cell["limits"]["timeout_s"]
            elif flight is not None and message["say"] == "exited":
                self._on_exit(flight, Exit(code=message["code"], signal=message["signal"]))

    def _on_ready(self, why_not_fork: str | None) -> None:
        self._ready = True
        if why_not_fork is not None:
            if self._context.start == "fork":
                raise RunnerError(
                    f"Workers cannot be forked here: {why_not_fork}. Use --start auto or spawn."
                )
            self._spawn_from_now_on(why_not_fork)
        assert self._launcher_for is not None
        path = self._launcher_for[0].path
        self._forks = self._context.start != "spawn" and path not in self._why_not_fork
        if self._flight is not None and self._flight.stage == "waiting":
            self._launch(self._flight)

    def _spawn_from_now_on(self, reason: str) -> None:
        """Fork no more workers of the interpreter that the launcher is for."""
        assert self._launcher_for is not None
        interpreter, _ = self._launcher_for
        self._why_not_fork[interpreter.path] = reason
        where = "" if interpreter.name == CURRENT else f" of the environment {interpreter.name}"
        self._context.ui.note(f"Each worker{where} is a fresh interpreter: {reason}.")

    def _on_events(self, flight: _Flight) -> None:
        if self._flight is not flight or flight.events is None:
            return
        try:
            data = os.read(flight.events, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close_events(flight)
            return
        self._take(flight, data)

    def _take(self, flight: _Flight, data: bytes) -> None:
        for event in flight.draft.feed(data):
            if flight.startup_s is None and flight.launched is not None:
                flight.startup_s = self._context.clock() - flight.launched
            if event["event"] == "phase" and not flight.priming:
                self._read_load(flight, begins=event["phase"] == "steady")
                for watch in self._watches(flight):
                    watch.enter(event["phase"])
            if event["event"] == "end":
                if flight.stage == "running":
                    flight.stage = "ended"
                    self._deadline = self._context.clock() + self._context.patience.exit_s
            elif not flight.priming and not self.stopping:
                self._context.ui.cell_event(flight.task, event)

    def _read_load(self, flight: _Flight, *, begins: bool) -> None:
        """Read the load average where the measured region begins, and once where it ends."""
        if len(flight.loads) == (0 if begins else 1):
            flight.loads.append(self._context.load_average_1m())

    def _watches(self, flight: _Flight) -> list[Watch]:
        """Return what the cell's passes have the parent do, made once the worker is known."""
        if not flight.watches and flight.pid is not None:
            cell: Mapping[str, Any] = flight.task.cell
            flight.watches = [
                module.WATCH(cell[name], flight.task.device, flight.pid, self._context.uuids)
                for name, module in asked_parts(cell, "watch")
            ]
        return flight.watches

    def _signal(
        self,
        flight: _Flight,
        number: int,
        stage: Literal["terminating", "killing"],
        patience_s: float,
    ) -> None:
        assert self._launcher is not None
        flight.stage = stage
        self._deadline = self._context.clock() + patience_s
        self._launcher.signal(number)

    # How a worker ends.

    def _lose_launcher(self, *, hangs: bool) -> None:
        """The launcher died or hangs: the cell fails, and the next one gets a new launcher."""
        flight = self._flight
        assert flight is not None
        assert self._launcher is not None
        self._context.selector.unregister(self._launcher.control)
        how = self._launcher.kill(flight.pid, hangs=hangs)
        self._launcher = None
        if flight.stage == "waiting" and self._may_spawn_instead(flight):
            self._spawn_from_now_on(f"the process that imports libraries for all {how}")
            self._open_launcher(flight)
            return
        words = ""
        if flight.stage == "waiting":
            self._context.logs.wait(self._launcher_log_name)
            tail = read_tail(self._launcher_log).strip().splitlines()[-1:]
            words = f" ({tail[0].strip()[:300]})" if tail else ""
        self._on_exit(flight, Exit(lost=f"the process that starts workers {how}{words}"))

    def _may_spawn_instead(self, flight: _Flight) -> bool:
        assert flight.interpreter is not None
        return self._context.start == "auto" and flight.interpreter.path not in self._why_not_fork

    def _drop_launcher(self) -> None:
        if self._launcher is not None:
            self._context.selector.unregister(self._launcher.control)
            self._launcher.close()
            self._launcher = None

    def _on_exit(self, flight: _Flight, end: Exit) -> None:
        self._deadline = None
        if flight.log_name:
            self._context.logs.wait(flight.log_name)
        self._drain(flight)
        if self.stopping and flight.draft.outcome is None:
            self._discard(flight)
            return
        cell = flight.task.cell
        before, after = flight.oom_kills, oom_kills()
        verdict = conclude(
            flight.draft,
            end,
            timeout_s=cell["limits"]["timeout_s"] if flight.timed_out else None,
            oom_kills=None if before is None or after is None else after - before,
            tail=read_tail(flight.log) if flight.launched is not None else "",
            memory_limited=cell["limits"]["memory_bytes"] is not None,
            over_limit=budget.over(cell["limits"], flight.over_bytes, flight.draft),
            priming=flight.priming,
        )
        if not flight.priming:
            self._finish(flight, verdict, end)
        elif verdict.outcome == "ok":
            self._primed(flight)
        else:
            reason = f"while filling the compile cache: {verdict.reason}"
            self._finish(flight, Verdict(verdict.outcome, reason, verdict.warnings), end)

    def _primed(self, flight: _Flight) -> None:
        assert flight.cache is not None
        assert flight.launched is not None
        try:
            files.write(_marker(flight.cache), json.dumps(self._conditions(flight)) + "\n")
        except OSError as error:
            raise self._cannot_write(flight.cache, error) from error
        flight.priming = False
        flight.prime_s = self._context.clock() - flight.launched
        if self.stopping:
            self._discard(flight)
        elif self._launcher is None:
            flight.stage = "waiting"
            self._open_launcher(flight)
        else:
            self._launch(flight)

    def _drain(self, flight: _Flight) -> None:
        """Take what is left in the pipe, which may never end: helpers can hold it open."""
        while flight.events is not None:
            try:
                data = os.read(flight.events, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._take(flight, data)
        self._close_events(flight)
        self._deadline = None

    def _close_events(self, flight: _Flight) -> None:
        if flight.events is not None:
            self._context.selector.unregister(flight.events)
            os.close(flight.events)
            flight.events = None

    def _discard(self, flight: _Flight) -> None:
        for watch in flight.watches:
            watch.stop()
        self._close_events(flight)
        if flight.task.cell["cache"] == "fresh" and flight.cache is not None:
            shutil.rmtree(flight.cache, ignore_errors=True)
        self._flight = None
        self._deadline = None

    def _finish(
        self, flight: _Flight, verdict: Verdict, end: Exit, *, dominated_by: str | None = None
    ) -> None:
        context, task, draft = self._context, flight.task, flight.draft
        seconds = context.clock() - (flight.begun if flight.launched is None else flight.launched)
        cache: dict[str, Any] = {}
        if flight.cache is not None and flight.launched is not None:
            cache["before_bytes"] = flight.before_bytes
            cache["after_bytes"] = folder_bytes(flight.cache)
            if flight.prime_s is not None:
                cache["prime_s"] = flight.prime_s
        # Before the record is written: a full disk may have room again without this cache.
        self._discard(flight)
        process: dict[str, Any] = {"wall_s": seconds}
        if flight.launched is not None and flight.interpreter is not None:
            process |= {
                "start": "fork" if self._forks else "spawn",
                "start_reason": self._why_not_fork.get(flight.interpreter.path),
                "pid": flight.pid,
                "exit_code": end.code,
                "signal": end.signal,
                "startup_s": flight.startup_s,
                "log": str(flight.log.relative_to(context.folder.path)),
            }
        own: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "record_id": record_id(context.folder, *task.key, task.attempt),
            "run_id": context.folder.run_id,
            "cell_id": task.cell["cell_id"],
            "name": task.cell["name"],
            "round": task.round,
            "attempt": task.attempt,
            "sequence": len(context.folder.journal.entries),
            "cell": task.cell,
            "device": task.device,
            "environment": None if flight.interpreter is None else flight.interpreter.record(),
            "started_utc": flight.started_utc,
            "ended_utc": _utc(),
            "process": process,
            "compile_cache": cache,
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "last_phase": draft.phase,
            **budget.fields(task.cell["limits"], flight.over_bytes, draft),
            **({} if dominated_by is None else {"dominated_by": dominated_by}),
        }
        record = {**own, **finite(draft.fields)}
        if flight.loads:
            self._read_load(flight, begins=False)
            record |= _load_average(flight.loads, record.get("null_reasons"))
        for watch in flight.watches:
            watch.complete(record)
        said = record.get("warnings", [])
        record["warnings"] = [
            *(said if isinstance(said, list) else [said]),
            *draft.warnings(),
            *verdict.warnings,
        ]
        # What no reader would take must not make the whole run unreadable.
        if (problem := unreadable(record)) is not None:
            record = {**own, "outcome": "failed", "reason": f"the worker sent no record: {problem}"}
        stored: Record = context.redactor.value(record)
        context.folder.append(stored)
        self.executed += 1
        if stored["outcome"] == "oom":
            context.dominance.ran_out(task.cell, task.device, record["record_id"])
        context.forecast.learn(task.cell, context.clock() - flight.begun)
        context.ui.cell_finished(task, stored)


FRESH_PREFIX = "fresh-"
"""Of compile caches that live as long as their worker."""


def record_id(folder: RunFolder, cell_id: str, round_: int, attempt: int) -> str:
    return f"{folder.run_id[:12]}-{cell_id}-r{round_}-a{attempt}"


def located(cell: Cell) -> Cell:
    """Return a cell whose workload names its inputs by their absolute paths."""
    places: dict[str, Any] = {
        key: f"path:{file['path']}" if key in FOLDER_INPUTS else file["path"]
        for key, file in cell.get("inputs", {}).items()
    }
    asked = cell["workload"]
    if "model" in places and "models" in asked:
        written = asked["model"]
        places["models"] = [
            places["model"] if each == written else each for each in asked["models"]
        ]
    workload = cast(Workload, {**asked, **places})
    return {**cell, "workload": workload}


def worker_environment(threads: int) -> dict[str, str]:
    """Environment variables of one worker.

    The worker sets torch's own thread count; the variables are for what loads after the start, such
    as compilers' helper processes.
    """
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``; files that vanish meanwhile do not count."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _load_average(loads: Sequence[float | None], reasons: Any) -> dict[str, Any]:
    """Return the record's fields for (start, end), beside the worker's ``reasons`` for nulls."""
    start, end = loads
    if start is not None and end is not None:
        return {"load_average_1m": {"start": start, "end": end}}
    kept = reasons if isinstance(reasons, dict) else {}
    return {
        "load_average_1m": None,
        "null_reasons": {**kept, "load_average_1m": "this system does not tell its load average"},
    }


def _continued(cell: Cell, pictures: Path) -> bool:
    """Return whether the worker continues results in ``pictures``, whose record was not written."""
    task = cell["workload"]["task"]
    return task in TASKS.names() and families.work_of(task).continues(pictures, cell["cell_id"])


def _marker(cache: Path) -> Path:
    """Beside the cache, since what lies inside tells the worker that there is something in it."""
    return cache.with_suffix(".json")


def _limit(limit_bytes: int | None, device: str) -> Limit | None:
    if limit_bytes is None:
        return None
    # CUDA reserves address space by the hundred gigabytes without using it, so that only a limit on
    # data means anything there.
    return Limit("RLIMIT_DATA" if device.startswith("cuda") else "RLIMIT_AS", limit_bytes)


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
