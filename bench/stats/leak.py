"""Memory after each of many equal calls → does it grow, by how much a call, and how sure is that.

A leak adds about the same with every call. Allocators do other things: they grow in the first calls
and then stop, they take a block at once and keep it, and they give back late. What tells a leak
from those is how the growth is spread over the calls. So the interval comes from the differences
between one reading and the next, and a few that stand far out are set aside as steps. Where more
steps remain than were set aside, each is one large difference among small ones, which widens the
interval by as much as it moves the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.stats.special import checked, student_t_quantile

LEVEL = 0.95
MIN_CALLS = 10
SETTLE_SHARE = 0.2
MIN_SETTLE = 2
BLOCKS = 20
MOST_STEPS = 3
FAR_OUT = 6.0
"""A difference is a step if it lies this many robust standard deviations from the median."""

SLOWING = 0.5
"""A growth whose second half is below this share of its first half is not taken for a leak."""

GIVEN_BACK = (0.5, 2.0)
"""Steps down that take so much of the growth, from the first share to the second, gave it back.

More than that was held before these calls, and its release says nothing of them."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Leak:
    """How memory went on after the first calls.

    Attributes:
        verdict: ``leak``, ``none``, or ``unclear`` with a reason.
        bytes_per_call: mean growth from one call to the next, steps set aside; None with too few
            calls.
        low, high: interval of it at ``level``.
        first: number of the first call that counts, from 0; those before it are settling.
        start_bytes: where the line of that growth stands at call ``first``.
        calls: how many calls count.
        steps_bytes: what was set aside, in the order of the calls.
        reason: a sentence without a full stop, if the verdict is ``unclear``.
    """

    verdict: Literal["leak", "none", "unclear"]
    bytes_per_call: float | None
    low: float | None
    high: float | None
    first: int
    start_bytes: float | None
    calls: int
    steps_bytes: tuple[float, ...] = ()
    level: float = LEVEL
    reason: str | None = None


def find_leak(memory_bytes: Sequence[float], level: float = LEVEL) -> Leak:
    """Judge the memory that a process holds after each of its calls, in bytes, in their order.

    The first fifth of the calls (two at least) settles and is left out. Of the differences between
    neighbours, up to `MOST_STEPS` that lie `FAR_OUT` robust standard deviations (1.4826 times the
    median absolute deviation) from their median are set aside. Longer series are then averaged in
    `BLOCKS` blocks of calls, and the same is done to the blocks. The growth per call is the mean of
    what is left; its interval is Student's t of those differences. With k equal steps left among n
    differences, that t is √k / √(1 − k/n), about 1 for a single one.

    Of a short series no more than a third of the differences are set aside.

    ``unclear`` is memory that grows in steps alone, more than chance has them, memory that grows
    and is given back in steps (`GIVEN_BACK`), and memory that grows less and less: the second half
    of the calls added less than `SLOWING` of the first.

    Raises:
        ValueError: a reading is no finite number, or ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    values = checked(memory_bytes, "memory_bytes")
    if len(values) < MIN_CALLS:
        few = f"{len(values)} calls are too few to tell a leak from settling; {MIN_CALLS} are not"
        return Leak("unclear", None, None, None, 0, None, len(values), (), level, few)
    first = max(MIN_SETTLE, math.ceil(SETTLE_SHARE * len(values)))
    kept = values[first:]
    steps, smooth = _without_steps(kept)
    blocks, each = _blocks(smooth)
    told = steps
    if each > 1:
        told, blocks = _without_steps(blocks)
        steps = [*steps, *told]
    growth, low, high = _growth(np.diff(blocks) / each, level, len(told))
    found = Leak(
        "none",
        growth,
        low,
        high,
        first,
        float(np.median(kept - growth * np.arange(len(kept)))),
        len(kept),
        tuple(steps),
        level,
    )
    if low > 0:
        back = -sum(step for step in found.steps_bytes if step < 0) / (growth * (len(kept) - 1))
        if GIVEN_BACK[0] <= back <= GIVEN_BACK[1]:
            undone = f"memory grew, and steps down gave {back:.0%} of it back; measure more calls"
            return replace(found, verdict="unclear", reason=undone)
        if _slows(smooth):
            slower = "memory grew less and less, as it does while it settles; measure more calls"
            return replace(found, verdict="unclear", reason=slower)
        return replace(found, verdict="leak")
    if _growth(np.diff(kept), level)[1] > 0:
        steppy = f"memory grew in steps, {len(found.steps_bytes)} of them large; measure more calls"
        return replace(found, verdict="unclear", reason=steppy)
    return found


def _growth(differences: _Floats, level: float, replaced: int = 0) -> tuple[float, float, float]:
    """Return the mean and its interval; ``replaced`` of the differences tell nothing."""
    mean = float(differences.mean())
    told = len(differences) - replaced
    error = math.sqrt(float(((differences - mean) ** 2).sum()) / (told - 1) / told)
    half = student_t_quantile(1 - level, told - 1) * error
    return mean, mean - half, mean + half


def _without_steps(series: _Floats) -> tuple[list[float], _Floats]:
    """Return the steps of a series, and the series with its usual difference in their place."""
    differences = np.diff(series)
    usual = float(np.median(differences))
    away = np.abs(differences - usual)
    limit = FAR_OUT * 1.4826 * float(np.median(away))
    most = min(MOST_STEPS, len(differences) // 3)
    far = [int(at) for at in np.argsort(-away, kind="stable")[:most] if away[at] > limit]
    steps = [float(differences[at] - usual) for at in sorted(far)]
    differences[far] = usual
    return steps, np.concatenate([series[:1], series[0] + np.cumsum(differences)])


def _blocks(kept: _Floats) -> tuple[_Floats, int]:
    """Return the means of equal blocks of calls, the last calls whole, and the calls of a block."""
    each = max(1, len(kept) // BLOCKS)
    whole = kept[len(kept) % each :]
    return whole.reshape(-1, each).mean(axis=1), each


def _slows(kept: _Floats) -> bool:
    """Say whether the second half of the calls added clearly less than the first one."""
    few = max(1, len(kept) // 5)
    middle = (len(kept) - few) // 2
    start, centre, end = (
        float(np.median(kept[at : at + few])) for at in (0, middle, len(kept) - few)
    )
    return end - centre < SLOWING * (centre - start)
