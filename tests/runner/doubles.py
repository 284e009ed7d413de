"""Stand-ins for `bench.worker.cell.run_job`, each misbehaving in one way.

They run in worker processes; ``workload.extra`` of the cell tells them details.
"""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any
from urllib.parse import quote

from bench.contract import PHASES, Job
from bench.worker.single import Emit


def _extra(job: Job) -> dict[str, Any]:
    return job["cell"]["workload"]["extra"]


COMPLETE: dict[str, Any] = {
    "fingerprint": {"cpu": "CPU X"},
    "backend": {"active": True},
}


def _ok(emit: Emit, *leave_out: str) -> None:
    """End as ok with a complete record, but for the fields that are reported already."""
    more = {name: value for name, value in COMPLETE.items() if name not in leave_out}
    emit({"event": "set", "fields": more})
    if "e2e_s" not in leave_out:
        emit({"event": "append", "fields": {"e2e_s": 0.1}})
    emit({"event": "end", "outcome": "ok", "reason": None})


def good(job: Job, emit: Emit) -> None:
    if job["prime_only"]:
        with open(os.path.join(job["cache_dir"], "compiled"), "w") as file:
            file.write("x" * 1000)
    for phase in PHASES:
        emit({"event": "phase", "phase": phase})
    emit({"event": "set", "fields": {"load_s": 0.5, "pipeline_class": "Double"}})
    for value in (0.1, 0.2, 0.3):
        emit({"event": "append", "fields": {"e2e_s": value}})
    _ok(emit, "e2e_s")


def by_extra(job: Job, emit: Emit) -> None:
    """Do what ``extra["do"]`` names, so that one plan can mix behaviours."""
    globals()[_extra(job).get("do", "good")](job, emit)


def environment(job: Job, emit: Emit) -> None:
    names = ("TORCHINDUCTOR_CACHE_DIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    emit(
        {
            "event": "set",
            "fields": {
                "fingerprint": {
                    "env": {name: os.environ.get(name) for name in names},
                    "session": os.getsid(0) == os.getpid(),
                    "layout": id(type(job)),
                    "random": __import__("random").random(),
                    "stdin": os.readlink("/proc/self/fd/0"),
                    "fds": sorted(os.readlink(f"/proc/self/fd/{n}") for n in _fds()),
                    "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
                }
            },
        }
    )
    _ok(emit, "fingerprint")


def _fds() -> list[str]:
    return [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]


def _fd(emit: Emit) -> int:
    pipe: Any = emit
    fd: int = pipe.__self__._fd
    return fd


def _partial(emit: Emit, phase: str = "warmup") -> None:
    emit({"event": "phase", "phase": "load"})
    emit({"event": "set", "fields": {"load_s": 1.5}})
    emit({"event": "phase", "phase": phase})


def segfault(job: Job, emit: Emit) -> None:
    _partial(emit)
    ctypes.string_at(0)


def killed(job: Job, emit: Emit) -> None:
    _partial(emit)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(job: Job, emit: Emit) -> None:
    _partial(emit)
    while True:
        signal.pause()


def hang_ignoring_sigterm(job: Job, emit: Emit) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang(job, emit)


def slow(job: Job, emit: Emit) -> None:
    _partial(emit, "steady")
    time.sleep(_extra(job).get("seconds", 0.02))
    _ok(emit)


def dies_measuring(job: Job, emit: Emit) -> None:
    _partial(emit, "steady")
    os._exit(3)


def quiet_exit(job: Job, emit: Emit) -> None:
    _partial(emit)
    print("Key is empty.", flush=True)
    os._exit(_extra(job)["code"])


def exit_by_exception(job: Job, emit: Emit) -> None:
    print("no licence", flush=True)
    sys.exit(_extra(job)["code"])


def sends_nonsense(job: Job, emit: Emit) -> None:
    """Send one field as no reader takes it."""
    emit({"event": "set", "fields": _extra(job)["fields"]})
    good(job, emit)


def raises(job: Job, emit: Emit) -> None:
    raise ValueError("the backend fell over")


def memory(job: Job, emit: Emit) -> None:
    _partial(emit)
    kept = []
    while True:
        kept.append(bytearray(16 * 2**20))


def memory_abort(job: Job, emit: Emit) -> None:
    _partial(emit)
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr)
    sys.stderr.flush()
    os.abort()


def garbage(job: Job, emit: Emit) -> None:
    fd = _fd(emit)
    emit({"event": "phase", "phase": "load"})
    os.write(fd, b'WARNING: \xff\xfe from a C library\n[1, 2]\n\n{"event": "nonsense"}\n')
    os.write(fd, b'{"event": "set", "fields": {"outcome": "ok", "cell_id": "forged"}}\n')
    emit({"event": "set", "fields": {"load_s": 2.0}})
    emit({"event": "append", "fields": {"load_s": 2.0}})
    _ok(emit)
    os.write(fd, b'{"event": "se')


