"""Steps against time, and the checks on a cell's times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.stats.flags import accounting, drift, noise, outliers, slowdown
from bench.stats.sweep import check_throughput, fit_sweep

STEPS = np.repeat([5, 10, 20, 30, 50], 3)


def sweep(seed, noise_share=0.002, steps=STEPS):
    rng = np.random.default_rng(seed)
    x = rng.permutation(steps)
    return x, (0.2 + 0.01 * x) * np.exp(rng.normal(0, noise_share, len(x)))


def test_an_exact_line_is_returned_exactly():
    x, y = sweep(0, 0.0)
    found = fit_sweep(x.tolist(), y.tolist())
    assert found.fixed_s == pytest.approx(0.2)
    assert found.marginal_step_s == pytest.approx(0.01)
    assert found.steps_per_s == pytest.approx(100)
    assert found.r2 == pytest.approx(1)
    assert found.predict([100]) == pytest.approx([1.2])
    assert not any(found.outliers)
    assert not found.lack_of_fit


@pytest.mark.parametrize("share", [0.002, 0.01])
def test_the_intervals_hold_10_ms_and_200_ms(share):
    inside = np.zeros(2)
    for seed in range(200):
        found = fit_sweep(*sweep(seed, share))
        inside += [
            found.fixed_interval_s[0] <= 0.2 <= found.fixed_interval_s[1],
            found.marginal_interval_s[0] <= 0.01 <= found.marginal_interval_s[1],
        ]
    assert (inside >= 180).all()


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("whole_point", [False, True])
def test_a_minute_at_the_first_point_does_not_move_the_slope(repeats, whole_point):
    for seed in range(30):
        x, y = sweep(seed, 0.001, np.repeat([5, 10, 20, 30, 50], repeats))
        hit = np.flatnonzero(x == 5)[: None if whole_point else 1]
        y[hit] += 60
        found = fit_sweep(x, y)
        assert found.marginal_step_s == pytest.approx(0.01, rel=0.01)
        assert all(found.outliers[i] for i in hit)


def test_drift_over_a_shuffled_sweep_is_taken_out():
    for seed in range(60):
        x, y = sweep(seed, 0.001)
        t = np.arange(len(x)) / (len(x) - 1)
        found = fit_sweep(x, y * (1 + 0.03 * t))
        assert found.marginal_step_s == pytest.approx(0.01, rel=0.02)
        assert found.marginal_step_s == pytest.approx(0.01015, rel=0.01)  # middle of the sweep
        assert found.drift_pct == pytest.approx(3, abs=1)


def test_drift_in_a_sorted_sweep_is_not_guessed():
    x = np.sort(STEPS)
    y = (0.2 + 0.01 * x) * (1 + 0.03 * np.arange(15) / 14)
    assert fit_sweep(x, y).drift_pct is None


def test_a_curve_is_lack_of_fit_and_a_line_is_not():
    flagged = 0
    for seed in range(100):
        x, y = sweep(seed)
        assert fit_sweep(x, y + 2e-5 * x**2).lack_of_fit
        flagged += fit_sweep(x, y).lack_of_fit
    assert flagged <= 5


def test_a_step_count_off_the_line_altogether_is_lack_of_fit():
    x, y = sweep(3)
    y[x == 50] *= 1.3
    found = fit_sweep(x, y)
    assert found.lack_of_fit
    assert any("50 denoiser calls" in note for note in found.notes)


def test_without_repeats_there_is_no_pure_error():
    assert fit_sweep(*sweep(1, steps=np.array([5, 10, 20, 30, 50]))).lack_of_fit_p is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_the_fit_scales_and_follows_its_calls(seed, factor):
    x, y = sweep(seed, 0.01)
    found = fit_sweep(x, y)
    assert found.fixed_interval_s[0] <= found.fixed_s <= found.fixed_interval_s[1]
    assert found.marginal_interval_s[0] <= found.marginal_step_s <= found.marginal_interval_s[1]
    scaled = fit_sweep(x, y * factor)
    assert scaled.marginal_step_s == pytest.approx(found.marginal_step_s * factor, rel=1e-6)
    order = np.random.default_rng(seed).permutation(len(x))
    moved = fit_sweep(x[order], y[order], order=order.tolist())
    assert moved.marginal_interval_s == found.marginal_interval_s
    assert moved.residuals_s == pytest.approx(np.array(found.residuals_s)[order])


@pytest.mark.parametrize(
    ("x", "y"),
    [([5, 5], [1, 2]), ([5, 10], [1]), ([5, 10], [1, math.nan]), ([5, 10], [0, 1]), ([], [])],
)
def test_no_line_without_two_points(x, y):
    with pytest.raises(ValueError):
        fit_sweep(x, y)


def test_two_calls_give_a_line_without_interval():
    found = fit_sweep([10, 20], [0.3, 0.4])
    assert found.marginal_step_s == pytest.approx(0.01)
    assert found.marginal_interval_s is None


def test_throughput_is_compared_with_it_per_s():
    found = fit_sweep(*sweep(0, 0.0))
    assert check_throughput(found, 98.0).agrees
    assert not check_throughput(found, 96.0).agrees
    assert check_throughput(found, 96.0).difference_pct == pytest.approx(100 * (100 / 96 - 1))
    assert check_throughput(found, 100 / 1.9, denoiser_calls_per_step=1.9).agrees
    assert check_throughput(fit_sweep([5, 10], [2.0, 1.0]), 9.0) is None


def test_noise_is_the_half_width_of_the_medians_interval():
    times = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05]
    assert noise(times).value == pytest.approx(100 * 0.025 / 1.025)
    assert noise(times).raised
    assert not noise(times, 3.0).raised
    assert noise(times[:5]).raised
    assert noise(times[:5]).value is None


def test_drift_is_exact_for_few_calls():
    # Of 5! = 120 orders two are monotone: p = 0.0167, not enough; of 720 two: 0.0028.
    assert not drift([1, 1.1, 1.2, 1.3, 1.4]).raised
    assert "0.017" in drift([1, 1.1, 1.2, 1.3, 1.4]).reason
    assert drift([1, 1.1, 1.2, 1.3, 1.4, 1.5]).raised
    assert drift([1.5, 1.4, 1.3, 1.2, 1.1, 1.0]).value == pytest.approx(-40)
    assert not drift([1, 1.0001, 1.0002, 1.0003, 1.0004, 1.0005]).raised  # real, and nothing


@pytest.mark.parametrize("n", [8, 20, 60])
def test_drift_is_rarely_seen_in_noise(n):
    rng = np.random.default_rng(n)
    found = sum(drift(np.exp(rng.normal(0, 0.05, n))).raised for _ in range(400))
    assert found <= 12
    seen = sum(
        drift(np.exp(rng.normal(0, 0.01, 30)) * np.linspace(1, 1.05, 30)).raised for _ in range(50)
    )
    assert seen >= 48


def test_outliers_are_named_and_rounding_is_none():
    times = [1.0, 1.01, 0.99, 1.02, 5.0, 0.98, 1.0]
    assert outliers(times).indices == (4,)
    assert outliers(times).value == pytest.approx(400)
    assert not outliers([1.0] * 9 + [1.0 + 1e-9]).raised
    assert outliers([1.0] * 9 + [1.5]).indices == (9,)
    assert outliers([1.0, 9.0]).value is None


def test_slow_down_is_found_where_it_starts():
    rng = np.random.default_rng(0)
    times = np.exp(rng.normal(0, 0.01, 30))
    times[18:] *= 1.15
    found = slowdown(times)
    assert found.raised
    assert found.indices == (18,)
    assert found.value == pytest.approx(15, abs=2)
    assert not slowdown(times[::-1]).raised  # speeding up is drift, not throttling
    false = sum(slowdown(np.exp(rng.normal(0, 0.05, 20))).raised for _ in range(300))
    assert false <= 15


def test_stages_must_add_up():
    call = {"text_encode_s": 0.1, "denoise_s": 0.8, "image_encode_s": None, "unaccounted_s": 0.02}
    good = accounting([call] * 3, [0.92] * 3)
    assert not good.raised
    assert good.value == pytest.approx(100 * 0.02 / 0.92)
    bad = accounting([call] * 3, [0.92, 1.0, 0.92])
    assert bad.raised
    assert bad.indices == (1,)
    large = {"denoise_s": 0.8, "unaccounted_s": 0.2}
    assert accounting([large], [1.0]).raised
    overlap = {"denoise_s": 1.2, "unaccounted_s": -0.2}
    assert "overlap" in accounting([overlap], [1.0]).reason
    assert accounting([{"denoise_s": math.nan, "unaccounted_s": 0.0}], [1.0]).raised
    assert accounting([{"denoise_s": None, "unaccounted_s": None}], [1.0]).value is None
    with pytest.raises(ValueError):
        accounting([call], [1.0, 1.0])
