"""Leaks that are there are found, and what allocators do is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats.leak import MIN_CALLS, find_leak

MIB = 2**20
TRIALS = 1000
CALLS = 20


def verdicts(make, trials=TRIALS):
    rng = np.random.default_rng(7)
    found = [find_leak(make(rng)).verdict for _ in range(trials)]
    return {word: found.count(word) / trials for word in ("leak", "none", "unclear")}


def at(calls=CALLS):
    return np.arange(calls)


def test_an_exact_leak_is_known_to_the_byte():
    found = find_leak((at() * 512 + 10**9).tolist())
    assert found.verdict == "leak"
    assert (found.bytes_per_call, found.low, found.high) == (512, 512, 512)
    assert (found.first, found.calls, found.start_bytes) == (4, 16, 10**9 + 4 * 512)


@pytest.mark.parametrize("noise_mib", [0.0, 0.1, 0.5])
def test_a_mebibyte_a_call_is_found(noise_mib):
    found = verdicts(lambda rng: at() * MIB + rng.normal(0, noise_mib * MIB, CALLS) + 4e8)
    assert found["leak"] >= 0.99


def test_a_leak_is_found_beside_a_step():
    def make(rng):
        step = (at() >= rng.integers(0, CALLS)) * 16 * MIB
        return at() * MIB + step + rng.normal(0, 0.1 * MIB, CALLS) + 4e8

    assert verdicts(make)["leak"] >= 0.99


@pytest.mark.parametrize("calls", [CALLS, 60])
def test_noise_is_no_leak(calls):
    assert verdicts(lambda rng: rng.normal(0, MIB, calls) + 4e8)["leak"] <= 0.05


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("calls", [CALLS, 60])
def test_steps_are_no_leak(calls, steps):
    def make(rng):
        series = rng.normal(0, 0.05 * MIB, calls) + 4e8
        for when in rng.integers(0, calls, steps):
            series[when:] += rng.uniform(1, 32) * MIB
        return series

    assert verdicts(make)["leak"] <= 0.05


def test_a_walk_without_direction_is_no_leak():
    make = lambda rng: np.cumsum(rng.normal(0, MIB, CALLS)) + 4e8  # noqa: E731
    assert verdicts(make)["leak"] <= 0.05


def test_settling_is_not_taken_for_a_leak():
    make = lambda rng: 5e8 - 4e7 * np.exp(-at() / 3) + rng.normal(0, 2e4, CALLS)  # noqa: E731
    found = verdicts(make, 200)
    assert found["leak"] == 0
    assert "less and less" in (find_leak(make(np.random.default_rng(1))).reason or "")


@pytest.mark.parametrize(("calls", "period"), [(CALLS, 7), (CALLS, 12), (40, 7), (60, 25)])
def test_what_is_given_back_again_and_again_is_no_leak(calls, period):
    def make(rng):
        held = (at(calls) + rng.integers(period)) % period
        return held * MIB + rng.normal(0, 0.02 * MIB, calls) + 4e8

    assert verdicts(make, 200)["leak"] == 0


def test_a_leak_is_found_beside_the_release_of_what_was_held_before():
    def make(rng):
        released = (at() >= rng.integers(5, CALLS)) * 64 * MIB
        return at() * MIB - released + rng.normal(0, 0.1 * MIB, CALLS) + 4e8

    assert verdicts(make, 200)["leak"] >= 0.99


def test_a_staircase_is_unclear():
    stairs = [(call // 3) * 3 * MIB for call in range(CALLS)]
    found = find_leak(stairs)
    assert found.verdict == "unclear"
    assert "steps" in (found.reason or "")


def test_flat_memory_has_no_growth_at_all():
    found = find_leak([10**9] * CALLS)
    assert (found.verdict, found.bytes_per_call, found.low, found.high) == ("none", 0, 0, 0)


def test_one_step_is_set_aside():
    found = find_leak([0] * 12 + [5 * MIB] * 8)
    assert (found.verdict, found.bytes_per_call, found.steps_bytes) == ("none", 0, (5 * MIB,))


def test_too_few_calls_say_so():
    found = find_leak([0, 1, 2])
    assert (found.verdict, found.bytes_per_call) == ("unclear", None)
    assert str(MIN_CALLS) in (found.reason or "")


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        find_leak([1.0, float("nan")] * 10)
    with pytest.raises(ValueError, match="level"):
        find_leak([1.0] * 20, level=1)


@given(
    st.lists(st.integers(0, 2**36), min_size=MIN_CALLS, max_size=80),
    st.integers(-(2**30), 2**30),
)
def test_the_interval_holds_the_estimate_and_shifts_change_nothing(series, shift):
    found = find_leak(series)
    assert found.low <= found.bytes_per_call <= found.high
    moved = find_leak([value + shift for value in series])
    assert moved.bytes_per_call == pytest.approx(found.bytes_per_call, rel=1e-6, abs=1)
