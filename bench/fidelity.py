"""Whether two pictures are the same: image by image, and against what chance alone does.

Pictures are PIL images or arrays of height x width (x 3); ``uint8``, or floats in [0, 1]. All
figures are on the 8-bit scale. A figure that cannot be had is None, with the reason under its name.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

THRESHOLD_DB = 40.0
"""Below this a change of numbers becomes a change of the picture.

PSNR against the float32 baseline ranks the usual causes: float16 about 62 dB, bfloat16 51, int8
weights 49, cached steps 36, int4 weights 25. The default lies in the widest gap: rounding passes,
and whatever skips or replaces work does not.
"""
OTHER_PICTURE_DB = 30.0
"""Below this the content itself changes: int4 weights lie here, cached steps above."""
CONTROL_MARGIN_DB = 1.0
"""How far below the control's worst pair still counts as the control's own noise."""

AMPLIFY = 10
FID_MINIMUM = 5000
FLIP_PIXELS_PER_DEGREE = 67.0
"""FLIP's own default: a 0.7 m wide 3840 pixel screen seen from 0.7 m."""

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
_BLACK = 4
_CONSTANT_RANGE = 2

Pixels = NDArray[np.uint8]
Word = Literal[
    "IDENTICAL", "WITHIN NOISE", "CLOSE", "VISIBLY DIFFERENT", "OTHER PICTURE", "INVALID"
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One picture against its reference.

    ``max_abs`` is the largest difference of a channel, 0 to 255. ``psnr_db`` is None for identical
    pictures, where it is infinite. ``ssim`` is at most 1, 1 for identical. ``flip`` is the mean
    FLIP error, 0 (same) to 1. ``invalid`` says why a picture is none (black, constant, NaN); then
    there are no figures. ``null_reasons`` says, by figure, why it is None.
    """

    identical: bool
    max_abs: int | None
    psnr_db: float | None
    ssim: float | None
    flip: float | None
    invalid: str | None = None
    null_reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FidelityVerdict:
    """``reason`` is one sentence; ``worst_db`` is the lowest PSNR, None if all are identical."""

    word: Word
    reason: str
    worst_db: float | None


def fault(picture: Any) -> str | None:
    """Return why ``picture`` is no picture (NaN, black or constant), or None.

    Black: no channel above 4 of 255. Constant: no channel varies by more than 2 of 255.
    ValueError for a shape or type that is no picture at all.
    """
    array = _array(picture)
    if array.dtype != np.uint8 and not np.isfinite(array).all():
        return "the picture holds NaN or infinity"
    pixels = _to_pixels(array)
    if int(pixels.max()) <= _BLACK:
        return "the picture is black"
    flat = pixels.reshape(-1, 3)
    if int((flat.max(axis=0).astype(int) - flat.min(axis=0)).max()) <= _CONSTANT_RANGE:
        return "the picture is one constant colour"
    return None


def to_pixels(picture: Any) -> Pixels:
    """Return a picture as (height, width, 3) ``uint8``.

    ValueError for another shape (an alpha channel counts only while opaque), another type, or
    floats that are not finite and within [0, 1].
    """
    return _to_pixels(_array(picture))


def _array(picture: Any) -> NDArray[Any]:
    if getattr(picture, "mode", "RGB") not in ("RGB", "RGBA", "L"):
        picture = picture.convert("RGB")
    array = np.asarray(picture)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim == 3 and array.shape[2] == 4:
        opaque = 255 if array.dtype == np.uint8 else 1.0
        if not (array[:, :, 3] == opaque).all():
            raise ValueError("a picture with transparent pixels cannot be compared")
        array = array[:, :, :3]
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(f"not a picture: an array of shape {array.shape}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"not a picture: pixels of type {array.dtype}")
    return array


def _to_pixels(array: NDArray[Any]) -> Pixels:
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("a picture of floats must lie within 0 and 1")
    return np.rint(values * 255).astype(np.uint8)


def compare(reference: Any, candidate: Any) -> Comparison:
    """Compare two pictures of one size; the first is the reference.

    PSNR is 10 log10(255^2 / mean squared error) over all channels. For SSIM and FLIP see ``ssim``
    and ``flip``. A picture that is none makes the comparison ``invalid``. ValueError when the sizes
    differ or ``to_pixels`` refuses a picture.
    """
    for name, picture in (("reference", reference), ("candidate", candidate)):
        why = fault(picture)
        if why is not None:
            reason = f"{name}: {why}"
            names = ("max_abs", "psnr_db", "ssim", "flip")
            return Comparison(False, None, None, None, None, reason, dict.fromkeys(names, reason))
    first, second = to_pixels(reference), to_pixels(candidate)
    if first.shape != second.shape:
        raise ValueError(f"pictures differ in size: {_size(first)} against {_size(second)}")
    reasons: dict[str, str] = {}
    difference = first.astype(np.int16) - second
    max_abs = int(np.abs(difference).max())
    psnr = None
    if max_abs == 0:
        reasons["psnr_db"] = "infinite: the pictures are identical"
    else:
        psnr = 10 * math.log10(255**2 / float(np.mean(difference.astype(np.float64) ** 2)))
    structural, why = (1.0, None) if max_abs == 0 else ssim(first, second)
    if why is not None:
        reasons["ssim"] = why
    perceived, why = flip(first, second)
    if why is not None:
        reasons["flip"] = why
    return Comparison(max_abs == 0, max_abs, psnr, structural, perceived, None, reasons)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def ssim(first: Pixels, second: Pixels) -> tuple[float | None, str | None]:
    """Return the mean structural similarity, and why it is None.

    Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13, 2004: Gaussian
    window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, range 255, per channel and averaged,
    over the windows that lie wholly inside. ``uint8`` (height, width, 3) of one shape.
    """
    if min(first.shape[:2]) < 2 * _SSIM_RADIUS + 1:
        return None, "SSIM needs pictures of at least 11 x 11 pixels"
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    means = []
    for channel in range(3):
        a = first[:, :, channel].astype(np.float64)
        b = second[:, :, channel].astype(np.float64)
        mean_a, mean_b = _blur(a), _blur(b)
        variances = _blur(a * a + b * b) - mean_a**2 - mean_b**2
        covariance = _blur(a * b) - mean_a * mean_b
        likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        likeness /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
        means.append(float(likeness.mean()))
    return sum(means) / 3, None


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    taps = np.exp(-0.5 * (np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1) / _SSIM_SIGMA) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        length = plane.shape[axis] - 2 * _SSIM_RADIUS
        pieces = (
            plane[i : i + length] if axis == 0 else plane[:, i : i + length] for i in range(11)
        )
        plane = sum(
            (tap * piece for tap, piece in zip(taps, pieces, strict=True)), start=np.zeros(1)
        )
    return plane


def flip(first: Pixels, second: Pixels) -> tuple[float | None, str | None]:
    """Return NVIDIA's mean LDR-FLIP error, and why it is None.

    Andersson, Nilsson, Akenine-Moeller, Oskarsson, Astroem and Fairchild, Proceedings of the ACM on
    Computer Graphics and Interactive Techniques 3, 2020: what a viewer sees when the two alternate,
    0 to 1, at 67 pixels per degree. Needs the package flip-evaluator.
    """
    try:
        flip_evaluator = importlib.import_module("flip_evaluator")
    except ImportError:
        return None, "the package flip-evaluator is not installed"
    _, mean, _ = flip_evaluator.evaluate(
        first.astype(np.float32) / 255,
        second.astype(np.float32) / 255,
        "LDR",
        applyMagma=False,
        parameters={"ppd": FLIP_PIXELS_PER_DEGREE},
    )
    return float(mean), None


def difference_picture(reference: Any, candidate: Any, amplify: int = AMPLIFY) -> Pixels:
    """Return |reference - candidate| x ``amplify`` as (height, width, 3) ``uint8``, clipped at 255.

    Black where equal. ValueError as ``compare``, and for ``amplify`` below 1.
    """
    if amplify < 1:
        raise ValueError(f"amplify must be at least 1, not {amplify}")
    first, second = to_pixels(reference), to_pixels(candidate)
    if first.shape != second.shape:
        raise ValueError(f"pictures differ in size: {_size(first)} against {_size(second)}")
    difference = np.abs(first.astype(np.int64) - second) * amplify
    clipped: Pixels = np.minimum(difference, 255).astype(np.uint8)
    return clipped


NO_FID = (
    "FID is not offered: bench does not include the Inception network that defines it. For 5,000 "
    "images a side and more, give the run's pictures/ folders to a tool that does."
)


def why_no_fid(images: int) -> str | None:
    """Return why FID must not be computed from this many ``images`` a side; None from 5,000 on.

    FID's bias falls with the sample and depends on the model, so that small samples rank models
    wrongly (Chong and Forsyth, Effectively Unbiased FID, CVPR 2020).
    """
    if images >= FID_MINIMUM:
        return None
    return (
        f"FID is refused under {FID_MINIMUM:,} images (here {images:,}): "
        "its bias would exceed the difference between backends."
    )


def verdict(
    control: Sequence[Comparison],
    candidate: Sequence[Comparison],
    threshold_db: float = THRESHOLD_DB,
) -> FidelityVerdict:
    """Judge a backend's pictures by the worst of them, relative to the control pairs.

    ``control`` compares the baseline with itself in another process, ``candidate`` the backend with
    the baseline; one comparison per picture, the control possibly empty. In this order:

    * INVALID: a picture of either is black, constant or NaN.
    * IDENTICAL: every pixel of every picture.
    * WITHIN NOISE: the worst PSNR is no more than 1 dB below the control's worst.
    * CLOSE: the worst PSNR reaches ``threshold_db``.
    * VISIBLY DIFFERENT: it does not; OTHER PICTURE: it lies below 30 dB too, or below
      ``threshold_db`` - 10 where that is lower.

    ValueError for no candidate or a threshold that is not above 0.
    """
    if len(candidate) == 0:
        raise ValueError("there is no picture to judge")
    if not threshold_db > 0:
        raise ValueError(f"threshold_db must be above 0, not {threshold_db}")
    for pairs, name in ((control, "control"), (candidate, "backend")):
        for i, pair in enumerate(pairs):
            if pair.invalid is not None:
                return FidelityVerdict("INVALID", f"Picture {i} of {name}: {pair.invalid}.", None)
    worst, noise = _worst(candidate), _worst(control)
    count = f"{len(candidate)} picture" + ("s" if len(candidate) > 1 else "")
    if worst is None:
        return FidelityVerdict("IDENTICAL", f"Every pixel of {count} equals the baseline's.", None)
    if len(control) == 0:
        against = "there is no control pair"
    elif noise is None:
        against = "the baseline repeats itself exactly"
    else:
        against = f"the baseline repeats itself to {noise:.1f} dB"
        if worst >= noise - CONTROL_MARGIN_DB:
            return FidelityVerdict(
                "WITHIN NOISE", f"The worst of {count} has {worst:.1f} dB, and {against}.", worst
            )
    relation = "reaches" if worst >= threshold_db else "is below"
    word: Word = "CLOSE" if worst >= threshold_db else "VISIBLY DIFFERENT"
    if worst < min(OTHER_PICTURE_DB, threshold_db - 10):
        word = "OTHER PICTURE"
    return FidelityVerdict(
        word,
        f"The worst of {count} has {worst:.1f} dB, which {relation} the {threshold_db:g} dB "
        f"threshold; {against}.",
        worst,
    )


def _worst(pairs: Sequence[Comparison]) -> float | None:
    return min((pair.psnr_db for pair in pairs if pair.psnr_db is not None), default=None)
