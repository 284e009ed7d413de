"""A worker that measures nothing: its times and counts come from environment variables."""

from __future__ import annotations

import os

from bench.contract import OUTCOMES, PHASES, Job
from bench.worker.single import Emit


def work(job: Job, emit: Emit) -> None:
    """Report calls of 0.1 s times GATE_SLOWER, and what else the environment asks for.

    A workload that is called like an outcome ends so.
    """
    compiled = job["cell"]["backend"]["name"] != "none"
    slower = float(os.environ.get("GATE_SLOWER", "1"))
    outcome = os.environ.get("GATE_OUTCOME", "ok") if compiled else "ok"
    name = job["cell"]["workload"]["name"]
    outcome = name if name in OUTCOMES else outcome
    breaks = int(os.environ.get("GATE_BREAKS", "0")) if compiled else 0
    for phase in PHASES:
        emit({"event": "phase", "phase": phase})
    luck = 1 + 0.0002 * job["round"]
    for i in range(5):
        emit({"event": "append", "fields": {"e2e_s": slower * luck * (0.1 + i * 1e-5)}})
    emit({"event": "append", "fields": {"warmup_s": 2.0}})
    fields = {
        "first_call_s": 2.0,
        "warmup_stable": True,
        "cache": "fresh",
        "steps_effective": 2,
        "denoiser_calls": 2,
        "output_height": 64,
        "output_width": 64,
        "fingerprint": {"cpu": "CPU X", "python": "3.11.1", "packages": {}, "cuda": None},
        "memory": [
            {"meter": "rss", "scope": "host", "phase": "steady", "bytes": 5_000_000},
        ],
        "backend": {
            "active": True,
            "evidence": {"graphs": 1, "graph_breaks": breaks, "recompiles": 0},
        },
    }
    emit({"event": "set", "fields": fields})
    emit({"event": "end", "outcome": outcome, "reason": None if outcome == "ok" else "as told"})
