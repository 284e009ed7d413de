"""When measuring ends. Pure: the times come in, the decision goes out."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contract import RepeatRule
from bench.stats.order import median_interval


def noise_pct(times_s: Sequence[float]) -> float | None:
    """Return the half-width of the median's interval in per cent of the median, or None."""
    interval = median_interval(times_s)
    if interval is None:
        return None
    ordered = sorted(times_s)
    half = len(ordered) // 2
    median = (ordered[half] + ordered[-half - 1]) / 2
    return 100 * (interval[1] - interval[0]) / 2 / median if median > 0 else None


def stop_reason(times_s: Sequence[float], elapsed_s: float, rule: RepeatRule) -> str | None:
    """Return why measuring ends after these calls, or None to go on.

    Never before ``min_calls``; then the first that holds of ``noise_target``, ``max_calls`` and
    ``time_cap``. ``elapsed_s`` counts from the start of the first measured call.
    """
    if len(times_s) < rule["min_calls"]:
        return None
    noise = noise_pct(times_s)
    if noise is not None and noise <= rule["noise_target_pct"]:
        return "noise_target"
    if len(times_s) >= rule["max_calls"]:
        return "max_calls"
    if elapsed_s >= rule["time_cap_s"]:
        return "time_cap"
    return None
