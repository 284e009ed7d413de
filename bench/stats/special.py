"""The two probability distributions that the statistics need, without a dependency on SciPy."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-300


def regularised_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), a probability in [0, 1].

    ``a`` and ``b`` are positive, ``x`` lies in [0, 1]; anything else raises ValueError. Continued
    fraction DLMF 8.17.22, evaluated by Lentz's method as modified by Thompson and Barnett (1986).
    """
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise ValueError(f"regularised_beta needs a > 0, b > 0, 0 <= x <= 1; got {a}, {b}, {x}")
    if x in (0.0, 1.0):
        return float(x)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only below the mean
        return 1.0 - regularised_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return front * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def student_t_two_sided(t: float, df: float) -> float:
    """Return P(|T| > |t|) for Student's t with ``df`` > 0 degrees of freedom (DLMF 8.17)."""
    return regularised_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=4096)
def student_t_quantile(error: float, df: float) -> float:
    """Return t with P(|T| > t) = ``error`` for Student's t with ``df`` degrees of freedom.

    ``error`` lies strictly between 0 and 1, ``df`` is positive; otherwise ValueError. Bisection,
    good to about 12 digits.
    """
    if not (0 < error < 1 and df > 0):
        raise ValueError(f"student_t_quantile needs 0 < error < 1 and df > 0; got {error}, {df}")
    low, high = 0.0, 2.0
    while student_t_two_sided(high, df) > error:
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if student_t_two_sided(middle, df) > error:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_t_tails(t: NDArray[np.float64], df: int) -> NDArray[np.float64]:
    """Return P(|T| > t) for each ``t`` >= 0, with a whole number ``df`` >= 1 of degrees of freedom.

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4: many values at once.
    """
    angle = np.arctan(t / math.sqrt(df))
    squared = np.cos(angle) ** 2
    odd = df % 2
    term = np.cos(angle) if odd else np.ones_like(angle)
    total = np.zeros_like(angle)
    for j in range(1, df // 2 + 1):
        total += term
        term = term * squared * ((2 * j) / (2 * j + 1) if odd else (2 * j - 1) / (2 * j))
    inside = np.sin(angle) * total
    return 1 - ((angle + inside) * 2 / math.pi if odd else inside)


def f_tail(f: float, df_numerator: float, df_denominator: float) -> float:
    """Return P(F > ``f``) for Fisher's F distribution; ``f`` may be infinite (DLMF 8.17)."""
    if math.isinf(f):
        return 0.0
    share = df_denominator / (df_denominator + df_numerator * max(f, 0.0))
    return regularised_beta(df_denominator / 2, df_numerator / 2, share)


def middle(ordered: NDArray[np.float64]) -> float:
    """Return the median of sorted values; numpy's own costs ten times as much on a few values."""
    n = len(ordered)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def checked(values: object, name: str, *, positive: bool = False) -> NDArray[np.float64]:
    """Return ``values`` as a one-dimensional float array.

    ValueError, naming ``name``, when it is not one-dimensional, holds NaN or infinity, or, with
    ``positive``, holds a value that is not above zero.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not of shape {array.shape}")
    # Both fail for NaN. Few values are common, and each pass over them costs as much as many do.
    if len(array) and array.min() > 0 and array.max() < np.inf:
        return array
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if positive and (array <= 0).any():
        raise ValueError(f"{name} holds {array.min():g}; times must be above 0")
    return array
