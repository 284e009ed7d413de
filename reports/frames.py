"""Findings to the tables that figures are drawn from, one function for each figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

import pandas as pd

from bench import chains, text
from bench.contract import PHASES, STAGES
from bench.stats.sweep import SweepFit
from bench.sweeps import StepSweep
from reports.analyse import Comparison, Finding, Interval
from reports.fidelity import THRESHOLD_DB, Likeness
from reports.reference import Published

Rows = list[dict[str, Any]]
References = Mapping[int, Sequence[Published]]
"""Published rows by the index of the comparison beside which they are drawn."""


def end_to_end(comparisons: Sequence[Comparison], published: References) -> pd.DataFrame:
    return _list(
        comparisons,
        published,
        lambda f: f.e2e,
        lambda f: [median(s.e2e_s) for s in f.row.good],
        lambda p: p.e2e_s,
        _with_seconds,
    )


def throughput(comparisons: Sequence[Comparison], published: References) -> pd.DataFrame:
    return _list(
        comparisons,
        published,
        lambda f: f.it,
        lambda f: [median(s.it_per_s) for s in f.row.good if s.it_per_s],
        lambda p: p.it_per_s,
        _with_rate,
    )


def _with_seconds(value: float | None, low: float | None, high: float | None) -> str:
    return f"{text.with_interval(value, low, high)} s"


def _with_rate(value: float | None, low: float | None, high: float | None) -> str:
    return f"{text.with_interval(value, low, high, text.number)} it/s"


def _list(
    comparisons: Sequence[Comparison],
    published: References,
    value_of: Any,
    points_of: Any,
    published_of: Any,
    shown: Any,
) -> pd.DataFrame:
    rows: Rows = []
    for place, comparison in enumerate(comparisons):
        for finding in comparison.findings:
            value: Interval | None = value_of(finding)
            rows.append(
                {
                    **_who(comparison, finding),
                    "value": value and value.value,
                    "low": value and value.low,
                    "high": value and value.high,
                    "calls": finding.calls,
                    "processes": finding.processes,
                    "points": points_of(finding),
                    "shown": value and shown(value.value, value.low, value.high),
                    "published": False,
                }
            )
        for row in published.get(place, ()):
            rows.append(
                {
                    **_beside(comparison, row),
                    "value": published_of(row),
                    "points": [],
                    "calls": 0,
                    "processes": 0,
                    "shown": shown(published_of(row), None, None),
                }
            )
    columns = ["workload", "label", "backend", "value", "low", "high", "calls", "processes",
               "points", "shown", "published", "why"]  # fmt: skip
    return _drawn(rows, columns, "value")


def warmup(comparisons: Sequence[Comparison], published: References) -> pd.DataFrame:
    rows: Rows = []
    for place, comparison in enumerate(comparisons):
        for finding in comparison.findings:
            who = _who(comparison, finding)
            rows.append(
                {
                    **who,
                    "label": finding.row.short,
                    "cache": finding.row.cache,
                    "value": finding.warmup_s,
                    "points": [s.warmup_s for s in finding.row.good if s.warmup_s is not None],
                    "shown": text.seconds(finding.warmup_s),
                    "published": False,
                }
            )
        for row in published.get(place, ()):
            rows.append(
                {
                    **_beside(comparison, row),
                    "cache": "fresh",
                    "value": row.warmup_s,
                    "points": [row.warmup_s],
                    "shown": text.seconds(row.warmup_s),
                }
            )
    columns = ["workload", "label", "backend", "cache", "value", "points", "shown", "published",
               "why"]  # fmt: skip
    return _drawn(rows, columns, "value")


def memory(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    rows: Rows = []
    for comparison in comparisons:
        meter = comparison.meter
        if meter is None:
            continue
        for finding in comparison.findings:
            steady = finding.peak(meter)
            for phase in PHASES:
                peak = finding.peak(meter, phase)
                rows.append(
                    {
                        **_who(comparison, finding),
                        "meter": meter,
                        "phase": phase,
                        "gib": None if peak is None else peak / text.GIB,
                        "shown": text.gib(steady),
                    }
                )
                if finding.ok and steady is None:
                    rows[-1]["why"] = "not read by this meter"
    columns = ["workload", "label", "backend", "meter", "phase", "gib", "shown", "why"]
    return _drawn(rows, columns, "gib")


def sweep(comparisons: Sequence[Comparison]) -> tuple[pd.DataFrame, pd.DataFrame]:
    calls: Rows = []
    fits: Rows = []
    for comparison in comparisons:
        for finding in comparison.findings:
            found = finding.sweep
            if found is None or found.fit is None:
                continue
            who = _who(comparison, finding)
            process = {sample.round: i for i, sample in enumerate(finding.row.good, 1)}
            lengths = [call.denoiser_calls for call in found.calls]
            fitted = found.fit.predict(lengths)
            for call, out, at in zip(found.calls, found.fit.outliers, fitted, strict=True):
                calls.append(
                    {
                        **who,
                        "process": process[call.round],
                        "steps": call.steps,
                        "denoiser_calls": call.denoiser_calls,
                        "e2e_s": call.e2e_s,
                        "outlier": out,
                        "fitted_s": at,
                    }
                )
            fits.append({**who, **_line(found, found.fit, lengths, finding.processes)})
    return pd.DataFrame(
        calls,
        columns=[
            "workload",
            "label",
            "backend",
            "process",
            "steps",
            "denoiser_calls",
            "e2e_s",
            "outlier",
            "fitted_s",
        ],
    ), pd.DataFrame(
        fits,
        columns=[
            "workload",
            "label",
            "backend",
            "fixed_s",
            "marginal_step_s",
            "slope_half_s",
            "mean_calls",
            "mean_half_s",
            "n",
            "processes",
            "summary",
        ],
    )


def _line(
    found: StepSweep, fit: SweepFit, denoiser_calls: Sequence[int], processes: int
) -> dict[str, Any]:
    kept = [x for x, out in zip(denoiser_calls, fit.outliers, strict=True) if not out]
    errors = [r for r, out in zip(fit.residuals_s, fit.outliers, strict=True) if not out]
    mean = sum(kept) / len(kept)
    slope_half = mean_half = None
    if fit.marginal_interval_s is not None and len(kept) > 2:
        low, high = fit.marginal_interval_s
        slope_half = (high - low) / 2
        # The slope's interval already carries Student's t; the same factor holds for the mean.
        spread = math.sqrt(sum(e * e for e in errors) / (len(kept) - 2))
        around = math.sqrt(sum((x - mean) ** 2 for x in kept))
        factor = slope_half * around / spread if spread and around else NormalDist().inv_cdf(0.975)
        mean_half = factor * spread / math.sqrt(len(kept))
    return {
        "fixed_s": fit.fixed_s,
        "marginal_step_s": fit.marginal_step_s,
        "slope_half_s": slope_half,
        "mean_calls": mean,
        "mean_half_s": mean_half,
        "n": fit.n,
        "processes": processes,
        "summary": sweep_words(found, fit),
    }


def sweep_words(found: StepSweep, fit: SweepFit) -> str:
    """Return the line of a sweep in words: fixed time, throughput, measured it_per_s, n."""
    return (
        f"fixed {text.seconds(fit.fixed_s)} s · "
        f"marginal_it_per_s {text.number(found.marginal_it_per_s)} · "
        f"it_per_s {text.number(found.it_per_s)} · n {fit.n}"
    )


def sizes(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row for each size and backend, all backends of a size together."""
    rows: Rows = []
    for comparison in comparisons:
        points = [(point, f) for f in comparison.findings for point in f.sizes]
        for point, finding in sorted(points, key=lambda each: each[0].order):
            first, second = middle(point.first_s), middle(point.second_s)
            who = _who(comparison, finding)
            rows.append(
                {
                    **who,
                    "label": f"{point.width}×{point.height} {who['label']}",
                    "first_s": first,
                    "second_s": second,
                    "steady_s": point.median_s,
                    "shown": f"{text.seconds(first)}, {text.seconds(second)}, "
                    f"{text.seconds(point.median_s)} s · "
                    f"graphs {text.count(middle(point.graphs))}, "
                    f"recompiles {text.count(middle(point.recompiles))} · "
                    f"n = {len(point.first_s)}",
                    "why": "; ".join(dict.fromkeys(f"{x.outcome}: {x.reason}"
                                                   for x in point.failures)) or None,
                }
            )  # fmt: skip
    columns = ["workload", "label", "backend", "first_s", "second_s", "steady_s", "shown", "why"]
    return pd.DataFrame(rows, columns=columns)


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that there are."""
    found = [value for value in values if value is not None]
    return median(found) if found else None


def breakeven(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    rows: Rows = []
    for comparison in comparisons:
        baselines = {id(f.baseline) for f in comparison.findings if f.breakeven and f.baseline}
        for finding in comparison.findings:
            if finding.e2e is None or finding.first_call_s is None:
                continue
            own = finding.breakeven
            if own is None and id(finding) not in baselines:
                continue
            rows.append(
                {
                    **_who(comparison, finding),
                    "first_call_s": finding.first_call_s,
                    "e2e_s": finding.e2e.value,
                    "images_per_call": chains.pictures(comparison.group.workload),
                    "is_baseline": finding.row.is_baseline,
                    "kind": own and own.kind,
                    "images": own and own.images,
                    "low_images": own and own.low_images,
                    "high_images": own and own.high_images,
                    "shown": "baseline" if own is None else pays(finding),
                    "processes": finding.processes,
                }
            )
    columns = ["workload", "label", "backend", "first_call_s", "e2e_s", "images_per_call",
               "is_baseline", "kind", "images", "low_images", "high_images", "shown",
               "processes"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def pays(finding: Finding) -> str:
    """Return when a backend pays, in words: ``after 1,496 images (1,400–1,600)``."""
    own = finding.breakeven
    if own is None:
        return text.DASH
    if own.kind == "never":
        return "never"
    if own.kind == "immediately" or own.images is None:
        return "from the first image"
    span = ""
    if own.low_images is not None:
        span = f" ({text.interval(own.low_images, own.high_images, text.count)})"
    return f"after {text.plural(own.images, 'image')}{span}"


def stages(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    rows: Rows = []
    for comparison in comparisons:
        for finding in comparison.findings:
            total = sum(finding.stages.values())
            for stage in STAGES:
                value = finding.stages.get(stage)
                rows.append(
                    {
                        **_who(comparison, finding),
                        "stage": stage,
                        "seconds": value,
                        "pct": None if value is None or not total else 100 * value / total,
                        "calls": finding.calls,
                        "processes": finding.processes,
                        "shown": text.seconds(total or None),
                    }
                )
    columns = ["workload", "label", "backend", "stage", "seconds", "pct", "calls", "processes",
               "shown", "why"]  # fmt: skip
    return _drawn(rows, columns, "seconds")


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


LAUNCH_BOUND_PCT = 90.0
"""Below this share of device-busy time in a loop, the host's launches decide how long it takes.

