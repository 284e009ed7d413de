"""A job that does nothing: what remains is the harness's own cost. See `bench.runner.overhead`."""

from __future__ import annotations

from bench.contract import PHASES, Job
from bench.worker.single import Emit

CALLS = 10


def run_job(_job: Job, emit: Emit) -> None:
    """Send as many events as a short real cell does, and end ``ok``."""
    for phase in PHASES:
        emit({"event": "phase", "phase": phase})
    for _ in range(CALLS):
        emit({"event": "append", "fields": {"e2e_s": 1e-9, "step_s": [0.0] * 9}})
    emit({"event": "set", "fields": {"fingerprint": {"cpu": ""}, "backend": {"active": True}}})
    emit({"event": "end", "outcome": "ok", "reason": None})
