from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.contract import WarmupRule
from bench.worker import warmup

RULE: WarmupRule = {"min_calls": 2, "max_calls": 6, "stable_calls": 3, "stable_pct": 5.0}


@pytest.mark.parametrize(
    ("times", "stable"),
    [
        ([], False),
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([9.0, 1.0, 1.05, 1.0], True),
        ([9.0, 1.0, 1.06, 1.0], False),
        ([1.0, 1.0, 1.0, 2.0], False),
    ],
)
def test_stable_means_the_last_calls_lie_together(times, stable):
    assert warmup.is_stable(times, RULE) is stable


def test_one_warm_up_is_not_enough_for_a_backend_that_warms_records_and_replays():
    times = [60.0, 4.0, 1.0, 1.01, 1.0]
    over = [warmup.is_over(times[:n], RULE) for n in range(len(times) + 1)]
    assert over == [False] * 5 + [True]


def test_the_floor_holds_although_calls_are_stable():
    rule: WarmupRule = {**RULE, "min_calls": 5, "stable_calls": 1}
    assert [warmup.is_over([1.0] * n, rule) for n in range(6)] == [False] * 5 + [True]


def test_the_cap_ends_what_never_settles_and_the_warning_says_the_remedy():
    times = [1.0, 2.0] * 3
    assert warmup.is_over(times, RULE)
    text = warmup.unstable_warning(times, RULE)
    assert "100.0 %" in text
    assert "warmup.max_calls" in text


def test_the_first_call_is_always_made():
    assert not warmup.is_over([], {**RULE, "max_calls": 0, "min_calls": 0})


@given(st.lists(st.floats(0.001, 1000), max_size=12))
def test_it_is_over_at_the_cap_and_never_below_the_floor(times):
    over = warmup.is_over(times, RULE)
    if len(times) >= RULE["max_calls"]:
        assert over
    if len(times) < RULE["min_calls"]:
        assert not over
    if over and len(times) < RULE["max_calls"]:
        last = times[-RULE["stable_calls"] :]
        assert max(last) - min(last) <= 0.05 * min(last) * (1 + 1e-9)
