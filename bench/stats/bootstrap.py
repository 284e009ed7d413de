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
2. each replicate draws processes with replacement and, for each drawn process, the median of calls
   drawn with replacement; process deviations are first rescaled so that the variance over
   replicates is the unbiased one (the shrinkage correction of the same section; for its use with
   few clusters see Gomes, Ng, Grieve et al., Medical Decision Making 32, 2012);
3. the interval is centre +- t x bootstrap standard error, with Welch and Satterthwaite's degrees of
   freedom over processes;
4. t is taken at ``SAFETY`` times the error asked for. Equal to the digit the error rate would
   scatter about 5 %, and the quantile is exact for normal process effects only; the margin keeps
   false alarms under 5 % for 3 to 8 processes, spreads of 0 to 5 % and a few outliers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.stats.special import checked, student_t_quantile

Arm = Sequence[Sequence[float]]
"""Processes of one cell, each with its measured calls in seconds."""

LEVEL = 0.95
REPLICATES = 2000
SAFETY = 0.7
"""Share of the permitted error that the t quantile uses; see the module's text, point 4."""

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
class Resampled:
    """Replicates of an arm's centre (mean over processes of the log median).

    ``centre`` and ``deviations`` (replicates,) are natural logarithms of seconds. ``variance`` is
    the bootstrap variance of the centre, None when nothing was repeated; ``df`` its degrees of
    freedom. ``picks`` (replicates, processes) are the processes drawn, as indices into ``order``,
    which holds the caller's index of each process.
    """

    centre: float
    deviations: _Floats
    variance: float | None
    df: float
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


def _middle(ordered: _Floats) -> float:
    """Return the median of sorted values; numpy's own costs ten times as much on a few values."""
    n = len(ordered)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def _clamped(calls: _Floats) -> _Floats:
    """Return ``calls`` with outliers pulled to 3 robust standard deviations from the median.

    The median does not feel how far out they lie. A redrawn sample's median does, whenever the draw
    repeats them often enough, and the bootstrap then reports noise that the median does not have.
    """
    middle = _middle(calls)
    reach = 3 * 1.4826 * _middle(np.sort(np.abs(calls - middle)))
    return np.minimum(np.maximum(calls, middle - reach), middle + reach)


def resample(processes: Sequence[_Floats], replicates: int, seed: int) -> Resampled:
    """Draw the two-level bootstrap of an arm, its processes as ``checked_arm`` returns them.

    The result does not depend on the order of the processes, nor of the calls within one.
    """
    order = tuple(sorted(range(len(processes)), key=lambda i: tuple(processes[i])))
    ordered = [processes[i] for i in order]
    k = len(ordered)
    counts = np.array([len(calls) for calls in ordered])
    medians = np.array([math.log(_middle(calls)) for calls in ordered])
    calm = np.zeros((k, int(counts.max())))
    for i, calls in enumerate(ordered):
        calm[i, : counts[i]] = _clamped(calls)

    picks = _process_picks(k, replicates, seed)
    lower = np.empty((replicates, k), np.int32)
    upper = np.empty((replicates, k), np.int32)
    call_variances = np.empty(k)
    for n in np.unique(counts):
        first, second = _median_ranks(int(n), k, replicates, seed)
        drawn = counts[picks] == n
        lower[drawn], upper[drawn] = first[drawn], second[drawn]
        same = counts == n
        redrawn = (calm[same][:, first[:, 0]] + calm[same][:, second[:, 0]]) / 2
        call_variances[same] = np.log(redrawn).var(axis=1)
    drawn_noise = np.log((calm[picks, lower] + calm[picks, upper]) / 2) - medians[picks]

    centre = float(medians.mean())
    call_variance = float(call_variances.mean())
    if k == 1:
        n = len(ordered[0])
        deviations = drawn_noise[:, 0]
        variance = call_variance if n > 1 else None
        return Resampled(centre, deviations, variance, max(n - 1, 1), picks, order)
    process_variance = float(medians.var(ddof=1))
    shrinkage = 0.0
    if process_variance > call_variance:
        shrinkage = math.sqrt(k / (k - 1) * (1.0 - call_variance / process_variance))
    deviations = (shrinkage * (medians - centre)[picks] + drawn_noise).mean(axis=1)
    deviations = deviations - deviations.mean()
    return Resampled(centre, deviations, float(deviations.var()), k - 1, picks, order)


