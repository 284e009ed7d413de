"""Known answers that a run must give, from both sides: too good is as wrong as too bad.

Pure: records and the figures of a bare loop in, lines out. ``scripts/selfcheck.py`` makes the loop
and prints. What a device cannot answer, or a run was not asked, is said and breaks nothing; what a
record should hold and does not is missing, and the check does not hold without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.audit.checks import bands
from bench.passes.profile.record import Fields as Profile
from bench.passes.sweep.judge import step_sweep
from bench.records import Record
from bench.records.types import median
from bench.stats.median import median_interval
from bench.text import GIB, gib
from compilers.base import BASELINE

Word = Literal["ok", "broken", "missing", "unclear", "not measurable"]


@dataclass(frozen=True)
class Line:
    """One known answer. ``found`` is None where nothing could be compared; ``why`` says more."""

    what: str
    expected: str
    found: str | None
    word: Word
    why: str = ""


@dataclass(frozen=True)
class Peak:
    """Allocated memory of a steady eager call that several cards have shown alike."""

    what: str
    model: str
    task: str
    side: int
    gib: float
    within: float = 0.02


PEAKS = (
    Peak("eager SDXL, float16, 1024", "synthetic:sdxl", "text-to-image", 1024, 10.47),
    Peak("eager SD 1.5 edit, float16, 512", "synthetic:sd15-pix2pix", "edit", 512, 2.62),
)
"""From the published tables in reports/reference (10.471 to 10.474 and 2.625 GiB): the architecture
decides it, not the card."""

NETWORKS = {
    "synthetic:sdxl": "sdxl",
    "synthetic:sdxl-pix2pix": "sdxl",
    "synthetic:sd15-pix2pix": "sd1",
}
"""Which class of published network an architecture at full size belongs to."""

PUBLISHED_BATCH = {"sdxl": 2, "sd1": 3}
"""Denoiser batch for one image in the published rates: guided, and guided by text and image."""

REQUIRED = (BASELINE, "torch-compile", "torch-compile-regional", "tuned")
"""Backends of torch itself: a CUDA device that does not support one is not as it should be."""

UTILISATION = (0.10, 1.0)
"""Share of the measured matrix-product rate that an eager float16 or bfloat16 denoiser loop at 1024
reaches: less means that something else ran, more is impossible."""

CLOCK_WITHIN = 0.01
LOOP_WITHIN = 0.005
SLOPE_WITHIN = 0.03


@dataclass(frozen=True)
class Loop:
    """A bare loop that took turns with the harness, call by call, on a pipeline of its own.

    Attributes:
        harness_s: one more than ``bare_s``: harness first and last.
        bare_s: seconds of each bare call.
        same_images: whether both drew the same.
        flops: operations by scope that a separate count on shapes alone gives.
        counted: operations by scope in the run's record.
    """

    harness_s: Sequence[float]
    bare_s: Sequence[float]
    same_images: bool
    flops: Mapping[str, int]
    counted: Mapping[str, int]


def check(
    records: Sequence[Record], loop: Loop | None, without_record: Sequence[str] = ()
) -> list[Line]:
    """Return a line for each known answer, in a fixed order.

    Args:
        records: of one or more runs; a cell's figures are held to its own run's alone.
        loop: None if there was none.
        without_record: cells and rounds that a plan holds and of which there is no record.
    """
    good = [record for record in records if record.outcome == "ok"]
    eager = [record for record in good if record.is_baseline]
    # A profile is made in the first round of cells that ask for one.
    profiled = [r for r in good if r.cell.raw.get("profile") and r.round == 0]
    lines = [
        _ended(records, without_record),
        *(_peak(peak, eager) for peak in PEAKS),
        *_each(
            eager, _rate, "eager loop rate against published ones", "within what was published",
            "published are full-size networks in half precision on GPUs",
        ),
        *_each(
            [record for record in profiled if record.is_baseline], _utilisation,
            "denoiser against measured matrix products", f"at most {100 * UTILISATION[1]:g} %",
            "no baseline of a synthetic model was profiled",
        ),
        *_each(
            profiled, _step_clock, "step clock against traced kernels",
            f"within {100 * CLOCK_WITHIN:g} %",
            "only CUDA devices can be traced, and only where a profile is asked for",
        ),
        *_each(
            good, _slope, "it/s of events against 1 / slope", f"within {100 * SLOPE_WITHIN:g} %",
            "no cell has a sweep of steps",
        ),
    ]  # fmt: skip
    if loop is not None:
        lines += _loop(loop, eager[0].device if eager else None)
    return lines


def broken(lines: Sequence[Line]) -> bool:
    """Return whether any known answer was missed, or not given where it should be."""
    return any(line.word in ("broken", "missing") for line in lines)


def _ended(records: Sequence[Record], without_record: Sequence[str]) -> Line:
    bad, spared = [], set()
    for record in records:
        if record.outcome in ("unsupported", "unavailable") and not _needed(record):
            spared.add(f"{record.name} ({record.outcome})")
        elif record.outcome != "ok":
            bad.append(record)
    reasons = [f"{record.name}: {record.outcome}: {record.reason}" for record in bad[:3]]
    if without_record:
        reasons.append(f"no record of {', '.join(without_record[:3])}")
    if spared:
        reasons.append(f"not here: {', '.join(sorted(spared))}")
    found = f"{len(records) - len(bad)} of {len(records) + len(without_record)}"
    word: Word = "broken" if bad or without_record or not records else "ok"
    return Line("cells that ended as they should", "all", found, word, "; ".join(reasons))


def _needed(record: Record) -> bool:
    """Return whether a CUDA device must support the record's backend."""
    backend = record.cell.backend
    return _on_cuda(record) and backend.name in REQUIRED and backend.options.get("alone") is None


