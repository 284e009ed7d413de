"""Known answers that a run must give, from both sides: too good is as wrong as too bad.

Pure: records and the figures of a bare loop in, lines out. ``scripts/selfcheck.py`` makes the loop
and prints. What a device cannot answer, or a run was not asked, is said and breaks nothing; what a
record should hold and does not is missing, and the check does not hold without it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.audit.checks import bands
from bench.stats.median import median_interval
from bench.sweeps import step_sweep

GIB = 1024**3

Word = Literal["ok", "broken", "missing", "unclear", "not measurable"]
Record = Mapping[str, Any]


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
"""Denoiser batch for one picture in the published rates: guided, and guided by text and picture."""

REQUIRED = ("none", "torch-compile", "torch-compile-regional", "tuned")
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
        same_pictures: whether both drew the same.
        flops: operations by scope that a separate count on shapes alone gives.
        counted: operations by scope in the run's record.
    """

    harness_s: Sequence[float]
    bare_s: Sequence[float]
    same_pictures: bool
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
    good = [record for record in records if record.get("outcome") == "ok"]
    eager = [record for record in good if record["cell"]["backend"]["name"] == "none"]
    lines = [_ended(records, without_record)]
    lines += [_peak(peak, eager) for peak in PEAKS]
    lines += _rates(eager)
    lines += _utilisation(eager)
    lines += _step_clock(good)
    lines += _slopes(good)
    if loop is not None:
        lines += _loop(loop, str(eager[0]["device"]) if eager else "cpu")
    return lines


def broken(lines: Sequence[Line]) -> bool:
    """Say whether any known answer was missed, or not given where it should be."""
    return any(line.word in ("broken", "missing") for line in lines)


def _ended(records: Sequence[Record], without_record: Sequence[str]) -> Line:
    bad, spared = [], set()
    for record in records:
        outcome = record.get("outcome")
        if outcome in ("unsupported", "unavailable") and not _needed(record):
            spared.add(f"{record['name']} ({outcome})")
        elif outcome != "ok":
            bad.append(record)
    total = len(records) + len(without_record)
    found = f"{len(records) - len(bad)} of {total}"
    told = [f"{r['name']}: {r['outcome']}: {r.get('reason')}" for r in bad[:3]]
    if without_record:
        told.append(f"no record of {', '.join(without_record[:3])}")
    if spared:
        told.append(f"not here: {', '.join(sorted(spared))}")
    word: Word = "broken" if bad or without_record or not records else "ok"
    return Line("cells that ended as they should", "all", found, word, "; ".join(told))


def _needed(record: Record) -> bool:
    """Say whether a CUDA device must support the record's backend."""
    backend = record["cell"]["backend"]
    alone = (backend.get("options") or {}).get("alone")
    return _on_cuda(record) and backend["name"] in REQUIRED and alone is None


def _on_cuda(record: Record) -> bool:
    return str(record.get("device") or record["cell"].get("device")).startswith("cuda")


def _by_cell(records: Iterable[Record]) -> list[list[Record]]:
    """Return the rounds of each cell, those of each run apart."""
    found: dict[tuple[Any, str], list[Record]] = {}
    for record in records:
        found.setdefault((record.get("run_id"), record["cell_id"]), []).append(record)
    return list(found.values())


def _profiled(records: Iterable[Record]) -> list[Record]:
    """Return the records that a profile is due in: first rounds of cells that ask for one."""
    return [r for r in records if r["cell"].get("profile") and r["round"] == 0]


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
    read = [
        [
            reading["bytes"] / GIB
            for reading in record.get("memory", ())
            if reading["meter"] == "torch.max_memory_allocated"
            and reading["phase"] == "steady"
            and reading["bytes"] is not None
        ]
        for record in fitting
    ]
    if any(not values and _on_cuda(record) for values, record in zip(read, fitting, strict=True)):
        return Line(what, expected, None, "missing", "a CUDA device has this meter")
    values = [value for one in read for value in one]
    if not values:
        return Line(what, expected, None, "not measurable", "this device has no such meter")
    return _held(what, expected, values, (low, high), lambda value: f"{value:.3f} GiB")


