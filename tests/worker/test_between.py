"""What is done between calls: which, in what order, and that its time is no part of a call's."""

from __future__ import annotations

import importlib

import pytest

from bench.worker import between
from bench.worker.instrument import Instruments
from tests.worker import fakes


def test_nothing_is_done_unless_asked():
    assert between.action({}, "cpu") is None
    clock = fakes.FakeClock()
    assert Instruments(fakes.FakePipeline(clock), clock).measure({"steps": 1}).between_s is None


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_garbage_goes_before_the_cache_is_emptied(device, monkeypatch):
    pytest.importorskip("torch")
    done: list[str] = []
    home = importlib.import_module(f"torch.{device.partition(':')[0]}")
    monkeypatch.setattr(home, "empty_cache", lambda: done.append("empty-cache"), raising=False)
    act = between.action({"between": "gc+empty-cache"}, device, lambda: done.append("gc"))
    assert act is not None
    act()
    assert done == ["gc", "empty-cache"]


def test_a_cpu_has_no_cache_to_empty():
    outcome, reason = between.refusal({"between": "gc+empty-cache"}, "cpu") or ("", "")
    assert outcome == "unsupported"
    assert "between: gc" in reason
    assert between.refusal({"between": "gc"}, "cpu") is None
    assert between.refusal({"between": "gc+empty-cache"}, "cuda:0") is None


def test_its_time_is_measured_apart():
    clock = fakes.FakeClock()
    instruments = Instruments(fakes.FakePipeline(clock), clock)
    alone = instruments.measure({"steps": 3})
    instruments.between = lambda: clock.pass_(0.5)
    paused = instruments.measure({"steps": 3})
    assert paused.between_s == pytest.approx(0.5)
    assert paused.e2e_s == pytest.approx(alone.e2e_s)
    assert paused.stages == pytest.approx(alone.stages)


def test_a_cell_pauses_after_every_call_and_reports_the_measured_ones(tmp_path, monkeypatch):
    clock = fakes.FakeClock()
    calls: list[int] = []

    def collect() -> None:
        calls.append(1)
        clock.pass_(0.25)

    monkeypatch.setattr(between.action, "__defaults__", (collect,))
    pipeline = fakes.FakePipeline(clock)
    fakes.give(monkeypatch, pipeline)
    told = fakes.run(fakes.make_job(tmp_path, between="gc"), clock)
    assert told["between_s"] == pytest.approx([0.25] * len(told["e2e_s"]))
    assert len(calls) == pipeline.calls == len(told["warmup_s"]) + len(told["e2e_s"])


def test_a_cell_without_it_reports_nothing(tmp_path, monkeypatch):
    clock = fakes.FakeClock()
    fakes.give(monkeypatch, fakes.FakePipeline(clock))
    told = fakes.run(fakes.make_job(tmp_path), clock)
    assert not {"between_s", "memory_modes", "precision"} & set(told)
