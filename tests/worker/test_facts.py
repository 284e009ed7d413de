"""What `bench doctor` asks of torch is asked in an order in which CUDA can answer."""

from __future__ import annotations

from typing import Any

import torch

from bench.worker import facts


def test_cuda_is_started_before_its_peaks_are_reset(monkeypatch):
    started = []

    def name(_device: str) -> str:
        started.append("by a look at its properties")
        return "A GPU"

    def reset(_device: str) -> None:
        if not started:
            raise RuntimeError("Invalid device argument 0: did you call init?")

    stand_ins: dict[str, Any] = {
        "get_device_name": name,
        "is_bf16_supported": lambda: True,
        "reset_peak_memory_stats": reset,
        "memory_snapshot": list,
        "max_memory_allocated": lambda _device: 1,
        "max_memory_reserved": lambda _device: 2,
        "mem_get_info": lambda _device: (3, 4),
    }
    for function, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, function, stand_in)
    monkeypatch.setattr(facts.registry, "names", list)
    about = facts.collect(["cuda:0"])["devices"]["cuda:0"]
    assert "error" not in about
    assert about["name"] == "A GPU"
    assert about["meters"]["torch.max_memory_allocated"] is None
