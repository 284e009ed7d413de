"""Measured runs with known contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.gate import measured
from bench.store import RunFolder
from tests.cli.records import cell, record

EVIDENCE = {"graphs": 2, "graph_breaks": 0, "recompiles": 0, "graph_break_reasons": []}
GPU = {"name": "GPU X", "uuid_hash": "a" * 16, "sm_clock_locked_mhz": 1500, "power_limit_w": 300.0}
FINGERPRINT = {
    "cpu": "CPU X",
    "python": "3.11.1",
    "packages": {"torch": "2.13.0", "diffusers": "0.42.1"},
    "environment_hash": "e1",
    "cuda": "12.8",
    "gpu": GPU,
    "null_reasons": {},
}
ALLOCATED = "torch.max_memory_allocated"


def memory(count: int | None = 2**30) -> list[dict[str, Any]]:
    return [{"meter": ALLOCATED, "scope": "process", "phase": "steady", "bytes": count}]


def images(sha: str = "f0") -> list[dict[str, Any]]:
    return [{"path": "a.png", "seed": 333, "index": 0, "width": 8, "height": 8, "sha256": sha}]


def times(
    centre: float = 1.0, seed: int = 0, processes: int = 6, calls: int = 6
) -> list[list[float]]:
    """Quiet processes: 0.2 % between them, 0.1 % within."""
    rng = np.random.default_rng(seed)
    luck = np.exp(rng.normal(0, 0.002, (processes, 1)) + rng.normal(0, 0.001, (processes, calls)))
    return [list(map(float, process)) for process in centre * luck]


def write_run(path: Path, cells: Sequence[tuple[Any, Sequence[Any]]], run_id: str = "") -> Path:
    """Write a run folder with these cells and their records."""
    with RunFolder.acquire(path) as folder:
        plan = {"schema": 1, "name": path.name, "cells": [planned for planned, _ in cells]}
        folder.write_plan(plan, {}, "0")
        for _, records in cells:
            for entry in records:
                folder.append(entry)
    return path


def planned(backend: str = "torch-compile", rounds: int = 6, **workload: Any) -> Any:
    made = cell(backend, rounds=rounds, **workload)
    rule = {"min_calls": 2, "max_calls": 8, "stable_calls": 2, "stable_pct": 5.0}
    made["protocol"]["warmup"] = rule
    return made


def records(of: Any, arm: Sequence[Sequence[float]], **fields: Any) -> list[Any]:
    given = {
        "backend": {"active": True, "evidence": EVIDENCE},
        "memory": memory(),
        "images": images(),
        "fingerprint": FINGERPRINT,
        "device": "cuda:0",
        "started_utc": "2026-11-21T08:00:00+00:00",
        **fields,
    }
    return [record(of, calls, round=i, **given) for i, calls in enumerate(arm)]


def run(
    tmp_path: Path, name: str, centre: float = 1.0, seed: int = 0, *, of: Any = None, **fields: Any
) -> Path:
    """Write a run of one compiled cell."""
    of = planned() if of is None else of
    arm = fields.pop("arm", None) or times(centre, seed, of["protocol"]["rounds"])
    return write_run(tmp_path / name, [(of, records(of, arm, **fields))])


def content(tmp_path: Path, name: str, centre: float = 1.0, seed: int = 0, **fields: Any) -> Any:
    """Return a measured run as the JSON that a baseline file would hold."""
    made = measured.of_run(run(tmp_path, name, centre, seed, **fields))
    return msgspec.json.decode(msgspec.json.encode(made))


def measurement(content_: dict[str, Any]) -> measured.Measurement:
    return msgspec.convert(content_, measured.Measurement)
