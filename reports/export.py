"""One flat table of everything, for notebooks and for other tools' formats."""

from __future__ import annotations

import importlib
import io
import json
import statistics
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.contract import Perceptual
from bench.records import frame as flat
from bench.records.arms import group
from bench.store import StoreError
from bench.store.load import load
from reports import analyse, perceptual
from reports.analyse import Finding
from reports.perceptual import Score, Scores
from reports.tables import Getter, get

if TYPE_CHECKING:
    import pandas

FORMATS = ("csv", "parquet", "json", "pytest-benchmark")

FIGURES: dict[str, tuple[Getter, str]] = {
    "processes": ("processes", "processes that ended ok and are pooled below"),
    "calls": ("calls", "measured calls in all of them"),
    "e2e_s": ("e2e.value", "median end-to-end time over all of them, in seconds"),
    "e2e_low_s": ("e2e.low", "lower end of its 95 % interval; null if there is none"),
    "e2e_high_s": ("e2e.high", "upper end of it"),
    "it_per_s": ("it.value", "median iterations per second"),
    "steps_per_s_e2e": ("steps_per_s_e2e", "median of requested steps by end-to-end time"),
    "step_s": ("step_s", "median over processes of each one's median step interval, in seconds"),
    "load_s": ("load_s", "median time to load, in seconds"),
    "prepare_s": ("prepare_s", "median time of the backend's own call, in seconds"),
    "first_call_s": ("first_call_s", "median first call, in seconds"),
    "warmup_s": ("warmup_s", "median sum of warm-up calls, in seconds"),
    "compile_s": ("compile_s", "median of first call less median steady call, in seconds"),
    "meter": ("meter", "the memory meter that the report shows"),
    "peak_bytes": (lambda f: f.peak(), "largest steady peak by that meter, in bytes"),
    "speedup": ("speedup.ratio", "baseline median by this median; null if not comparable"),
    "speedup_low": ("speedup.low", "lower end of its 95 % interval"),
    "speedup_high": ("speedup.high", "upper end of it"),
    "verdict": ("verdict.word", "FASTER, SLOWER, SAME or UNCLEAR"),
    "verdict_reason": ("verdict.reason", "the sentence that backs it"),
    "not_comparable": ("not_comparable", "the field in which it and the baseline differ"),
    "breakeven": ("breakeven.kind", "after, immediately or never"),
    "breakeven_images": ("breakeven.images", "images until it breaks even; null if never"),
    "breakeven_low_images": ("breakeven.low_images", "lower end of its 95 % interval"),
    "breakeven_high_images": ("breakeven.high_images", "upper end; null if open"),
    "breakeven_minutes": ("breakeven.minutes", "the same in minutes of baseline work"),
}
TRUST: dict[str, tuple[Getter, str]] = {
    "trust": ("trust", "yes, with care or no"),
    "doubts": (lambda f: " ".join(f.doubts) or None, "why not yes"),
}


class _Scored(NamedTuple):
    score: Score
    scores: Scores


def _weights(metric: Perceptual) -> Getter:
    return lambda row: str(row.scores.weights[metric]) if metric in row.scores.weights else None


def _why(metric: Perceptual) -> Getter:
    return lambda row: row.score.reasons.get(metric)


def _seeds(row: _Scored) -> int | None:
    return None if row.score.clip_score is None else row.score.pictures


SCORES: dict[str, tuple[Getter, str]] = {
    "lpips": ("score.lpips", "largest LPIPS of its images from the baseline's; null if unknown"),
    "lpips_weights": (_weights("lpips"), "name and identity of the weights"),
    "lpips_reason": (_why("lpips"), "why it is null"),
    "clip_score": ("score.clip_score", "mean CLIP score of its images and prompt, 0 to 100"),
    "clip_score_baseline": (
        "score.clip_score_baseline", "the same of the baseline's images of the same seeds",
    ),
    "clip_score_difference": ("score.clip_score_difference", "the one less the other"),
    "clip_score_pictures": (_seeds, "seeds in that mean"),
    "clip_score_weights": (_weights("clip_score"), "name and identity of the weights"),
    "clip_score_reason": (_why("clip_score"), "why it is null"),
}  # fmt: skip

CELL_COLUMNS = {
    f"cell_{name}": meaning for name, (_, meaning) in (FIGURES | SCORES | TRUST).items()
}
"""Columns that are equal for all records of a cell: its rounds pooled, as the report shows them."""

COLUMNS = {
    "run": "name of the run's folder",
    "run_id": "identity of the run",
    "record_id": "identity of the record",
    "record": "number that the report and bench audit call it by: its place in the run, from 1",
    **flat.COLUMNS,
    **CELL_COLUMNS,
}
"""All columns of `frame`, with what they mean."""


def frame(runs: Sequence[Path]) -> pandas.DataFrame:
    """Return one row for each record, with the columns of `COLUMNS`; figures are not rounded.

    Raises:
        StoreError: a run cannot be read.
    """
    import pandas

    sources = load(runs)
    scores = perceptual.known(runs)
    cells: dict[int, dict[str, Any]] = {}
    for comparison in analyse.compare(group(sources)):
        for finding in comparison.findings:
            score = _Scored(scores.of(comparison.group, finding), scores)
            cell = _read(FIGURES | TRUST, finding) | _read(SCORES, score)
            cells.update((id(record), cell) for record in finding.arm.records)
    rows = [
        {
            **row,
            "run": source.label,
            "run_id": source.run_id,
            "record_id": record.record_id,
            "record": number,
            **cells[id(record)],
        }
        for source in sources
        for number, (record, row) in enumerate(
            zip(source.records, flat.rows(source.records), strict=True), 1
        )
    ]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def _read(columns: dict[str, tuple[Getter, str]], row: Any) -> dict[str, Any]:
    return {f"cell_{name}": get(row, what) for name, (what, _) in columns.items()}


def render(runs: Sequence[Path], kind: str) -> bytes:
    """Return the export of one or more runs as the bytes of a file.

    Raises:
        StoreError: a run cannot be read, ``kind`` is none of `FORMATS`, or a package is missing.
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
    raise StoreError(f"no format is called {kind!r}; there are: {', '.join(FORMATS)}")


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
        raise StoreError(
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
    comparisons = analyse.compare(group(load(runs)))
    made = []
    for comparison in comparisons:
        for finding in comparison.findings:
            if finding.ok:
                arm = finding.arm
                name = f"{arm.source.label}/{arm.cell.name}" if len(runs) > 1 else arm.cell.name
                made.append(_benchmark(name, comparison.group.title, finding))
    first = comparisons[0].group.first
    arm = next(arm for arm in comparisons[0].group.arms if first is None or first in arm.records)
    source, machine = arm.source, first.fingerprint if first else {}
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


def _benchmark(name: str, group: str, finding: Finding) -> dict[str, Any]:
    good = finding.arm.good
    times = list(chain.from_iterable(record.e2e_s for record in good))
    return {
        "group": group,
        "name": name,
        "fullname": name,
        "params": None,
        "param": None,
        "extra_info": {
            "record_ids": [record.record_id for record in good],
            **{k: v for k, v in _read(FIGURES | TRUST, finding).items() if v is not None},
        },
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": False,
        },
        "stats": {**_stats(sorted(times)), "data": times},
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
