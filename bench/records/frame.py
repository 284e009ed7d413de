"""Records as one flat table: a row each, for data frames and exports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import modes
from bench.passes import PASSES
from bench.records.alike import READ
from bench.records.arms import Baselines
from bench.records.types import Record, median
from bench.tasks import TASKS

if TYPE_CHECKING:
    import pandas

Get = Callable[[Record], Any]


class Column(NamedTuple):
    """``get`` is None of what compares a record with others."""

    name: str
    meaning: str
    get: Get | None


def _at(name: str, meaning: str, path: str = "") -> Column:
    """Return the column of what lies at ``path`` in a record, by default its ``name``."""
    return Column(name, meaning, attrgetter(path or name))


def _mode(name: str, meaning: str) -> Column:
    return Column(name, meaning, lambda r: modes.word_of(r.cell.raw["workload"], name))


def _load(when: str, meaning: str) -> Column:
    def get(record: Record) -> float | None:
        load = record.load_average_1m
        return getattr(load, when) if load else None

    return Column(f"load_average_{when}_1m", meaning, get)


def _figure(name: str, meaning: str, get: Get | None = None) -> Column:
    """Return a column that is None unless the record is ok."""
    taken = get or attrgetter(name)
    return Column(name, meaning, lambda r: taken(r) if r.outcome == "ok" else None)


def _median(name: str, meaning: str, get: Get | None = None) -> Column:
    taken = get or attrgetter(name)
    return _figure(name, meaning, lambda r: median(taken(r) or ()))


def _peak(meter: str) -> Column:
    def get(record: Record) -> int | None:
        found = [m.bytes for m in record.memory if (m.meter, m.phase) == (meter, "steady")]
        return next((value for value in reversed(found) if value is not None), None)

    return _figure(f"peak_{meter}_bytes", f"steady peak by {meter}, in bytes", get)


def _declared() -> Iterable[Column]:
    """Yield the columns that passes and tasks declare beside their fields."""
    for registry in (PASSES, TASKS):
        for name in registry.names():
            for column in getattr(registry.part(name, "record"), "COLUMNS", ()):
                yield _median(*column)


LIST = (
    _at("name", "name of the cell, unique within the run"),
    _at("cell_id", "identity of the cell"),
    _at("round", "round, from 0"),
    _at("attempt", "0, or the number of the retry"),
    _at("workload", "name of the workload", "workload.name"),
    _at("task", "text-to-image, image-to-image, edit or chain", "workload.task"),
    _at("model", "model as configured", "workload.model"),
    _at("model_revision", "revision that was loaded"),
    _at("synthetic_weights", "whether the weights are random"),
    _at("backend", "backend that was asked for", "cell.backend.name"),
    _at("environment", "environment that it was asked to run in", "cell.backend.environment"),
    _at("active", "whether the backend was proved to be active", "backend.active"),
    _at("cache", "compile cache: fresh or warm", "actual_cache"),
    _at("device", "device that it ran on"),
    _at("dtype", "data type", "workload.dtype"),
    _mode("memory", "memory modes, none without"),
    _mode("precision", "precision: fp32, tf32, autocast; else as the data type"),
    _mode("between", "what is done after each call, none without"),
    _at("threads", "CPU threads of torch", "cell.threads"),
    _at("batch", "images in one call; of a chain, in its largest round", "workload.batch"),
    Column("height", "height of the images, in pixels", lambda r: r.size[0]),
    Column("width", "width of the images, in pixels", lambda r: r.size[1]),
    _at("steps_requested", "steps asked for", "steps.requested"),
    _at("steps_effective", "steps that the scheduler took"),
    _at("denoiser_calls", "calls of the denoiser"),
    _at("denoiser_batch", "largest batch that the denoiser was given"),
    _at("outcome", "how the cell ended; figures below are null unless it is ok"),
    _at("reason", "why, if it is not ok"),
    Column("warnings", "number of warnings", lambda r: len(r.warnings)),
    _load("start", "the system's 1-minute load average as measuring began"),
    _load("end", "the same as it ended"),
    _figure("load_s", "time to load the pipeline, in seconds"),
    _figure("prepare_s", "time of the backend's own call, in seconds"),
    _figure("first_call_s", "first generation, in seconds"),
    _figure("warmup_s", "sum of all warm-up calls, in seconds", attrgetter("warmup_total_s")),
    _figure("warmup_calls", "number of warm-up calls", lambda r: len(r.warmup_s)),
    _figure("warmup_stable", "whether warm-up ended with stable calls"),
    _figure("compile_s", "first call less the median steady call, in seconds"),
    _figure("calls", "number of measured calls", lambda r: len(r.e2e_s)),
    _median("e2e_s", "median end-to-end time, in seconds"),
    _figure(
        "e2e_low_s",
        "lower end of the 95 % interval of that median; null below six calls",
        lambda r: (r.e2e_interval_s or (None,))[0],
    ),
    _figure("e2e_high_s", "upper end of it", lambda r: (r.e2e_interval_s or (None,))[-1]),
    _median("device_e2e_s", "median end-to-end time by device events, in seconds"),
    _median("step_s", "median interval between steps, in seconds", attrgetter("step_intervals_s")),
    _median("it_per_s", "median of OneDiff's iterations per second"),
    _median("steps_per_s_e2e", "median of requested steps by end-to-end time"),
    *_declared(),
    *map(_peak, READ),
    Column(
        "speedup",
        "e2e_s of backend none in the same round and environment by e2e_s; null if not comparable",
        None,
    ),
    Column("not_comparable", "the field in which the two are unlike", None),
    _at("started_utc", "when the worker was started"),
)

COLUMNS = {column.name: column.meaning for column in LIST}
"""Columns of `frame`, with what they mean."""


def frame(records: Iterable[Record]) -> pandas.DataFrame:
    """Return a table with one row for each record and the columns of `COLUMNS`.

    Lists are reduced to their medians; the samples stay in the records.
    """
    import pandas

    return pandas.DataFrame(rows(records), columns=list(COLUMNS))


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return the rows of `frame`, as mappings of plain values."""
    kept = list(records)
    pools: dict[int, list[list[Record]]] = {}
    for record in kept:
        pools.setdefault(record.round, []).append(
            [record] if record.is_baseline and record.ok else []
        )
    baselines = {number: Baselines(each) for number, each in pools.items()}
    found = []
    for record in kept:
        row = {column.name: column.get and column.get(record) for column in LIST}
        compared = baselines[record.round].speedup([record] if record.ok else [])
        row["speedup"], row["not_comparable"] = compared
        found.append(row)
    return found
