from __future__ import annotations

import numpy as np
import pytest

from bench.stats.changepoint import FEWEST, change_points


def series(rng: np.random.Generator, runs: int, change: float = 0.0, at: int = 0) -> list[float]:
    noise = np.exp(rng.normal(0, 0.02, runs)) * np.where(rng.random(runs) < 0.05, 1.3, 1.0)
    return list(map(float, noise * np.where(np.arange(runs) >= at, 1 + change, 1.0)))


@pytest.mark.parametrize("runs", [12, 30, 80])
def test_unchanged_histories_are_marked_in_one_of_a_hundred_cases(runs: int) -> None:
    rng = np.random.default_rng(runs)
    found = sum(bool(change_points(series(rng, runs), smallest_pct=1e-9)) for _ in range(2000))
    # 1 % expected; 32 would be seen once in 1,000 such tests.
    assert 5 <= found <= 32


def test_a_change_is_found_where_it_is() -> None:
    rng = np.random.default_rng(0)
    found = [change_points(series(rng, 40, 0.06, 25)) for _ in range(100)]
    assert sum(bool(points) for points in found) >= 99
    near = [abs(points[0].index - 25) <= 2 for points in found if points]
    assert np.mean(near) > 0.85


def test_two_changes_are_told_apart() -> None:
    values = [1.0 + 0.001 * (i % 5) for i in range(45)]
    values[15:] = [v * 1.1 for v in values[15:]]
    values[30:] = [v * 0.8 for v in values[30:]]
    first, second = change_points(values)
    assert (first.index, second.index) == (15, 30)
    assert first.change_pct == pytest.approx(10, abs=0.2)
    assert second.change_pct == pytest.approx(-20, abs=0.2)
    assert first.p <= 0.01


def test_small_changes_are_left_alone() -> None:
    values = [1.0 + 1e-4 * (i % 7) for i in range(30)]
    values[15:] = [v * 1.005 for v in values[15:]]
    assert change_points(values) == []
    assert [p.index for p in change_points(values, smallest_pct=0.3)] == [15]


def test_constant_and_short_histories_have_no_change() -> None:
    assert change_points([2.0] * 50) == []
    half = FEWEST // 2
    assert change_points([1.0] * (half - 1) + [9.0] * half) == []
    clear = [1 + 0.001 * i for i in range(half)] + [9 + 0.001 * i for i in range(half)]
    assert [p.index for p in change_points(clear)] == [half]
    assert change_points([]) == []


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="values"):
        change_points([1.0, -1.0])
    with pytest.raises(ValueError, match="error"):
        change_points([1.0], error=0.0)
