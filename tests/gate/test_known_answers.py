"""What the gate promises, on simulated machines: see tests/gate/simulate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.config import load_config, make_plan
from bench.gate import limits
from tests.gate import simulate

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
GATES = [simulate.paired_gate, simulate.stored_gate]


@pytest.mark.parametrize("gate", GATES)
def test_no_change_is_hardly_ever_red(gate: Any) -> None:
    assert simulate.red(gate, 1000, 0.0, seed=1) <= 0.01


@pytest.mark.parametrize("gate", GATES)
def test_a_true_slowdown_of_5_percent_is_caught(gate: Any) -> None:
    assert simulate.red(gate, 150, 0.05, seed=2) >= 0.99


@pytest.mark.parametrize("gate", GATES)
def test_a_true_slowdown_of_3_percent_is_caught_nine_times_in_ten(gate: Any) -> None:
    assert simulate.red(gate, 250, 0.03, seed=3) >= 0.90


def test_an_improvement_is_never_red() -> None:
    assert simulate.red(simulate.paired_gate, 100, -0.05, seed=4) == 0.0


def test_the_default_protocol_is_the_one_that_is_simulated() -> None:
    plan = make_plan(load_config(ROOT / "configs/ci-gpu.yaml"))
    for cell in plan.cells:
        assert cell["protocol"]["rounds"] == simulate.PROCESSES
        assert cell["protocol"]["calls"]["min_calls"] == simulate.CALLS
    assert limits.DEFAULTS["speed"] == simulate.ALLOWED_PCT
    assert "SAVE_ROUNDS:-32" in (ROOT / "scripts/gate.sh").read_text()
