"""The order-statistic interval of a median.

Shared with the worker, which stops measuring by it, and so of the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

CONFIDENCE = 0.95


@lru_cache(maxsize=4096)
def median_rank(count: int, level: float = CONFIDENCE) -> tuple[int, float]:
    """Return (k, achieved) for the interval from k-th smallest to k-th largest of ``count`` values.

    k is the largest for which the confidence 1 - 2 P(Binomial(count, 1/2) < k), which is
    ``achieved``, reaches ``level`` (David and Nagaraja, Order Statistics, 3rd ed., section 7.1).
    Where none does, k is 1 and ``achieved`` below ``level``; for a single value ``achieved`` is 0.
    ValueError for a ``count`` below 1.
    """
    if count < 1:
        raise ValueError(f"a median needs at least one value, not {count}")
    total = 2**count
    tail = 1
    rank, achieved = 1, 1.0 - 2 * tail / total
    for heads in range(1, count // 2):
        tail += math.comb(count, heads)
        confidence = 1.0 - 2 * (tail / total)
        if confidence < level:
            break
        rank, achieved = heads + 1, confidence
    return rank, achieved


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the distribution-free interval of the median with at least 95 % confidence.

    None below six values, where there is no such interval.
    """
    if not values:
        return None
    rank, achieved = median_rank(len(values))
    if achieved < CONFIDENCE:
        return None
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank]
