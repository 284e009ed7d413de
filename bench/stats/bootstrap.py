"""Speedup of one arm over another, with an interval that knows processes from calls.

An arm is what one cell measured: a list of processes, each a list of end-to-end times in seconds.
Calls of one process share that process's luck (memory layout, clocks, autotuning), so the process
is the unit that is drawn first and the call the second.

Why a plain percentile bootstrap is not enough. With five processes it draws from five values: its
spread is too small by sqrt((k - 1) / k) and normal quantiles ignore how badly five values know
their own spread (Hesterberg, What Teachers Should Know About the Bootstrap, The American
Statistician 69, 2015, "narrowness bias" and "t with bootstrap standard error"). And drawing calls
on top of processes counts the calls' noise twice, as the process medians already carry it (Davison
and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). So here:

1. times go to the log scale, where a ratio is a difference and noise in per cent is symmetric;
2. the two-level bootstrap (processes with replacement, then the median of calls drawn with
   replacement) is rescaled so that its variance is the unbiased one (the shrinkage correction of
   the same section; for its use with few clusters see Gomes, Ng, Grieve et al., Medical Decision
   Making 32, 2012). Its standard error needs no drawing: over infinitely many draws a median's
   variance is a sum over the calls (Maritz and Jarrett, JASA 73, 1978), and a mean's that of the
   processes. `resample` draws where a whole distribution is wanted;
3. the interval is centre +- factor x that standard error, the factor being Student's t with Welch
   and Satterthwaite's degrees of freedom over processes, times `calibration`: alone it errs too
   often for few processes of unequal spread (10 % for 5 against 2) and too seldom for few of equal
   spread. How often is an integral, so the correction is computed and not tuned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.stats.special import (
    checked,
    middle,
    regularised_beta,
    student_t_quantile,
    student_t_tails,
)

Arm = Sequence[Sequence[float]]
"""Processes of one cell, each with its measured calls in seconds."""

LEVEL = 0.95
REPLICATES = 2000
SAFETY = 0.8
"""Share of the permitted error that arms of equal spread may use.

