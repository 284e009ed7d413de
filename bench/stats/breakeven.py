"""After how many images a backend's dearer first call has paid for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.stats.bootstrap import (
    LEVEL,
    REPLICATES,
    Arm,
    Resampled,
    Speedup,
    centre,
    checked_arm,
    factor,
    resample,
    speedup,
)
from bench.stats.special import checked

Kind = Literal["after", "immediately", "never"]


@dataclass(frozen=True, slots=True)
class Breakeven:
    """When a backend overtakes the baseline, counted from each one's first call.

    ``images`` is 0 for ``immediately`` and None for ``never``; ``minutes`` is what the baseline
    takes for that many images. ``low_images`` and ``high_images`` bound ``images`` at ``level``;
    ``high_images`` is None when the interval is open above, both are None without repeats.
    ``extra_s`` is the dearer first call and ``saving_s`` the saving per call, both in seconds, with
    [saving_low_s, saving_high_s] its interval (None without repeats). ``reason`` is one sentence.
    """

    kind: Kind
    images: int | None
    low_images: int | None
    high_images: int | None
    minutes: float | None
    extra_s: float
    saving_s: float
    saving_low_s: float | None
    saving_high_s: float | None
    level: float
    reason: str


def breakeven_images(extra_s: float, saving_s: float, images_per_call: int = 1) -> int | None:
    """Return extra / saving in images, rounded up to whole calls; None when nothing is saved.

    Rounded up because the backend is ahead only once a call is complete: 810.534 s / 0.542 s =
    1,495.5 is 1,496. 0 when the first call is no dearer. The images that the two first calls
    themselves made are not counted. A call makes ``images_per_call`` images (the batch size).
    """
    if saving_s <= 0:
        return None
    if extra_s <= 0:
        return 0
    calls = extra_s / saving_s
    # A quotient such as 3.0000000000000004 is three calls with a rounding error, not four.
    whole = round(calls) if math.isclose(calls, round(calls), rel_tol=1e-12) else math.ceil(calls)
    return whole * images_per_call


def breakeven(
    baseline_first_s: Sequence[float],
    candidate_first_s: Sequence[float],
    baseline: Arm,
    candidate: Arm,
    *,
    images_per_call: int = 1,
    compared: Speedup | None = None,
    level: float = LEVEL,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Breakeven:
    """Return when the candidate has overtaken the baseline.

    breakeven_images = (first call of the candidate - first call of the baseline) / (baseline e2e -
    candidate e2e), each the median over what was measured, in seconds. ``baseline_first_s`` and
    ``candidate_first_s`` hold one first call (or total warm-up, as long as both do) per process, in
    the order of the arms' processes. ``compared`` is the arms' ``speedup`` at the same level, where
    it is known already.

    ``never`` when the saving's interval reaches 0, so a backend that is not clearly faster never
    pays; without repeats, when the saving itself is not above 0. The saving's interval is that of
    ``speedup``, so the two cannot contradict each other. The interval of the images comes from
    replicates that draw a process with its first call and its calls together, their deviations
    widened to the same t quantile (the expanded percentile interval of Hesterberg 2015).

    ValueError as ``checked_arm``; when the first calls are not one per process; for
    ``images_per_call`` below 1; when ``compared`` is of another level.
    """
    if images_per_call < 1:
        raise ValueError(f"images_per_call must be at least 1, not {images_per_call}")
    first_b = _first_calls(baseline_first_s, baseline, "baseline")
    first_c = _first_calls(candidate_first_s, candidate, "candidate")
    if compared is None:
        compared = speedup(baseline, candidate, level=level)
    elif compared.level != level:
        raise ValueError(f"compared at {compared.level:g}, not at {level:g}")
    e2e_b, e2e_c = compared.baseline.median_s, compared.candidate.median_s
    extra = float(np.median(first_c) - np.median(first_b))
    saving = e2e_b - e2e_c
    saving_low = saving_high = None
    if compared.low is not None and compared.high is not None:
        saving_low = min(e2e_b * (1 - 1 / compared.low), saving)
        saving_high = max(e2e_b * (1 - 1 / compared.high), saving)

    def result(
        kind: Kind, images: int | None, bounds: tuple[int | None, int | None], why: str
    ) -> Breakeven:
        minutes = None if images is None else images / images_per_call * e2e_b / 60
        return Breakeven(
            kind=kind,
            images=images,
            low_images=bounds[0],
            high_images=bounds[1],
            minutes=minutes,
            extra_s=extra,
            saving_s=saving,
            saving_low_s=saving_low,
            saving_high_s=saving_high,
            level=level,
            reason=why,
        )

    images = breakeven_images(extra, saving, images_per_call)
    if images is None:
        return result("never", None, (None, None), f"A call saves nothing ({saving:+.3g} s).")
    if saving_low is not None and saving_low <= 0:
        why = f"The saving's interval, {saving_low:+.3g} s to {saving_high:+.3g} s, reaches 0."
        return result("never", None, (None, None), why)
    bounds: tuple[int | None, int | None] = (None, None)
    if saving_low is None:
        caveat = "; nothing was repeated, so there is no interval"
    else:
        caveat = "" if compared.covers_processes else "; the spread between processes is not known"
        ratios = _replicates(
            first_b, first_c, baseline, candidate, (e2e_b, e2e_c), level, seed, replicates
        )
        bounds = _bounds(ratios, images, images_per_call, level)
    if images == 0:
        why = f"The first call is no dearer ({extra:+.3g} s) and each call saves {saving:.3g} s"
        return result("immediately", 0, bounds, f"{why}{caveat}.")
    why = f"The first call costs {extra:.4g} s more and each call saves {saving:.3g} s"
    return result("after", images, bounds, f"{why}{caveat}.")


def _first_calls(values: Sequence[float], arm: Arm, name: str) -> NDArray[np.float64]:
    first = checked(values, f"first calls of {name}", positive=True)
    if len(first) != len(arm):
        raise ValueError(f"{name} has {len(arm)} processes but {len(first)} first calls")
    return first


def _replicates(
    first_b: NDArray[np.float64],
    first_c: NDArray[np.float64],
    baseline: Arm,
    candidate: Arm,
    medians: tuple[float, float],
    level: float,
    seed: int,
    replicates: int,
) -> NDArray[np.float64]:
    """Return replicates of extra / saving in calls; infinite where nothing is saved."""
    # The replicates meet in one formula, so the arms need separate random numbers.
    arm_b, arm_c = checked_arm(baseline, "baseline"), checked_arm(candidate, "candidate")
    drawn_b, drawn_c = (
        resample(arm_b, replicates, 2 * seed),
        resample(arm_c, replicates, 2 * seed + 1),
    )
    reach = factor(centre(arm_b), centre(arm_c), level)
    widening = reach / NormalDist().inv_cdf((1 + level) / 2)
    saving = medians[0] * np.exp(widening * drawn_b.deviations) - medians[1] * np.exp(
        widening * drawn_c.deviations
    )
    extra = _first_replicates(first_c, drawn_c, widening) - _first_replicates(
        first_b, drawn_b, widening
    )
    pays = saving > 0
    ratios = np.where(extra > 0, np.inf, 0.0)
    np.divide(extra, saving, out=ratios, where=pays)
    return np.maximum(ratios, 0.0)


def _first_replicates(
    first: NDArray[np.float64], drawn: Resampled, widening: float
) -> NDArray[np.float64]:
    k = len(first)
    logs = np.log(first[list(drawn.order)])
    unbiased = math.sqrt(k / (k - 1)) if k > 1 else 0.0
    deviations = (logs - logs.mean())[drawn.picks].mean(axis=1) * unbiased
    replicates: NDArray[np.float64] = np.median(first) * np.exp(widening * deviations)
    return replicates


def _bounds(
    ratios: NDArray[np.float64], images: int, images_per_call: int, level: float
) -> tuple[int, int | None]:
    tail = (1 - level) / 2
    # "nearest" never averages a number with infinity.
    low, high = np.quantile(ratios, [tail, 1 - tail], method="nearest")
    lowest = min(math.floor(low) * images_per_call, images)
    if math.isinf(high):
        return lowest, None
    return lowest, max(math.ceil(high) * images_per_call, images)
