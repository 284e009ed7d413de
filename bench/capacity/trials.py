"""Trials: what a record says about whether something fits, how much it took and how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import chains, comparable
from bench.capacity.search import Answer

FITTED = ("ok", "fallback", "invalid")
"""Outcomes of cells that went through all phases; what they drew does not matter here."""
RESERVED, RSS = "torch.max_memory_reserved", "rss"
"""Meters of what has to fit: all that torch holds of a device, and all that a process holds of the
host. What torch has allocated is less than what a card must have."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One record of one cell.

    ``peak_bytes`` is the largest value of ``meter`` in any phase, None if it did not reach the end.
    ``beside_bytes`` is what the device held besides, as a context does; None where unknown.
    ``images`` are those of one call: in a chain all of its rounds', elsewhere the batch.
    """

    subject: str
    name: str
    batch: int
    images: int
    height: int
    width: int
    outcome: str
    reason: str | None
    meter: str
    peak_bytes: int | None
    beside_bytes: int | None
    limit_bytes: int | None
    e2e_s: tuple[float, ...]
    record_id: str
    asked: tuple[int, int] | None = None
    output: tuple[int, int] | None = None
    dominated_by: str | None = None

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.height * self.width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def answer(self) -> Answer:
        """Whether it fits: a failure of another kind says nothing of that."""
        if self.outcome in FITTED:
            return "fits"
        dominated = self.outcome == "skipped" and self.dominated_by is not None
        return "oom" if self.outcome == "oom" or dominated else "unknown"


def of_record(record: Mapping[str, Any]) -> Trial:
    """Return the trial that a record is."""
    cell = record["cell"]
    device = str(record.get("device") or cell.get("device"))
    return make(
        record,
        cell,
        device,
        [
            (comparable.meter(record, reading), str(reading.get("phase")), reading["bytes"])
            for reading in record.get("memory") or []
            if reading.get("bytes") is not None
        ],
        record.get("e2e_s") or (),
    )


def make(
    record: Mapping[str, Any],
    cell: Mapping[str, Any],
    device: str,
    peaks: Sequence[tuple[str, str, int]],
    e2e_s: Sequence[float],
) -> Trial:
    """Return a trial from a record's fields, its cell, and its peaks as (meter, phase, bytes)."""
    workload = cell["workload"]
    meter = _meter(device, [name for name, _, _ in peaks])
    values = [value for name, _, value in peaks if name == meter]
    complete = record.get("outcome") in FITTED
    limit = record.get("memory_limit") or {}
    asked = None
    if "asked_height" in workload:
        asked = (int(workload["asked_height"]), int(workload["asked_width"]))
    made = record.get("output_height"), record.get("output_width")
    return Trial(
        subject=comparable.but_for_size(cell, device),
        name=str(workload.get("name", "")),
        batch=int(workload["batch"]),
        images=chains.pictures(workload),
        height=int(workload["height"]),
        width=int(workload["width"]),
        outcome=str(record.get("outcome")),
        reason=record.get("reason"),
        meter=meter,
        peak_bytes=max(values) if values and complete else None,
        beside_bytes=_beside(peaks),
        limit_bytes=limit.get("limit_bytes"),
        e2e_s=tuple(e2e_s) if complete else (),
        record_id=str(record.get("record_id", "")),
        asked=asked,
        output=None if None in made else (int(made[0] or 0), int(made[1] or 0)),
        dominated_by=record.get("dominated_by"),
    )


def _meter(device: str, names: Sequence[str]) -> str:
    if device.startswith("cuda"):
        return RESERVED
    return next((name for name in names if name.startswith(RSS)), RSS)


def _beside(peaks: Sequence[tuple[str, str, int]]) -> int | None:
    """Return what a device holds that torch has not reserved, by the least of the phases."""
    found = {(meter, phase): value for meter, phase, value in peaks}
    beside = [
        used - found[RESERVED, phase]
        for (meter, phase), used in found.items()
        if meter == "device_used" and (RESERVED, phase) in found and used > found[RESERVED, phase]
    ]
    return min(beside, default=None)
