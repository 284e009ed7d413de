"""Samples at a period, in a thread of the parent that sleeps in between."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

MAX_SAMPLES = 4001
"""With so many, every other sample is dropped and the period doubled, so that a record stays small.

Odd, so that the newest one is kept and the next comes a whole new period after it."""

WORKER_CLOCK_SLACK_S = 60.0
"""The worker's and the parent's clock agree if the pass began at most so long before the first
sample, and not after it."""

STOP_S = 10.0

_DIGITS = {"t_s": 4, "cpu_pct": 2, "power_w": 3, "energy_counter_j": 3}


class Sampler:
    """One pass of sampling: `start`, `stop`, then `fields`.

    Args:
        source: opened by the sampling thread when it begins, closed when it ends.
        period_s: between samples; a sample that takes longer delays the next and skips none twice.
        columns: what a source may give.
        now: monotonic seconds, the clock that workers report on.
        wait: sleeps for so many seconds, and says whether to stop; None waits for `stop`.
    """

    def __init__(
        self,
        source: Callable[[], AbstractContextManager[Any]],
        period_s: float,
        columns: Sequence[str],
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._source = source
        self._asked_s = period_s
        self._period_s = period_s
        self._columns = columns
        self._now = now
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._thread = threading.Thread(target=self.run, name="telemetry", daemon=True)
        self._times: list[float] = []
        self._rows: list[Mapping[str, Any]] = []
        self._thinned = 0
        self._ended: str | None = None
        self._about: dict[str, Any] = {"source": None, "cpus": None, "foreign": []}
        self._reasons: dict[str, str] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End sampling; a query that hangs is left behind, and said."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            self._ended = f"a query did not return within {STOP_S:g} s"

    def run(self) -> None:
        """Sample until told to stop: what the thread does."""
        try:
            with self._source() as source, self._told_of(source):
                self._loop(source)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; the run goes on
            self._ended = str(error) or type(error).__name__

    @contextmanager
    def _told_of(self, source: Any) -> Iterator[None]:
        try:
            yield
        finally:
            self._about = {
                "source": source.name,
                "cpus": source.cpus,
                "foreign": sorted(source.foreign),
            }
            self._reasons = dict(source.reasons)

    def _loop(self, source: Any) -> None:
        due = self._now()
        while True:
            before = self._now()
            row = source.read()
            self._times.append((before + self._now()) / 2)
            self._rows.append(row)
            if len(self._rows) >= MAX_SAMPLES:
                self._times, self._rows = self._times[::2], self._rows[::2]
                self._period_s *= 2
                self._thinned += 1
            # A sample that took longer than the period is followed by one at once, not by many.
            due = max(due + self._period_s, self._now())
            if self._wait(max(0.0, due - self._now())):
                return

    def fields(
        self, begun_s: float | None, calls: Sequence[Sequence[float]]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the record's ``telemetry``, and reasons for its nulls.

        Args:
            begun_s: when the worker began the pass, on its clock.
            calls: [begin, end, pictures] of each, on the same clock.
        """
        reasons = {f"telemetry.{name}": why for name, why in self._reasons.items()}
        origin = begun_s if begun_s is not None else (self._times[0] if self._times else 0.0)
        told = [[round(a - origin, 4), round(b - origin, 4), int(n)] for a, b, n in calls]
        if self._times and begun_s is not None:
            late = self._times[0] - begun_s
            if not -1.0 <= late <= WORKER_CLOCK_SLACK_S:
                told = []
                reasons["telemetry.calls"] = (
                    "the clocks of the worker and of the sampling process have no common origin"
                )
                origin = self._times[0]
        columns: dict[str, Any] = {
            name: _column(name, [row.get(name) for row in self._rows]) for name in self._columns
        }
        for name, values in columns.items():
            if values is None:
                reasons.setdefault(
                    f"telemetry.{name}", self._ended or "no sample gave a value of it"
                )
        gaps = [b - a for a, b in pairwise(self._times)]
        return {
            "period_s": self._asked_s,
            "achieved_s": round(statistics.median(gaps), 4) if gaps else None,
            **self._about,
            "thinned": self._thinned,
            "ended": self._ended,
            "calls": told,
            "columns": {"t_s": [round(t - origin, 4) for t in self._times], **columns},
        }, reasons


def _column(name: str, values: Sequence[Any]) -> list[Any] | None:
    if all(value is None for value in values):
        return None
    digits = _DIGITS.get(name)
    return [
        round(value, digits) if digits is not None and value is not None else value
        for value in values
    ]
