"""Known answers that a run must give, from both sides: too good is as wrong as too bad.

Pure: records and the figures of a bare loop in, lines out. ``scripts/selfcheck.py`` makes the loop
and prints. What a device or a run cannot answer is said, and breaks nothing.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.audit.checks import bands
from bench.stats.median import median_interval
from bench.sweeps import step_sweep

GIB = 1024**3

Word = Literal["ok", "broken", "unclear", "not measurable"]
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


def check(records: Sequence[Record], loop: Loop | None) -> list[Line]:
    """Return a line for each known answer, in a fixed order."""
    good = [record for record in records if record.get("outcome") == "ok"]
    eager = [record for record in good if record["cell"]["backend"]["name"] == "none"]
    lines = [_ended(records)]
    lines += [_peak(peak, eager) for peak in PEAKS]
    lines += _rates(eager)
    lines += _utilisation(eager)
    lines += _step_clock(good)
    lines += _slopes(good)
    if loop is not None:
        lines += _loop(loop, str(eager[0]["device"]) if eager else "cpu")
    return lines


def broken(lines: Sequence[Line]) -> bool:
    """Say whether any known answer was missed."""
    return any(line.word == "broken" for line in lines)


def _ended(records: Sequence[Record]) -> Line:
    bad = [r for r in records if r.get("outcome") not in ("ok", "unsupported", "unavailable")]
    found = f"{len(records) - len(bad)} of {len(records)}"
    why = "; ".join(f"{r['name']}: {r['outcome']}: {r.get('reason')}" for r in bad[:3])
    word: Word = "broken" if bad or not records else "ok"
    return Line("cells that ended as they should", "all", found, word, why)


def _peak(peak: Peak, eager: Sequence[Record]) -> Line:
    low, high = peak.gib * (1 - peak.within), peak.gib * (1 + peak.within)
    what, expected = f"{peak.what}: peak allocated", f"{low:.2f} to {high:.2f} GiB"
    fitting = [record for record in eager if _is(record, peak)]
    if not fitting:
        return Line(what, expected, None, "not measurable", "no such cell in this run")
    values = [
        reading["bytes"] / GIB
        for record in fitting
        for reading in record.get("memory", ())
        if reading["meter"] == "torch.max_memory_allocated"
        and reading["phase"] == "steady"
        and reading["bytes"] is not None
    ]
    if not values:
        return Line(what, expected, None, "not measurable", "this device has no such meter")
    value = statistics.median(values)
    word: Word = "ok" if low <= value <= high else "broken"
    return Line(what, expected, f"{value:.3f} GiB", word)


def _is(record: Record, peak: Peak) -> bool:
    made = record["cell"]["workload"]
    return bool(
        made["model"] == peak.model
        and made["task"] == peak.task
        and made["dtype"] == "float16"
        and (made["height"], made["width"], made["batch"]) == (peak.side, peak.side, 1)
    )


def _rates(eager: Sequence[Record]) -> list[Line]:
    """Loop rates of full-size float16 networks against what was published of their class."""
    what = "eager loop rate against published ones"
    lines = []
    for record in eager:
        made = record["cell"]["workload"]
        network = NETWORKS.get(made["model"])
        if network is None or made["dtype"] == "float32" or made["height"] != made["width"]:
            continue
        if not str(record["device"]).startswith("cuda"):
            continue
        known = bands.plausible_step_s(network, made["height"])
        rates = [rate for rate in record.get("it_per_s") or () if rate]
        if known is None or not rates:
            continue
        shortest_s, longest_s, source = known
        rate = statistics.median(rates) * made["batch"]
        word: Word = "ok" if shortest_s <= 1 / rate <= longest_s else "broken"
        expected = f"{1 / longest_s:.3g} to {1 / shortest_s:.3g} it/s"
        lines.append(Line(f"{record['name']}: {what}", expected, f"{rate:.3g} it/s", word, source))
    why = "published are full-size networks in half precision on GPUs"
    return lines or [Line(what, "within what was published", None, "not measurable", why)]


def _utilisation(eager: Sequence[Record]) -> list[Line]:
    """The loop's arithmetic per second against the measured ceiling."""
    low, high = UTILISATION
    lines = []
    for record in eager:
        work, ceilings = record.get("work"), record.get("ceilings")
        made = record["cell"]["workload"]
        if not work or not ceilings or not made["model"].startswith("synthetic:"):
            continue
        what = f"{record['name']}: denoiser against measured matrix products"
        share = _loop_flops_per_s(record, work) / ceilings["matmul_flops_per_s"]
        found, expected = f"{100 * share:.1f} %", f"{100 * low:g} to {100 * high:g} %"
        if not str(record["device"]).startswith("cuda") or made["height"] < 1024:
            why = "bound by launches or by a CPU's caches: no lower end is known"
            word: Word = "not measurable" if share <= high else "broken"
            lines.append(Line(what, f"at most {100 * high:g} %", found, word, why))
            continue
        lines.append(Line(what, expected, found, "ok" if low <= share <= high else "broken"))
    return lines


def _loop_flops_per_s(record: Record, work: Mapping[str, Any]) -> float:
    scope = "unet" if "unet" in work else "transformer"
    per_call = work[scope]["flops"] / work[scope]["calls"]
    per_step = per_call * work[scope]["calls"] / max(record["steps_effective"], 1)
    return float(per_step / statistics.median(s for call in record["step_s"] for s in call))


def _step_clock(good: Sequence[Record]) -> list[Line]:
    expected = f"within {100 * CLOCK_WITHIN:g} %"
    lines = []
    reason = "only CUDA devices can be traced"
    for record in good:
        busy = record.get("device_busy")
        if not busy:
            continue
        what = f"{record['name']}: step clock against traced kernels"
        if not busy.get("loop_kernel_s"):
            why = "launches could not be matched with kernels"
            lines.append(Line(what, expected, None, "not measurable", why))
            continue
        off = busy["loop_clock_s"] / busy["loop_kernel_s"] - 1
        word: Word = "ok" if abs(off) <= CLOCK_WITHIN else "broken"
        lines.append(Line(what, expected, f"{100 * off:+.2f} %", word))
    what = "step clock against traced kernels"
    return lines or [Line(what, expected, None, "not measurable", reason)]


def _slopes(good: Sequence[Record]) -> list[Line]:
    """it/s from step events against 1 / slope, judged by the intervals of both."""
    by_cell: dict[str, list[Record]] = {}
    for record in good:
        by_cell.setdefault(record["cell_id"], []).append(record)
    expected = f"within {100 * SLOPE_WITHIN:g} %"
    lines = []
    for records in by_cell.values():
        sweep = step_sweep(records)
        if sweep is None:
            continue
        what = f"{records[0]['name']}: it/s of events against 1 / slope"
        interval = None if sweep.fit is None else sweep.fit.marginal_interval_s
        if sweep.fit is None or sweep.it_per_s is None or interval is None or interval[0] <= 0:
            why = sweep.reason or "the sweep is too short or too noisy for a slope"
            lines.append(Line(what, expected, None, "not measurable", why))
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
        line = Line(line.what, line.expected, line.found, "not measurable", why)
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
