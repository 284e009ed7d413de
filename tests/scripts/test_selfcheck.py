"""The script around the self-check: what it finds in run folders."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from bench.store import RunFolder
from tests.cli.records import cell

SCRIPT = Path(__file__).parents[2] / "scripts" / "selfcheck.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("selfcheck_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_a_plan_holds_and_no_record_is_of_breaks_it(
    tmp_path: Path, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.acquire(tmp_path / "run") as folder:
        folder.write_plan({"cells": [cell(rounds=2)]}, {}, "0")
    assert script.main([str(tmp_path / "run")]) == 1
    said = capsys.readouterr().out.splitlines()[0]
    assert said.endswith("broken  (no record of t2i/none round 1, t2i/none round 2)")
    assert "found 0 of 2" in said


def test_no_run_is_wrong_usage(tmp_path: Path, script: ModuleType) -> None:
    assert script.main([str(tmp_path)]) == 2
