"""Whether other work was likely beside a cell, by the load average as its measuring began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

MARGIN = 1.0
"""Above the worker's own threads: the parent, the launcher and the system itself take less."""


def load_average(
    record: Mapping[str, Any], when: Literal["start", "end"] = "start"
) -> float | None:
    """Return the 1-minute load average as measuring began or ended, None if there is none."""
    found = record.get("load_average_1m")
    value = found.get(when) if isinstance(found, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def reason(record: Mapping[str, Any]) -> str | None:
    """Return one sentence if the load average exceeds the worker's threads by more than `MARGIN`.

    None if it does not, or is not known. A worker that has just compiled may have raised it itself:
    compilers use processes of their own, and the average remembers a minute.
    """
    start = load_average(record)
    threads = (record.get("cell") or {}).get("threads")
    if start is None or not isinstance(threads, int) or start <= threads + MARGIN:
        return None
    evidence = (record.get("backend") or {}).get("evidence") or {}
    own = "" if not evidence.get("graphs") else ", if it was not this cell's own compiling"
    return (
        f"Other work was likely on this machine: its load average was {start:.1f} when measuring "
        f"began, and this cell uses {threads} thread{'' if threads == 1 else 's'}{own}."
    )
