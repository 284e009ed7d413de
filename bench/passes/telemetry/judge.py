"""Samples of a telemetry pass → averages, peaks, energy, what was idle, and what to beware of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from bench import nvml
from bench.passes.telemetry.record import Fields, Telemetry
from bench.records.types import Record

CLOCK_DRIFT_PCT = 3.0
TEMPERATURE_DRIFT_C = 5.0
COUNTER_DISAGREES_PCT = 10.0
LATE_FACTOR = 1.5
GAP_FACTOR = 3.0
"""Neighbouring samples of power farther apart than so many periods leave a gap between them."""
MOST_UNSAMPLED = 0.1
"""Share of the calls' time in gaps above which energy would be a guess."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column over a pass; each figure is None where no sample tells it.

    Attributes:
        average, peak: of the samples from the first call's begin to the last call's end.
        before, after: average of those before and after, when the worker idled.
        samples: how many the average is of.
    """

    average: float | None
    peak: float | None
    before: float | None
    after: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of the calls, in joules.

    Attributes:
        per_image_j: the integral of sampled power over the calls, by images; None with ``reason``.
        counter_per_image_j: the same from the GPU's own energy counter, where it has one.
        disagreement_pct: how far the integral lies from the counter.
        unsampled: share of the calls' time in gaps between samples of power, 0 to 1.
        counter_fell: whether the counter went back during the calls, and so tells nothing.
    """

    per_image_j: float | None
    counter_per_image_j: float | None
    disagreement_pct: float | None
    reason: str | None
    unsampled: float = 0.0
    counter_fell: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """A pass.

    Attributes:
        span_s: from the first call's begin to the last one's end.
        throttled: share of the samples within the span, 0 to 1, by reason.
        foreign: most other processes seen on the GPU at once, and their names.
        flags: sentences without a full stop.
    """

    quantities: Mapping[str, Quantity]
    energy: Energy
    images: int
    calls: int
    span_s: float | None
    throttled: Mapping[str, float]
    foreign: tuple[int, tuple[str, ...]]
    flags: tuple[str, ...]


def summary(record: Record) -> Summary | None:
    """Summarise the telemetry of a record; None without any."""
    telemetry = record.part(Fields).telemetry
    return None if telemetry is None else summarise(telemetry, record.null_reasons)


def summarise(telemetry: Telemetry, reasons: Mapping[str, str]) -> Summary:
    """Summarise a pass; ``reasons`` are the record's ``null_reasons``."""
    columns, calls = telemetry.columns, telemetry.calls
    times = columns["t_s"] or ()
    span = (calls[0][0], calls[-1][1]) if calls else None
    images = sum(int(call[2]) for call in calls)
    named = {
        name: points(times, values)
        for name, values in columns.items()
        if name != "t_s" and values is not None
    }
    throttled = _throttled(named.get("throttle_bits", ()), span)
    strangers = [int(value) for _, value in named.get("foreign_processes", ())]
    foreign = (max(strangers, default=0), telemetry.foreign)
    energy = _energy(named, span, images, reasons, _period(telemetry))
    flags = [
        *_sampling_flags(telemetry),
        *(
            f"{name} in {f'{share:.0%}' if share >= 0.005 else 'less than 1%'} of the samples"
            + (" (usual under heavy load)" if name == nvml.THROTTLE[0x04] else "")
            for name, share in throttled.items()
        ),
        *_foreign_flags(foreign),
        *_drift_flags(named, span),
        *_energy_flags(energy),
    ]
    return Summary(
        {name: quantity(at, span) for name, at in named.items() if name not in _NOT_AVERAGED},
        energy,
        images,
        len(calls),
        span[1] - span[0] if span else None,
        throttled,
        foreign,
        tuple(flags),
    )


_NOT_AVERAGED = ("throttle_bits", "foreign_processes", "energy_counter_j")


def points(times_s: Sequence[float | None], values: Sequence[float | None]) -> Points:
    """Return (time, value) of the samples that have a value."""
    return [
        (when, value)
        for when, value in zip(times_s, values, strict=True)
        if value is not None and when is not None
    ]


def quantity(at: Points, span: tuple[float, float] | None) -> Quantity:
    """Average one column over ``span``, and before and after it."""
    within = _where(at, lambda t: span is not None and span[0] <= t <= span[1])
    return Quantity(
        average=_mean(within),
        peak=max(within, default=None),
        before=_mean(_where(at, lambda t: span is not None and t < span[0])),
        after=_mean(_where(at, lambda t: span is not None and t > span[1])),
        samples=len(within),
    )


def integral(at: Points, begin_s: float, end_s: float) -> float | None:
    """Integrate samples over time by the trapezoid rule, from ``begin_s`` to ``end_s``.

    Values at both ends are interpolated between their neighbours. None unless there is a sample at
    or before the begin and one at or after the end.
    """
    first, last = interpolated(at, begin_s), interpolated(at, end_s)
    if first is None or last is None:
        return None
    inner = [(t, value) for t, value in at if begin_s < t < end_s]
    line = [(begin_s, first), *inner, (end_s, last)]
    return sum((t1 - t0) * (v0 + v1) / 2 for (t0, v0), (t1, v1) in pairwise(line))


