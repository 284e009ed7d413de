"""Speedup, verdict and break-even: known answers, properties and seeded Monte-Carlo trials."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.stats.bootstrap import arm_summary, speedup
from bench.stats.breakeven import breakeven, breakeven_images
from bench.stats.verdict import verdict

arms = st.lists(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=6), min_size=1, max_size=5)
tight = settings(max_examples=40, deadline=None)


def arm(rng, processes, calls, within, between, scale=1.0, outliers=0.03):
    times = np.exp(
        rng.normal(0, within, (processes, calls)) + rng.normal(0, between, (processes, 1))
    )
    hit = rng.random(times.shape) < outliers
    return (scale * times * (1 + hit * rng.uniform(0.1, 1, times.shape))).tolist()


def words(seed, trials, shape, within, between, ratio=1.0):
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(trials):
        first = arm(rng, *shape, within, between)
        second = arm(rng, *shape, within, between, 1 / ratio)
        found[verdict(speedup(first, second, replicates=1000)).word] += 1
    return found


@pytest.mark.parametrize(
    ("shape", "within", "between"),
    [((3, 5), 0.005, 0.05), ((5, 10), 0.005, 0.02), ((8, 30), 0.005, 0.05), ((5, 10), 0.01, 0.01)],
)
def test_equal_arms_are_told_apart_in_at_most_5_per_cent(shape, within, between):
    found = words(11, 1000, shape, within, between)
    assert found["FASTER"] + found["SLOWER"] <= 50
    assert found["FASTER"] + found["SLOWER"] > 0  # a rule that never speaks is no test


def test_three_per_cent_at_one_per_cent_noise_is_found():
    assert words(12, 400, (5, 10), 0.01, 0.0, 1.03)["FASTER"] >= 380
    assert words(13, 400, (5, 10), 0.01, 0.0, 1 / 1.03)["SLOWER"] >= 380


def test_the_interval_covers_the_truth_for_arms_of_unequal_spread():
    rng, inside = np.random.default_rng(14), 0
    for _ in range(400):
        found = speedup(
            arm(rng, 4, 7, 0.005, 0.01, 1.2), arm(rng, 6, 10, 0.01, 0.04), replicates=1000
        )
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
    found = speedup(first, second, replicates=200)
    back = speedup(second, first, replicates=200)
    assert back.ratio == pytest.approx(1 / found.ratio)
    moved = [random.sample(calls, len(calls)) for calls in random.sample(first, len(first))]
    again = speedup(moved, second, replicates=200)
    assert (again.ratio, again.low, again.high) == (found.ratio, found.low, found.high)
    scaled = speedup([[v * factor for v in c] for c in first], second, replicates=200)
    assert scaled.ratio == pytest.approx(found.ratio * factor)
    if found.low is not None:
        assert found.low <= found.ratio <= found.high
        assert scaled.low == pytest.approx(found.low * factor, rel=1e-6)
        assert back.low == pytest.approx(1 / found.high, rel=1e-6)


def test_seeds_repeat_and_matter():
    rng = np.random.default_rng(1)
    first, second = arm(rng, 3, 5, 0.01, 0.01), arm(rng, 3, 5, 0.01, 0.01)
    assert speedup(first, second, seed=4) == speedup(first, second, seed=4)
    assert speedup(first, second, seed=4) != speedup(first, second, seed=5)


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
    assert "processes per arm (now 3)" in verdict(speedup(mild, mild)).remedy
    single = verdict(speedup([[1.0]], [[0.5]]))
    assert single.word == "UNCLEAR"
    assert "single call" in single.reason


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
            arm(rng, 5, 8, 0.01, 0.01, 0.8),
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