Of the loop and not of the call: while pictures are made of a finished call, nothing is launched."""


def limits(comparison: Comparison, finding: Finding) -> Limits | None:
    """Return a finding's place under the roof; None where work or ceilings are not known.

    Work is counted in the workload's baseline, and ceilings are the medians over all of its
    processes. A device-busy share relates the busy time of a traced call or loop, which tracing
    does not stretch, to the median of those that were not traced.
    """
    good = [s for f in comparison.findings for s in f.row.good]
    counted = [s.work for s in good if s.work]
    measured = [s.ceilings for s in good if s.ceilings]
    loop_s = finding.stages.get("denoise_s")
    # A lossy backend does other work than was counted: fewer steps in full, or narrower numbers.
    if not counted or not measured or not loop_s or finding.row.first.lossy:
        return None
    scope = counted[0].get("unet") or counted[0].get("transformer")
    if not scope or not scope["bytes"] or not scope["weight_bytes"]:
        return None
    matmul = median(c["matmul_flops_per_s"] for c in measured)
    copy = median(c["copy_bytes_per_s"] for c in measured)
    busy = [s.device_busy["busy_s"] for s in finding.row.good if s.device_busy.get("busy_s")]
    traced = [
        (s.device_busy["loop_busy_s"], math.fsum(middle for middle, _, _ in s.steps_trace))
        for s in finding.row.good
        if s.device_busy.get("loop_busy_s") and s.steps_trace
    ]
    call_s = finding.device_e2e_s or (finding.e2e.value if finding.e2e else None)
    return Limits(
        flop_per_byte=scope["flops"] / scope["bytes"],
        flop_per_weight_byte=scope["flops"] / (scope["weight_bytes"] * scope["calls"]),
        flops_per_s=scope["flops"] / loop_s,
        matmul_flops_per_s=matmul,
        copy_bytes_per_s=copy,
        ideal_s=scope["flops"] / matmul,
        least_s=scope["weight_bytes"] * scope["calls"] / copy,
        operators_s=scope["bytes"] / copy,
        busy_pct=100 * median(busy) / call_s if busy and call_s else None,
        loop_busy_pct=median(100 * busy_s / loop for busy_s, loop in traced) if traced else None,
    )


def roofline(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return the fastest of each backend's variants: all stand at one place across."""
    rows: Rows = []
    for comparison in comparisons:
        fastest: dict[str, tuple[Finding, Limits]] = {}
        for finding in comparison.findings:
            found = limits(comparison, finding)
            best = fastest.get(finding.row.called)
            if found and (best is None or found.flops_per_s > best[1].flops_per_s):
                fastest[finding.row.called] = (finding, found)
        for finding, found in fastest.values():
            rows.append(
                {
                    **_who(comparison, finding),
                    "flop_per_byte": found.flop_per_byte,
                    "flop_per_weight_byte": found.flop_per_weight_byte,
                    "flops_per_s": found.flops_per_s,
                    "matmul_flops_per_s": found.matmul_flops_per_s,
                    "copy_bytes_per_s": found.copy_bytes_per_s,
                    "mfu_pct": found.mfu_pct,
                    "busy_pct": found.loop_busy_pct,
                    "launch_bound": found.launch_bound,
                    "processes": finding.processes,
                }
            )
    columns = ["workload", "label", "backend", "flop_per_byte", "flop_per_weight_byte",
               "flops_per_s", "matmul_flops_per_s", "copy_bytes_per_s", "mfu_pct", "busy_pct",
               "launch_bound", "processes"]  # fmt: skip
    return _drawn(rows, columns, "flops_per_s")


