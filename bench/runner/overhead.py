"""What the harness itself costs for each cell: processes, events, log, record, flush to disk."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract import SCHEMA_VERSION, Cell
from bench.runner.devices import Machine
from bench.runner.execute import execute
from bench.runner.lane import Start
from bench.runner.launch import Program
from bench.runner.ui import Silent
from bench.store import RunFolder
from compilers.base import BASELINE


@dataclass(frozen=True)
class Overhead:
    """Seconds for each cell.

    Attributes:
        cell_s: from one stored record to the next, of cells that do nothing.
        worker_s: the part in which there is a worker: start, events, exit, clean-up.
    """

    cell_s: list[float]
    worker_s: list[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.cell_s)


@dataclass(frozen=True)
class _Plan:
    cells: Sequence[Cell]
    devices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA_VERSION, "name": "overhead", "cells": list(self.cells)}


def measure(
    cells: int = 20, start: Start = "fork", preload: Sequence[str] = (), folder: Path | None = None
) -> Overhead:
    """Run ``cells`` cells that do nothing, one after the other.

    Args:
        cells: how many; the first is left out, since it also starts the launcher.
        start: how workers are started.
        preload: what they import. With `bench.worker.template.PRELOAD` and ``start="fork"``, the
            cost of forking a process that has torch is in the figure; with ``start="spawn"``, the
            imports are.
        folder: where the run lies meanwhile; a temporary folder without it.

    Raises:
        RuntimeError: a cell failed, so that the figure would mean nothing.
    """
    program = Program(entry="bench.worker.idle:run_job", preload=tuple(preload))
    stored: list[float] = []

    class Stopwatch(Silent):
        def cell_finished(self, *_: Any) -> None:
            stored.append(time.monotonic())

    with tempfile.TemporaryDirectory(dir=folder) as place:
        plan = _Plan([_idle_cell(number) for number in range(cells + 1)])
        no_gpu = Machine({}, gpus=(), torch_cuda="", apple=False)
        execute(plan, place, start=start, program=program, machine=no_gpu, ui=Stopwatch())
        records = list(RunFolder.open(place).records())
    if any(record.outcome != "ok" for record in records):
        raise RuntimeError(f"a cell that does nothing failed: {records[-1].reason}")
    return Overhead(
        cell_s=[after - before for before, after in itertools.pairwise(stored)],
        worker_s=[record.process.wall_s or 0.0 for record in records[1:]],
    )


def _idle_cell(number: int) -> Cell:
    return Cell(
        schema=SCHEMA_VERSION,
        cell_id=f"{number:016x}",
        name=f"idle-{number}",
        workload={
            "name": "idle",
            "task": "text-to-image",
            "model": "embedded:none",
            "variant": None,
            "scheduler": None,
            "steps": 10,
            "guidance": None,
            "image_guidance": None,
            "strength": None,
            "height": 64,
            "width": 64,
            "batch": 1,
            "seed": 0,
            "prompt": "",
            "negative_prompt": None,
            "input_image": None,
            "dtype": "float32",
            "generator": "cpu",
            "extra": {},
        },
        backend={"name": BASELINE, "options": {}, "environment": "current"},
        cache="fresh",
        protocol={
            "warmup": {"min_calls": 1, "max_calls": 1, "stable_calls": 1, "stable_pct": 100.0},
            "calls": {
                "min_calls": 1,
                "max_calls": 1,
                "noise_target_pct": 100.0,
                "time_cap_s": 1.0,
            },
            "rounds": 1,
        },
        sweep=None,
        profile=False,
        inputs={},
        device="cpu",
        threads=1,
        limits={"timeout_s": 600.0, "memory_bytes": None},
        allow_remote_code=False,
    )
