"""What makes a cell's times doubtful: noise, drift, outliers, a slow-down, time unaccounted for.

A flag is never a reason to drop anything: the cell is kept and the reader told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.stats.median import median_interval
from bench.stats.special import checked, middle

NOISE_TARGET_PCT = 1.0
DRIFT_ERROR = 0.01
DRIFT_SMALLEST_PCT = 1.0
OUTLIER_SCORE = 3.5
OUTLIER_SMALLEST_PCT = 1.0
SLOWDOWN_ERROR = 0.05
SLOWDOWN_SMALLEST_PCT = 3.0
ACCOUNT_TOLERANCE_PCT = 0.1
ACCOUNT_TOLERANCE_S = 1e-4
UNACCOUNTED_LARGE_PCT = 5.0

_EXACT_UP_TO = 30

Name = Literal["noise", "drift", "outliers", "slowdown", "accounting", "load"]


@dataclass(frozen=True, slots=True)
class Flag:
    """One check's finding. ``value`` is its figure in per cent, None where it could not be taken.

    Of ``load`` it is the load average.

    ``raised`` is False when the check passed or could not be made; ``reason`` is one sentence
    either way. ``indices`` are the calls concerned, counted from 0.
    """

    name: Name
    raised: bool
    value: float | None
    reason: str
    indices: tuple[int, ...] = ()


def noise(e2e_s: Sequence[float], target_pct: float = NOISE_TARGET_PCT) -> Flag:
    """Flag a median known worse than the noise target.

    ``e2e_s`` (n,) in seconds. The value is the half-width of the median's 95 % order-statistic
    interval over the median, in per cent. Fewer than 6 calls have no such interval: raised, with
    the value None. ValueError for no calls or a time that is not above 0.
    """
    found = median_interval([float(v) for v in checked(e2e_s, "e2e_s", positive=True)])
    half = found.relative_half_width
    if half is None:
        return Flag("noise", True, None, f"{found.n} calls give no 95 % interval; it takes 6.")
    value = 100 * half
    relation = "misses" if value > target_pct else "meets"
    return Flag(
        "noise",
        value > target_pct,
        value,
        f"The median is known to ±{value:.2g} %, which {relation} the {target_pct:g} % target.",
    )


def drift(e2e_s: Sequence[float]) -> Flag:
    """Flag a trend over calls, faster or slower.

    ``e2e_s`` (n,) in seconds, in the order measured. Mann and Kendall's test (Mann, Econometrica
    13, 1945), which outliers and the shape of the noise do not disturb, at the 1 % level: exact for
    up to 30 calls without ties, else by the normal approximation corrected for ties. The value is
    the change from first to last call in per cent of the median by the Theil-Sen slope (Sen, JASA
    63, 1968); less than 1 % is not flagged. Fewer than 5 calls cannot show a trend at this level.
    ValueError for a time that is not above 0.
    """
    y = checked(e2e_s, "e2e_s", positive=True)
    n = len(y)
    if n < 5:
        return Flag("drift", False, None, f"{n} calls are too few to tell a trend; it takes 5.")
    ordered = np.sort(y)
    first, second = _pairs(n)
    rises = y[second] - y[first]
    p = _kendall_p(ordered, int(np.sign(rises).sum()))
    slope = middle(np.sort(rises / (second - first)))
    value = 100 * slope * (n - 1) / middle(ordered)
    raised = p < DRIFT_ERROR and abs(value) >= DRIFT_SMALLEST_PCT
    sentence = "Times trend" if raised else "No trend beyond noise: times change"
    return Flag(
        "drift", raised, value, f"{sentence} by {value:+.1f} % over {n} calls (p = {p:.2g})."
    )


@lru_cache(maxsize=_EXACT_UP_TO + 1)
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of all pairs of n entries, the earlier one first."""
    first, second = np.triu_indices(n, 1)
    return first, second


@lru_cache(maxsize=_EXACT_UP_TO + 1)
def _kendall_tails(n: int) -> tuple[float, ...]:
    """Return P(at most d inversions) of a random order of n, for every d from 0.

    Inversions are counted by the recurrence over the position of the last element (Kendall, 1938).
    """
    counts: NDArray[np.float64] = np.ones(1)
    for size in range(2, n + 1):
        counts = np.convolve(counts, np.ones(size)) / size
    return tuple(float(v) for v in np.minimum(np.cumsum(counts), 1.0))


