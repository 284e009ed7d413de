"""Where a history of runs changed its level, with a stated rate of false alarms.

The statistic looks at ranks only, so neither outliers nor the shape of the noise matter: for every
split of the series the Mann and Whitney count of later values above earlier ones, standardised by
its variance without a change, and the largest of all splits (Pettitt's test, Applied Statistics 28,
1979, is the same without standardising, and so is weak near the ends). Its distribution under no
change depends on the length alone and is simulated, with Phipson and Smyth's correction, which
keeps the error at or below its nominal rate (Statistical Applications in Genetics and Molecular
Biology 9, 2010). Further change points are looked for on both sides of one that was found (binary
segmentation), so that a history without any change gets a mark with probability ``ERROR`` at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.stats.special import checked

ERROR = 0.01
"""Share of unchanged histories that get any mark at all."""

SHORTEST = 3
"""Fewest runs on either side of a change point."""

FEWEST = 10
"""Below this many runs no order of them is rare enough to be marked."""

_SIMULATED = 9999

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """``index`` is the first run at the new level, from 0.

    ``before`` and ``after`` are medians of the segments on both sides, in the series' unit;
    ``change_pct`` is the second over the first less one, in per cent; ``p`` the chance of a split
    as extreme without any change.
    """

    index: int
    before: float
    after: float
    change_pct: float
    p: float


def change_points(
    values: Sequence[float], *, error: float = ERROR, smallest_pct: float = 1.0
) -> list[ChangePoint]:
    """Return the change points of a series of positive values, in order.

    Changes of less than ``smallest_pct`` per cent are not marked, however sure they are. ValueError
    for a value that is not a finite number above 0, or an ``error`` outside (0, 1).
    """
    series = checked(values, "values", positive=True)
    if not 0 < error < 1:
        raise ValueError(f"error must lie between 0 and 1, not {error}")
    splits: dict[int, float] = {}
    _split(series, 0, len(series), error, splits)
    found = _measure(series, splits)
    # Without a change too small to matter, its neighbours' segments grow: measured again.
    while small := [point for point in found if abs(point.change_pct) < smallest_pct]:
        del splits[min(small, key=lambda point: abs(point.change_pct)).index]
        found = _measure(series, splits)
    return found


def _measure(series: _Floats, splits: dict[int, float]) -> list[ChangePoint]:
    edges = [0, *sorted(splits), len(series)]
    levels = [float(np.median(series[a:b])) for a, b in itertools.pairwise(edges) if b > a]
    return [
        ChangePoint(at, before, after, 100 * (after / before - 1), splits[at])
        for at, before, after in zip(edges[1:-1], levels[:-1], levels[1:], strict=True)
    ]


def _split(series: _Floats, start: int, end: int, error: float, found: dict[int, float]) -> None:
    part = series[start:end]
    if len(part) < FEWEST:
        return
    # Ranks with ties at their mean; equal values make the statistic smaller, never larger.
    _, inverse, counts = np.unique(part, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    scores = _scores(ranks[None, :])[0]
    best = int(np.argmax(scores))
    null = _null(len(part))
    p = (1 + int((null >= scores[best] - 1e-9).sum())) / (1 + len(null))
    if p > error:
        return
    at = start + best + SHORTEST
    found[at] = p
    _split(series, start, at, error, found)
    _split(series, at, end, error, found)


def _scores(ranks: _Floats) -> _Floats:
    """Return |z| of every allowed split; (series, runs) ranks to (series, splits)."""
    n = ranks.shape[1]
    sizes = np.arange(SHORTEST, n - SHORTEST + 1)
    sums = np.cumsum(ranks, axis=1)[:, sizes - 1]
    expected = sizes * (n + 1) / 2
    deviation = np.sqrt(sizes * (n - sizes) * (n + 1) / 12)
    scores: _Floats = np.abs(sums - expected) / deviation
    return scores


@lru_cache(maxsize=128)
def _null(n: int) -> _Floats:
    """Return the statistic of seeded random orders of ``n`` different values."""
    rng = np.random.default_rng([20, n])
    ranks = rng.permuted(np.tile(np.arange(1.0, n + 1), (_SIMULATED, 1)), axis=1)
    largest: _Floats = _scores(ranks).max(axis=1)
    return largest