def _is(record: Record, peak: Peak) -> bool:
    made = record["cell"]["workload"]
    return bool(
        made["model"] == peak.model
        and made["task"] == peak.task
        and made["dtype"] == "float16"
        and (made["height"], made["width"], made["batch"]) == (peak.side, peak.side, 1)
    )


def _rates(eager: Sequence[Record]) -> list[Line]:
    """Loop rates of full-size half-precision networks against what was published of their class."""
    what = "eager loop rate against published ones"
    lines = []
    for records in _by_cell(eager):
        first = records[0]
        made = first["cell"]["workload"]
        network = NETWORKS.get(made["model"])
        if network is None or made["dtype"] == "float32" or made["height"] != made["width"]:
            continue
        if not _on_cuda(first):
            continue
        gpu = str(((first.get("fingerprint") or {}).get("gpu") or {}).get("name") or "")
        known = bands.plausible_step_s(network, made["height"], gpu)
        if known is None:
            continue
        shortest_s, longest_s, source = known
        bounds = (1 / longest_s, 1 / shortest_s)
        expected = f"{bounds[0]:.3g} to {bounds[1]:.3g} it/s for a picture"
        rates = [[rate for rate in record.get("it_per_s") or () if rate] for record in records]
        told = f"{first['name']}: {what}"
        if not all(rates):
            lines.append(Line(told, expected, None, "missing", "a process has no rate"))
            continue
        values = [
            statistics.median(one) * record["denoiser_batch"] / PUBLISHED_BATCH[network]
            for one, record in zip(rates, records, strict=True)
        ]
        lines.append(_held(told, expected, values, bounds, lambda v: f"{v:.3g} it/s", source))
    why = "published are full-size networks in half precision on GPUs"
    return lines or [Line(what, "within what was published", None, "not measurable", why)]


def _utilisation(eager: Sequence[Record]) -> list[Line]:
    """The loop's arithmetic per second against the measured ceiling."""
    low, high = UTILISATION
    what = "denoiser against measured matrix products"
    lines = []
    for records in _by_cell(_profiled(eager)):
        first = records[0]
        made = first["cell"]["workload"]
        if not made["model"].startswith("synthetic:"):
            continue
        told = f"{first['name']}: {what}"
        two_sided = _on_cuda(first) and made["height"] >= 1024
        expected = f"{100 * low if two_sided else 0:g} to {100 * high:g} %"
        shares, reasons = [], []
        for record in records:
            share = _share(record)
            if share is None:
                nulls = record.get("null_reasons") or {}
                reasons.append(nulls.get("work") or nulls.get("ceilings") or "a figure is missing")
            else:
                shares.append(share)
        if reasons:
            lines.append(Line(told, expected, None, "missing", reasons[0]))
            continue
        bounds = (low, high) if two_sided else (0.0, high)
        line = _held(told, expected, shares, bounds, lambda share: f"{100 * share:.1f} %")
        if line.word == "ok" and not two_sided:
            why = "bound by launches or by a CPU's caches: no lower end is known"
            line = replace(line, word="not measurable", why=why)
        lines.append(line)
    why = "no baseline of a synthetic model was profiled"
    return lines or [Line(what, f"at most {100 * high:g} %", None, "not measurable", why)]


def _share(record: Record) -> float | None:
    """Return the loop's share of the measured rate; None if the record lacks a part of it."""
    work, ceilings = record.get("work"), record.get("ceilings")
    steps = [seconds for call in record.get("step_s") or () for seconds in call]
    if not work or not ceilings or not steps or not record.get("steps_effective"):
        return None
    scope = work.get("unet") or work.get("transformer")
    if not scope:
        return None
    per_step = scope["flops"] / record["steps_effective"]
    return float(per_step / statistics.median(steps) / ceilings["matmul_flops_per_s"])


