"""The parent's part of telemetry: it samples the worker in the phase ``telemetry`` and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from bench.contract import MemoryReading, Telemetry
from bench.telemetry import Sampler, sampler_of


class TelemetryWatch:
    """Samples one worker while it repeats its calls."""

    FIELDS: ClassVar[frozenset[str]] = frozenset({"telemetry"})

    def __init__(
        self, asked: Telemetry, device: str, pid: int, uuids: Callable[[], Sequence[str]]
    ) -> None:
        self._worker = (device, pid, asked["period_s"], uuids)
        self._sampler: Sampler | None = None

    def enter(self, phase: str) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        elif phase == "telemetry":
            self._sampler = sampler_of(*self._worker)
            self._sampler.start()

    def stop(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()

    def complete(self, record: dict[str, Any]) -> None:
        """Put the samples, and when the worker's calls were, in place of the calls alone."""
        calls, begun_s = record.pop("telemetry_calls", ()), record.pop("telemetry_begun_s", None)
        if self._sampler is None:
            return
        record["telemetry"], reasons = self._sampler.fields(begun_s, calls)
        used = record["telemetry"]["columns"]["process_used_bytes"]
        if used is not None:
            peak = max(value for value in used if value is not None)
            reading = MemoryReading(
                meter="nvml.process_used", scope="process", phase="telemetry", bytes=peak
            )
            record["memory"] = [*record.get("memory", ()), reading]
        if reasons:
            own = record.get("null_reasons")
            record["null_reasons"] = {**(own if isinstance(own, dict) else {}), **reasons}


WATCH = TelemetryWatch
