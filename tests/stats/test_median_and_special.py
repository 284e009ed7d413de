"""Distributions against tables, and the median's interval against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats.median import median_interval
from bench.stats.special import f_tail, regularised_beta, student_t_quantile, student_t_two_sided

times = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("error", "df", "t"),
    [(0.05, 1, 12.706), (0.05, 4, 2.776), (0.05, 8, 2.306), (0.01, 10, 3.169), (0.05, 1e6, 1.960)],
)
def test_student_quantiles_are_the_tables(error, df, t):
    assert student_t_quantile(error, df) == pytest.approx(t, abs=6e-4)
    assert student_t_two_sided(student_t_quantile(error, df), df) == pytest.approx(error)


@pytest.mark.parametrize(("f", "d1", "d2", "p"), [(4.103, 2, 10, 0.05), (3.708, 3, 10, 0.05)])
def test_f_tails_are_the_tables(f, d1, d2, p):
    assert f_tail(f, d1, d2) == pytest.approx(p, abs=5e-5)
    assert f_tail(math.inf, d1, d2) == 0


def test_beta_has_closed_forms():
    assert regularised_beta(1, 1, 0.3) == pytest.approx(0.3)
    assert regularised_beta(2, 1, 0.3) == pytest.approx(0.09)
    assert regularised_beta(3, 5, 0.4) == pytest.approx(1 - regularised_beta(5, 3, 0.6))
    for wrong in ((0, 1, 0.5), (1, 1, 1.5)):
        with pytest.raises(ValueError):
            regularised_beta(*wrong)


@pytest.mark.parametrize(
    ("n", "rank", "level"),
    [(6, 1, 0.96875), (9, 2, 0.9609375), (10, 2, 0.978516), (20, 6, 0.958611)],
)
def test_ranks_are_the_tables(n, rank, level):
    found = median_interval(list(range(1, n + 1)))
    assert (found.low, found.high) == (rank, n + 1 - rank)
    assert found.achieved_level == pytest.approx(level, abs=1e-6)
    assert found.meets_level


@pytest.mark.parametrize(("n", "level"), [(2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375)])
def test_tiny_samples_return_all_there_is_and_say_so(n, level):
    found = median_interval(list(range(1, n + 1)))
    assert (found.low, found.high, found.achieved_level) == (1, n, level)
    assert not found.meets_level
    assert found.relative_half_width is None


def test_one_value_and_no_value():
    assert median_interval([3.0]).low is None
    assert median_interval([3.0]).median == 3.0
    for wrong in ([], [math.nan], [math.inf]):
        with pytest.raises(ValueError):
            median_interval(wrong)
    with pytest.raises(ValueError, match="level"):
        median_interval([1.0], 1.0)


@given(times, st.floats(0.1, 10), st.randoms())
def test_median_interval_contains_scales_and_ignores_order(values, factor, random):
    found = median_interval(values)
    shuffled = list(values)
    random.shuffle(shuffled)
    assert median_interval(shuffled) == found
    scaled = median_interval([v * factor for v in values])
    assert scaled.median == pytest.approx(found.median * factor)
    if found.low is not None:
        assert found.low <= found.median <= found.high
        assert scaled.high == pytest.approx(found.high * factor)


def test_the_interval_covers_as_often_as_it_says():
    draws = np.sort(np.random.default_rng(5).lognormal(0, 1, (4000, 10)), axis=1)
    found = median_interval(list(range(10)))
    low, high = draws[:, int(found.low)], draws[:, int(found.high)]
    assert np.mean((low <= 1) & (high >= 1)) == pytest.approx(found.achieved_level, abs=0.008)