At the whole of it the count of false alarms would scatter about what is permitted: 40 expected in
1,000 comparisons stay under 50 in 19 of 20 tries, and outliers find room.
"""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """Where an arm lies and how well that is known.

    ``median_s`` is the median of all its calls and ``[low_s, high_s]`` the interval at ``level``,
    all in seconds; the bounds are None when nothing was repeated. ``covers_processes`` is False for
    a single process: then the interval says nothing about another process's luck.
    ``between_pct`` and ``within_pct`` are standard deviations in per cent: of process medians, and
    of calls about their process's median (robust: 1.4826 MAD); None where nothing repeats.
    """

    median_s: float
    low_s: float | None
    high_s: float | None
    level: float
    processes: int
    calls: int
    covers_processes: bool
    between_pct: float | None
    within_pct: float | None


@dataclass(frozen=True, slots=True)
class Speedup:
    """Baseline median over candidate median, dimensionless: above 1 the candidate is faster.

    ``low`` and ``high`` bound it at ``level``; None when an arm has a single call in all.
    ``covers_processes`` is False when an arm has a single process.
    """

    ratio: float
    low: float | None
    high: float | None
    level: float
    baseline: ArmSummary
    candidate: ArmSummary
    covers_processes: bool


@dataclass(frozen=True, slots=True)
class Centre:
    """The mean over processes of the log median, and how well it is known.

    ``log_s`` is a natural logarithm of seconds. ``variance`` is its bootstrap variance, None when
    nothing was repeated; ``df`` its degrees of freedom: processes less 1, or calls
    of the only process less 1.
    """

    log_s: float
    variance: float | None
    df: int
    processes: int


@dataclass(frozen=True, slots=True)
class Resampled:
    """Replicates of an arm's centre.

    ``deviations`` (replicates,) from the centre are natural logarithms. ``picks`` (replicates,
    processes) are the processes drawn, as indices into ``order``, which holds the caller's index of
    each process.
    """

    deviations: _Floats
    picks: _Ints
    order: tuple[int, ...]


def checked_arm(arm: Arm, name: str) -> list[_Floats]:
    """Return the arm as sorted float arrays, one per process, in the caller's order.

    ValueError, naming ``name``, for no process, a process without calls, or a time that is not a
    finite number above 0.
    """
    if len(arm) == 0:
        raise ValueError(f"{name} has no process")
    processes = [
        np.sort(checked(calls, f"{name}, process {i}", positive=True))
        for i, calls in enumerate(arm)
    ]
    for i, calls in enumerate(processes):
        if len(calls) == 0:
            raise ValueError(f"{name}, process {i} has no call")
    return processes


@lru_cache(maxsize=64)
def _process_picks(processes: int, replicates: int, seed: int) -> _Ints:
    rng = np.random.default_rng([seed, processes])
    return rng.integers(0, processes, (replicates, processes), dtype=np.int32)


@lru_cache(maxsize=64)
def _median_ranks(calls: int, slots: int, replicates: int, seed: int) -> tuple[_Ints, _Ints]:
    """Return the two middle ranks of ``calls`` draws with replacement, (replicates, slots) each.

    Drawing the ranks replaces drawing the calls: the m-th smallest of n uniform numbers follows
    Beta(m, n - m + 1), and the next one, given it, is a Beta(1, n - m) share further up
    (David and Nagaraja, Order Statistics, section 2.5). Exact, and the cost does not grow with n.
    """
    rng = np.random.default_rng([seed, calls, slots])
    shape = (replicates, slots)
    lower = (calls + 1) // 2
    first = rng.beta(lower, calls - lower + 1, shape)
    second = first
    if calls % 2 == 0:
        second = first + (1.0 - first) * rng.beta(1, calls - lower, shape)
    top = calls - 1
    return (
        np.minimum((first * calls).astype(np.int32), top),
        np.minimum((second * calls).astype(np.int32), top),
    )


def _clamped(calls: _Floats) -> _Floats:
    """Return ``calls`` with outliers pulled to 3 robust standard deviations from the median.

    The median does not feel how far out they lie. A redrawn sample's median does, whenever the draw
    repeats them often enough, and the bootstrap then reports noise that the median does not have.
    """
    median = middle(calls)
    reach = 3 * 1.4826 * middle(np.sort(np.abs(calls - median)))
    return np.minimum(np.maximum(calls, median - reach), median + reach)


@lru_cache(maxsize=256)
def _median_weights(calls: int) -> _Floats:
    """Return how often each of ``calls`` ranks is the bootstrap's median, (calls,), sum 1.

    I_{i/n}(m, m) - I_{(i-1)/n}(m, m) with m = (n + 1) / 2, exact for odd n and smooth for even n
    (Harrell and Davis, Biometrika 69, 1982).
    """
    half = (calls + 1) / 2
    edges = [regularised_beta(half, half, i / calls) for i in range(calls + 1)]
    return np.diff(edges)


def _bootstrap_median(ordered: _Floats) -> tuple[float, float]:
    """Return mean and variance, over all draws, of the log median of these sorted calls (n,).

    The mean over draws is Harrell and Davis's estimate of the median: it is steadier than the
    middle value itself, which throws away what its neighbours tell.
    """
    weights, logs = _median_weights(len(ordered)), np.log(_clamped(ordered))
    base = float(logs[len(logs) // 2])
    logs = logs - base
    mean = float(weights @ logs)
    return base + mean, max(float(weights @ (logs * logs)) - mean * mean, 0.0)


def _order(processes: Sequence[_Floats]) -> tuple[int, ...]:
    """Return one order for sums and draws, so that the caller's does not matter."""
    return tuple(sorted(range(len(processes)), key=lambda i: tuple(processes[i])))


def _levels(ordered: Sequence[_Floats]) -> tuple[_Floats, float, float]:
    """Return the processes' log medians, their variance, and the mean one that calls explain."""
    return _levels_of(tuple(calls.tobytes() for calls in ordered))


@lru_cache(maxsize=64)
def _levels_of(ordered: tuple[bytes, ...]) -> tuple[_Floats, float, float]:
    """Remember them: one arm is asked for its centre and its draws, and a baseline by every row."""
    found = np.array([_bootstrap_median(np.frombuffer(calls)) for calls in ordered])
    found.flags.writeable = False
    medians = found[:, 0]
    between = float(medians.var(ddof=1)) if len(ordered) > 1 else 0.0
    return medians, between, float(found[:, 1].mean())


