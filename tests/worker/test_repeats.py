from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.contract import RepeatRule
from bench.stats import order
from bench.worker import repeats

RULE: RepeatRule = {
    "min_calls": 3,
    "max_calls": 20,
    "noise_target_pct": 2.0,
    "time_cap_s": 60.0,
}


# Tabulated ranks of the 95 % interval of the median, by sample size.
@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (12, 3, 10), (17, 5, 13), (20, 6, 15), (30, 10, 21)],
)
def test_interval_ranks_are_those_of_the_tables(count, low, high):
    values = [float(i) for i in range(1, count + 1)]
    random.Random(1).shuffle(values)
    assert order.median_interval(values) == (low, high)


@pytest.mark.parametrize("count", range(6))
def test_no_interval_below_six_values(count):
    assert order.median_interval([1.0] * count) is None
    assert repeats.noise_pct([1.0] * count) is None


@given(st.integers(6, 60))
def test_the_interval_covers_at_least_95_per_cent_and_no_narrower_one_does(count):
    interval = order.median_interval([float(i) for i in range(1, count + 1)])
    assert interval is not None
    rank = int(interval[0])

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(count, i) for i in range(k)) / 2**count

    assert coverage(rank) >= 0.95
    assert coverage(rank + 1) < 0.95


def test_noise_is_the_half_width_in_per_cent_of_the_median():
    assert repeats.noise_pct([0.98, 0.99, 1.0, 1.0, 1.01, 1.02]) == pytest.approx(2.0)


def test_it_stops_at_the_noise_target():
    assert repeats.stop_reason([1.0] * 5, 5.0, RULE) is None
    assert repeats.stop_reason([1.0] * 6, 6.0, RULE) == "noise_target"


def test_it_stops_at_the_caps():
    noisy = [1.0, 2.0] * 10
    assert repeats.stop_reason(noisy[:19], 19.0, RULE) is None
    assert repeats.stop_reason(noisy, 20.0, RULE) == "max_calls"
    assert repeats.stop_reason(noisy[:4], 60.0, RULE) == "time_cap"


def test_the_minimum_count_holds_even_when_the_time_is_up():
    assert repeats.stop_reason([100.0, 100.0], 200.0, RULE) is None
    assert repeats.stop_reason([100.0, 100.0, 100.0], 300.0, RULE) == "time_cap"


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=40))
def test_it_always_stops(times):
    stops = [repeats.stop_reason(times[:n], 0.0, RULE) for n in range(1, len(times) + 1)]
    assert all(reason is None for reason in stops[:2])
    assert all(reason is not None for reason in stops[19:])
