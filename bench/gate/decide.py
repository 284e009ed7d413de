"""When a figure has become worse: the rule of the gate, as pure functions of samples.

A figure is a regression when the whole 95 % interval of its change lies beyond what is allowed
*and* a confirmation agrees. Measuring everything twice would double the price of every green run,
so the first run only screens: at a lower level, wide enough to let nearly every true regression
through, it says which cells are worth a second run. The decision is then taken on all processes of
both runs, and the second run alone must lie beyond the allowed effect as well. A run that is lucky
or unlucky once therefore neither fails nor saves anything by itself.

Levels and the number of processes were chosen by simulation; ``tests/gate/test_known_answers.py``
repeats it, and docs/ci.md says what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.stats.bootstrap import Arm, speedup
from bench.text import signed_percent

SCREEN_LEVEL = 0.50
DECISION_LEVEL = 0.95
BLIND = 5.0
"""An interval whose half-width exceeds this many times what is allowed shows nothing either way."""

IMPLAUSIBLE_PCT = 30.0
"""An improvement wholly beyond this is more often work left out than work done faster."""

Status = Literal["regression", "passed", "improved", "implausible", "unclear"]


@dataclass(frozen=True, slots=True)
class Change:
    """By how many per cent a figure has grown; above 0 is worse for every figure that is gated.

    ``low_pct`` and ``high_pct`` bound it at the level asked for; None when an arm has a single
    sample in all. ``covers_processes`` is False when an arm has a single process.
    """

    pct: float
    low_pct: float | None
    high_pct: float | None
    covers_processes: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What the samples show.

    Attributes:
        status: ``improved`` if the whole interval is below 0, ``implausible`` if it lies wholly
            beyond the bound for improvements, ``unclear`` for one process an arm, or processes so
            unlike that the interval is wider than `BLIND` limits.
        change: of all samples, at the decision level.
        suspect: the first run alone is reason enough for a confirmation.
        reason: one sentence.
    """

    status: Status
    change: Change
    suspect: bool
    reason: str


def change(baseline: Arm, candidate: Arm, level: float = DECISION_LEVEL) -> Change:
    """Return the growth of the candidate's median over the baseline's, in per cent.

    Arms as in `bench.stats.bootstrap`: processes, each with its samples, in seconds or bytes.
    ValueError as there.
    """
    ratio = speedup(baseline, candidate, level=level)
    return Change(
        pct=100 * (1 / ratio.ratio - 1),
        low_pct=None if ratio.high is None else 100 * (1 / ratio.high - 1),
        high_pct=None if ratio.low is None else 100 * (1 / ratio.low - 1),
        covers_processes=ratio.covers_processes,
    )


def decide(
    baseline: Arm,
    candidate: Arm,
    allowed_pct: float,
    *,
    confirmation: tuple[Arm, Arm] | None = None,
    implausible_pct: float = IMPLAUSIBLE_PCT,
) -> Decision:
    """Return whether the candidate's figure has grown by more than ``allowed_pct``.

    Args:
        baseline: processes of the baseline, each with its samples.
        candidate: processes of the candidate.
        allowed_pct: growth that is accepted, in per cent, at least 0.
        confirmation: the second run's arms. Its baseline has no process when only the candidate
            was measured again; then it is compared with the first run's.
        implausible_pct: bound for improvements, in per cent.

    ValueError as `bench.stats.bootstrap.speedup`, and for a negative ``allowed_pct``.
    """
    if allowed_pct < 0:
        raise ValueError(f"allowed_pct must be at least 0, not {allowed_pct}")
    first = change(baseline, candidate)
    # An interval holds its estimate: most unchanged figures need no second look.
    screened = change(baseline, candidate, SCREEN_LEVEL) if first.pct > allowed_pct else first
    suspect = screened.covers_processes and (screened.low_pct or 0.0) > allowed_pct
    if confirmation is None:
        status, reason = _judged(first, allowed_pct, implausible_pct)
        return Decision(status, first, suspect, reason)
    again_baseline, again = confirmation
    second = change(again_baseline or baseline, again)
    pooled = change([*baseline, *again_baseline], [*candidate, *again])
    if suspect and second.pct <= allowed_pct:
        # The two runs contradict each other, so both together are too wide to tell anything.
        status, reason = _judged(second, allowed_pct, implausible_pct)
        if status not in ("passed", "improved"):
            return Decision(status, second, suspect, reason)
        reason = (
            f"{signed_percent(first.pct)} at first, {signed_percent(second.pct)} in the "
            "confirmation run: not confirmed."
        )
        return Decision("passed", pooled, suspect, reason)
    status, reason = _judged(pooled, allowed_pct, implausible_pct)
    if status == "regression":
        reason += f" The confirmation run agrees: {signed_percent(second.pct)}."
    return Decision(status, pooled, suspect, reason)


def _judged(grown: Change, allowed_pct: float, implausible_pct: float) -> tuple[Status, str]:
    """Return a change's status and the reason for it."""
    low, high = grown.low_pct, grown.high_pct
    if not grown.covers_processes or low is None or high is None:
        return "unclear", (
            "an arm has a single process, which says nothing of the spread between processes; "
            "measure at least 3 rounds."
        )
    interval = f"{signed_percent(grown.pct)} [{signed_percent(low)}, {signed_percent(high)}]"
    if low > allowed_pct:
        return "regression", (
            f"{interval}: the whole interval is beyond the allowed +{allowed_pct:g} %."
        )
    if high < -implausible_pct:
        return "implausible", (
            f"{interval}: an improvement of more than {implausible_pct:g} % is more often work "
            "left out than work done faster; look at counts and images, then acknowledge it."
        )
    if (high - low) / 2 > BLIND * max(allowed_pct, 1.0):
        return (
            "unclear",
            f"{interval}: too wide to tell; measure more rounds, or quiet the machine.",
        )
    if high < 0:
        return "improved", f"{interval}."
    rest = (
        "" if high <= allowed_pct else f", although up to {signed_percent(high)} is not ruled out"
    )
    return "passed", f"{interval}: no regression is shown{rest}."
