"""Peak memory against the size of the pictures and their number.

    linear:     bytes = constant + per_pixel x pixels x batch
    quadratic:  bytes = constant + per_pixel x pixels x batch + per_pixel2 x pixels^2 x batch

``pixels`` are those of one picture. The constant is what is held whatever is drawn: weights, the
libraries, the context. Activations grow with all pixels of a batch; attention that is computed as a
whole matrix grows with the square of a picture's pixels, and once for each picture.

Which law holds is tested and not chosen by eye. The rule, in this order:

1. The quadratic law is asked for only if the points can tell it from the linear one: at least two
   different sizes that leave the three columns independent, and two points more than it has
   coefficients.
2. Outliers are sought under the largest law that can be told, so that a curve is no outlier. Least
   median of squares over all elemental subsets (Rousseeuw and Leroy, Robust Regression and Outlier
   Detection, 1987, sections 3.3 and 5.1) gives a start that nearly half of the points cannot
   mislead, and its scale; points too far out for Student's t, the error shared among the points,
   and more than 5 % of their own size, carry no weight. Where more than a quarter would be left out
   none is: then the law does not describe these points, which is said.
3. On the rest an F test at the 1 % level asks whether the quadratic term explains more than chance
   (Draper and Smith, Applied Regression Analysis, 1998, section 6.1). The quadratic law is taken if
   it does, if its term is not negative, and if it moves some fitted value by more than half a per
   cent, since meters round.

Residuals are relative to the fitted bytes: meters, allocators and page counts err by a share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.stats.special import checked, f_tail, student_t_quantile

Form = Literal["linear", "quadratic"]

LEVEL = 0.95
CURVE_ERROR = 0.01
"""Chance that memory which grows linearly is called quadratic."""
OUTLIER_ERROR = 0.01
"""Chance that points without an outlier have one flagged, shared among them."""
SMALLEST_OUTLIER = 0.05
SMALLEST_CURVE = 0.005
MOST_OUTLIERS = 0.25
LEAST_FOR_OUTLIERS = 7
"""With fewer points than this, one of them can draw the line to itself."""
MOST_SUBSETS = 4000

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes expected at one point: ``[low, high]`` holds a new measurement at the law's level.

    The bounds are None when no degree of freedom is left. ``inside`` says whether the point lies
    within what was measured, in pixels of a picture and in pixels of a batch.
    """

    bytes: float
    low: float | None
    high: float | None
    inside: bool


@dataclass(frozen=True, slots=True)
class MemoryLaw:
    """A fitted law over n points.

    ``constant_bytes``, ``per_pixel_bytes`` and ``per_pixel2_bytes`` (0 under the linear law) are
    bytes, bytes per pixel and bytes per squared pixel. ``f`` and ``p`` are of the test between both
    laws, None if there was none; ``why`` is the sentence of the rule that decided. ``outliers`` and
    ``residuals`` (relative to the fitted bytes) follow the points as given. ``lack_of_fit`` says
    that neither law describes the points.
    """

    form: Form
    constant_bytes: float
    per_pixel_bytes: float
    per_pixel2_bytes: float
    f: float | None
    p: float | None
    why: str
    outliers: tuple[bool, ...]
    residuals: tuple[float, ...]
    lack_of_fit: str | None
    n: int
    level: float
    df: int
    scale: float
    _covariance: tuple[tuple[float, ...], ...]
    _pixels_range: tuple[float, float]
    _total_range: tuple[float, float]

    @property
    def knows_sizes(self) -> bool:
        """Whether the points have more than one size, so that the law says something of others."""
        return self._pixels_range[0] < self._pixels_range[1]

    def bytes_at(self, pixels: float, batch: float) -> float:
        """Return the law's bytes for ``batch`` pictures of ``pixels`` each."""
        total = pixels * batch
        return (
            self.constant_bytes
            + self.per_pixel_bytes * total
            + self.per_pixel2_bytes * pixels * total
        )

    def predict(self, pixels: float, batch: float) -> Prediction:
        """Return the bytes of a new measurement with its Student's t prediction interval."""
        value = self.bytes_at(pixels, batch)
        inside = (
            self._pixels_range[0] <= pixels <= self._pixels_range[1]
            and self._total_range[0] <= pixels * batch <= self._total_range[1]
        )
        if self.df < 1:
            return Prediction(value, None, None, inside)
        row = _row(pixels, batch, len(self._covariance))
        covariance = np.asarray(self._covariance)
        # A new point errs by its own share of its size, and the law by what its points leave open.
        spread = math.sqrt((self.scale * value) ** 2 + float(row @ covariance @ row))
        half = student_t_quantile(round(1 - self.level, 12), self.df) * spread
        return Prediction(value, value - half, value + half, inside)

    def largest_batch(self, pixels: float, limit_bytes: float, most: int = 1 << 20) -> int:
        """Return the largest batch whose bytes stay within ``limit_bytes``; 0 if none does."""
        return _largest(lambda batch: self.bytes_at(pixels, batch) <= limit_bytes, most)

    def largest_pixels(self, batch: float, limit_bytes: float) -> float:
        """Return the most pixels of a picture whose bytes stay within ``limit_bytes``; 0 if none.

        Infinite if the law says that memory does not grow.
        """
        room = limit_bytes - self.constant_bytes
        if room < 0:
            return 0.0
        slope, square = self.per_pixel_bytes * batch, self.per_pixel2_bytes * batch
        if square > 0:
            return (-slope + math.sqrt(slope * slope + 4 * square * room)) / (2 * square)
        return room / slope if slope > 0 else math.inf


