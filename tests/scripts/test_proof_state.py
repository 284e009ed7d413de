"""What the GPU proof asks before it starts, and how it knows how far a slice is."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from scripts import proof_state


def run_folder(folder: Path, outcomes: list[str], rounds: int, **host: Any) -> Path:
    folder.mkdir(parents=True)
    plan = {"cells": [{"cell_id": "a", "protocol": {"rounds": rounds}}]}
    (folder / "plan.json").write_text(json.dumps({"schema": 1, "plan": plan, "host": host}))
    lines = [
        {"schema": 1, "cell_id": "a", "round": index, "outcome": outcome, "device": "cuda:0"}
        for index, outcome in enumerate(outcomes)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], ("begun", "0 of 3")),
        (["ok", "ok"], ("begun", "2 of 3")),
        (["ok", "ok", "ok"], ("done", "3 of 3")),
        (["ok", "oom", "failed"], ("done", "3 of 3, of them 1 failed, 1 oom")),
        (["unsupported"] * 3, ("failed", "3 of 3, of them 3 unsupported")),
    ],
)
def test_records_say_how_far_a_slice_is(
    tmp_path: Path, outcomes: list[str], expected: tuple[str, str]
) -> None:
    assert proof_state.how_far(run_folder(tmp_path / "s", outcomes, 3)) == expected


def test_a_torn_last_line_is_a_measurement_less(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "s", ["ok", "ok"], 2)
    records = folder / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-9])
    assert proof_state.how_far(folder) == ("begun", "1 of 2")


def test_what_no_run_has_left_is_told_from_what_was_never_begun(tmp_path: Path) -> None:
    assert proof_state.how_far(tmp_path / "absent") == ("to do", "")
    (tmp_path / "locked" / "logs").mkdir(parents=True)
    assert proof_state.how_far(tmp_path / "locked") == ("to do", "")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").touch()
    assert proof_state.how_far(tmp_path / "foreign")[0] == "broken"
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "plan.json").write_text("{")
    assert proof_state.how_far(tmp_path / "torn")[0] == "broken"


def test_the_machine_of_a_run_has_a_name(tmp_path: Path) -> None:
    gpu = run_folder(tmp_path / "g", ["ok"], 1, gpus=[{"name": "NVIDIA H200"}])
    cpu = run_folder(tmp_path / "c", ["ok"], 1, gpus=[], cpu="AMD EPYC", cpus=2)
    assert proof_state.machine_name(gpu) == "nvidia-h200"
    assert proof_state.machine_name(cpu) == "cpu-amd-epyc-2-cores"


def test_every_requirement_is_looked_for() -> None:
    names = {name for name, _ in proof_state.required()}
    assert {"torch", "diffusers", "transformers", "pydantic", "msgspec", "nvidia-ml-py"} <= names
    assert "hypothesis" not in names
    assert list(proof_state.packages()) == []


def test_what_is_absent_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "diffusers":
            raise importlib.metadata.PackageNotFoundError
        return {"torch": "2.11.0+cu130", "pydantic": "2.5.9"}.get(name, "9999")

    monkeypatch.setattr(importlib.metadata, "version", version)
    (line,) = proof_state.packages()
    assert "lacks diffusers, pydantic>=2.6 (has 2.5.9); install them" in line
    assert "docs/gpu-proof.md" in line


def test_a_folder_without_room_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(bytes(1000))
    assert list(proof_state.disk(tmp_path, 1000)) == []
    (line,) = proof_state.disk(tmp_path, 2**60)
    assert "make room, or choose another folder" in line


def test_a_device_that_is_not_there_is_named() -> None:
    def load(_name: str) -> Any:
        return mock.MagicMock()

    assert list(proof_state.loads("cpu", load)) == []
    (line,) = proof_state.loads("gpu", load)
    assert "'gpu' is not a device" in line


def test_a_library_that_does_not_load_is_named() -> None:
    def load(name: str) -> Any:
        if name == "transformers":
            raise OSError("libcudart.so.13: cannot open shared object file\nmore")
        return mock.MagicMock()

    (line,) = proof_state.loads("cpu", load)
    assert line.startswith("transformers does not load in ")
    assert line.endswith("libcudart.so.13: cannot open shared object file")


def test_a_command_ends_in_time() -> None:
    script = Path(proof_state.__file__)
    command = [sys.executable, str(script), "within", "0.5", "sleep", "30"]
    assert subprocess.run(command, check=False, timeout=20).returncode == 124