def interpolated(at: Points, when_s: float) -> float | None:
    """Return the value at a time, on the line between its neighbours; None outside the samples."""
    before = [point for point in at if point[0] <= when_s]
    after = [point for point in at if point[0] >= when_s]
    if not before or not after:
        return None
    (t0, v0), (t1, v1) = before[-1], after[0]
    return v0 if t1 == t0 else v0 + (v1 - v0) * (when_s - t0) / (t1 - t0)


def _energy(
    named: Mapping[str, Points],
    span: tuple[float, float] | None,
    images: int,
    reasons: Mapping[str, str],
    period_s: float,
) -> Energy:
    power, counter = named.get("power_w"), named.get("energy_counter_j")
    if power is None:
        why = reasons.get("telemetry.power_w", "power was not sampled")
        return Energy(None, None, None, why)
    if span is None or not images:
        return Energy(None, None, None, "no call ended while power was sampled")
    joules = integral(power, *span)
    if joules is None:
        return Energy(None, None, None, "the samples of power do not reach over all calls")
    by_counter, fell = None, False
    if counter is not None:
        first, last = (interpolated(counter, when) for when in span)
        told = _where(counter, lambda t: span[0] <= t <= span[1])
        line = [value for value in (first, *told, last) if value is not None]
        fell = any(after < before for before, after in pairwise(line))
        if first is not None and last is not None and last > first and not fell:
            by_counter = (last - first) / images
    unsampled = _unsampled(power, span, GAP_FACTOR * period_s)
    if unsampled > MOST_UNSAMPLED:
        why = f"power was not sampled for {unsampled:.0%} of the calls' time"
        return Energy(None, by_counter, None, why, unsampled, fell)
    per_image = joules / images
    away = 100 * (per_image / by_counter - 1) if by_counter else None
    return Energy(per_image, by_counter, away, None, unsampled, fell)


def _period(telemetry: Telemetry) -> float:
    """Return the seconds from one sample to the next, as achieved or else as asked."""
    asked: float = telemetry.period_s * 2**telemetry.thinned
    return max(asked, telemetry.achieved_s or 0.0)


def _unsampled(at: Points, span: tuple[float, float], gap_s: float) -> float:
    """Return the share of ``span`` that lies between samples more than ``gap_s`` apart."""
    if span[1] <= span[0]:
        return 0.0
    gaps = [
        max(0.0, min(after, span[1]) - max(before, span[0]))
        for (before, _), (after, _) in pairwise(at)
        if after - before > gap_s
    ]
    return sum(gaps) / (span[1] - span[0])


def _throttled(bits: Points, span: tuple[float, float] | None) -> dict[str, float]:
    seen = _where(bits, lambda t: span is not None and span[0] <= t <= span[1])
    found = {}
    for bit, name in nvml.THROTTLE.items():
        share = sum(bool(int(value) & bit) for value in seen)
        if share:
            found[name] = share / len(seen)
    return found


def _sampling_flags(telemetry: Telemetry) -> Iterable[str]:
    if telemetry.ended:
        yield f"sampling ended early: {telemetry.ended}"
    achieved, asked = telemetry.achieved_s, telemetry.period_s * 2**telemetry.thinned
    if achieved is not None and achieved > LATE_FACTOR * asked:
        yield f"samples came every {achieved:.3g} s, not every {asked:.3g} s as asked"


def _foreign_flags(foreign: tuple[int, tuple[str, ...]]) -> Iterable[str]:
    count, names = foreign
    if count:
        named = f": {', '.join(names)}" if names else ""
        yield f"{count} other process(es) on the GPU{named}"


def _drift_flags(named: Mapping[str, Points], span: tuple[float, float] | None) -> Iterable[str]:
    """Compare the first third of the calls with the last one."""
    if span is None:
        return
    third = (span[1] - span[0]) / 3
    for name, unit in (("sm_clock_mhz", "MHz"), ("temperature_c", "°C")):
        at = named.get(name, ())
        first = _mean(_where(at, lambda t: span[0] <= t <= span[0] + third))
        last = _mean(_where(at, lambda t: span[1] - third <= t <= span[1]))
        if first is None or last is None:
            continue
        if name == "sm_clock_mhz" and abs(last - first) > CLOCK_DRIFT_PCT / 100 * first:
            yield f"the SM clock went from {first:.0f} to {last:.0f} {unit} during the calls"
        if name == "temperature_c" and abs(last - first) > TEMPERATURE_DRIFT_C:
            yield f"the temperature went from {first:.0f} to {last:.0f} {unit} during the calls"


def _energy_flags(energy: Energy) -> Iterable[str]:
    if energy.unsampled:
        yield f"power was not sampled for {energy.unsampled:.1%} of the calls' time"
    if energy.counter_fell:
        yield "the GPU's energy counter went back during the calls and was not used"
    away = energy.disagreement_pct
    if away is not None and abs(away) > COUNTER_DISAGREES_PCT:
        yield f"sampled power lies {away:+.0f} % off the GPU's own energy counter"


def _where(at: Points, inside: Callable[[float], bool]) -> list[float]:
    return [value for t, value in at if inside(t)]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
