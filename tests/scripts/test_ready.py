"""What the proof on a GPU lacks is said in one line, with what to do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ready() -> Any:
    spec = importlib.util.spec_from_file_location("ready", ROOT / "scripts/ready.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_project_and_its_workers_need_is_read_from_the_project(ready: Any) -> None:
    names = ready.required((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"orjson", "pydantic", "torch", "diffusers", "nvidia-ml-py"} <= set(names)
    assert "tomli" not in names, "it is for Python 3.10"
    assert "torchao" not in names, "what is used if it is there is not required"
    assert len(names) == len(set(names))


def test_missing_packages_are_named_with_a_remedy(ready: Any) -> None:
    said = ready.lacking("cuda", ["torch", "orjson"], lambda name: name == "torch")
    assert "lacks orjson: " in said
    assert "pip install orjson" in said
    assert "PYTHONPATH" in said
    assert "\n" not in said


def test_a_missing_device_is_told_with_a_remedy(ready: Any) -> None:
    said = ready.lacking("cuda", [], why_not=lambda device: f"no GPU for {device}")
    assert said.startswith("no GPU for cuda: ")
    assert "--device cpu --small" in said


def test_the_project_itself_is_asked_for_the_device(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "no GPU is visible" in ready.no_device("cuda")
    assert ready.no_device("cpu") is None


def test_it_ends_in_one_line(
    ready: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ready.py", "cuda"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(ready, "installed", lambda name: True)
    assert ready.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("gpu_proof: ")
    assert told.count("\n") == 1


def test_a_package_that_only_some_slices_use_is_a_note(
    ready: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ready.py", "cpu"])
    there = ready.installed
    monkeypatch.setattr(ready, "installed", lambda name: name != "torchao" and there(name))
    assert ready.main() == 0
    assert "torchao is not installed" in capsys.readouterr().err
