"""When warm-up ends. Pure: the times come in, the decision goes out."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contract import WarmupRule


def is_stable(times_s: Sequence[float], rule: WarmupRule) -> bool:
    """Say whether the last ``stable_calls`` calls lie within ``stable_pct`` per cent.

    The spread is the slowest over the fastest of them, so that no call is favoured as reference.
    """
    last = times_s[-rule["stable_calls"] :]
    if len(last) < rule["stable_calls"]:
        return False
    return max(last) <= min(last) * (1 + rule["stable_pct"] / 100)


def is_over(times_s: Sequence[float], rule: WarmupRule) -> bool:
    """Say whether warm-up ends after these calls: stable and not below the floor, or at the cap.

    The first call is always made, since it is a figure of its own.
    """
    if not times_s:
        return False
    if len(times_s) >= rule["max_calls"]:
        return True
    return len(times_s) >= rule["min_calls"] and is_stable(times_s, rule)


def unstable_warning(times_s: Sequence[float], rule: WarmupRule) -> str:
    """Say that warm-up reached its cap unstable, why that matters, and the remedy."""
    last = times_s[-rule["stable_calls"] :]
    spread = 100 * (max(last) / min(last) - 1) if min(last) > 0 else float("inf")
    return (
        f"warm-up ended at its cap of {rule['max_calls']} calls: the last {len(last)} differ by "
        f"{spread:.1f} % where {rule['stable_pct']:g} % over {rule['stable_calls']} calls was "
        "asked, so the measured calls may still be warming; raise warmup.max_calls, or make the "
        "machine quieter"
    )