def pareto(
    comparisons: Sequence[Comparison], likenesses: Sequence[Mapping[int, Likeness]]
) -> pd.DataFrame:
    rows: Rows = []
    for comparison, likeness in zip(comparisons, likenesses, strict=True):
        for index, finding in enumerate(comparison.findings):
            found = likeness.get(index)
            if found is None or found.verdict is None or finding.speedup is None:
                continue
            if found.verdict.word == "INVALID":
                continue
            control = [
                p.figures.psnr_db
                for p in found.control
                if p.figures is not None and p.figures.psnr_db is not None
            ]
            rows.append(
                {
                    **_who(comparison, finding),
                    "speedup": finding.speedup.ratio,
                    "low": finding.speedup.low,
                    "high": finding.speedup.high,
                    "shown": text.ratio(finding.speedup.ratio),
                    "psnr_db": found.verdict.worst_db,
                    "identical": found.verdict.word == "IDENTICAL",
                    "pictures": len([p for p in found.pairs if p.figures is not None]),
                    "control_db": min(control, default=None),
                    "threshold_db": THRESHOLD_DB,
                }
            )
    columns = ["workload", "label", "backend", "speedup", "low", "high", "shown", "psnr_db",
               "identical", "pictures", "control_db", "threshold_db"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def spread(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    rows: Rows = []
    for comparison in comparisons:
        for finding in comparison.findings:
            if finding.e2e is None:
                continue
            who = _who(comparison, finding)
            for process, sample in enumerate(finding.row.good, 1):
                for time in sample.e2e_s:
                    rows.append(
                        {
                            **who,
                            "process": process,
                            "e2e_s": time,
                            "median_s": finding.e2e.value,
                            "between_pct": finding.between_pct,
                            "within_pct": finding.within_pct,
                        }
                    )
    columns = ["workload", "label", "backend", "process", "e2e_s", "median_s", "between_pct",
               "within_pct"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def trace(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    rows: Rows = []
    for comparison in comparisons:
        for finding in comparison.findings:
            traces = [s.steps_trace for s in finding.row.good if s.steps_trace]
            longest = max(map(len, traces), default=0)
            whole = [t for t in traces if len(t) == longest]
            for step, at in enumerate(zip(*whole, strict=True), 1):
                rows.append(
                    {
                        **_who(comparison, finding),
                        "step": step,
                        "median_s": median(a[0] for a in at),
                        "low_s": min(a[1] for a in at),
                        "high_s": max(a[2] for a in at),
                        "calls": finding.calls,
                        "processes": len(whole),
                    }
                )
    columns = ["workload", "label", "backend", "step", "median_s", "low_s", "high_s", "calls",
               "processes"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def panel(comparison: Comparison) -> str:
    """Return a panel's title: a figure is read alone, so it says what its times are of."""
    group = comparison.group
    return f"{group.title} (synthetic weights)" if group.synthetic else group.title


def _who(comparison: Comparison, finding: Finding) -> dict[str, Any]:
    why = "not recorded" if finding.ok else finding.outcome
    return {
        "workload": panel(comparison),
        "label": finding.row.label,
        "backend": finding.row.backend,
        "why": why,
    }


def _beside(comparison: Comparison, row: Published) -> dict[str, Any]:
    return {
        "workload": panel(comparison),
        "label": row.label,
        "backend": row.backend,
        "published": True,
        "why": "not published",
    }


def _drawn(rows: Rows, columns: Sequence[str], figure: str) -> pd.DataFrame:
    """Return a table without the workloads that hold nothing to draw."""
    drawable = {row["workload"] for row in rows if row.get(figure) is not None}
    return pd.DataFrame([r for r in rows if r["workload"] in drawable], columns=list(columns))