def _step_clock(good: Sequence[Record]) -> list[Line]:
    expected = f"within {100 * CLOCK_WITHIN:g} %"
    lines = []
    for records in _by_cell(_profiled(good)):
        if not _on_cuda(records[0]):
            continue
        what = f"{records[0]['name']}: step clock against traced kernels"
        traced = [record.get("device_busy") or {} for record in records]
        lost = next((i for i, busy in enumerate(traced) if not busy.get("loop_kernel_s")), None)
        if lost is not None:
            why = (records[lost].get("null_reasons") or {}).get("device_busy")
            if why is None:
                why = "launches could not be matched with kernels"
            lines.append(Line(what, expected, None, "missing", why))
            continue
        off = [busy["loop_clock_s"] / busy["loop_kernel_s"] - 1 for busy in traced]
        bounds = (-CLOCK_WITHIN, CLOCK_WITHIN)
        lines.append(_held(what, expected, off, bounds, lambda value: f"{100 * value:+.2f} %"))
    what = "step clock against traced kernels"
    why = "only CUDA devices can be traced, and only where a profile is asked for"
    return lines or [Line(what, expected, None, "not measurable", why)]


def _slopes(good: Sequence[Record]) -> list[Line]:
    """it/s from step events against 1 / slope, judged by the intervals of both."""
    expected = f"within {100 * SLOPE_WITHIN:g} %"
    lines = []
    for records in _by_cell(good):
        if not (records[0]["cell"].get("sweep") or {}).get("steps"):
            continue
        what = f"{records[0]['name']}: it/s of events against 1 / slope"
        sweep = step_sweep(records)
        if sweep is None or sweep.fit is None or sweep.it_per_s is None:
            why = (sweep and sweep.reason) or "there are no figures of the sweep, or no rate"
            lines.append(Line(what, expected, None, "missing", why))
            continue
        interval = sweep.fit.marginal_interval_s
        if interval is None or interval[0] <= 0:
            why = "the sweep is too short or too noisy for a slope"
            lines.append(Line(what, expected, None, "unclear", why))
            continue
        per_event = sweep.denoiser_calls_per_step or 1.0
        slowest, fastest = _rate_interval(records)
        middle, low, high = (
            100 * (1 / (slope * per_event * rate) - 1)
            for slope, rate in (
                (sweep.fit.marginal_step_s, sweep.it_per_s),
                (interval[1], fastest),
                (interval[0], slowest),
            )
        )
        lines.append(_within(what, expected, middle, low, high, 100 * SLOPE_WITHIN))
    what = "it/s of events against 1 / slope"
    return lines or [Line(what, expected, None, "not measurable", "no cell has a sweep of steps")]


def _rate_interval(records: Sequence[Record]) -> tuple[float, float]:
    """Return the 95 % interval of the median it/s, or its range where calls are too few."""
    rates = [rate for record in records for rate in record["it_per_s"] if rate is not None]
    interval = median_interval(rates)
    if interval.low is None or interval.high is None or not interval.meets_level:
        return min(rates), max(rates)
    return interval.low, interval.high


def _within(what: str, expected: str, middle: float, low: float, high: float, bound: float) -> Line:
    """Judge an estimate by its interval: broken only if all of it lies outside."""
    found = f"{middle:+.2f} %  (95 %: {low:+.2f} to {high:+.2f})"
    if -bound <= low and high <= bound:
        return Line(what, expected, found, "ok")
    if low > bound or high < -bound:
        return Line(what, expected, found, "broken")
    why = "the interval reaches beyond; measure longer or on a quieter machine"
    return Line(what, expected, found, "unclear", why)


def _loop(loop: Loop, device: str) -> list[Line]:
    pictures = Line(
        "bare loop and harness draw the same picture", "the same",
        "the same" if loop.same_pictures else "another",
        "ok" if loop.same_pictures else "broken",
    )  # fmt: skip
    lines = [pictures]
    if loop.flops:
        equal = dict(loop.flops) == {scope: loop.counted.get(scope) for scope in loop.flops}
        lines.append(
            Line(
                "counted operations against a count on shapes alone",
                _operations(loop.flops),
                _operations(loop.counted),
                "ok" if equal else "broken",
            )
        )
    what, expected = "harness against bare loop", f"within {100 * LOOP_WITHIN:g} %"
    differences = paired_differences_pct(loop.harness_s, loop.bare_s)
    interval = median_interval(differences)
    if interval.low is None or interval.high is None or not interval.meets_level:
        lines.append(Line(what, expected, None, "not measurable", "too few calls"))
        return lines
    bound = 100 * LOOP_WITHIN
    line = _within(what, expected, interval.median, interval.low, interval.high, bound)
    if not device.startswith("cuda"):
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
