"""One job from start to end inside the process that was made for it.

Both ways of starting a worker end here: ``python -m bench.worker`` and a fork of the template.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from bench.contract import Job
from bench.worker import failure

Emit = Callable[[dict[str, Any]], None]

ENTRY = "bench.worker.cell:run_job"
"""What a worker runs, as ``module:function``, called with (job, emit)."""


class EventPipe:
    """Writes events, one JSON object a line, to a pipe that nothing else is told about."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def emit(self, event: dict[str, Any]) -> None:
        """Send one event; returns once the whole line is in the pipe.

        Raises:
            BrokenPipeError: the parent is gone.
            TypeError: the event is not JSON.
        """
        data = memoryview(json.dumps(event).encode() + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]


def run(job_file: str, events_fd: int, entry: str = ENTRY) -> NoReturn:
    """Run the job in ``job_file`` and leave the process.

    Exit handlers run, but the interpreter is not torn down: a compiler's threads or a device
    library's destructors can neither hang nor crash a cell that has ended. Standard error gets
    Python's stack on a crash and on SIGTERM, so that the log shows where a hanging cell was.
    """
    status = 1
    try:
        faulthandler.enable()
        faulthandler.register(signal.SIGTERM, chain=True)
        os.set_inheritable(events_fd, False)
        emit = EventPipe(events_fd).emit
        with open(job_file, encoding="utf-8") as file:
            job: Job = json.load(file)
        if job_file.startswith("/dev/fd/"):
            os.close(int(job_file.removeprefix("/dev/fd/")))
        _spare_finalizers()
        module, _, function = entry.partition(":")
        try:
            getattr(importlib.import_module(module), function)(job, emit)
        except Exception as error:  # noqa: BLE001 - becomes the outcome
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            outcome = "oom" if failure.ran_out_of_memory(error) else "failed"
            emit({"event": "end", "outcome": outcome, "reason": reason})
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - into the log; the process ends below
        traceback.print_exc()
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _spare_finalizers() -> None:
    """Skip at exit what the imports alone would tear down.

    torch takes its operator libraries apart one by one there, in memory that the process is about
    to give back as a whole. What the job itself registers still runs.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
