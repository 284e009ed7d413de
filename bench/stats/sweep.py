"""Time against denoiser calls: what a call costs before the first step, and what each step adds.

    e2e_s = fixed_s + marginal_step_s x denoiser_calls

Siegel's repeated medians (Biometrika 69, 1982), which half the calls cannot mislead, give a start
and, by the median absolute residual, a scale; calls too far out for that scale are left aside and
least squares fits the rest (reweighted least squares: Rousseeuw and Leroy, Robust Regression and
Outlier Detection, 1987, section 3.1). Residuals are relative to the fitted time throughout, since a
call's noise grows with its length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bench.stats.special import checked, f_tail, student_t_quantile, student_t_two_sided

REPLICATES = 1000
OUTLIER_ERROR = 0.01
"""Chance that a sweep without outliers has one flagged (Student's t, shared among its calls)."""
SMALLEST_RELATIVE = 0.005
"""Deviations under half a per cent of the fitted time are flagged neither as outlier nor as curve:
a clock without noise would turn rounding errors into findings."""
THROUGHPUT_TOLERANCE = 0.03
DRIFT_ERROR = 0.01
CURVE_ERROR = 0.01
CONFOUNDED = 0.9
"""Correlation of steps with time above which a drift would pass for a slope, or the reverse."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SweepFit:
    """A fitted sweep over n calls.

    ``fixed_s`` and ``marginal_step_s`` are seconds, with intervals ``fixed_interval_s`` and
    ``marginal_interval_s`` at ``level`` (None for fewer than 3 calls). ``residuals_s`` and
    ``outliers`` have one entry per call in the order given; outliers carry no weight. ``r2`` is the
    explained share of variance over the calls that are no outliers, None when all take equally
    long. ``drift_pct`` is the slow-down over the whole sweep in per cent that was taken out, None
    when none was found. ``lack_of_fit_p`` is None without repeats at 3 or more step counts;
    ``lack_of_fit`` says that time is not a straight line in steps. ``steps_per_s`` is
    1 / marginal_step_s, None when the slope is not above 0. ``notes`` are sentences for the reader.
    """

    fixed_s: float
    marginal_step_s: float
    fixed_interval_s: tuple[float, float] | None
    marginal_interval_s: tuple[float, float] | None
    level: float
    residuals_s: tuple[float, ...]
    outliers: tuple[bool, ...]
    r2: float | None
    drift_pct: float | None
    lack_of_fit_p: float | None
    lack_of_fit: bool
    steps_per_s: float | None
    n: int
    notes: tuple[str, ...]

    def predict(self, denoiser_calls: Sequence[float]) -> list[float]:
        """Return the line's time in seconds at each of ``denoiser_calls``."""
        return [self.fixed_s + self.marginal_step_s * x for x in denoiser_calls]


@dataclass(frozen=True, slots=True)
class ThroughputCheck:
    """``difference_pct`` is how far 1 / marginal_step_s lies above it_per_s, in per cent."""

    difference_pct: float
    agrees: bool
    reason: str


def fit_sweep(
    denoiser_calls: Sequence[float],
    e2e_s: Sequence[float],
    *,
    order: Sequence[int] | None = None,
    level: float = 0.95,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> SweepFit:
    """Fit the line through n calls of at least two different lengths.

    ``denoiser_calls`` (n,) counts hooked denoiser calls, ``e2e_s`` (n,) is seconds. ``order`` (n,)
    ranks the calls by when they ran; None means as given. Where time and steps are not confounded
    (a shuffled sweep) and the relative residuals trend at the 1 % level, the trend is divided out,
    so that the line holds for the middle of the sweep.

    The intervals come from a residual bootstrap (Davison and Hinkley 1997, section 6.3) over the
    calls that are no outliers: relative residuals of whole calls, inflated to their unbiased
    variance, are dealt to the calls anew and the fit is repeated; percentiles are widened to
    Student's t with as many degrees of freedom as the fit has left. A call is never split, so steps
    that speed up or slow down together do not narrow an interval.

    Lack of fit is the pure-error F test (Draper and Smith, Applied Regression Analysis, section
    2.1) on the calls that are no outliers, flagged at the 1 % level when a mean also lies half a
    per cent off the line; a step count whose repeats are all outliers is lack of fit as well.

    ValueError for lengths that differ, fewer than two different step counts, or values that are
    not finite and above 0.
    """
    x = checked(denoiser_calls, "denoiser_calls", positive=True)
    y = checked(e2e_s, "e2e_s", positive=True)
    if len(x) != len(y) or (order is not None and len(order) != len(x)):
        raise ValueError("denoiser_calls, e2e_s and order must be equally long")
    if len(np.unique(x)) < 2:
        raise ValueError("a line needs at least two different numbers of denoiser calls")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    n = len(x)
    when = np.arange(n) if order is None else np.argsort(np.argsort(np.asarray(order)))
    # One canonical order for the sums and the bootstrap, so that the caller's does not matter.
    canonical = np.lexsort((when, y, x))
    x, y, when = x[canonical], y[canonical], when[canonical]

    notes: list[str] = []
    line, outliers = _robust_line(x, y)
    trend = _centred(when)
    drift = _drift(x, y, trend, line, outliers)
    if drift is not None:
        # Without the drift its calls scatter less, and outliers show that it had hidden.
        line, outliers = _robust_line(x, y / (1 + drift * trend))
    columns = _columns(x, trend, line, drift is not None)
    solve = _solver(columns, line, outliers)
    coefficients = solve @ (y / line)[~outliers]
    fixed, slope = float(coefficients[0]), float(coefficients[1])
    if drift is not None:
        drift = float(coefficients[2])
        notes.append(
            f"Times drifted by {100 * drift:+.1f} % over the sweep; this was taken out of the line."
        )
    residuals = y - columns @ coefficients
    relative = residuals / line
    if outliers.any():
        notes.append(f"{int(outliers.sum())} of {n} calls are outliers and carry no weight.")
    lack_p, largest = _lack_of_fit(x, relative, outliers)
    lack = lack_p is not None and lack_p < CURVE_ERROR and largest > SMALLEST_RELATIVE
    if lack:
        notes.append(
            f"Time is not a straight line in steps: a mean lies {100 * largest:.1f} % off."
        )
    for value in np.unique(x):
        if (x == value).sum() > 1 and outliers[x == value].all():
            lack = True
            notes.append(f"Every call with {value:g} denoiser calls lies off the line.")
    fixed_interval = slope_interval = None
    df = int((~outliers).sum()) - len(coefficients)
    if df > 0:
        fixed_interval, slope_interval = _intervals(
            solve,
            coefficients,
            relative[~outliers],
            (columns @ coefficients / line)[~outliers],
            df,
            level,
            seed,
            replicates,
        )
    back = np.argsort(canonical)
    return SweepFit(
        fixed_s=fixed,
        marginal_step_s=slope,
        fixed_interval_s=fixed_interval,
        marginal_interval_s=slope_interval,
        level=level,
        residuals_s=tuple(float(v) for v in residuals[back]),
        outliers=tuple(bool(v) for v in outliers[back]),
        r2=_r2(y[~outliers], residuals[~outliers]),
        drift_pct=None if drift is None else 100 * drift,
        lack_of_fit_p=lack_p,
        lack_of_fit=lack,
        steps_per_s=1 / slope if slope > 0 else None,
        n=n,
        notes=tuple(notes),
    )


def check_throughput(
    fit: SweepFit, it_per_s: float, *, denoiser_calls_per_step: float = 1.0
) -> ThroughputCheck | None:
    """Compare 1 / marginal_step_s with the measured ``it_per_s`` (scheduler steps per second).

    A scheduler that calls the denoiser more than once a step (Heun: 19 calls in 10 steps) makes
    fewer steps than calls: ``denoiser_calls_per_step`` (1.9 there) accounts for it. They disagree
    when more than 3 % apart. None when the fitted slope is not above 0; ValueError when a rate is
    not above 0.
    """
    if not (it_per_s > 0 and denoiser_calls_per_step > 0):
        raise ValueError("it_per_s and denoiser_calls_per_step must be above 0")
    if fit.steps_per_s is None:
        return None
    ratio = fit.steps_per_s / denoiser_calls_per_step / it_per_s
    difference = 100 * (ratio - 1)
    agrees = abs(ratio - 1) <= THROUGHPUT_TOLERANCE
    relation = "agrees with" if agrees else "disagrees with"
    return ThroughputCheck(
        difference,
        agrees,
        f"The sweep's throughput {relation} it_per_s: {difference:+.1f} % "
        f"(tolerance {100 * THROUGHPUT_TOLERANCE:g} %).",
    )


def _siegel(x: _Floats, y: _Floats) -> tuple[float, float]:
    rise = y[None, :] - y[:, None]
    run = x[None, :] - x[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(run != 0, rise / run, np.nan)
    slope = float(np.median(np.nanmedian(slopes, axis=1)))
    return float(np.median(y - slope * x)), slope


def _floor(line: _Floats, y: _Floats) -> _Floats:
    """Return the line, kept off 0: a wild start may cross it, and weights divide by it."""
    return np.maximum(line, 0.01 * np.median(y))


def _robust_line(x: _Floats, y: _Floats) -> tuple[_Floats, NDArray[np.bool_]]:
    """Return the fitted times (n,), kept above 0, and which calls are outliers."""
    n = len(x)
    fixed, slope = _siegel(x, y)
    line = _floor(fixed + slope * x, y)
    outliers = np.zeros(n, np.bool_)
    if n < 4:  # nothing can be told from three calls
        return line, outliers
    cut = student_t_quantile(OUTLIER_ERROR / n, n - 2)
    for _ in range(5):
        relative = np.abs(y / line - 1)
        # Two parameters were fitted: without n - 2 the scale shrinks in a small sweep.
        scale = 1.4826 * float(np.median(relative)) * math.sqrt(n / (n - 2))
        far = relative > max(cut * scale, SMALLEST_RELATIVE)
        if len(np.unique(x[~far])) < 2:
            break
        columns = _columns(x, x, line, False)
        coefficients = _solver(columns, line, far) @ (y / line)[~far]
        line = _floor(columns @ coefficients, y)
        if (far == outliers).all():
            break
        outliers = far
    return line, outliers


def _columns(x: _Floats, trend: _Floats, line: _Floats, drift: bool) -> _Floats:
    """Return the design (n, 2 or 3) in seconds: fixed, slope and, if asked for, drift."""
    columns = [np.ones_like(x), x]
    if drift:
        columns.append(trend * line)
    return np.stack(columns, axis=1)


def _solver(columns: _Floats, line: _Floats, outliers: NDArray[np.bool_]) -> _Floats:
    """Return the matrix that maps relative times of the kept calls to coefficients."""
    return np.asarray(np.linalg.pinv((columns / line[:, None])[~outliers]), np.float64)


def _centred(when: NDArray[np.int64]) -> _Floats:
    """Return time within the sweep from -1/2 to +1/2."""
    return when / max(len(when) - 1, 1) - 0.5


def _drift(
    x: _Floats, y: _Floats, trend: _Floats, line: _Floats, outliers: NDArray[np.bool_]
) -> float | None:
    """Return the relative slow-down over the sweep if there is one and it can be told from steps.

    Fitted together with the line on the calls that are no outliers, tested by its t statistic.
    """
    df = int((~outliers).sum()) - 3
    if df < 1:
        return None
    if abs(float(np.corrcoef(trend, x)[0, 1])) > CONFOUNDED:
        return None
    columns = _columns(x, trend, line, True)
    solve = _solver(columns, line, outliers)
    target = (y / line)[~outliers]
    coefficients = solve @ target
    rest = target - (columns / line[:, None])[~outliers] @ coefficients
    error = math.sqrt(float(rest @ rest) / df * float(solve[2] @ solve[2]))
    drift = float(coefficients[2])
    if abs(drift) <= SMALLEST_RELATIVE:
        return None
    if error > 0 and student_t_two_sided(drift / error, df) > DRIFT_ERROR:
        return None
    return drift


def _lack_of_fit(
    x: _Floats, relative: _Floats, outliers: NDArray[np.bool_]
) -> tuple[float | None, float]:
    """Return the p value of the pure-error F test and the largest relative deviation of a mean."""
    x, relative = x[~outliers], relative[~outliers]
    groups = [relative[x == value] for value in np.unique(x)]
    means = np.array([group.mean() for group in groups])
    largest = float(np.abs(means).max())
    df_lack, df_pure = len(groups) - 2, len(relative) - len(groups)
    if df_lack < 1 or df_pure < 1:
        return None, largest
    pure = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    lack = sum(len(group) * float(group.mean()) ** 2 for group in groups)
    if pure == 0:
        return (1.0 if lack == 0 else 0.0), largest
    return f_tail(lack / df_lack / (pure / df_pure), df_lack, df_pure), largest


def _r2(y: _Floats, residuals: _Floats) -> float | None:
    total = float(((y - y.mean()) ** 2).sum())
    return None if total == 0 else 1 - float((residuals**2).sum()) / total


@lru_cache(maxsize=16)
def _deals(n: int, replicates: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, n]).integers(0, n, (replicates, n))


def _intervals(
    solve: _Floats,
    coefficients: _Floats,
    relative: _Floats,
    line: _Floats,
    df: int,
    level: float,
    seed: int,
    replicates: int,
) -> tuple[tuple[float, float], tuple[float, float]]:
    n = len(relative)
    errors = relative * math.sqrt(n / df)
    dealt = line + errors[_deals(n, replicates, seed)]
    refitted = dealt @ solve.T
    tail = (1 - level) / 2
    widening = student_t_quantile(round(1 - level, 12), df) / NormalDist().inv_cdf(1 - tail)
    bounds = np.quantile(refitted, [tail, 1 - tail], axis=0)
    low, high = coefficients + widening * (bounds - coefficients)
    low, high = np.minimum(low, coefficients), np.maximum(high, coefficients)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))
