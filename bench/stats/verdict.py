"""One word on a speedup, the sentence that backs it, and what to do when it is not enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.stats.bootstrap import Speedup

Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]

SAME_WITHIN = 0.01
"""Equivalence bound: below 1 % no one chooses one backend over another for its speed."""

SINGLE_PROCESS_MARGIN = 0.05
"""What a claim from one process per arm must clear.

Two single processes differ by more than 1.96 * sqrt(2) = 2.8 process standard deviations in 5 % of
cases, so 5 % covers a spread between processes of 1.8 %, more than a quiet machine shows.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` and ``remedy`` are one sentence each; ``remedy`` is None when none is needed."""

    word: Word
    reason: str
    remedy: str | None


def _times(ratio: float) -> str:
    """Return a ratio such as ``1.020×``, with three digits where decimals would be none or many."""
    if 0.1 <= ratio < 100:
        return f"{ratio:.3f}×"
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.3g}×"


def _percent(ratio: float) -> str:
    """Return how much faster or slower a ratio is, such as '12.5 % faster'."""
    change = 100 * (ratio - 1)
    if abs(change) < 0.05:
        return "equally fast"
    return f"{change:.1f} % faster" if change > 0 else f"{100 * (1 / ratio - 1):.1f} % slower"


def verdict(
    speedup: Speedup,
    *,
    same_within: float = SAME_WITHIN,
    single_process_margin: float = SINGLE_PROCESS_MARGIN,
) -> Verdict:
    """Return FASTER, SLOWER, SAME or UNCLEAR for the candidate of ``speedup``.

    With [low, high] the speedup's interval, tested in this order:

    * SAME: it lies within 1 / (1 + same_within) to 1 + same_within. This is the two one-sided tests
      for equivalence (Schuirmann, 1987), at a stricter level. A difference that is measurable but
      lies within the bounds is SAME, and the reason says so.
    * FASTER: low > 1. SLOWER: high < 1.
    * UNCLEAR: anything else, with the measurement that would settle it.

    One process in an arm hides the spread between processes. FASTER and SLOWER then need the
    interval to clear 1 by ``single_process_margin``, and SAME cannot be said. Without an interval
    the verdict is UNCLEAR. Whether the two arms may be compared at all is the caller's to check.
    ValueError when a bound is not positive.
    """
    if not (same_within > 0 and single_process_margin > 0):
        raise ValueError("same_within and single_process_margin must be above 0")
    low, high = speedup.low, speedup.high
    if low is None or high is None:
        return Verdict(
            "UNCLEAR",
            f"{_times(speedup.ratio)} comes from a single call in an arm, so its noise is unknown.",
            _rounds("3 or more", speedup, " of at least 5 calls") + ".",
        )
    span = f"{100 * speedup.level:g} % interval {_times(low)} to {_times(high)}"
    if not speedup.covers_processes:
        return _from_one_process(speedup, low, high, span, single_process_margin)
    bound = f"{100 * same_within:g} %"
    if low >= 1 / (1 + same_within) and high <= 1 + same_within:
        detail = "" if low <= 1 <= high else ", though a difference is measurable"
        return Verdict("SAME", f"The {span} lies within {bound} of equal{detail}.", None)
    if low > 1:
        return Verdict("FASTER", f"{_sentence(speedup.ratio)}, and the {span} excludes 1.", None)
    if high < 1:
        return Verdict("SLOWER", f"{_sentence(speedup.ratio)}, and the {span} excludes 1.", None)
    few = min(speedup.baseline.processes, speedup.candidate.processes)
    # Student's t is 12.7 with one degree of freedom: the interval speaks of it, not of the backend.
    subject = f"{few} processes tell little: the {span}" if few == 2 else f"The {span}"
    return Verdict(
        "UNCLEAR",
        f"{subject} includes 1 and reaches beyond {bound} of equal.",
        _remedy(speedup, low, high, same_within),
    )


def _sentence(ratio: float) -> str:
    return f"The median is {_percent(ratio)}"


def _from_one_process(
    speedup: Speedup, low: float, high: float, span: str, margin: float
) -> Verdict:
    hidden = "one process in an arm does not show the spread between processes"
    more = _rounds("3 or more", speedup) + "."
    percent = f"{100 * margin:g} %"
    if low > 1 + margin:
        word: Word = "FASTER"
    elif high < 1 / (1 + margin):
        word = "SLOWER"
    else:
        return Verdict("UNCLEAR", f"The {span} is not {percent} clear of 1, and {hidden}.", more)
    return Verdict(
        word,
        f"{_sentence(speedup.ratio)}; the {span} is {percent} clear of 1, though {hidden}.",
        more,
    )


def _rounds(many: str, speedup: Speedup, of: str = "") -> str:
    now = min(speedup.baseline.processes, speedup.candidate.processes)
    return f"{many} rounds (protocol.rounds, now {now}){of} would settle it"


def _remedy(speedup: Speedup, low: float, high: float, same_within: float) -> str:
    arms = (speedup.baseline, speedup.candidate)
    processes = min(arm.processes for arm in arms)
    half = math.log(high / low) / 2
    wanted = max(abs(math.log(speedup.ratio)), math.log1p(same_within))
    # The half-width falls with the square root of the processes, and faster from very few.
    needed = max(processes + 1, math.ceil(processes * (half / wanted) ** 2))
    between = max(arm.between_pct or 0.0 for arm in arms)
    if needed <= 50:
        return (
            _rounds(f"About {needed}", speedup)
            + f" at the present spread of {between:.1f} % between processes."
        )
    if processes == 2:
        # So few do not even tell their own spread, and the third alone cuts Student's t to a third.
        return (
            "5 or more rounds (protocol.rounds, now 2) would tell far more; the spread between "
            f"processes is {between:.1f} % so far."
        )
    return (
        f"The spread between processes is {between:.1f} %: quiet the machine or fix its clocks, "
        "since more rounds alone would not settle it."
    )
