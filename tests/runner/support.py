"""Plans and doubles for the runner's tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contract import SCHEMA_VERSION, Cell, Record
from bench.runner import Program, Silent, Task
from bench.runner.devices import Gpu, Machine
from tests.worker import tiny

HERE = "tests.runner.doubles"


def program(function: str, *preload: str) -> Program:
    """Workers that run a function of `tests.runner.doubles`, and import nothing heavy before."""
    return Program(entry=f"{HERE}:{function}", preload=preload)


def machine(gpus: int = 0, **environment: str) -> Machine:
    """A machine with so many GPUs, whatever this one has."""
    found = [Gpu(f"GPU {i}", f"GPU-{i:08d}", 2**34, "550.0") for i in range(gpus)]
    return Machine(environment, gpus=found, torch_cuda="12.4" if gpus else "", apple=False)


def cell(name: str, **changes: Any) -> Cell:
    """A cell; ``changes`` replace top-level keys, ``extra`` goes to the worker's double."""
    extra = changes.pop("extra", {})
    rounds = changes.pop("rounds", 1)
    made: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "cell_id": changes.pop("cell_id", f"{abs(hash_of(name, extra)):016x}"),
        "name": name,
        "workload": tiny.workload(
            name=name,
            model="embedded:scenes",
            steps=4,
            seed=333,
            prompt="a red boat",
            extra=extra,
        ),
        "backend": {"name": "none", "options": {}, "environment": "current"},
        "cache": "fresh",
        "protocol": {
            "warmup": {"min_calls": 1, "max_calls": 1, "stable_calls": 1, "stable_pct": 5.0},
            "calls": {
                "min_calls": 1,
                "max_calls": 1,
                "noise_target_pct": 5.0,
                "time_cap_s": 1.0,
            },
            "rounds": rounds,
        },
        "device": "cpu",
        "threads": 1,
        "limits": {"timeout_s": 60.0, "memory_bytes": None},
        "allow_remote_code": False,
    }
    made.update(changes)
    return made  # type: ignore[return-value]


def hash_of(name: str, extra: dict[str, Any]) -> int:
    import hashlib

    text = json.dumps([name, extra], sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


@dataclass
class Plan:
    """What `bench.runner.execute` needs of a plan."""

    cells: list[Cell]
    devices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA_VERSION, "name": "test", "cells": self.cells}


@dataclass
class Watcher(Silent):
    """Keeps what it is told, in order."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def preparing(self, task: Task, what: str) -> None:
        self.seen.append(("preparing", f"{task.cell['name']}: {what}"))

    def cell_started(self, task: Task) -> None:
        self.seen.append(("started", f"{task.cell['name']} {task.round}"))

    def cell_event(self, task: Task, event: dict[str, Any]) -> None:
        self.seen.append((event["event"], event.get("phase", "")))

    def cell_finished(self, task: Task, record: Record) -> None:
        self.seen.append(("finished", f"{task.cell['name']} {task.round} {record['outcome']}"))

    def names(self, kind: str) -> list[str]:
        return [text for what, text in self.seen if what == kind]


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """All records as they lie in the file."""
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_bytes().splitlines()]


PYTHON = sys.executable
