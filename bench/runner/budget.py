"""Limits of memory that a cell is judged by: resident memory on the host, reserved on a device.

The kernel can limit a process's address space, of which torch's libraries map gigabytes that they
never touch, and not what is resident. So where a cell has a limit on its resident memory, the
parent looks at it every `LOOK_S` and ends a worker that has passed it, before the machine swaps.
What rises and falls between two looks is in the worker's own peaks, which are judged at its end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract import Cell, Limits
from bench.runner.draft import Draft

LOOK_S = 0.02
"""A core fills some 20 MiB of fresh memory in that time; a look takes about 20 microseconds."""

_GIB = 1024**3
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_METERS = {"rss_bytes": "rss", "device_bytes": "torch.max_memory_reserved"}


def blind(cells: Sequence[Cell], proc: Path = Path("/proc")) -> str | None:
    """Say why nothing here could see a limit of these cells passed; None if something can."""
    limited = any("rss_bytes" in cell["limits"] for cell in cells)
    if not limited or (proc / "self/statm").exists():
        return None
    return (
        "limits.rss needs /proc, where Linux tells the resident memory of a process; this system "
        "has none."
    )


def resident_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return the resident memory of a process; None if it is gone."""
    try:
        return int((proc / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def over(limits: Limits, seen_bytes: int | None, draft: Draft) -> str | None:
    """Say which limit was passed and by which meter, or return None.

    Args:
        limits: of the cell.
        seen_bytes: resident memory for which the worker was ended, if it was.
        draft: what the worker had said.
    """
    where = f"during {draft.phase}" if draft.phase else "before its first phase"
    found = _passed(limits, seen_bytes, draft)
    if found is not None:
        meter, limit, used = found
        ended = f", and was ended {where}" if used == seen_bytes else ""
        return (
            f"out of memory: {used / _GIB:.4g} GiB by the meter {meter}, over the limit of "
            f"{limit / _GIB:.4g} GiB{ended}"
        )
    if draft.outcome == "oom" and "device_bytes" in limits:
        return (
            f"out of memory under the limit of {limits['device_bytes'] / _GIB:.4g} GiB by the "
            f"meter {_METERS['device_bytes']}: {draft.reason}"
        )
    return None


def fields(limits: Limits, seen_bytes: int | None, draft: Draft) -> dict[str, Any]:
    """Return the record's field on the limit that the cell was judged by; none without one."""
    asked = [key for key in _METERS if key in limits]
    if not asked:
        return {}
    found = _passed(limits, seen_bytes, draft)
    bounds: Mapping[str, Any] = limits
    meter, limit, used = found or (_METERS[asked[-1]], bounds[asked[-1]], None)
    return {"memory_limit": {"meter": meter, "limit_bytes": limit, "over_bytes": used}}


def _passed(limits: Limits, seen_bytes: int | None, draft: Draft) -> tuple[str, int, int] | None:
    """Return (meter, limit, the largest value above it), in bytes."""
    readings = draft.fields.get("memory")
    bounds: Mapping[str, Any] = limits
    for key, meter in _METERS.items():
        if key not in limits:
            continue
        values = [
            reading["bytes"]
            for reading in (readings if isinstance(readings, list) else [])
            if isinstance(reading, dict)
            and reading.get("meter") == meter
            and isinstance(reading.get("bytes"), int)
        ]
        if key == "rss_bytes" and seen_bytes is not None:
            values = [seen_bytes]
        if values and max(values) > bounds[key]:
            return meter, bounds[key], max(values)
    return None
