"""Peaks of memory by meter and phase, reset between phases."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from pathlib import Path
from typing import Any

from bench.contract import MemoryReading, Meter, Phase
from compilers.base import HasRuntime

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc(5): sets VmHWM to the present resident size

PEAKS = ("torch.max_memory_allocated", "torch.max_memory_reserved", "rss")
"""Meters that remember; the others say what is held at the moment of reading."""

GRAPHS_REASON = (
    "CUDA graphs hold memory for their tensors that torch counts as reserved and, once captured, "
    "no more as allocated"
)
DEFAULT_POOL = (0, 0)
"""Where torch takes memory from outside of captures."""

NVML_REASON = "sampled by the parent, and in the telemetry pass alone"


class Meters:
    """The memory meters of one worker.

    ``start`` a phase, do the work, ``read`` it. Readings are peaks within the phase, except
    ``device_used`` and that of a backend's own runtime, which are what the whole device holds when
    the phase ends.

    Attributes:
        runtime: a backend with a meter of its own, from ``prepare`` on.
        null_reasons: "memory.<meter>" -> why that meter's readings are None.
    """

    def __init__(self, device: str, status: Path = STATUS, clear_refs: Path = CLEAR_REFS) -> None:
        self.null_reasons: dict[str, str] = {}
        self.runtime: HasRuntime | None = None
        self._device = device
        self._cuda: Any = None
        self._status = status
        self._clear_refs = clear_refs
        self._earlier: dict[str, int] = {}  # peaks of the laps of this phase, by meter
        self._graphs = False  # whether CUDA graphs held memory when the phase or lap began
        if device.startswith("cuda"):
            import torch

            self._cuda = torch.cuda
            self.null_reasons["memory.nvml.process_used"] = NVML_REASON

    def start(self) -> None:
        self._earlier = {}
        self._forget()

    def lap(self, phase: Phase) -> list[MemoryReading]:
        """Return the peaks since the phase or its last lap began, and begin another lap.

        ``read`` still returns the peaks of the whole phase.
        """
        found = self._read(phase)
        for reading in found:
            meter, value = reading["meter"], reading["bytes"]
            if value is not None and meter in PEAKS:
                self._earlier[meter] = max(value, self._earlier.get(meter, 0))
        self._forget()
        return found

    def _forget(self) -> None:
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats(self._device)
            self._graphs = self._graphs_hold_memory()
            if self._graphs:
                self.null_reasons["memory.torch.max_memory_allocated"] = GRAPHS_REASON
        if "memory.rss" in self.null_reasons:
            return
        if not self._status.exists():
            self.null_reasons["memory.rss"] = (
                f"{sys.platform} gives no peak resident size that can be reset between phases"
            )
            return
        try:
            self._clear_refs.write_text(RESET_PEAK)
        except OSError as error:
            self.null_reasons["memory.rss"] = (
                f"the peak resident size cannot be reset between phases: {error.strerror}"
            )

    def read(self, phase: Phase) -> list[MemoryReading]:
        """Return every meter's reading of the phase that ends now."""
        found = self._read(phase)
        for reading in found:
            if reading["bytes"] is not None:
                reading["bytes"] = max(reading["bytes"], self._earlier.get(reading["meter"], 0))
        return found

    def _read(self, phase: Phase) -> list[MemoryReading]:
        found: list[MemoryReading] = []
        if self._cuda is not None:
            allocated = None if self._graphs else int(self._cuda.max_memory_allocated(self._device))
            reserved = int(self._cuda.max_memory_reserved(self._device))
            free, total = self._cuda.mem_get_info(self._device)
            process, device = "process", "device"
            found = [
                _reading("torch.max_memory_allocated", process, phase, allocated),
                _reading("torch.max_memory_reserved", process, phase, reserved),
                _reading("nvml.process_used", process, phase, None),
                _reading("device_used", device, phase, int(total - free)),
            ]
        if self.runtime is not None:
            meter: Any
            meter, value, why_not = self.runtime.memory_used()
            if value is None:
                self.null_reasons[f"memory.{meter}"] = why_not or "the backend gives no reason"
            found.append(_reading(meter, "device", phase, value))
        found.append(_reading("rss", "host", phase, self._peak_rss()))
        return found

    def _graphs_hold_memory(self) -> bool:
        """Say whether a graph's pool holds memory that is allocated to no tensor."""
        return any(
            tuple(segment.get("segment_pool_id", DEFAULT_POOL)) != DEFAULT_POOL
            and segment["total_size"] > segment["allocated_size"]
            for segment in self._cuda.memory_snapshot()
        )

    def _peak_rss(self) -> int | None:
        if "memory.rss" in self.null_reasons:
            return None
        match = re.search(r"^VmHWM:\s+(\d+) kB", self._status.read_text(), re.MULTILINE)
        if match is None:
            self.null_reasons["memory.rss"] = "this kernel reports no peak resident size (VmHWM)"
            return None
        return int(match.group(1)) * 1024


def _reading(meter: Meter, scope: Any, phase: Phase, value: int | None) -> MemoryReading:
    return {"meter": meter, "scope": scope, "phase": phase, "bytes": value}


def resident_bytes(status: Path = STATUS) -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    try:
        found = re.search(r"^VmRSS:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def give_back(device: str) -> None:
    """Collect garbage and let torch give back what it keeps of a CUDA device's memory."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        with contextlib.suppress(RuntimeError):  # a device that is lost fails the next call
            torch.cuda.empty_cache()