def centre(processes: Sequence[_Floats]) -> Centre:
    """Return where an arm lies, its processes as ``checked_arm`` returns them.

    The variance is the larger of what the process medians show and what their calls explain, over
    the number of processes: fewer than that no sample of processes can have by more than luck.
    """
    ordered = [processes[i] for i in _order(processes)]
    k = len(ordered)
    medians, between, within = _levels(ordered)
    log_s = float(medians.mean())
    if k == 1:
        n = len(ordered[0])
        return Centre(log_s, within if n > 1 else None, max(n - 1, 1), 1)
    return Centre(log_s, max(between, within) / k, k - 1, k)


def resample(processes: Sequence[_Floats], replicates: int, seed: int) -> Resampled:
    """Draw the two-level bootstrap of an arm, its processes as ``checked_arm`` returns them.

    The result does not depend on the order of the processes, nor of the calls within one.
    """
    order = _order(processes)
    ordered = [processes[i] for i in order]
    k = len(ordered)
    counts = np.array([len(calls) for calls in ordered])
    medians, between, within = _levels(ordered)
    calm = np.zeros((k, int(counts.max())))
    for i, calls in enumerate(ordered):
        calm[i, : counts[i]] = _clamped(calls)

    picks = _process_picks(k, replicates, seed)
    lower = np.empty((replicates, k), np.int32)
    upper = np.empty((replicates, k), np.int32)
    for n in np.unique(counts):
        first, second = _median_ranks(int(n), k, replicates, seed)
        drawn = counts[picks] == n
        lower[drawn], upper[drawn] = first[drawn], second[drawn]
    noise = np.log((calm[picks, lower] + calm[picks, upper]) / 2) - medians[picks]
    shrinkage = math.sqrt(k / (k - 1) * (1.0 - within / between)) if between > within else 0.0
    deviations = (shrinkage * (medians - medians.mean())[picks] + noise).mean(axis=1)
    if k > 1:
        deviations = deviations - deviations.mean()
    return Resampled(deviations, picks, order)


def _percent_spread(processes: Sequence[_Floats]) -> tuple[float | None, float | None]:
    medians = np.array([middle(calls) for calls in processes])
    between = None
    if len(processes) > 1:
        between = 100 * float(np.log(medians).std(ddof=1))
    residuals = [
        np.abs(np.log(calls / median))
        for calls, median in zip(processes, medians, strict=True)
        if len(calls) > 1
    ]
    within = 148.26 * middle(np.sort(np.concatenate(residuals))) if residuals else None
    return between, within


def _summary(processes: Sequence[_Floats], found: Centre, level: float) -> ArmSummary:
    median = middle(np.sort(np.concatenate(processes)))
    low = high = None
    if found.variance is not None:
        half = student_t_quantile(round(1 - level, 12), found.df) * math.sqrt(found.variance)
        low = min(math.exp(found.log_s - half), median)
        high = max(math.exp(found.log_s + half), median)
    between, within = _percent_spread(processes)
    return ArmSummary(
        median_s=median,
        low_s=low,
        high_s=high,
        level=level,
        processes=len(processes),
        calls=sum(len(calls) for calls in processes),
        covers_processes=len(processes) > 1,
        between_pct=between,
        within_pct=within,
    )


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    return level


def arm_summary(arm: Arm, *, level: float = LEVEL) -> ArmSummary:
    """Return an arm's median in seconds with its two-level bootstrap interval.

    Use this for several processes and ``median_interval`` for the calls of one. ValueError as
    ``checked_arm``, and for a level outside (0, 1).
    """
    processes = checked_arm(arm, "arm")
    return _summary(processes, centre(processes), _checked_level(level))


