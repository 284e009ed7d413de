"""The worker's part of telemetry: equal calls, and when each began and ended.

The parent samples from outside meanwhile; nothing of that happens in this process. Both read
CLOCK_MONOTONIC (on macOS and Windows, what Python's ``time.monotonic`` stands on there), whose
origin is the same for all processes of a system.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.contract import Telemetry

SETTLE_PERIODS = 2


def run(
    asked: Telemetry,
    call: Callable[[], int],
    report: Any,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Idle, call until both the asked time and number of calls are reached, idle again.

    The parent samples from the phase ``telemetry`` to the phase ``settle``, which lasts long enough
    for it to stop before anything that is timed begins.

    Args:
        call: makes one call, synchronised at both ends; returns how many pictures it made.
    """
    report.enter("telemetry")
    report.set(telemetry_begun_s=now(), telemetry_calls=[])
    try:
        sleep(asked["idle_s"])
        started = now()
        calls = 0
        while calls < asked["min_calls"] or now() - started < asked["time_s"]:
            begin = now()
            images = call()
            report.append(telemetry_calls=[begin, now(), images])
            calls += 1
        sleep(asked["idle_s"])
    finally:
        report.enter("settle")
        sleep(SETTLE_PERIODS * asked["period_s"])