def not_finite(job: Job, emit: Emit) -> None:
    fd = _fd(emit)
    os.write(fd, b'{"event": "set", "fields": {"load_s": NaN}}\n')
    _ok(emit)


def loud(job: Job, emit: Emit) -> None:
    line = b"x" * 2**20
    for _ in range(_extra(job)["mebibytes"]):
        os.write(1, line)
    _ok(emit)


HELPER = "import time, sys; open(sys.argv[1], 'w').close(); time.sleep(600)"


def leaves_helper(job: Job, emit: Emit) -> None:
    """Start a process in a session of its own that holds the event pipe, and leave it behind."""
    fd = _fd(emit)
    ready = _extra(job)["ready"]
    subprocess.Popen(
        [sys.executable, "-S", "-c", HELPER, ready], pass_fds=(fd,), start_new_session=True
    )
    while not os.path.exists(ready):
        time.sleep(0.005)
    _ok(emit)


def hangs_after_end(job: Job, emit: Emit) -> None:
    _ok(emit)
    while True:
        signal.pause()


def tells_launchers_threads(job: Job, emit: Emit) -> None:
    threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
    emit({"event": "set", "fields": {"fingerprint": {"launcher_threads": threads}}})
    _ok(emit, "fingerprint")


def crashes_after_end(job: Job, emit: Emit) -> None:
    _ok(emit)
    os.abort()


def kills_launcher(job: Job, emit: Emit) -> None:
    _partial(emit)
    os.kill(os.getppid(), signal.SIGKILL)
    while True:
        signal.pause()


def stops_launcher(job: Job, emit: Emit) -> None:
    # First of all: an impatient runner asks the launcher for an end as soon as it hears of a phase.
    os.kill(os.getppid(), signal.SIGSTOP)
    _partial(emit)
    os._exit(0)


def tells_secret(job: Job, emit: Emit) -> None:
    secret = os.environ["HF_TOKEN"]
    print(f"401 for token {secret}", flush=True)
    emit({"event": "end", "outcome": "failed", "reason": f"refused: {secret}"})


def prime_fails(job: Job, emit: Emit) -> None:
    emit({"event": "phase", "phase": "prepare"})
    if job["prime_only"]:
        emit({"event": "end", "outcome": "failed", "reason": "no compiler"})
    else:
        _ok(emit)


def lawful(job: Job, emit: Emit) -> None:
    """Take as much memory, by the meter of a GPU and of the host, as the law in ``extra`` says."""
    workload = job["cell"]["workload"]
    constant, slope, square = _extra(job)["law"]
    pixels, batch = workload["height"] * workload["width"], workload["batch"]
    taken = int(constant + slope * pixels * batch + square * pixels * pixels * batch)
    for phase in PHASES:
        emit({"event": "phase", "phase": phase})
        reading = {"meter": "rss", "scope": "host", "phase": phase, "bytes": taken}
        emit({"event": "append", "fields": {"memory": reading}})
    for call in range(4):
        seconds = 0.01 * (1 + call / 100) * (2 + batch) * pixels / 16384
        emit({"event": "append", "fields": {"e2e_s": seconds}})
    made = {"output_height": workload["height"], "output_width": workload["width"]}
    emit({"event": "set", "fields": made})
    _ok(emit, "e2e_s")


def hungry(job: Job, emit: Emit) -> None:
    """Hold more and more memory, and never end."""
    emit({"event": "phase", "phase": "load"})
    held = []
    while True:
        held.append(bytearray(os.urandom(1)) * 2**22)
        time.sleep(0.001)


def _up_to_telemetry(emit: Emit) -> None:
    for phase in PHASES:
        emit({"event": "phase", "phase": phase})
    emit({"event": "append", "fields": {"e2e_s": 0.1}})
    emit({"event": "set", "fields": COMPLETE})
    emit({"event": "set", "fields": {"null_reasons": {"stages": "none"}}})
    emit({"event": "decided", "outcome": "ok", "reason": None})
    emit({"event": "phase", "phase": "telemetry"})
    emit({"event": "set", "fields": {"telemetry_begun_s": 5.0, "telemetry_calls": []}})
    emit({"event": "append", "fields": {"telemetry_calls": [6.0, 7.0, 1]}})


def telemetry(job: Job, emit: Emit) -> None:
    _up_to_telemetry(emit)
    emit({"event": "phase", "phase": "settle"})
    _ok(emit, "e2e_s")


def dies_in_telemetry(job: Job, emit: Emit) -> None:
    _up_to_telemetry(emit)
    os.kill(os.getpid(), signal.SIGKILL)


def prints_secret_and_hangs(job: Job, emit: Emit) -> None:
    """Print a token as native code does, in several forms, and again on the way out."""
    token = os.environ["HF_TOKEN"]
    forms = [token, base64.b64encode(f"u:{token}".encode()).decode(), quote(token, safe="")]
    os.write(2, "\n".join([*forms, job["cell"]["workload"]["prompt"], f"no end {token}"]).encode())
    hang(job, emit)