def _on_cuda(record: Record) -> bool:
    return record.actual_device.startswith("cuda")


Judge = Callable[[list[Record], str, str], Line | None]
"""Cell, what, expected → its line; None if nothing is known of such a cell."""


def _each(
    records: Iterable[Record], judge: Judge, what: str, expected: str, why_none: str
) -> list[Line]:
    """Return the line of each cell of each run, or one that says why there is none."""
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        cells.setdefault((record.run_id, record.cell_id), []).append(record)
    lines = (judge(cell, f"{cell[0].name}: {what}", expected) for cell in cells.values())
    none = Line(what, expected, None, "not measurable", why_none)
    return [line for line in lines if line] or [none]


def _held(
    what: str,
    expected: str,
    values: Sequence[float],
    bounds: tuple[float, float],
    show: Callable[[float], str],
    why: str = "",
) -> Line:
    """Hold the processes' values to bounds: one beyond is enough."""
    low, high = bounds
    word: Word = "ok" if all(low <= value <= high for value in values) else "broken"
    least, most = show(min(values)), show(max(values))
    found = least if least == most else f"{least} to {most} in {len(values)} processes"
    return Line(what, expected, found, word, why)


def _peak(peak: Peak, eager: Sequence[Record]) -> Line:
    low, high = peak.gib * (1 - peak.within), peak.gib * (1 + peak.within)
    what, expected = f"{peak.what}: peak allocated", f"{low:.2f} to {high:.2f} GiB"
    fitting = [record for record in eager if _is(record, peak)]
    if not fitting:
        return Line(what, expected, None, "not measurable", "no such cell in this run")
    peaks = [record.peaks.get(("torch.max_memory_allocated", "steady")) for record in fitting]
    if any(bytes_ is None and _on_cuda(r) for bytes_, r in zip(peaks, fitting, strict=True)):
        return Line(what, expected, None, "missing", "a CUDA device has this meter")
    known = [bytes_ for bytes_ in peaks if bytes_ is not None]
    if not known:
        return Line(what, expected, None, "not measurable", "this device has no such meter")
    return _held(what, expected, known, (low * GIB, high * GIB), lambda value: f"{gib(value)} GiB")


def _is(record: Record, peak: Peak) -> bool:
    asked = record.workload
    return (asked.model, asked.task, asked.dtype) == (peak.model, peak.task, "float16") and (
        asked.height, asked.width, asked.batch
    ) == (peak.side, peak.side, 1)  # fmt: skip


def _rate(cell: list[Record], what: str, _: str) -> Line | None:
    """Loop rates of full-size half-precision networks against what was published of their class."""
    first, asked = cell[0], cell[0].workload
    network = NETWORKS.get(asked.model)
    if network is None or asked.dtype == "float32" or asked.height != asked.width:
        return None
    gpu = (first.fingerprint.get("gpu") or {}).get("name")
    known = bands.plausible_step_s(network, asked.height, str(gpu or ""))
    if not _on_cuda(first) or known is None:
        return None
    shortest_s, longest_s, source = known
    bounds = (1 / longest_s, 1 / shortest_s)
    expected = f"{bounds[0]:.3g} to {bounds[1]:.3g} it/s for an image"
    if not all(record.rates and record.denoiser_batch for record in cell):
        return Line(what, expected, None, "missing", "a process has no rate")
    rates = [
        (median(record.rates) or 0) * (record.denoiser_batch or 0) / PUBLISHED_BATCH[network]
        for record in cell
    ]
    return _held(what, expected, rates, bounds, lambda rate: f"{rate:.3g} it/s", source)


def _utilisation(cell: list[Record], what: str, _: str) -> Line | None:
    """The loop's arithmetic per second against the measured ceiling."""
    first, asked = cell[0], cell[0].workload
    if not asked.model.startswith("synthetic:"):
        return None
    two_sided = _on_cuda(first) and asked.height >= 1024
    bounds = (UTILISATION[0] if two_sided else 0.0, UTILISATION[1])
    expected = f"{100 * bounds[0]:g} to {100 * bounds[1]:g} %"
    shares = []
    for record in cell:
        share = _share(record)
        if share is None:
            nulls = record.null_reasons
            why = nulls.get("work") or nulls.get("ceilings") or "a figure is missing"
            return Line(what, expected, None, "missing", why)
        shares.append(share)
    line = _held(what, expected, shares, bounds, lambda share: f"{100 * share:.1f} %")
    if line.word == "ok" and not two_sided:
        why = "bound by launches or by a CPU's caches: no lower end is known"
        line = replace(line, word="not measurable", why=why)
    return line


