from __future__ import annotations

import sys
from typing import Any

import pytest

from bench.worker.memory import Meters


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_peak_of_a_phase_forgets_the_phase_before():
    size = 200 * 2**20
    meters = Meters("cpu")
    meters.start()
    block = bytearray(size)
    block[::4096] = b"x" * len(block[::4096])
    (loading,) = meters.read("load")
    del block
    meters.start()
    (steady,) = meters.read("steady")
    assert meters.null_reasons == {}
    assert loading["meter"] == "rss"
    assert loading["phase"] == "load"
    assert loading["bytes"] is not None
    assert steady["bytes"] is not None
    assert loading["bytes"] - steady["bytes"] > size / 2


def test_where_the_peak_cannot_be_reset_it_is_none_with_a_reason(tmp_path):
    status = tmp_path / "status"
    status.write_text("VmHWM:\t 10 kB\n")
    forbidden = tmp_path / "not-a-folder" / "clear_refs"
    for meters in (Meters("cpu", status, forbidden), Meters("cpu", tmp_path / "none", forbidden)):
        meters.start()
        (reading,) = meters.read("load")
        assert reading["bytes"] is None
        assert "peak" in meters.null_reasons["memory.rss"]


def test_a_kernel_without_peaks_is_none_with_a_reason(tmp_path):
    (tmp_path / "status").write_text("Name: x\n")
    meters = Meters("cpu", tmp_path / "status", tmp_path / "clear_refs")
    meters.start()
    assert meters.read("load")[0]["bytes"] is None
    assert "VmHWM" in meters.null_reasons["memory.rss"]


def test_cuda_meters_are_kept_apart_and_peaks_are_reset(monkeypatch):
    import torch

    resets: list[Any] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 130))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", list)
    meters = Meters("cuda:1")
    meters.start()
    found = {(r["meter"], r["scope"]): r["bytes"] for r in meters.read("steady")}
    rss = found.pop(("rss", "host"))
    assert rss is None or rss > 0
    assert found == {
        ("torch.max_memory_allocated", "process"): 5,
        ("torch.max_memory_reserved", "process"): 7,
        ("nvml.process_used", "process"): None,
        ("device_used", "device"): 30,
    }
    assert resets == ["cuda:1"]
    assert "memory.nvml.process_used" in meters.null_reasons


@pytest.mark.parametrize(
    ("pool", "allocated", "counted"),
    [((0, 0), 10, True), ((0, 1), 10, False), ((0, 1), 100, True), (None, 10, True)],
)
def test_what_a_replay_uses_is_not_left_out_of_a_peak(monkeypatch, pool, allocated, counted):
    """The pool of a captured graph is idle to torch's allocator, however much replays need."""
    import torch

    segment = {"segment_pool_id": pool, "total_size": 100, "allocated_size": allocated}
    if pool is None:  # an old torch
        del segment["segment_pool_id"]
    segments: list[Any] = []
    for name, value in (("allocated", 5), ("reserved", 107)):
        monkeypatch.setattr(torch.cuda, f"max_memory_{name}", lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 130))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    meters = Meters("cuda:0")
    meters.start()
    segments.append(segment)  # captured within the phase, whose peak saw all of it
    cold = {r["meter"]: r["bytes"] for r in meters.read("warmup")}
    assert cold["torch.max_memory_allocated"] == 5
    assert "memory.torch.max_memory_allocated" not in meters.null_reasons
    meters.start()
    warm = {r["meter"]: r["bytes"] for r in meters.read("steady")}
    assert warm["torch.max_memory_allocated"] == (5 if counted else None)
    assert warm["torch.max_memory_reserved"] == 107
    assert ("memory.torch.max_memory_allocated" in meters.null_reasons) is not counted


def test_a_backends_own_runtime_has_a_meter_of_its_own():
    class Runtime:
        known = True

        def synchronize(self) -> None:
            raise AssertionError("reading does not wait")

        def memory_used(self) -> tuple[Any, int | None, str | None]:
            if self.known:
                return "oneflow.device_used", 7, None
            return "oneflow.device_used", None, "the driver does not tell"

    meters = Meters("cpu")
    meters.start()
    before = [reading["meter"] for reading in meters.read("load")]
    assert "oneflow.device_used" not in before
    runtime = meters.runtime = Runtime()
    (reading,) = [r for r in meters.read("steady") if r["meter"] not in before]
    assert (reading["meter"], reading["bytes"]) == ("oneflow.device_used", 7)
    assert (reading["scope"], reading["phase"]) == ("device", "steady")
    assert "memory.oneflow.device_used" not in meters.null_reasons
    runtime.known = False
    (reading,) = [r for r in meters.read("steady") if r["meter"] not in before]
    assert reading["bytes"] is None
    assert meters.null_reasons["memory.oneflow.device_used"] == "the driver does not tell"
