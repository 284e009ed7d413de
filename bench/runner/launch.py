"""The parent's end of a launcher process. See `bench.worker.launcher` for the other one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from bench.environments import CURRENT, Interpreter, view
from bench.worker import single, template


@dataclass(frozen=True)
class Program:
    """What workers run. The seam where tests and the overhead benchmark put a double.

    Attributes:
        entry: ``module:function``, called in the worker with (job, emit).
        preload: what to import before the job starts, in a template or in a fresh worker.
    """

    entry: str = single.ENTRY
    preload: tuple[str, ...] = template.PRELOAD


def _added_paths() -> list[str]:
    """What this process can import from, apart from what its interpreter finds by itself."""
    own = sysconfig.get_paths()
    packages = {own["purelib"], own["platlib"]}
    paths = [os.path.abspath(path) for path in sys.path]
    return [
        path
        for path in paths
        if os.path.exists(path) and path not in packages and not path.startswith(own["stdlib"])
    ]


def _in_memory() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("job"), "w+b", buffering=0)
    return cast(BinaryIO, tempfile.TemporaryFile(buffering=0))


@dataclass(frozen=True)
class Limit:
    """A memory limit of a worker: the name of a resource limit, and bytes."""

    kind: str
    bytes: int


class Launcher:
    """One launcher process, started at once; it says ``ready`` when its imports are done.

    Args:
        interpreter: Python to run it and its workers with.
        program: what workers run.
        fork: let workers be forks of it, if it finds that safe.
        log: descriptor for what its imports print; the caller closes its own.
        environment: of the launcher and all its workers.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        program: Program,
        *,
        fork: bool,
        log: int,
        environment: Mapping[str, str],
    ) -> None:
        self.program = program
        self.control, theirs = socket.socketpair()
        command = [interpreter.path, "-m", "bench.worker.launcher"]
        command += ["--control-fd", str(theirs.fileno()), "--parent", str(os.getpid())]
        command += ["--preload", ",".join(program.preload), *(["--fork"] if fork else [])]
        env = {**environment, **template.ENVIRONMENT}
        if interpreter.name == CURRENT:
            # Workers import what the parent would, wherever it was started from.
            env["PYTHONPATH"] = os.pathsep.join(_added_paths())
        else:
            env = view.process_environment(interpreter, env)
        try:
            with theirs:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C at the terminal is for the runner, which then ends its workers.
                    start_new_session=True,
                )
        except BaseException:
            self.control.close()
            raise
        self.control.setblocking(False)
        self._input = b""

    def start(
        self,
        job: str,
        *,
        events: int,
        log: int,
        environment: Mapping[str, str],
        limit: Limit | None,
    ) -> None:
        """Ask for a worker. ``events`` and ``log`` are passed on; the caller closes its own.

        Raises:
            OSError: the launcher is gone.
        """
        message = {
            "do": "start",
            "entry": self.program.entry,
            "env": dict(environment),
            "limit_kind": None if limit is None else limit.kind,
            "limit_bytes": None if limit is None else limit.bytes,
        }
        # In memory, since a prompt may hold what must not reach the disk.
        with _in_memory() as file:
            file.write(job.encode())
            file.seek(0)
            fds = [events, log, file.fileno()]
            socket.send_fds(self.control, [json.dumps(message).encode() + b"\n"], fds)

    def signal(self, number: int) -> None:
        with suppress(OSError):
            self.control.send(json.dumps({"do": "signal", "signal": number}).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What it said since the last time; None if it is gone."""
        try:
            data = self.control.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._input = (self._input + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self, patience_s: float = 10.0) -> None:
        """End it as it likes to end: on the end of its control socket, leaving nothing behind."""
        self.control.close()
        try:
            self.process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._kill_group()

    def _kill_group(self) -> None:
        """Kill it with what its imports have started; a worker ends with it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def kill(self, worker: int | None, *, hangs: bool) -> str:
        """End it and its worker by force; returns how it had ended, for a reason.

        ``hangs`` says that it does not answer, rather than that its control socket is closed.
        """
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=0 if hangs else 2)
        if code is None:
            self._kill_group()
        self.control.close()
        if worker is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker, signal.SIGKILL)
        if code is None:
            return "did not answer and was killed"
        if code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with status {code}"