def speedup(baseline: Arm, candidate: Arm, *, level: float = LEVEL) -> Speedup:
    """Return the ratio of medians, baseline over candidate, with its bootstrap interval.

    The ratio is the median of all baseline calls over the median of all candidate calls. The
    interval (see the module's text for the method and its sources) is built about the mean of the
    processes' log medians and, where processes with unequal numbers of calls pull that away,
    extended to the ratio itself. Scaling both arms changes nothing, scaling one scales the result,
    swapping them inverts it, and the order of processes and calls does not matter.

    One process in an arm leaves only its calls to draw from: the interval is returned, too narrow
    for any other process, with ``covers_processes`` False. A single call in an arm leaves none.
    ValueError as ``checked_arm``, and for a level outside (0, 1).
    """
    _checked_level(level)
    arms = checked_arm(baseline, "baseline"), checked_arm(candidate, "candidate")
    first, second = centre(arms[0]), centre(arms[1])
    summaries = _summary(arms[0], first, level), _summary(arms[1], second, level)
    ratio = summaries[0].median_s / summaries[1].median_s
    low = high = None
    if first.variance is not None and second.variance is not None:
        between = first.log_s - second.log_s
        half = factor(first, second, level) * math.sqrt(first.variance + second.variance)
        low = min(math.exp(between - half), ratio)
        high = max(math.exp(between + half), ratio)
    return Speedup(
        ratio=ratio,
        low=low,
        high=high,
        level=level,
        baseline=summaries[0],
        candidate=summaries[1],
        covers_processes=all(summary.covers_processes for summary in summaries),
    )


def factor(first: Centre, second: Centre, level: float) -> float:
    """Return how many standard errors of the difference of two centres its interval reaches.

    Degrees of freedom by Welch (1947) and Satterthwaite (1946), so that the arms may differ in
    spread, and corrected by `calibration` where both arms have several processes. Both must have a
    variance (ValueError).
    """
    if first.variance is None or second.variance is None:
        raise ValueError("an arm with a single call has no variance")
    total = first.variance + second.variance
    if total == 0.0:
        return 0.0
    df = total**2 / (first.variance**2 / first.df + second.variance**2 / second.df)
    # Down to a tenth: errs to the wide side, and lets the quantiles be remembered. What rounding
    # took from a whole tenth is given back, or 8 degrees of freedom would sometimes count as 7.9.
    tenths = math.floor(df * 10 + 1e-6)
    found = student_t_quantile(round(1 - level, 12), max(tenths / 10, 1.0))
    if min(first.processes, second.processes) < 2:
        return found
    few, many = sorted((first.df, second.df))
    return found * calibration(min(few, _MANY), min(many, _MANY), level)


_MANY = 30
"""From here on more degrees of freedom change a calibration by less than 0.5 %."""


@lru_cache(maxsize=512)
def calibration(df_first: int, df_second: int, level: float) -> float:
    """Return what to multiply Welch's t by so that two equal arms are rarely called different.

    The smallest factor for which, with normal process effects, the error rate is at most SAFETY x
    (1 - ``level``) for arms of equal spread and at most 1 - ``level`` whatever their spreads are.

    With x and y the arms' estimated variances of their centres, u = x / (x + y) and their sum of
    squares are independent, so that the error rate for a true ratio of variances is the integral
    over u of the probability that Student's t with df_first + df_second degrees of freedom exceeds
    a known value (the route of Welch, Biometrika 34, 1947).
    """
    error = 1 - level
    # A share of sin^2(angle) has the Beta(df_first / 2, df_second / 2) density of u's chi squares.
    angle = (np.arange(400) + 0.5) / 400 * (math.pi / 2)
    weights = np.sin(angle) ** (df_first - 1) * np.cos(angle) ** (df_second - 1)
    weights /= weights.sum()
    equal = (df_second + 1) / (df_first + df_second + 2)
    true_share = np.append(1 / (1 + np.exp(-np.linspace(-8, 8, 65))), equal)[:, None]
    x = true_share * np.sin(angle) ** 2 / df_first
    y = (1 - true_share) * np.cos(angle) ** 2 / df_second
    df = df_first + df_second
    welch = (x + y) ** 2 / (x**2 / df_first + y**2 / df_second)
    known = np.geomspace(min(df_first, df_second), df, 24)
    # Quantiles are smooth in 1 / df, and np.interp wants rising abscissae.
    t = np.interp(
        1 / welch,
        1 / known[::-1],
        [student_t_quantile(round(error, 12), float(value)) for value in known[::-1]],
    ) * np.sqrt(df * (x + y))

    def too_often(scale: float) -> bool:
        rates = student_t_tails(scale * t, df) @ weights
        return bool(rates[-1] > SAFETY * error or rates.max() > error)

    low, high = 0.5, 1.0
    while too_often(high):
        low, high = high, 2 * high
    while high - low > 1e-4:
        half = (low + high) / 2
        low, high = (half, high) if too_often(half) else (low, half)
    return high
