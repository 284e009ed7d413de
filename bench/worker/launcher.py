"""Starts workers, one at a time, and leaves nothing of them behind.

The runner keeps one launcher for each lane and round, and talks to it over a socket, one JSON
object a line. A launcher is the parent of its workers and adopts whatever they leave, so that even
a helper process that moved into a session of its own ends with its cell. It ends itself, and its
worker with it, as soon as the runner is gone.

| runner → launcher | |
| --- | --- |
| ``{"do": "start", …}`` | start a worker; event pipe, log and job come along as descriptors |
| ``{"do": "signal", "signal": n}`` | send a signal to the worker's whole process group |
| end of file | kill the worker and end |

| launcher → runner | |
| --- | --- |
| ``{"say": "ready", "preload_s": s, "why_not_fork": reason or null}`` | once, after the imports |
| ``{"say": "started", "pid": n}`` | |
| ``{"say": "exited", "code": n or null, "signal": n or null, "leftovers": n}`` | nothing is left |
"""

from __future__ import annotations

import argparse
import array
import contextlib
import ctypes
import json
import os
import random
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

from bench.worker import single, template

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")
_SWEEP_S = 5.0


class Launcher:
    """The loop. ``fork`` says that workers may be forks of this process, or why they can't be."""

    def __init__(
        self, control: socket.socket, *, fork: bool | str, preload: str, parent: int
    ) -> None:
        self._control = control
        self._parent = parent
        self._want_fork = fork
        self._fork = False
        self._preload = preload
        self._worker: int | None = None
        self._input = b""
        self._fds: list[int] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopping = False

    def serve(self) -> None:
        """Work until the runner closes its end."""
        reason = self._want_fork if isinstance(self._want_fork, str) else None
        preload_s = 0.0
        if self._want_fork is True:
            preload_s = template.preload(self._preload)
            reason = template.why_not_fork()
            if reason is not None:
                self._begin_anew(reason)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGTERM, self._stop)
        signal.set_wakeup_fd(self._wake_write)
        self._fork = self._want_fork is True
        self._say({"say": "ready", "preload_s": preload_s, "why_not_fork": reason})
        with selectors.DefaultSelector() as selector:
            self._selector = selector
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select():
                    if key.fd == self._wake_read:
                        self._drain_wakeups()
                        self._reap()
                    elif not self._receive():
                        self._stopping = True
        if self._worker is not None:
            _kill_group(self._worker, signal.SIGKILL)
        _sweep()

    def _begin_anew(self, reason: str) -> NoReturn:
        """Go on as a launcher without imports: they may hold memory of a device, or threads."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._control.set_inheritable(True)
        arguments = ["--control-fd", str(self._control.fileno()), "--parent", str(self._parent)]
        arguments += ["--preload", self._preload, "--why-not-fork", reason]
        os.execv(sys.executable, [sys.executable, "-m", "bench.worker.launcher", *arguments])

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _drain_wakeups(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            self._stopping = True

    def _receive(self) -> bool:
        try:
            data, fds, _, _ = _recv_fds(self._control)
        except ConnectionResetError:
            return False
        self._fds += fds
        if not data:
            return False
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["do"] == "start":
                self._start(message)
            elif self._worker is not None:
                _kill_group(self._worker, message["signal"])
        return True

    def _start(self, message: dict[str, Any]) -> None:
        events, log, job = self._fds[:3]
        del self._fds[:3]
        sys.stdout.flush()
        sys.stderr.flush()
        launcher = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_worker(message, events, log, job, launcher)
            except BaseException:  # noqa: BLE001 - into the cell's log; nothing may run on
                traceback.print_exc()
            finally:
                os._exit(127)
        for fd in (events, log, job):
            os.close(fd)
        self._worker = pid
        self._say({"say": "started", "pid": pid})

    def _become_worker(
        self, message: dict[str, Any], events: int, log: int, job: int, launcher: int
    ) -> NoReturn:
        signal.set_wakeup_fd(-1)
        os.setsid()
        _die_with_parent(signal.SIGKILL, launcher)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.update(message["env"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if message["limit_bytes"] is not None:
            kind = getattr(resource, message["limit_kind"])
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (message["limit_bytes"], hard))
        if self._fork:
            _new_random_state()
            single.run(f"/dev/fd/{job}", events, message["entry"])
        os.set_inheritable(events, True)
        os.set_inheritable(job, True)
        arguments = ["--job", f"/dev/fd/{job}", "--events-fd", str(events)]
        arguments += ["--entry", message["entry"], "--preload", self._preload]
        os.execv(sys.executable, [sys.executable, "-m", "bench.worker", *arguments])

    def _reap(self) -> None:
        if self._worker is None:
            return
        if hasattr(os, "waitid"):
            # Look without waiting for it: until that is done its number, which is also its group's,
            # cannot go to another process.
            ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self._worker, ended) is None:
                return
            _kill_group(self._worker, signal.SIGKILL)
            status = os.waitpid(self._worker, 0)[1]
        else:  # macOS before Python 3.13
            pid, status = os.waitpid(self._worker, os.WNOHANG)
            if pid == 0:
                return
            _kill_group(self._worker, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        self._worker = None
        leftovers = _sweep()
        self._say(
            {
                "say": "exited",
                "code": code if code >= 0 else None,
                "signal": -code if code < 0 else None,
                "leftovers": leftovers,
            }
        )


def _ignore(number: int, frame: object) -> None:
    """SIGCHLD needs a handler for the wakeup descriptor to be written."""


def _recv_fds(control: socket.socket) -> tuple[bytes, list[int], int, Any]:
    fds = array.array("i")
    size = socket.CMSG_SPACE(8 * fds.itemsize)
    data, ancillary, flags, address = control.recvmsg(65536, size)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, list(fds), flags, address


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        _LIBC.prctl(option, value, 0, 0, 0)


_LIBC = ctypes.CDLL(None)


def _die_with_parent(number: int, parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _kill_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Not a group yet, between fork and setsid, or (macOS) nothing but zombies in it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, number)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        pass
    found = []
    for name in os.listdir("/proc") if _LINUX else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = file.read().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == os.getpid():
                found.append(int(name))
    return found


def _sweep() -> int:
    """Kill and reap everything that the worker left; returns how many processes were killed.

    Killing one can hand its own children to us, so it goes on until there are none. A process that
    the kernel does not let go of is given up on after a few seconds.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _SWEEP_S
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            break
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.001)
    return len(killed)


def _new_random_state() -> None:
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.worker.launcher")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fork", action="store_true")
    parser.add_argument("--why-not-fork")
    parser.add_argument("--preload", default=",".join(template.PRELOAD))
    args = parser.parse_args()
    template.leave_working_folder()
    os.set_inheritable(args.control_fd, False)
    _die_with_parent(signal.SIGTERM, args.parent)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with socket.socket(fileno=args.control_fd) as control:
        Launcher(
            control,
            fork=args.why_not_fork or args.fork,
            preload=args.preload,
            parent=args.parent,
        ).serve()


if __name__ == "__main__":
    main()