def _kendall_p(ordered: NDArray[np.float64], score: int) -> float:
    n = len(ordered)
    if n <= _EXACT_UP_TO and (ordered[1:] > ordered[:-1]).all():
        inversions = (n * (n - 1) // 2 - abs(score)) // 2
        return min(2 * _kendall_tails(n)[inversions], 1.0)
    _, ties = np.unique(ordered, return_counts=True)
    tied = float((ties * (ties - 1) * (2 * ties + 5)).sum())
    variance = (n * (n - 1) * (2 * n + 5) - tied) / 18
    if variance <= 0:
        return 1.0
    z = max(abs(score) - 1, 0) / math.sqrt(variance)
    return 2 * (1 - NormalDist().cdf(z))


def outliers(e2e_s: Sequence[float]) -> Flag:
    """Flag calls far from the others.

    ``e2e_s`` (n,) in seconds. A call is an outlier when its modified z score, 0.6745 |x - median| /
    MAD, exceeds 3.5 (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993) and it lies 1 %
    or more from the median, which keeps a clock without noise from making outliers of rounding
    errors. The value is the largest outlier's distance in per cent of the median. Fewer than 5
    calls cannot show one. ValueError for a time that is not above 0.
    """
    y = checked(e2e_s, "e2e_s", positive=True)
    n = len(y)
    if n < 5:
        return Flag("outliers", False, None, f"{n} calls are too few to tell one; it takes 5.")
    centre = middle(np.sort(y))
    off = np.abs(y - centre)
    reach = max(OUTLIER_SCORE * middle(np.sort(off)) / 0.6745, OUTLIER_SMALLEST_PCT / 100 * centre)
    found = np.flatnonzero(off > reach)
    if len(found) == 0:
        return Flag("outliers", False, 0.0, f"None of {n} calls is an outlier.")
    worst = found[np.argmax(off[found])]
    value = 100 * float(y[worst] / centre - 1)
    return Flag(
        "outliers",
        True,
        value,
        f"{len(found)} of {n} calls are outliers, the largest {value:+.1f} % from the median.",
        tuple(int(i) for i in found),
    )


def slowdown(times_s: Sequence[float]) -> Flag:
    """Flag a sudden and lasting slow-down, as a throttling device shows.

    ``times_s`` (n,) in seconds, in the order measured: calls, or the steps of one call. Pettitt's
    change-point test (Applied Statistics 28, 1979), one-sided, at the 5 % level; the value is by
    how many per cent the median after the change exceeds the one before, flagged from 3 %.
    ``indices`` holds the first slow entry. Fewer than 10 entries cannot show one at this level. A
    steady drift is a slow-down as well. ValueError for a time that is not above 0.
    """
    y = checked(times_s, "times_s", positive=True)
    n = len(y)
    if n < 10:
        return Flag("slowdown", False, None, f"{n} times are too few to tell; it takes 10.")
    # U(t) counts, over pairs across the split after t entries, rises less falls. Moving entry t to
    # the other side adds its pairs with what follows and takes away those with what came before.
    scores = np.cumsum(np.sign(y[None, :] - y[:, None]).sum(axis=1))[:-1]
    split = int(np.argmax(scores)) + 1
    score = float(max(scores[split - 1], 0.0))
    p = math.exp(-6 * score**2 / (n**3 + n**2))
    value = 100 * (middle(np.sort(y[split:])) / middle(np.sort(y[:split])) - 1)
    if p >= SLOWDOWN_ERROR or value < SLOWDOWN_SMALLEST_PCT:
        return Flag("slowdown", False, value, "No lasting slow-down.")
    return Flag(
        "slowdown",
        True,
        value,
        f"From entry {split + 1} of {n} on, times are {value:.1f} % longer (p = {p:.2g}).",
        (split,),
    )


def accounting(
    stages: Sequence[Mapping[str, float | None]],
    e2e_s: Sequence[float],
    *,
    large_pct: float = UNACCOUNTED_LARGE_PCT,
) -> Flag:
    """Check that stages and ``unaccounted_s`` add up to the end-to-end time, call by call.

    ``stages`` has one mapping per measured call, seconds by stage name, ``unaccounted_s`` among
    them; ``e2e_s`` (n,) is seconds. A stage of None was not measured and counts 0. Raised when a
    sum is off by more than 0.1 % and 0.1 ms (a record that contradicts itself), when a stage is
    negative, or when the median unaccounted share exceeds ``large_pct``. The value is that share in
    per cent, None when it was not measured. ValueError when the two differ in length or a time is
    not above 0.
    """
    total = [float(time) for time in checked(e2e_s, "e2e_s", positive=True)]
    if len(stages) != len(total):
        raise ValueError(f"{len(stages)} stage tables for {len(total)} calls")
    if len(total) == 0 or any(call.get("unaccounted_s") is None for call in stages):
        return Flag("accounting", False, None, "Stages were not measured for every call.")
    known = [[v for v in call.values() if v is not None] for call in stages]
    sums = [sum(values) for values in known]
    share = 100 * median(
        float(call["unaccounted_s"] or 0.0) / time for call, time in zip(stages, total, strict=True)
    )
    tolerance = [max(ACCOUNT_TOLERANCE_PCT / 100 * time, ACCOUNT_TOLERANCE_S) for time in total]
    # NaN is never within tolerance.
    wrong = [i for i, time in enumerate(total) if not abs(sums[i] - time) <= tolerance[i]]
    if wrong:
        i = wrong[0]
        return Flag(
            "accounting",
            True,
            share,
            f"Stages of call {i + 1} add up to {sums[i]:.6g} s, not to its {total[i]:.6g} s.",
            tuple(wrong),
        )
    negative = [i for i, values in enumerate(known) if min(values, default=0.0) < -tolerance[i]]
    if negative:
        return Flag(
            "accounting",
            True,
            share,
            f"Call {negative[0] + 1} has a stage of negative length: stages overlap.",
            tuple(negative),
        )
    raised = share > large_pct
    size = "more than" if raised else "within"
    return Flag(
        "accounting",
        raised,
        share,
        f"Stages leave {share:.1f} % of the time unaccounted, {size} the {large_pct:g} % limit.",
    )