def t_factor(level: float, df: float) -> float:
    """Return the t quantile that intervals of this module use for ``level`` (see ``SAFETY``)."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    # Down to a tenth: errs to the wide side, and lets the quantiles be remembered. What rounding
    # took from a whole tenth is given back, or 8 degrees of freedom would sometimes count as 7.9.
    tenths = math.floor(df * 10 + 1e-6)
    return student_t_quantile(round(SAFETY * (1 - level), 12), max(tenths / 10, 1.0))


def _percent_spread(processes: Sequence[_Floats]) -> tuple[float | None, float | None]:
    medians = np.array([_middle(calls) for calls in processes])
    between = None
    if len(processes) > 1:
        between = 100 * float(np.log(medians).std(ddof=1))
    residuals = [
        np.abs(np.log(calls / median))
        for calls, median in zip(processes, medians, strict=True)
        if len(calls) > 1
    ]
    within = 148.26 * _middle(np.sort(np.concatenate(residuals))) if residuals else None
    return between, within


def _summary(processes: Sequence[_Floats], drawn: Resampled, level: float) -> ArmSummary:
    median = _middle(np.sort(np.concatenate(processes)))
    low = high = None
    if drawn.variance is not None:
        half = t_factor(level, drawn.df) * math.sqrt(drawn.variance)
        low = min(math.exp(drawn.centre - half), median)
        high = max(math.exp(drawn.centre + half), median)
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


def arm_summary(
    arm: Arm, *, level: float = LEVEL, seed: int = 0, replicates: int = REPLICATES
) -> ArmSummary:
    """Return an arm's median in seconds with its two-level bootstrap interval.

    Use this for several processes and ``median_interval`` for the calls of one. ValueError as
    ``checked_arm``, and for a level outside (0, 1).
    """
    processes = checked_arm(arm, "arm")
    return _summary(processes, resample(processes, replicates, seed), level)


def speedup(
    baseline: Arm,
    candidate: Arm,
    *,
    level: float = LEVEL,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Speedup:
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
    first, second = checked_arm(baseline, "baseline"), checked_arm(candidate, "candidate")
    # Both arms use the same random numbers: only their variances are added, so this costs nothing
    # and makes swapping them exact.
    drawn_first = resample(first, replicates, seed)
    drawn_second = resample(second, replicates, seed)
    summary_first = _summary(first, drawn_first, level)
    summary_second = _summary(second, drawn_second, level)
    ratio = summary_first.median_s / summary_second.median_s
    low = high = None
    if drawn_first.variance is not None and drawn_second.variance is not None:
        centre = drawn_first.centre - drawn_second.centre
        factor, error = welch(drawn_first, drawn_second, level)
        low = min(math.exp(centre - factor * error), ratio)
        high = max(math.exp(centre + factor * error), ratio)
    return Speedup(
        ratio=ratio,
        low=low,
        high=high,
        level=level,
        baseline=summary_first,
        candidate=summary_second,
        covers_processes=summary_first.covers_processes and summary_second.covers_processes,
    )


def welch(first: Resampled, second: Resampled, level: float) -> tuple[float, float]:
    """Return the t factor and the standard error of the difference of two centres.

    Degrees of freedom by Welch (1947) and Satterthwaite (1946), so that the arms may differ in
    spread. Both must have a variance (ValueError).
    """
    if first.variance is None or second.variance is None:
        raise ValueError("an arm with a single call has no variance")
    total = first.variance + second.variance
    if total == 0.0:
        return 0.0, 0.0
    df = total**2 / (first.variance**2 / first.df + second.variance**2 / second.df)
    return t_factor(level, df), math.sqrt(total)
