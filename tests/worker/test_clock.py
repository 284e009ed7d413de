from __future__ import annotations

import pytest

from bench.worker import clock as clocks


def test_a_cpu_reads_the_monotonic_clock_with_both_hands():
    clock = clocks.for_device("cpu")
    first, mark, last = clock.now(), clock.mark(), clock.now()
    assert first <= clock.seconds([mark])[0] <= last
    assert not clock.device_events
    assert "CPU" in (clock.no_events_reason or "")


class FakeEvent:
    made = 0
    time_ms = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        FakeEvent.made += 1
        self.at_ms = -1.0

    def record(self) -> None:
        FakeEvent.time_ms += 10.0
        self.at_ms = FakeEvent.time_ms

    def elapsed_time(self, later: FakeEvent) -> float:
        return later.at_ms - self.at_ms


def test_cuda_marks_are_events_in_seconds_and_are_used_again(monkeypatch):
    import torch

    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append(str(device)))
    clock = clocks.CudaClock("cuda:1")
    for _ in range(3):
        marks = [clock.mark() for _ in range(4)]
        assert not waits, "a mark must not wait"
        assert clock.seconds(marks) == pytest.approx([0.0, 0.010, 0.020, 0.030])
    assert FakeEvent.made == 4
    clock.synchronize()
    assert waits == ["cuda:1"]
    assert clock.seconds([]) == []


def test_a_second_runtime_is_waited_for_before_torch_and_marks_stay_torchs():
    waits: list[str] = []

    class Torch(clocks.HostClock):
        def synchronize(self) -> None:
            waits.append("torch")

    torch_clock = Torch()
    both = clocks.BothRuntimes(torch_clock, lambda: waits.append("second"))
    both.synchronize()
    assert waits == ["second", "torch"]
    marks = [both.mark(), both.mark()]
    assert both.seconds(marks) == torch_clock.seconds(marks)
    assert waits == ["second", "torch"], "a mark must not wait"
    assert both.device_events == torch_clock.device_events
    assert both.no_events_reason == torch_clock.no_events_reason