def fit_memory(
    pixels: Sequence[float],
    batch: Sequence[float],
    peak_bytes: Sequence[float],
    *,
    level: float = LEVEL,
) -> MemoryLaw:
    """Fit and choose the law of n points.

    ``pixels`` (n,) of one picture, ``batch`` (n,) pictures in a call, ``peak_bytes`` (n,) of one
    meter.

    ValueError for lengths that differ, values that are not finite and above 0, a ``level`` outside
    (0, 1), or points that all have equally many pixels in a batch.
    """
    size = checked(pixels, "pixels", positive=True)
    many = checked(batch, "batch", positive=True)
    y = checked(peak_bytes, "peak_bytes", positive=True)
    if not len(size) == len(many) == len(y):
        raise ValueError("pixels, batch and peak_bytes must be equally long")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if len(np.unique(size * many)) < 2:
        raise ValueError("a law needs points with at least two different numbers of pixels")
    n = len(y)
    both = _columns(size, many)
    why_untested = _why_untested(both, size, n)
    columns = both if why_untested is None else both[:, :2]
    outliers = _outliers(columns, y)
    lack: str | None = None
    if outliers.sum() > MOST_OUTLIERS * n or not _independent(columns[~outliers]):
        lack = (
            f"{int(outliers.sum())} of {n} points lie off the law of the others, too many to be "
            "outliers"
        )
        outliers = np.zeros(n, np.bool_)
    kept = ~outliers
    line, covariance, scale = _fit(both[kept][:, :2], y[kept])
    form: Form = "linear"
    f = p = None
    if why_untested is not None:
        why = why_untested
    else:
        curve, curved_covariance, curved_scale = _fit(both[kept], y[kept])
        weight = _floor(both[kept] @ curve, y[kept])
        f, p = _f_test(both[kept], y[kept], weight)
        # Both laws in the same weights, so that the move is the term's and not the weights'.
        straight = _solve(both[kept][:, :2], y[kept], weight)
        move = float(np.abs((both[kept] @ curve - both[kept][:, :2] @ straight) / weight).max())
        told = f"F = {f:.3g}, p = {p:.2g}"
        if p >= CURVE_ERROR:
            why = f"a quadratic term explains no more than chance would ({told})"
        elif move <= SMALLEST_CURVE:
            why = (
                f"a quadratic term moves no point by more than {100 * SMALLEST_CURVE:g} % ({told})"
            )
        elif curve[2] < 0:
            why = f"the quadratic term is negative, which no memory is ({told})"
            lack = lack or (
                "memory rises more slowly at large sizes than a line through the origin of growth: "
                "the peak moves from one part of the pipeline to another"
            )
        else:
            form, line, covariance, scale = "quadratic", curve, curved_covariance, curved_scale
            why = f"a quadratic term explains more than chance would ({told})"
    fitted = both[:, : len(line)] @ line
    residuals = (y - fitted) / _floor(fitted, y)
    return MemoryLaw(
        form=form,
        constant_bytes=float(line[0]),
        per_pixel_bytes=float(line[1]),
        per_pixel2_bytes=float(line[2]) if len(line) > 2 else 0.0,
        f=f,
        p=p,
        why=why,
        outliers=tuple(bool(v) for v in outliers),
        residuals=tuple(float(v) for v in residuals),
        lack_of_fit=lack,
        n=n,
        level=level,
        df=int(kept.sum()) - len(line),
        scale=scale,
        _covariance=tuple(tuple(float(v) for v in row) for row in covariance),
        _pixels_range=(float(size.min()), float(size.max())),
        _total_range=(float((size * many).min()), float((size * many).max())),
    )


def _row(pixels: float, batch: float, width: int) -> _Floats:
    total = pixels * batch
    return np.array([1.0, total, pixels * total][:width])


def _columns(size: _Floats, many: _Floats) -> _Floats:
    total = size * many
    return np.stack([np.ones_like(total), total, size * total], axis=1)


def _independent(columns: _Floats) -> bool:
    """Whether a fit can tell these columns apart, whatever their units."""
    if len(columns) < columns.shape[1]:
        return False
    scaled = columns / np.abs(columns).max(axis=0)
    return bool(np.linalg.matrix_rank(scaled, tol=1e-6) == columns.shape[1])


def _why_untested(both: _Floats, size: _Floats, n: int) -> str | None:
    if len(np.unique(size)) < 2:
        return "all points have one size, at which both laws are the same line over the batch"
    if not _independent(both):
        return "these points cannot tell the laws apart; more sizes would"
    if n < both.shape[1] + 2:
        return f"{n} points are too few to test a quadratic term; 5 would do"
    return None


