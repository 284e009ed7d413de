"""Straight lines through few rows, one or two of which may be wrong.

Siegel's repeated medians (Biometrika 69, 1982), which half the rows cannot mislead, give a start;
rows far off for the scale of the rest are left aside, weighted least squares fits the others, and
every row is judged by the line through the others (leave-one-out). Deviations are relative: a
measured time's noise grows with the time.

The scale of few rows is poorly known, so it is pooled with what measured times commonly scatter:
`PRIOR_SCALE`, counted as `PRIOR_ROWS` further rows. A row stands out when its deviation is beyond
Student's quantile for that scale, shared among the rows (Bonferroni), so that a table of any length
has the same chance of a false finding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.audit.table import Floats
from bench.stats.special import student_t_quantile

PRIOR_SCALE = 0.01
PRIOR_ROWS = 3
FALSE_FINDING = 2e-4
"""Chance that a clean table's rows have one that stands out, for noise of any size."""
MANY_ROWS = 60
"""From here on a row is judged by the line through all, and the start is taken from a part."""
SMALLEST = 0.03
"""Relative deviations below this are never called a finding."""


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted line y = fixed + slope x.

    Attributes:
        fixed: intercept, in the unit of y.
        slope: in the unit of y per unit of x.
        off: (rows,) relative deviation of each row from the line through the others.
        odd: (rows,) whether it stands out.
        scale: relative scatter of the rows that do not.
        r2: explained share of variance of the rows that do not.
    """

    fixed: float
    slope: float
    off: Floats
    odd: np.ndarray[tuple[int], np.dtype[np.bool_]]
    scale: float
    r2: float

    def at(self, x: float) -> float:
        return self.fixed + self.slope * x


@lru_cache(maxsize=4096)
def _quantile(error: float, freedom: float) -> float:
    return student_t_quantile(error, freedom)


def fit(
    x: Floats,
    y: Floats,
    half: Floats | None = None,
    *,
    prior: float = PRIOR_SCALE,
    smallest: float = SMALLEST,
) -> Line | None:
    """Return the line through (n,) points with y > 0, or None where they cannot show an odd one.

    That takes four rows at three different x, of which three or more agree. ``half`` is the
    rounding half-width of y.
    """
    n = len(x)
    if n < 4 or len(np.unique(x)) < 3 or not (y > 0).all():
        return None
    half = np.zeros(n) if half is None else half
    slope, fixed = _siegel(x, y)
    guess = np.maximum(fixed + slope * x, 0.2 * y)
    off = (y - fixed - slope * x) / guess
    # The smaller half shows the scatter, whatever the others do.
    middle = float(np.sort(np.abs(off))[(n - 1) // 2])
    good = np.abs(off) <= max(4 * 1.4826 * middle, 2 * prior, 1e-9)
    if good.sum() < 3 or len(np.unique(x[good])) < 2:
        return None
    made = None
    for _ in range(6):
        made = _judge(x, y, half, good, prior, smallest)
        if made is None:
            return None
        again = ~made.odd
        if (again == good).all() or again.sum() < 3 or len(np.unique(x[again])) < 2:
            break
        good = again
    if made is None or made.odd.sum() > max(1, n // 3) or made.slope <= 0:
        # Too many odd rows: the line is no law of this table.
        return None
    return made


def _judge(
    x: Floats,
    y: Floats,
    half: Floats,
    good: np.ndarray[tuple[int], np.dtype[np.bool_]],
    prior: float,
    smallest: float,
) -> Line | None:
    n = len(x)
    line = _least_squares(x[good], y[good])
    if n > MANY_ROWS:
        return _judge_many(x, y, half, good, line, prior, smallest)
    off = np.zeros(n)
    odd = np.zeros(n, dtype=np.bool_)
    scale = 0.0
    for i in range(n):
        others = good.copy()
        others[i] = False
        if others.sum() < 2 or len(np.unique(x[others])) < 2:
            continue
        fixed, slope = _least_squares(x[others], y[others])
        at = fixed + slope * x[i]
        if at <= 0:
            # Far outside the others: they cannot say.
            continue
        left = (y[others] - fixed - slope * x[others]) / y[others]
        freedom = int(others.sum()) - 2
        pooled = math.sqrt(
            (PRIOR_ROWS * prior**2 + float((left**2).sum())) / (PRIOR_ROWS + freedom)
        )
        weights = 1 / y[others] ** 2
        mean = float((weights * x[others]).sum() / weights.sum())
        spread = float((weights * (x[others] - mean) ** 2).sum())
        leverage = (1 / weights.sum() + (x[i] - mean) ** 2 / spread) / at**2 if spread else 1.0
        off[i] = y[i] / at - 1
        reach = (
            pooled * math.sqrt(1 + leverage) * _quantile(FALSE_FINDING / n, PRIOR_ROWS + freedom)
        )
        odd[i] = abs(off[i]) > max(reach, smallest) + half[i] / at
        scale = max(scale, pooled)
    return _line(x, y, good & ~odd, off, odd, line, scale)


def _judge_many(
    x: Floats,
    y: Floats,
    half: Floats,
    good: np.ndarray[tuple[int], np.dtype[np.bool_]],
    line: tuple[float, float],
    prior: float,
    smallest: float,
) -> Line | None:
    """Judge rows by the one line: among so many, none of them moves it."""
    at = np.maximum(line[0] + line[1] * x, 1e-300)
    off = y / at - 1
    freedom = int(good.sum()) - 2
    scale = math.sqrt(
        (PRIOR_ROWS * prior**2 + float((off[good] ** 2).sum())) / (PRIOR_ROWS + freedom)
    )
    reach = scale * _quantile(FALSE_FINDING / len(x), PRIOR_ROWS + freedom)
    odd = np.abs(off) > max(reach, smallest) + half / at
    return _line(x, y, good & ~odd, off, odd, line, scale)


def _line(
    x: Floats,
    y: Floats,
    kept: np.ndarray[tuple[int], np.dtype[np.bool_]],
    off: Floats,
    odd: np.ndarray[tuple[int], np.dtype[np.bool_]],
    line: tuple[float, float],
    scale: float,
) -> Line | None:
    if kept.sum() < 2:
        return None
    if len(np.unique(x[kept])) > 1:
        line = _least_squares(x[kept], y[kept])
    total = float(((y[kept] - y[kept].mean()) ** 2).sum())
    left = y[kept] - line[0] - line[1] * x[kept]
    r2 = 1 - float((left**2).sum()) / total if total > 0 else 1.0
    return Line(line[0], line[1], off, odd, scale, r2)


def _siegel(x: Floats, y: Floats) -> tuple[float, float]:
    if len(x) > MANY_ROWS:
        # Evenly over the rows: enough for a start.
        chosen = np.linspace(0, len(x) - 1, MANY_ROWS).astype(np.int64)
        if len(np.unique(x[chosen])) >= 2:
            slope, _ = _siegel(x[chosen], y[chosen])
            return slope, float(np.median(y - slope * x))
    slopes = []
    for i in range(len(x)):
        apart = x != x[i]
        if not apart.any():
            continue
        slopes.append(float(np.median((y[apart] - y[i]) / (x[apart] - x[i]))))
    slope = float(np.median(slopes))
    return slope, float(np.median(y - slope * x))


def _least_squares(x: Floats, y: Floats) -> tuple[float, float]:
    """Return (fixed, slope) with residuals relative to y."""
    weights = 1 / y**2
    total = float(weights.sum())
    mean_x = float((weights * x).sum()) / total
    mean_y = float((weights * y).sum()) / total
    spread = float((weights * (x - mean_x) ** 2).sum())
    slope = float((weights * (x - mean_x) * (y - mean_y)).sum()) / spread
    return mean_y - slope * mean_x, slope
