"""Records as a worker would have written them, for known answers."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from msgspec import structs

from bench.cli import app
from bench.records import read
from bench.records.arms import ArmGroup, Source, group
from bench.records.types import Record, cell_of

WORKLOAD: dict[str, Any] = {
    "name": "t2i",
    "task": "text-to-image",
    "model": "embedded:sdxl",
    "variant": None,
    "scheduler": None,
    "steps": 10,
    "guidance": None,
    "image_guidance": None,
    "strength": None,
    "height": 128,
    "width": 128,
    "batch": 1,
    "seed": 333,
    "prompt": "a red house",
    "negative_prompt": None,
    "input_image": None,
    "dtype": "float32",
    "generator": "cpu",
    "extra": {},
}

GIB = 1024**3

FIELDS = {field.encode_name for field in structs.fields(read._decoder().type)}
FIELDS |= {"telemetry_begun_s", "telemetry_calls"}
"""All that a worker may send; of the last two the parent makes ``telemetry``."""


@dataclass
class Ended:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(*arguments: str) -> Ended:
    """Call the command line in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "oe")
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        pytest.raises(SystemExit) as end,
    ):
        app.main(arguments)
    texts = [file.buffer.getvalue().decode() for file in (out, err)]  # type: ignore[attr-defined]
    return Ended(int(end.value.code or 0), *texts)


def cell(backend: str = "none", *, rounds: int = 1, options: Any = None, **workload: Any) -> Any:
    asked = {**WORKLOAD, **workload}
    name = f"{asked['name']}/{backend}"
    return {
        "schema": 1,
        "cell_id": f"{name}-{sorted(workload.items())}-{options}",
        "name": name,
        "workload": asked,
        "backend": {"name": backend, "options": options or {}, "environment": "current"},
        "cache": "fresh",
        "protocol": {"rounds": rounds},
        "device": "auto",
        "threads": 1,
        "limits": {"timeout_s": 60.0, "memory_bytes": None},
        "allow_remote_code": False,
    }


def record(of: Any, e2e_s: Any = (2.0, 1.0, 3.0), *, round: int = 0, **fields: Any) -> Any:  # noqa: A002
    workload = of["workload"]
    made = {
        "schema": 1,
        "record_id": f"{of['cell_id']}-{round}",
        "run_id": "r",
        "cell_id": of["cell_id"],
        "name": of["name"],
        "round": round,
        "attempt": 0,
        "sequence": 0,
        "cell": of,
        "device": "cpu",
        "outcome": "ok",
        "reason": None,
        "warnings": [],
        "process": {"wall_s": 1.0},
        "load_s": 0.5,
        "prepare_s": 0.0,
        "first_call_s": 5.0,
        "warmup_s": [5.0, 2.0],
        "warmup_stable": True,
        "compile_s": 3.0,
        "cache": "fresh",
        "e2e_s": list(e2e_s),
        "step_s": [[0.1, 0.3], [0.2]],
        "it_per_s": [4.0, None, 6.0],
        "steps_per_s_e2e": [5.0, 10.0, 3.0],
        "steps_requested": workload["steps"],
        "steps_effective": workload["steps"],
        "denoiser_calls": workload["steps"],
        "denoiser_batch": 2,
        "output_height": workload["height"],
        "output_width": workload["width"],
        "scheduler_class": "EulerDiscreteScheduler",
        "model_revision": "abc",
        "synthetic_weights": False,
        "backend": {"active": True},
        "memory": [
            {"meter": "rss", "scope": "host", "phase": "load", "bytes": 9 * GIB},
            {"meter": "rss", "scope": "host", "phase": "steady", "bytes": GIB // 2},
        ],
        "images": [],
        "fingerprint": {"python": "3.11", "packages": {"torch": "2.13.0"}},
    }
    return copy.deepcopy({**made, **fields})


def typed(made: Any) -> Record:
    """Return a record as its readers get it."""
    return read.decode(json.dumps(made).encode())


def typed_of(made: Any, **fields: Any) -> Record:
    """Return a record of what a worker sent, with what else a record has."""
    return typed({**record(cell()), **made, **fields})


def grouped(records: Sequence[Any], cells: Sequence[Any] = ()) -> list[ArmGroup]:
    """Return the groups of a run of these records and planned cells."""
    return group([source(records, cells)])


def source(records: Sequence[Any], cells: Sequence[Any] = ()) -> Source:
    return Source(
        "run", Path("run"), "r", "run", "", "", {}, {},
        [cell_of(each) for each in cells],
        [typed(each) for each in records],
    )  # fmt: skip
