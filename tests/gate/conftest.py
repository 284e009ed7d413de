from __future__ import annotations

import functools
from pathlib import Path

import pytest
import yaml

from bench import api
from bench.runner import Program, execute
from tests.runner.support import machine

PROGRAM = Program(entry="tests.gate.doubles:work", preload=())


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder with ``small.yaml``, where workers are doubles."""
    monkeypatch.chdir(tmp_path)
    run = functools.partial(execute, program=PROGRAM, machine=machine())
    monkeypatch.setattr(api, "execute", run)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


CONFIG = {
    "name": "small",
    "device": "cpu",
    "protocol": {"preset": "quick", "rounds": 3},
    "defaults": {"task": "text-to-image", "model": "embedded:sdxl", "prompt": "a", "steps": 2},
    "matrix": {"workload": [{"name": "t2i"}], "backend": ["none", "torch-compile"]},
}
