"""The clocks of a measured call, behind one interface so that tests can drive time.

A clock has two hands. ``now`` reads the host's monotonic clock. ``mark`` notes a point on the
device's own timeline without waiting for it; marks are read all at once, after one ``synchronize``
at the end of a call. On a CPU both hands are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Clock(Protocol):
    """What measuring needs of time.

    Attributes:
        device_events: whether marks lie on a device's own timeline.
        no_events_reason: why they don't, else None.
    """

    device_events: bool
    no_events_reason: str | None

    def now(self) -> float: ...

    def synchronize(self) -> None: ...

    def mark(self) -> Any: ...

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """Return the marks in seconds, with a common origin. Call after ``synchronize``.

        The marks are spent: the clock may use them again.
        """
        ...


class HostClock:
    """The monotonic clock, where computation is done when a call returns."""

    device_events = False

    def __init__(self, no_events_reason: str = "a CPU has no device events") -> None:
        self.no_events_reason: str | None = no_events_reason
        self.now = time.perf_counter
        self.mark = time.perf_counter

    def synchronize(self) -> None:
        pass

    def seconds(self, marks: Sequence[float]) -> list[float]:
        return list(marks)


class _EventClock:
    """Events on a device's own timeline; a subclass makes them and waits for the device."""

    device_events = True
    no_events_reason: str | None = None

    def __init__(self, make_event: Any) -> None:
        self.now = time.perf_counter
        self._make_event = make_event
        self._free: list[Any] = []

    def mark(self) -> Any:
        event = self._free.pop() if self._free else self._make_event(enable_timing=True)
        event.record()
        return event

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        return [0.0, *(marks[0].elapsed_time(mark) / 1000 for mark in marks[1:])] if marks else []


class CudaClock(_EventClock):
    """CUDA events on the current stream of the current device; they resolve half a microsecond.

    Events are kept and used again, so that a measured call creates none after the first one.
    """

    def __init__(self, device: str) -> None:
        import torch

        super().__init__(lambda **timing: torch.cuda.Event(**timing))
        self._device = torch.device(device)
        self._cuda: Any = torch.cuda

    def synchronize(self) -> None:
        self._cuda.synchronize(self._device)

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        found = super().seconds(marks)
        self._free.extend(marks)
        return found


class MpsClock(_EventClock):
    """Metal events."""

    def __init__(self) -> None:
        import torch.mps

        super().__init__(torch.mps.event.Event)
        self._mps: Any = torch.mps

    def synchronize(self) -> None:
        self._mps.synchronize()


class MpsHostClock(HostClock):
    """Metal under a torch without Metal events: host time, and waiting at the borders of a call."""

    def __init__(self) -> None:
        super().__init__("this torch has no Metal events (2.1 or newer has)")

    def synchronize(self) -> None:
        import torch.mps

        torch.mps.synchronize()


class BothRuntimes:
    """A clock that also waits for a second runtime on the same device.

    Marks stay torch's: on torch's default stream, such a runtime's work lies in order between them.
    """

    def __init__(self, clock: Clock, wait: Callable[[], None]) -> None:
        self.device_events = clock.device_events
        self.no_events_reason = clock.no_events_reason
        self.now = clock.now
        self.mark = clock.mark
        self.seconds = clock.seconds
        self._clock = clock
        self._wait = wait

    def synchronize(self) -> None:
        self._wait()
        self._clock.synchronize()


def for_device(device: str) -> Clock:
    """Return the clock for ``cpu``, ``cuda:N`` or ``mps``."""
    kind = device.split(":")[0]
    if kind == "cuda":
        return CudaClock(device)
    if kind == "mps":
        import torch.mps

        return MpsClock() if hasattr(torch.mps, "event") else MpsHostClock()
    return HostClock()
