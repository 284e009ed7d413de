"""The median and an interval for it that assumes no distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.stats.order import CONFIDENCE, median_rank
from bench.stats.special import checked, middle


@dataclass(frozen=True, slots=True)
class MedianInterval:
    """A median with its order-statistic interval, all in the unit of the values.

    ``achieved_level`` is the exact confidence of [low, high]; ``meets_level`` says whether it is at
    least what was asked for. ``low`` and ``high`` are None for a single value.
    """

    median: float
    low: float | None
    high: float | None
    achieved_level: float
    meets_level: bool
    n: int

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval over the median, dimensionless; None without a trusted interval."""
        if self.low is None or self.high is None or not self.meets_level or self.median <= 0:
            return None
        return (self.high - self.low) / 2 / self.median


def median_interval(values: Sequence[float], level: float = CONFIDENCE) -> MedianInterval:
    """Return the median of ``values`` (n,) with its interval of at least confidence ``level``.

    The interval runs from the k-th smallest to the k-th largest value, k by `median_rank`. It holds
    for any continuous distribution; with ties it is wider than it need be.

    Tiny samples: no such k exists for n < 6 at 95 %. Then the widest interval there is, smallest to
    largest value, is returned with its lower ``achieved_level`` (n = 5: 93.75 %, 4: 87.5 %, 3:
    75 %, 2: 50 %) and ``meets_level`` False; one value gives its median and no interval. ValueError
    for no values, NaN, infinity, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    ordered = np.sort(checked(values, "values"))
    n = len(ordered)
    if n == 0:
        raise ValueError("median_interval needs at least one value")
    median = middle(ordered)
    if n == 1:
        return MedianInterval(median, None, None, 0.0, False, 1)
    rank, achieved = median_rank(n, level)
    return MedianInterval(
        median=median,
        low=float(ordered[rank - 1]),
        high=float(ordered[n - rank]),
        achieved_level=achieved,
        meets_level=achieved >= level,
        n=n,
    )
