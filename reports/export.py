"""One flat table of everything, for notebooks and for other tools' formats."""

from __future__ import annotations

import importlib
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records import frame as flat_frame
from reports import analyse, gather, perceptual
from reports.analyse import Finding
from reports.gather import Group, ReportError
from reports.perceptual import Scores

if TYPE_CHECKING:
    import pandas

FORMATS = ("csv", "parquet", "json", "pytest-benchmark")

CELL_COLUMNS = {
    "cell_processes": "processes that ended ok and are pooled below",
    "cell_calls": "measured calls in all of them",
    "cell_e2e_s": "median end-to-end time over all of them, in seconds",
    "cell_e2e_low_s": "lower end of its 95 % interval; null if there is none",
    "cell_e2e_high_s": "upper end of it",
    "cell_it_per_s": "median iterations per second",
    "cell_steps_per_s_e2e": "median of requested steps by end-to-end time",
    "cell_step_s": "median over processes of each one's median interval between steps, in seconds",
    "cell_load_s": "median time to load, in seconds",
    "cell_prepare_s": "median time of the backend's own call, in seconds",
    "cell_first_call_s": "median first call, in seconds",
    "cell_warmup_s": "median sum of warm-up calls, in seconds",
    "cell_compile_s": "median of first call less median steady call, in seconds",
    "cell_meter": "the memory meter that the report shows",
    "cell_peak_bytes": "largest steady peak by that meter, in bytes",
    "cell_speedup": "baseline median by this median; null if not comparable",
    "cell_speedup_low": "lower end of its 95 % interval",
    "cell_speedup_high": "upper end of it",
    "cell_verdict": "FASTER, SLOWER, SAME or UNCLEAR",
    "cell_verdict_reason": "the sentence that backs it",
    "cell_not_comparable": "the field in which it and the baseline differ",
    "cell_breakeven": "after, immediately or never",
    "cell_breakeven_images": "images until it pays; null if never",
    "cell_breakeven_low_images": "lower end of its 95 % interval",
    "cell_breakeven_high_images": "upper end; null if open",
    "cell_breakeven_minutes": "the same in minutes of baseline work",
    "cell_lpips": "largest LPIPS of its pictures from the baseline's; null if not computed",
    "cell_lpips_weights": "name and identity of the weights",
    "cell_lpips_reason": "why it is null",
    "cell_clip_score": "mean CLIP score of its pictures and prompt, 0 to 100",
    "cell_clip_score_baseline": "the same of the baseline's pictures of the same seeds",
    "cell_clip_score_difference": "the one less the other",
    "cell_clip_score_pictures": "seeds in that mean",
    "cell_clip_score_weights": "name and identity of the weights",
    "cell_clip_score_reason": "why it is null",
    "cell_trust": "yes, with care or no",
    "cell_doubts": "why not yes",
}
"""Columns that are equal for all records of a cell: its rounds pooled, as the report shows them."""

COLUMNS = {
    "run": "name of the run's folder",
    "run_id": "identity of the run",
    "record_id": "identity of the record",
    "record": "number that the report and bench audit call it by: its place in the run, from 1",
    **flat_frame.COLUMNS,
    **CELL_COLUMNS,
}
"""All columns of `frame`, with what they mean."""


def frame(runs: Sequence[Path]) -> pandas.DataFrame:
    """Return one row for each record, with the columns of `COLUMNS`; figures are not rounded.

    Raises:
        ReportError: a run cannot be read.
    """
    import pandas

    samples = gather.read(runs)
    found = analyse.compare(gather.group(samples))
    scores = perceptual.known(runs)
    cells = {}
    for comparison in found:
        for finding in comparison.findings:
            cell = _cell(finding, comparison.meter) | _scores(comparison.group, finding, scores)
            for sample in finding.row.recorded:
                cells[id(sample)] = cell
    rows = []
    for source in {id(sample.source): sample.source for sample in samples}.values():
        own = [sample for sample in samples if sample.source is source]
        flat = flat_frame.rows(source.folder.records())
        for sample, row in zip(own, flat, strict=True):
            ids = {"run": source.label, "run_id": source.run_id, "record_id": sample.record_id,
                   "record": sample.number}  # fmt: skip
            rows.append({**row, **ids, **cells[id(sample)]})
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def _cell(finding: Finding, meter: str | None) -> dict[str, Any]:
    e2e, speed, pays = finding.e2e, finding.speedup, finding.breakeven
    return {
        "cell_processes": finding.processes,
        "cell_calls": finding.calls,
        "cell_e2e_s": e2e and e2e.value,
        "cell_e2e_low_s": e2e and e2e.low,
        "cell_e2e_high_s": e2e and e2e.high,
        "cell_it_per_s": finding.it and finding.it.value,
        "cell_steps_per_s_e2e": finding.steps_per_s_e2e,
        "cell_step_s": finding.step_s,
        "cell_load_s": finding.load_s,
        "cell_prepare_s": finding.prepare_s,
        "cell_first_call_s": finding.first_call_s,
        "cell_warmup_s": finding.warmup_s,
        "cell_compile_s": finding.compile_s,
        "cell_meter": meter,
        "cell_peak_bytes": finding.peak(meter),
        "cell_speedup": speed and speed.ratio,
        "cell_speedup_low": speed and speed.low,
        "cell_speedup_high": speed and speed.high,
        "cell_verdict": finding.verdict and finding.verdict.word,
        "cell_verdict_reason": finding.verdict and finding.verdict.reason,
        "cell_not_comparable": finding.not_comparable,
        "cell_breakeven": pays and pays.kind,
        "cell_breakeven_images": pays and pays.images,
        "cell_breakeven_low_images": pays and pays.low_images,
        "cell_breakeven_high_images": pays and pays.high_images,
        "cell_breakeven_minutes": pays and pays.minutes,
        "cell_trust": finding.trust,
        "cell_doubts": " ".join(finding.doubts) or None,
    }


