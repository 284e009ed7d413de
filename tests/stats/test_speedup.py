"""Speedup, verdict and break-even: known answers, properties and seeded Monte-Carlo trials."""

from __future__ import annotations

import math
import re
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.stats.bootstrap import (
    SAFETY,
    arm_summary,
    calibration,
    centre,
    checked_arm,
    factor,
    resample,
    speedup,
)
from bench.stats.breakeven import breakeven, breakeven_images
from bench.stats.special import student_t_quantile
from bench.stats.verdict import verdict

arms = st.lists(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=6), min_size=1, max_size=5)
tight = settings(max_examples=40, deadline=None)


def arm(rng, processes, calls, within, between, outliers=0.03, scale=1.0):
    times = np.exp(
        rng.normal(0, within, (processes, calls)) + rng.normal(0, between, (processes, 1))
    )
    hit = rng.random(times.shape) < outliers
    return (scale * times * (1 + hit * rng.uniform(0.1, 1, times.shape))).tolist()


def words(seed, trials, first, second, ratio=1.0):
    """Verdicts by word. Arms are (processes, calls, within, between, outliers if not 3 %)."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(trials):
        arms = arm(rng, *first), arm(rng, *second, scale=1 / ratio)
        found[verdict(speedup(*arms)).word] += 1
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2, 5, 0.005, 0.03), (2, 5, 0.005, 0.03)),
        ((3, 5, 0.005, 0.05), (3, 5, 0.005, 0.05)),
        ((5, 10, 0.005, 0.02), (5, 10, 0.005, 0.02)),
        ((5, 10, 0.01, 0.01), (5, 10, 0.01, 0.01)),
        ((8, 30, 0.005, 0.05), (8, 30, 0.005, 0.05)),
        ((2, 10, 0.005, 0.03), (5, 5, 0.005, 0.03)),
        ((5, 10, 0.005, 0.01), (3, 10, 0.005, 0.01)),
    ],
)
def test_equal_arms_are_told_apart_in_at_most_5_per_cent(first, second):
    found = words(11, 1000, first, second)
    assert found["FASTER"] + found["SLOWER"] <= 50
    assert found["FASTER"] + found["SLOWER"] > 0  # a rule that never speaks is no test


@pytest.mark.parametrize(
    ("within", "between", "wanted"),
    # Both at once is more noise than 1 %, and the best that any test of this level can do is 96 %.
    [(0.01, 0.0, 0.95), (0.002, 0.01, 0.95), (0.01, 0.01, 0.94)],
)
def test_three_per_cent_at_one_per_cent_noise_is_found(within, between, wanted):
    shape = (5, 10, within, between, 0.0)
    assert words(12, 500, shape, shape, 1.03)["FASTER"] >= 500 * wanted
    assert words(13, 500, shape, shape, 1 / 1.03)["SLOWER"] >= 500 * wanted


@pytest.mark.parametrize(("few", "many"), [(1, 1), (1, 4), (2, 4), (4, 4), (9, 9)])
def test_error_rates_by_drawing_what_the_calibration_integrates(few, many):
    """Normal process effects: at most 4 % at equal spread, at most 5 % at any."""
    rng, trials = np.random.default_rng(16), 200_000
    rates = []
    for spread in (0.1, 0.3, 1.0, 3.0, 10.0):
        first = rng.normal(0, 1, (trials, few + 1))
        second = rng.normal(0, spread, (trials, many + 1))
        x, y = first.var(1, ddof=1) / (few + 1), second.var(1, ddof=1) / (many + 1)
        df = (x + y) ** 2 / (x**2 / few + y**2 / many)
        grid = np.geomspace(min(few, many), few + many, 60)
        t = np.interp(1 / df, 1 / grid[::-1], [student_t_quantile(0.05, v) for v in grid[::-1]])
        reach = calibration(few, many, 0.95) * t * np.sqrt(x + y)
        rates.append(float((np.abs(first.mean(1) - second.mean(1)) > reach).mean()))
    assert max(rates) <= 0.052
    assert rates[2] <= SAFETY * 0.05 + 0.002
    # No stricter than the tighter of the two bounds asks for.
    assert max(max(rates) / 0.05, rates[2] / (SAFETY * 0.05)) > 0.9


def test_the_calibration_forgets_the_order_of_arms_and_fades_with_processes():
    assert calibration(1, 4, 0.95) > 2
    far = calibration(30, 30, 0.95)
    assert far == pytest.approx(2.05375 / 1.95996, abs=0.005)  # normal quantiles at 4 and 5 %
    rng = np.random.default_rng(3)
    one, two = (centre(checked_arm(arm(rng, k, 5, 0.01, 0.02), "arm")) for k in (2, 5))
    assert factor(one, two, 0.95) == factor(two, one, 0.95)


def test_the_interval_covers_the_truth_for_arms_of_unequal_spread():
    rng, inside = np.random.default_rng(14), 0
    for _ in range(400):
        found = speedup(arm(rng, 4, 7, 0.005, 0.01, scale=1.2), arm(rng, 6, 10, 0.01, 0.04))
        inside += found.low <= 1.2 <= found.high
    assert inside >= 375


def test_ratio_is_the_ratio_of_medians():
    found = speedup([[1.0, 2.0, 3.0], [2.0, 4.0]], [[0.5, 1.0], [1.5]])
    assert found.ratio == 2.0
    assert found.baseline.median_s == 2.0


@tight
@given(arms, arms, st.floats(0.01, 100), st.randoms())
@example([[1.0, 1.0, 2.0, 2.0, 1.5]], [[1.0, 1.0, 2.0, 2.0, 1.5]], 3.0, Random(0))
def test_speedup_contains_scales_inverts_and_ignores_order(first, second, factor, random):
    found = speedup(first, second)
    back = speedup(second, first)
    assert back.ratio == pytest.approx(1 / found.ratio)
    moved = [random.sample(calls, len(calls)) for calls in random.sample(first, len(first))]
    again = speedup(moved, second)
    assert (again.ratio, again.low, again.high) == (found.ratio, found.low, found.high)
    scaled = speedup([[v * factor for v in c] for c in first], second)
    assert scaled.ratio == pytest.approx(found.ratio * factor)
    if found.low is not None:
        assert found.low <= found.ratio <= found.high
        assert scaled.low == pytest.approx(found.low * factor, rel=1e-6)
        assert back.low == pytest.approx(1 / found.high, rel=1e-6)


def test_the_standard_error_is_that_of_endless_draws():
    """Drawn by `resample`, as a bootstrap is usually done, the variance is the computed one."""
    rng = np.random.default_rng(1)
    for shape in ((5, 9), (3, 15), (1, 11)):
        processes = checked_arm(arm(rng, *shape, 0.01, 0.03), "arm")
        drawn = resample(processes, 60_000, 2)
        assert drawn.deviations.var() == pytest.approx(centre(processes).variance, rel=0.05)


def test_break_even_draws_repeat_and_seeds_matter():
    rng = np.random.default_rng(1)
    arms = arm(rng, 3, 5, 0.01, 0.01), arm(rng, 3, 5, 0.01, 0.01, scale=0.7)

    def found(seed):
        return breakeven([1, 1, 1], [900, 950, 880], *arms, seed=seed)

    assert found(4) == found(4)
    assert found(4) != found(5)
    known = breakeven([1, 1, 1], [900, 950, 880], *arms, seed=4, compared=speedup(*arms))
    assert known == found(4)
    with pytest.raises(ValueError, match="compared at"):
        breakeven([1, 1, 1], [900, 950, 880], *arms, compared=speedup(*arms, level=0.9))


@pytest.mark.parametrize("wrong", [[], [[]], [[1.0], []], [[0.0]], [[-1.0]], [[math.nan]]])
def test_arms_that_are_none_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match="candidate"):
        speedup([[1.0]], wrong)
    with pytest.raises(ValueError, match="baseline"):
        speedup(wrong, [[1.0]])


def test_summary_separates_the_two_spreads():
    found = arm_summary(arm(np.random.default_rng(2), 40, 40, 0.005, 0.03, outliers=0))
    assert found.between_pct == pytest.approx(3, rel=0.3)
    assert found.within_pct == pytest.approx(0.5, rel=0.2)
    assert found.low_s <= found.median_s <= found.high_s


def constant(value, processes=3, calls=5):
    return [[value] * calls] * processes


@pytest.mark.parametrize(
    ("candidate", "word"),
    [(1.0, "SAME"), (0.995, "SAME"), (0.98, "FASTER"), (1.02, "SLOWER")],
)
def test_verdicts_without_noise(candidate, word):
    found = verdict(speedup(constant(1.0), constant(candidate)))
    assert found.word == word
    assert found.reason.endswith(".")


def test_slower_is_said_of_the_candidates_time():
    assert "25.0 % slower" in verdict(speedup(constant(1.0), constant(1.25))).reason
    assert "25.0 % faster" in verdict(speedup(constant(1.25), constant(1.0))).reason


def test_one_process_needs_a_margin_and_cannot_be_same():
    near = verdict(speedup(constant(1.04, 1), constant(1.0, 1)))
    far = verdict(speedup(constant(1.06, 1), constant(1.0, 3)))
    same = verdict(speedup(constant(1.0, 1), constant(1.0, 1)))
    assert (near.word, far.word, same.word) == ("UNCLEAR", "FASTER", "UNCLEAR")
    assert verdict(speedup(constant(1.0, 1), constant(1.06, 1))).word == "SLOWER"
    for found in (near, far):
        assert "spread between processes" in found.reason
        assert "rounds" in found.remedy


def test_unclear_says_what_would_settle_it():
    noisy = [[1.0] * 5, [1.1] * 5, [0.9] * 5]
    found = verdict(speedup(noisy, noisy))
    assert found.word == "UNCLEAR"
    assert "quiet" in found.remedy
    mild = [[1.0] * 5, [1.01] * 5, [0.99] * 5]
    assert "rounds (protocol.rounds, now 3) would settle it" in verdict(speedup(mild, mild)).remedy
    single = verdict(speedup([[1.0]], [[0.5]]))
    assert single.word == "UNCLEAR"
    assert "single call" in single.reason
    alone = verdict(speedup(constant(1.0, 1), constant(1.0, 1)))
    for found in (single, alone):
        assert "3 or more rounds (protocol.rounds, now 1)" in found.remedy
        assert found.remedy.endswith("would settle it.")


def test_two_processes_that_lie_far_apart_are_said_to_tell_little():
    apart = [[1.0] * 5, [4.0] * 5]
    found = verdict(speedup(apart, apart))
    assert found.word == "UNCLEAR"
    assert found.reason.startswith("2 processes tell little: the 95 % interval")
    assert found.remedy.startswith("5 or more rounds (protocol.rounds, now 2) would tell far more")
    # An interval over several decades has digits at both ends, and not more than can be read.
    low, high = re.findall(r"([\d.,e-]+)×", found.reason)
    assert 0 < float(low) < 0.01
    assert float(high.replace(",", "")) > 100
    assert max(len(low), len(high)) <= 9
    assert "tell little" not in verdict(speedup([*apart, [2.0] * 5], [*apart, [2.0] * 5])).reason


def test_break_even_of_the_published_rows():
    found = breakeven([3.034], [813.568], [[1.518]], [[0.976]])
    assert (found.kind, found.images) == ("after", 1496)
    assert found.minutes == pytest.approx(1496 * 1.518 / 60)
    assert found.low_images is None


@pytest.mark.parametrize(
    ("extra", "saving", "per_call", "images"),
    [
        (3.0, 1.0, 1, 3),
        (3.1, 1.0, 1, 4),
        (0.3, 0.1, 1, 3),
        (0.0, 1.0, 1, 0),
        (-2.0, 1.0, 1, 0),
        (3.1, 1.0, 4, 16),
        (1.0, 0.0, 1, None),
        (-1.0, -0.1, 1, None),
    ],
)
def test_break_even_rounds_up_to_whole_calls(extra, saving, per_call, images):
    assert breakeven_images(extra, saving, per_call) == images


def test_break_even_never_when_the_saving_reaches_0():
    noisy = [[1.0] * 5, [1.1] * 5, [0.9] * 5]
    less = [[v * 0.98 for v in calls] for calls in noisy]
    found = breakeven([1, 1, 1], [9, 9, 9], noisy, less)
    assert found.saving_s > 0 > found.saving_low_s
    assert (found.kind, found.images, found.minutes) == ("never", None, None)
    assert breakeven([1], [9], constant(1.0, 1), constant(1.2, 1)).kind == "never"


def test_break_even_at_once_when_the_first_call_is_cheaper_too():
    found = breakeven([9, 9, 9], [1, 1, 1], constant(1.0), constant(0.8))
    assert (found.kind, found.images, found.high_images, found.minutes) == ("immediately", 0, 0, 0)


def test_break_even_interval_contains_the_truth_and_the_point():
    rng, inside = np.random.default_rng(15), 0
    for _ in range(200):
        first = 60 * np.exp(rng.normal(0, 0.05, 5))
        found = breakeven(
            [1.0] * 5,
            first.tolist(),
            arm(rng, 5, 8, 0.01, 0.01),
            arm(rng, 5, 8, 0.01, 0.01, scale=0.8),
            replicates=1000,
        )
        assert found.low_images <= found.images <= found.high_images
        inside += found.low_images <= 295 <= found.high_images
    assert inside >= 186


def test_break_even_wants_one_first_call_per_process():
    with pytest.raises(ValueError, match="3 processes but 1 first"):
        breakeven([1.0], [9.0], constant(1.0), constant(0.8, 1))
    with pytest.raises(ValueError, match="images_per_call"):
        breakeven([1.0], [9.0], [[1.0]], [[0.8]], images_per_call=0)