def _floor(fitted: _Floats, y: _Floats) -> _Floats:
    """Return fitted bytes, kept off 0: a wild start may cross it, and weights divide by it."""
    return np.maximum(fitted, 0.01 * float(np.median(y)))


def _solve(columns: _Floats, y: _Floats, weight: _Floats) -> _Floats:
    norm = np.abs(columns).max(axis=0)
    found = np.linalg.lstsq(columns / norm / weight[:, None], y / weight, rcond=None)[0]
    return np.asarray(found / norm, np.float64)


def _fit(columns: _Floats, y: _Floats) -> tuple[_Floats, _Floats, float]:
    """Return coefficients, their covariance, and the relative scale of the residuals."""
    weight = y
    for _ in range(3):
        coefficients = _solve(columns, y, weight)
        weight = _floor(columns @ coefficients, y)
    df = len(y) - columns.shape[1]
    rest = (y - columns @ coefficients) / weight
    variance = float(rest @ rest) / df if df > 0 else 0.0
    norm = np.abs(columns).max(axis=0)
    scaled = columns / norm / weight[:, None]
    covariance = np.linalg.pinv(scaled.T @ scaled) * variance / np.outer(norm, norm)
    return coefficients, covariance, math.sqrt(variance)


def _f_test(both: _Floats, y: _Floats, weight: _Floats) -> tuple[float, float]:
    """Return F and its tail probability for the third column, in the given weights."""
    sums = []
    for width in (2, 3):
        coefficients = _solve(both[:, :width], y, weight)
        rest = (y - both[:, :width] @ coefficients) / weight
        sums.append(float(rest @ rest))
    df = len(y) - 3
    gained = max(sums[0] - sums[1], 0.0)
    # A meter without noise leaves rounding errors, of which a ratio would mean nothing.
    noise = max(sums[1], len(y) * 1e-24)
    f = gained / (noise / df)
    return f, f_tail(f, 1, df)


def _outliers(columns: _Floats, y: _Floats) -> _Flags:
    n, width = columns.shape
    flags = np.zeros(n, np.bool_)
    if n < LEAST_FOR_OUTLIERS:
        return flags
    start = _least_median(columns, y)
    if start is None:
        return flags
    # Of the least median of squares the median is the smallest there is, and so its scale too
    # small in few points: Rousseeuw and Leroy's factor, section 5.1.
    relative = _relative(columns, y, start)
    scale = 1.4826 * (1 + 5 / (n - width)) * float(np.median(relative))
    cut = student_t_quantile(OUTLIER_ERROR / n, n - width)
    flags = (relative > cut * scale) & (relative > SMALLEST_OUTLIER)
    for _ in range(5):
        df = int((~flags).sum()) - width
        if df < 1 or not _independent(columns[~flags]):
            break
        coefficients, covariance, scale = _fit(columns[~flags], y[~flags])
        relative = _relative(columns, y, coefficients)
        # What lies beyond the points that count is less well known, so it may lie farther off.
        line = _floor(columns @ coefficients, y)
        open_ = np.einsum("ij,jk,ik->i", columns, covariance, columns) / line**2
        spread = np.sqrt(scale**2 + np.where(flags, open_, -np.minimum(open_, 0.9 * scale**2)))
        cut = student_t_quantile(OUTLIER_ERROR / n, df)
        far: _Flags = (relative > cut * spread) & (relative > SMALLEST_OUTLIER)
        if (far == flags).all():
            break
        flags = far
    return flags


def _relative(columns: _Floats, y: _Floats, coefficients: _Floats) -> _Floats:
    fitted = columns @ coefficients
    return np.asarray(np.abs(y - fitted) / _floor(fitted, y), np.float64)


def _least_median(columns: _Floats, y: _Floats) -> _Floats | None:
    """Return the exact fit through a subset of points whose median relative residual is least."""
    n, width = columns.shape
    subsets: list[tuple[int, ...]]
    if math.comb(n, width) <= MOST_SUBSETS:
        subsets = list(itertools.combinations(range(n), width))
    else:
        draw = np.random.default_rng(n)
        subsets = [tuple(int(v) for v in draw.permutation(n)[:width]) for _ in range(MOST_SUBSETS)]
    chosen = np.asarray(subsets)
    norm = np.abs(columns).max(axis=0)
    matrices = (columns / norm)[chosen]
    good = np.abs(np.linalg.det(matrices)) > 1e-9
    if not good.any():
        return None
    found = np.linalg.solve(matrices[good], y[chosen[good]][..., None])[..., 0] / norm
    fitted = found @ columns.T
    relative = np.abs(y - fitted) / np.maximum(fitted, 0.01 * float(np.median(y)))
    return np.asarray(found[int(np.argmin(np.median(relative, axis=1)))], np.float64)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, high * 2
    if high > most:
        return most if fits(most) else low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