def _share(record: Record) -> float | None:
    """Return the loop's share of the measured rate; None if the record lacks a part of it."""
    profile, step_s = record.part(Profile), median(record.step_intervals_s)
    work = profile.work or {}
    scope = work.get("unet") or work.get("transformer")
    if scope is None or profile.ceilings is None or step_s is None or not record.steps_effective:
        return None
    per_step = scope.flops / record.steps_effective
    return per_step / step_s / profile.ceilings.matmul_flops_per_s


def _step_clock(cell: list[Record], what: str, expected: str) -> Line | None:
    if not _on_cuda(cell[0]):
        return None
    off = []
    for record in cell:
        busy = record.part(Profile).device_busy
        if not (busy and busy.loop_kernel_s and busy.loop_clock_s):
            why = "launches could not be matched with kernels"
            why = record.null_reasons.get("device_busy", why)
            return Line(what, expected, None, "missing", why)
        off.append(busy.loop_clock_s / busy.loop_kernel_s - 1)
    bounds = (-CLOCK_WITHIN, CLOCK_WITHIN)
    return _held(what, expected, off, bounds, lambda value: f"{100 * value:+.2f} %")


def _slope(cell: list[Record], what: str, expected: str) -> Line | None:
    """it/s from step events against 1 / slope, judged by the intervals of both."""
    if not (cell[0].cell.raw.get("sweep") or {}).get("steps"):
        return None
    sweep = step_sweep(cell)
    if sweep is None or sweep.fit is None or sweep.it_per_s is None:
        why = (sweep and sweep.reason) or "there are no figures of the sweep, or no rate"
        return Line(what, expected, None, "missing", why)
    interval = sweep.fit.marginal_interval_s
    if interval is None or interval[0] <= 0:
        why = "the sweep is too short or too noisy for a slope"
        return Line(what, expected, None, "unclear", why)
    per_event = sweep.denoiser_calls_per_step or 1.0
    rates = median_interval([rate for record in cell for rate in record.rates])
    slowest, fastest = rates.low, rates.high
    if slowest is None or fastest is None:
        slowest = fastest = rates.median
    middle, low, high = (
        100 * (1 / (slope * per_event * rate) - 1)
        for slope, rate in (
            (sweep.fit.marginal_step_s, sweep.it_per_s),
            (interval[1], fastest),
            (interval[0], slowest),
        )
    )
    return _within(what, expected, (middle, low, high), 100 * SLOPE_WITHIN)


def _within(what: str, expected: str, estimate: tuple[float, float, float], bound: float) -> Line:
    """Judge an estimate by its interval: broken only if all of it lies outside.

    Args:
        estimate: with the lower and upper end of its interval.
    """
    middle, low, high = estimate
    found = f"{middle:+.2f} %  (95 %: {low:+.2f} to {high:+.2f})"
    if -bound <= low and high <= bound:
        return Line(what, expected, found, "ok")
    if low > bound or high < -bound:
        return Line(what, expected, found, "broken")
    why = "the interval reaches beyond; measure longer or on a quieter machine"
    return Line(what, expected, found, "unclear", why)


def _loop(loop: Loop, device: str | None) -> list[Line]:
    found = "the same" if loop.same_images else "another"
    word: Word = "ok" if loop.same_images else "broken"
    lines = [Line("bare loop and harness draw the same image", "the same", found, word)]
    if loop.flops:
        word = "ok" if loop.flops.items() <= loop.counted.items() else "broken"
        counts = (_operations(loop.flops), _operations(loop.counted), word)
        lines.append(Line("counted operations against a count on shapes alone", *counts))
    what, expected = "harness against bare loop", f"within {100 * LOOP_WITHIN:g} %"
    off = median_interval(paired_differences_pct(loop.harness_s, loop.bare_s))
    if off.low is None or off.high is None or not off.meets_level:
        return [*lines, Line(what, expected, None, "not measurable", "too few calls")]
    line = _within(what, expected, (off.median, off.low, off.high), 100 * LOOP_WITHIN)
    if not (device or "").startswith("cuda"):
        why = (
            "two copies of a pipeline differ by more on a CPU; `make bench` takes several processes"
        )
        line = replace(line, word="not measurable", why=why)
    return [*lines, line]


def _operations(flops: Mapping[str, int]) -> str:
    return ", ".join(f"{scope} {count / 1e12:.4g} TFLOP" for scope, count in sorted(flops.items()))


def paired_differences_pct(harness_s: Sequence[float], bare_s: Sequence[float]) -> list[float]:
    """Return how much longer the harness's calls are than each bare call between two, in per cent.

    Raises:
        ValueError: the calls did not take turns, harness first and last.
    """
    if len(harness_s) != len(bare_s) + 1:
        raise ValueError("the harness must be called once more than the bare loop")
    around = [(a + b) / 2 for a, b in itertools.pairwise(harness_s)]
    return [100 * (h / b - 1) for h, b in zip(around, bare_s, strict=True)]
