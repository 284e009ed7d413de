from __future__ import annotations

import pytest

from bench.gate import GateError, decide, limits
from tests.gate.support import times


def test_a_change_is_of_the_figure_itself() -> None:
    found = decide.change(times(), times(1.10))
    assert found.pct == pytest.approx(10.0, abs=0.5)
    assert found.low_pct is not None
    assert found.high_pct is not None
    assert 9 < found.low_pct < found.pct < found.high_pct < 11


@pytest.mark.parametrize(
    ("centre", "allowed", "word"),
    [
        (1.0, 1.0, "passed"),
        (1.05, 1.0, "regression"),
        (1.05, 10.0, "passed"),
        (1.05, 5.0, "passed"),  # not the whole interval is beyond
        (0.9, 1.0, "improved"),
        (0.5, 1.0, "implausible"),
    ],
)
def test_words(centre: float, allowed: float, word: str) -> None:
    assert decide.decide(times(), times(centre, 1), allowed).status == word


def test_a_single_process_is_unclear_whatever_it_says() -> None:
    found = decide.decide(times(processes=1), times(2.0, processes=1), 1.0)
    assert found.status == "unclear"
    assert not found.suspect
    assert "at least 3 rounds" in found.reason


def test_an_interval_too_wide_to_tell_is_no_pass() -> None:
    wild = [[1.0, 1.0], [1.3, 1.3], [0.9, 0.9]]
    found = decide.decide(wild, [[1.02, 1.02], [1.2, 1.2], [0.95, 0.95]], 1.0)
    assert found.status == "unclear"
    assert "too wide to tell" in found.reason
    assert decide.decide(wild, wild, 25.0).status == "passed"


def test_a_confirmation_that_disagrees_saves() -> None:
    slow, again = times(1.05, 1), times(1.0, 2)
    found = decide.decide(times(), slow, 1.0, confirmation=([], again))
    assert found.status == "passed"
    assert found.suspect
    assert "not confirmed" in found.reason


def test_a_confirmation_that_agrees_is_said() -> None:
    found = decide.decide(
        times(), times(1.05, 1), 1.0, confirmation=(times(1.0, 3), times(1.05, 2))
    )
    assert found.status == "regression"
    assert "confirmation run agrees" in found.reason


def test_screening_is_wider_than_deciding() -> None:
    base, new = times(seed=5, processes=4), times(1.0125, 6, processes=4)
    screen, final = (
        decide.change(base, new, level) for level in (decide.SCREEN_LEVEL, decide.DECISION_LEVEL)
    )
    assert screen.low_pct is not None
    assert final.low_pct is not None
    assert final.low_pct < screen.low_pct
    found = decide.decide(base, new, (final.low_pct + screen.low_pct) / 2)
    assert (found.status, found.suspect) == ("passed", True)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        decide.decide(times(), times(), -1.0)


def test_limits_are_read() -> None:
    found = limits.parse("speed=3%, memory=2.5,fidelity,warmup")
    assert found.allowed_pct == {"speed": 3.0, "memory": 2.5, "warmup": 25.0}
    assert found.fidelity
    assert found.asked
    counts = limits.parse("counts")
    assert counts.allowed_pct == {}
    assert not counts.fidelity
    assert limits.parse(None) == limits.Limits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sped=3%", "'sped=3%' is no limit; there are: counts, speed"),
        ("speed=3%,speed=4%", "speed is given twice"),
        ("speed=-3%", "no percentage"),
        ("speed=", "no percentage"),
        ("speed=nan", "no percentage"),
        ("", "is no limit"),
        ("fidelity=3%", "takes no number"),
        ("counts=1", "takes no number"),
    ],
)
def test_nonsense_limits_are_refused(text: str, message: str) -> None:
    with pytest.raises(GateError, match=message):
        limits.parse(text)