def _scores(group: Group, finding: Finding, scores: Scores) -> dict[str, Any]:
    score = scores.of(group, finding)
    known = {metric: str(weights) for metric, weights in scores.weights.items()}
    return {
        "cell_lpips": score.lpips,
        "cell_lpips_weights": known.get("lpips"),
        "cell_lpips_reason": score.reasons.get("lpips"),
        "cell_clip_score": score.clip_score,
        "cell_clip_score_baseline": score.clip_score_baseline,
        "cell_clip_score_difference": score.clip_score_difference,
        "cell_clip_score_pictures": None if score.clip_score is None else score.pictures,
        "cell_clip_score_weights": known.get("clip_score"),
        "cell_clip_score_reason": score.reasons.get("clip_score"),
    }


def render(runs: Sequence[Path], kind: str) -> bytes:
    """Return the export of one or more runs as the bytes of a file.

    Raises:
        ReportError: a run cannot be read, ``kind`` is none of `FORMATS`, or a package is missing.
    """
    if kind == "pytest-benchmark":
        return (json.dumps(pytest_benchmark(runs), indent=1) + "\n").encode()
    table = frame(runs)
    if kind == "csv":
        return str(table.to_csv(index=False)).encode()
    if kind == "json":
        return _json(table)
    if kind == "parquet":
        return _parquet(table)
    raise ReportError(f"no format is called {kind!r}; there are: {', '.join(FORMATS)}")


def _json(table: pandas.DataFrame) -> bytes:
    """Every digit of a number: pandas' own writer keeps 15 places after the point."""
    rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
    return (json.dumps(rows, indent=1, default=_plain) + "\n").encode()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _parquet(table: pandas.DataFrame) -> bytes:
    try:
        importlib.import_module("pyarrow")
    except ImportError:
        raise ReportError(
            "Parquet needs the package pyarrow, which is not installed: pip install pyarrow, or "
            "take --format csv."
        ) from None
    file = io.BytesIO()
    # Columns without any value have no type of their own.
    table.convert_dtypes().to_parquet(file, index=False, engine="pyarrow")
    return file.getvalue()


def pytest_benchmark(runs: Sequence[Path]) -> dict[str, Any]:
    """Return the cells as pytest-benchmark's ``compare`` reads them.

    One benchmark for each cell that ended ok, of all calls of all its processes; times in seconds.
    """
    comparisons = analyse.compare(gather.group(gather.read(runs)))
    several = len(runs) > 1
    made = []
    for comparison in comparisons:
        for finding in comparison.findings:
            if not finding.ok:
                continue
            first = finding.row.first
            name = f"{first.source.label}/{first.name}" if several else first.name
            made.append(_benchmark(name, comparison.group.title, finding, comparison.meter))
    source = comparisons[0].group.first.source
    machine = comparisons[0].group.first.alike.fingerprint
    return {
        "machine_info": {
            "node": str(source.host.get("cpu", "unknown")),
            "processor": str(machine.get("cpu", "")),
            "machine": str(machine.get("machine", "")),
            "python_compiler": "",
            "python_implementation": "CPython",
            "python_implementation_version": str(machine.get("python", "")),
            "python_version": str(machine.get("python", "")),
            "python_build": ["", ""],
            "release": str(machine.get("kernel", "")),
            "system": str(machine.get("os", "")),
            "cpu": {"brand_raw": str(machine.get("cpu", ""))},
        },
        "commit_info": {
            "id": source.run_id,
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": source.name,
            "branch": "",
        },
        "benchmarks": made,
        "datetime": source.created_utc,
        "version": "4.0.0",
    }


def _benchmark(name: str, group: str, finding: Finding, meter: str | None) -> dict[str, Any]:
    times = sorted(time for sample in finding.row.good for time in sample.e2e_s)
    return {
        "group": group,
        "name": name,
        "fullname": name,
        "params": None,
        "param": None,
        "extra_info": {
            "record_ids": [sample.record_id for sample in finding.row.good],
            **{k: v for k, v in _cell(finding, meter).items() if v is not None},
        },
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": False,
        },
        "stats": {**_stats(times), "data": [t for s in finding.row.good for t in s.e2e_s]},
    }


def _stats(times: Sequence[float]) -> dict[str, Any]:
    """Return pytest-benchmark's statistics of sorted times in seconds."""
    mean = statistics.fmean(times)
    deviation = statistics.stdev(times) if len(times) > 1 else 0.0
    q1, q3 = _quartiles(times)
    fence = 1.5 * (q3 - q1)
    inside = [t for t in times if q1 - fence <= t <= q3 + fence]
    far = sum(abs(t - mean) > deviation for t in times)
    beyond = len(times) - len(inside)
    return {
        "min": times[0],
        "max": times[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(times),
        "median": statistics.median(times),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": inside[0],
        "hd15iqr": inside[-1],
        "ops": 1 / mean,
        "total": sum(times),
        "iterations": 1,
    }


def _quartiles(times: Sequence[float]) -> tuple[float, float]:
    if len(times) == 1:
        return times[0], times[0]
    q1, _, q3 = statistics.quantiles(times, n=4, method="inclusive")
    return q1, q3
