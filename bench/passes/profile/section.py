"""What the time is made of: the least that it could be on this device, what is above, the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import plots.roofline
from bench import text
from bench.passes.profile.record import Fields
from reports import frames
from reports.analyse import Comparison, Finding
from reports.sections.base import Plot
from reports.tables import Column, Table, table

LAUNCH_BOUND_PCT = 90.0
"""Below this share of device-busy time in a loop, the host's launches decide how long it takes.

Of the loop and not of the call: while images are made of a finished call, nothing is launched."""


@dataclass(frozen=True, slots=True)
class Limits:
    """One finding against what the device can do. Rates in FLOP/s and B/s, times in seconds.

    ``ideal_s`` is the denoiser's time if all of its operations ran at the measured matrix-product
    rate, ``least_s`` the time to read its weights once a call at the measured copy rate, and
    ``operators_s`` the time to move at that rate what diffusers' own operators read and write, each
    for itself. ``busy_pct`` is the device-busy share of a call, ``loop_busy_pct`` that of its
    denoising loop; None where it cannot be traced.
    ``flop_per_byte`` counts what each operator moves as if alone, ``flop_per_weight_byte`` the
    weights only: what a backend that fuses operators moves lies between.
    """

    flop_per_byte: float
    flop_per_weight_byte: float
    flops_per_s: float
    matmul_flops_per_s: float
    copy_bytes_per_s: float
    ideal_s: float
    least_s: float
    operators_s: float
    busy_pct: float | None
    loop_busy_pct: float | None

    @property
    def mfu_pct(self) -> float:
        return 100 * self.flops_per_s / self.matmul_flops_per_s

    @property
    def launch_bound(self) -> bool | None:
        share = self.loop_busy_pct
        return None if share is None else share < LAUNCH_BOUND_PCT


def limits(comparison: Comparison, finding: Finding) -> Limits | None:
    """Return a finding's place under the roof; None where work or ceilings are not known.

    Work is counted in the workload's baseline, and ceilings are the medians over all of its
    processes. A device-busy share relates the busy time of a traced call or loop, which tracing
    does not stretch, to the median of those that were not traced.
    """
    parts = [record.part(Fields) for f in comparison.findings for record in f.arm.good]
    work = next((part.work for part in parts if part.work), None)
    ceilings = [part.ceilings for part in parts if part.ceilings]
    loop_s = finding.stages.get("denoise_s")
    # A lossy backend does other work than was counted: fewer steps in full, or narrower numbers.
    if not work or not ceilings or not loop_s or finding.arm.lossy:
        return None
    scope = work.get("unet") or work.get("transformer")
    if scope is None or not scope.bytes or not scope.weight_bytes:
        return None
    matmul = median(each.matmul_flops_per_s for each in ceilings)
    copy = median(each.copy_bytes_per_s for each in ceilings)
    traced = [
        (seen, math.fsum(middle for middle, _, _ in record.step_trace()))
        for record in finding.arm.good
        if (seen := record.part(Fields).device_busy)
    ]
    busy = [each.busy_s for each, _ in traced if each.busy_s]
    shares = [100 * each.loop_busy_s / loop for each, loop in traced if each.loop_busy_s and loop]
    call_s = finding.device_e2e_s or (finding.e2e.value if finding.e2e else None)
    return Limits(
        flop_per_byte=scope.flops / scope.bytes,
        flop_per_weight_byte=scope.flops / (scope.weight_bytes * scope.calls),
        flops_per_s=scope.flops / loop_s,
        matmul_flops_per_s=matmul,
        copy_bytes_per_s=copy,
        ideal_s=scope.flops / matmul,
        least_s=scope.weight_bytes * scope.calls / copy,
        operators_s=scope.bytes / copy,
        busy_pct=100 * median(busy) / call_s if busy and call_s else None,
        loop_busy_pct=median(shares) if shares else None,
    )


def _found(comparison: Comparison) -> Iterator[frames.Row]:
    """Yield each finding that has a place under the roof, with it."""
    for finding in comparison.findings:
        found = limits(comparison, finding)
        if found is not None:
            yield frames.Row(comparison, finding, found)


ROOFLINE: frames.Columns = {
    **frames.WHO,
    **{
        name: f"at.{name}"
        for name in ("flop_per_byte", "flop_per_weight_byte", "flops_per_s", "matmul_flops_per_s",
                     "copy_bytes_per_s", "mfu_pct", "launch_bound")
    },
    "busy_pct": "at.loop_busy_pct",
    **frames.PROCESSES,
}  # fmt: skip


def _fastest(comparisons: Sequence[Comparison]) -> Iterator[frames.Row]:
    """Yield the fastest of each backend's variants: all stand at one place across."""
    for comparison in comparisons:
        fastest: dict[str, frames.Row] = {}
        for row in _found(comparison):
            best = fastest.setdefault(row.finding.arm.cell.backend.place, row)
            if row.at.flops_per_s > best.at.flops_per_s:
                fastest[row.finding.arm.cell.backend.place] = row
        yield from fastest.values()


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Plot]:
    return {
        "roofline": Plot(
            plots.roofline,
            lambda: [frames.frame(ROOFLINE, _fastest(comparisons))],
            "The distance to the roof is what a faster program could still gain on this device.",
        )
    }


def _floor_s(row: frames.Row) -> Any:
    return max(row.at.ideal_s, row.at.least_s)


def _loop_s(row: frames.Row) -> float:
    return row.finding.stages["denoise_s"]


COLUMNS = (
    Column("backend", "finding.arm.label", kind="name"),
    Column("denoiser [TFLOP/s]", lambda row: row.at.flops_per_s / 1e12, text.seconds),
    Column("of the measured limit", "at.mfu_pct", text.percent),
    Column("loop at the limit [s]", _floor_s, text.seconds),
    Column("loop above it [s]", lambda row: _loop_s(row) - _floor_s(row), text.seconds),
    Column(
        "rest of the call [s]",
        lambda row: sum(row.finding.stages.values()) - _loop_s(row),
        text.seconds,
    ),
    Column("weights at the copy rate [s]", "at.least_s", text.seconds),
    Column("operators' bytes at it [s]", "at.operators_s", text.seconds),
    Column("device busy, call", "at.busy_pct", text.percent),
    Column("device busy, loop", "at.loop_busy_pct", text.percent),
    Column(
        "bound by launches",
        lambda row: {None: "not measurable here", True: "yes", False: "no"}[row.at.launch_bound],
    ),
)

NOTE = (
    "The limit is the slower of two: the counted operations at the matrix-product rate, and "
    "the weights read once a step at the copy rate, both measured on this device in this run. "
    "Operators' bytes: what diffusers' own operators read and write, each for itself, which "
    "fusing spares. Bound by launches: the device is busy for under 90 % of the loop."
)


def tables(comparison: Comparison) -> list[Table | None]:
    """Return the table of what the time is made of."""
    return [table("Against the device's limits", COLUMNS, _found(comparison), NOTE, folded=True)]
