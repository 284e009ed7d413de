"""Equal calls, and when each began and ended, while the parent samples this process from outside.

Nothing of the sampling happens in this process. Both read CLOCK_MONOTONIC (on macOS and Windows,
what Python's ``time.monotonic`` stands on there), whose origin is the same for all processes of a
system.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.contract import Telemetry
from bench.passes.base import Context, Pass

SETTLE_PERIODS = 2


class TelemetryPass(Pass):
    """Repeats calls while the parent samples; see `bench.passes.telemetry.watch`."""

    phases = {
        "telemetry": "repeating calls for telemetry",
        "settle": "ending telemetry",
    }
    counted = frozenset({"telemetry_calls"})
    missing = "there was no telemetry"

    def run(self, context: Context) -> None:
        run(context.asked, lambda: len(context.images()), context.report)


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
        call: makes one call, synchronised at both ends; returns how many images it made.
    """
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


PASS = TelemetryPass()
