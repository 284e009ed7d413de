"""A CUDA device is limited by a share of it, and nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker.cell import Report, _Cell


def limited(device: str, allowed: int | None) -> tuple[list[Any], list[str]]:
    """Set the limit of a cell on a device of 100 bytes; return torch's calls and the warnings."""
    calls: list[Any] = []
    cuda = SimpleNamespace(
        mem_get_info=lambda _: (40, 100),
        set_per_process_memory_fraction=lambda share, where: calls.append((share, where)),
    )
    events: list[dict[str, Any]] = []
    limits: dict[str, Any] = {"timeout_s": 1.0, "memory_bytes": None}
    if allowed is not None:
        limits["device_bytes"] = allowed
    job: Any = {
        "cell": {"workload": {}, "limits": limits},
        "device": device,
    }
    _Cell(job, Report(events.append), None).set_memory_limit(SimpleNamespace(cuda=cuda))
    return calls, [each["fields"]["warnings"] for each in events]


@pytest.mark.parametrize(("allowed", "share"), [(25, 0.25), (100, 1.0), (300, 1.0)])
def test_torch_may_reserve_the_share_that_the_limit_is(allowed, share):
    assert limited("cuda:1", allowed) == ([(share, "cuda:1")], [])


def test_without_a_limit_nothing_is_set():
    assert limited("cuda:0", None) == ([], [])


def test_elsewhere_it_is_said_that_it_means_nothing():
    calls, warnings = limited("cpu", 25)
    assert calls == []
    assert warnings == ["limits.device_memory limits CUDA devices, and this is cpu"]
