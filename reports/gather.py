"""Runs to samples: what a report needs of each record, grouped by what may be compared.

Records are read one at a time and reduced to a few numbers each, so that memory grows with the
number of records and not with what they hold.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import busy, comparable
from bench.contract import PHASES, STAGES
from bench.records import Record
from bench.records.read import RecordError, decode
from bench.store import Entry, RunFolder, StoreError

BASELINE = "none"
NO_RECORD = "no record"
"""Outcome of a sample that stands for a planned cell of which no process has ended yet."""

KEPT: tuple[str, ...] = (
    *("memory_modes", "between_s"),
    *("ttfi_s", "gaps_s", "tbb_s", "images_per_s", "chain_rounds", "lineage"),
    "folder",
    *("memory_limit", "dominated_by", "output_height", "output_width"),
    *("telemetry", "repeat", "repeat_about", "deterministic"),
    *("lora", "controlnet", "custom_pipeline", "control_images", "control_sha256", "step_kind"),
)
"""Fields of the record that sections of a report read; they are kept as they stand."""


class ReportError(StoreError):
    """The runs cannot be reported as asked; ``str()`` is the whole message for the user."""


@dataclass(frozen=True, slots=True)
class Source:
    """A run folder. ``label`` is its name, made unique among the runs of one report.

    ``folder`` is the run as it was when its samples were read: what else is read of it comes from
    there, so that a report on a run that goes on is one snapshot. ``numbers`` has what each record
    that counts is called by, by its line: its place among them from 1, as in ``bench audit``.
    """

    label: str
    path: Path
    run_id: str
    name: str
    created_utc: str
    version: str
    host: Mapping[str, Any]
    folder: RunFolder = field(repr=False, compare=False)
    numbers: dict[int, int] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Alike:
    """All that records must share to be compared. Records with an equal one share the object."""

    key: str
    record: Mapping[str, Any]

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return self.record.get("fingerprint") or {}


@dataclass(frozen=True, slots=True)
class Peak:
    meter: str
    phase: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Picture:
    path: Path
    shown: str
    seed: int
    index: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: one process of one cell. Times in seconds, in the order measured.

    ``line`` is that of its file, 0 without a record. ``sweep`` holds the fields of the record that
    `bench.sweeps` reads; None if it has no sweep. ``audited`` is its row in the audit. ``more``
    holds those of the fields in `KEPT` that the record has.
    """

    source: Source
    line: int
    record_id: str
    cell_id: str
    name: str
    round: int
    attempt: int
    outcome: str
    reason: str | None
    workload: Mapping[str, Any]
    backend: str
    options: Mapping[str, Any]
    environment: str
    cache: str
    device: str
    alike: Alike
    active: bool | None
    lossy: bool
    scope: tuple[str, ...]
    evidence: Mapping[str, Any]
    warnings: tuple[str, ...]
    rounds_planned: int
    load_s: float | None
    prepare_s: float | None
    first_call_s: float | None
    warmup_s: float | None
    warmup_calls: int
    warmup_stable: bool | None
    compile_s: float | None
    prime_s: float | None
    e2e_s: tuple[float, ...]
    device_e2e_s: tuple[float, ...]
    it_per_s: tuple[float, ...]
    steps_per_s_e2e: tuple[float, ...]
    stages: tuple[tuple[float | None, ...], ...]
    step_s: float | None
    steps_trace: tuple[tuple[float, float, float], ...]
    peaks: tuple[Peak, ...]
    pictures: tuple[Picture, ...]
    sweep: Mapping[str, Any] | None
    steps: tuple[int | None, int | None, int | None, int | None]
    pipeline_class: str | None
    scheduler_class: str | None
    synthetic: bool
    load_average_1m: float | None
    busy: str | None
    null_reasons: Mapping[str, str]
    work: Mapping[str, Any]
    ceilings: Mapping[str, Any]
    device_busy: Mapping[str, Any]
    audited: Record | None
    more: Mapping[str, Any]

    @property
    def number(self) -> int:
        """What its record is called by."""
        return self.source.numbers[self.line]

    @property
    def ok(self) -> bool:
        return self.outcome == "ok" and bool(self.e2e_s)

    @property
    def recorded(self) -> bool:
        return self.outcome != NO_RECORD


@dataclass(slots=True)
class Row:
    """One backend of one workload in one run: all its processes that may be pooled.

    ``split`` names the field in which they are unlike the cell's other records, if there are such.
    """

    label: str
    short: str
    samples: list[Sample]
    split: str | None = None

    @property
    def recorded(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.recorded]

    @property
    def good(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.ok]

    @property
    def first(self) -> Sample:
        return next((sample for sample in self.samples if sample.ok), self.samples[0])

    @property
    def backend(self) -> str:
        return self.samples[0].backend

    @property
    def cell(self) -> dict[str, Any]:
        """What of its cell names it."""
        sample = self.samples[0]
        backend = {"name": sample.backend, "environment": sample.environment}
        return {"name": sample.name, "backend": backend, "cache": sample.cache}

    @property
    def called(self) -> str:
        """Its backend, with the environment that it was sent to."""
        return comparable.label(self.cell["backend"])

    @property
    def choice(self) -> tuple[str, str]:
        """Its backend, environment and options: all but the compile cache and the run."""
        told = json.dumps(self.samples[0].options, sort_keys=True, default=str)
        return self.called, told

    @property
    def session(self) -> str:
        """The run that it was measured in."""
        return self.samples[0].source.label

    @property
    def lossy(self) -> bool:
        """Whether it changes the picture on purpose."""
        return any(sample.lossy for sample in self.samples)

    @property
    def cache(self) -> str:
        return self.samples[0].cache

    @property
    def is_baseline(self) -> bool:
        return self.backend == BASELINE


@dataclass(slots=True)
class Group:
    """All backends of one workload: what one panel, one gallery row and one answer is about."""

    title: str
    workload: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)

    @property
    def synthetic(self) -> bool:
        return any(sample.synthetic for row in self.rows for sample in row.samples)

    @property
    def first(self) -> Sample:
        """A sample that ended ok, if there is one."""
        return next((row.first for row in self.rows if row.first.ok), self.rows[0].first)


def read(runs: Sequence[Path]) -> list[Sample]:
    """Read the records of one or more run folders, in the order given.

    Raises:
        ReportError: a folder is no run, is cut off, holds something else, or holds no record.
    """
    collecting = gc.isenabled()
    # Records hold no cycles, and a search for some would walk all samples time and again.
    gc.disable()
    try:
        return _read(runs)
    finally:
        if collecting:
            gc.enable()


def _read(runs: Sequence[Path]) -> list[Sample]:
    samples: list[Sample] = []
    interned = _Interned()
    for path, label in zip(runs, _names(runs), strict=True):
        found = _Found(label, interned)
        entries = _open(path, found).entries()
        if not entries:
            raise ReportError(
                f"{path} holds no record of its plan yet, so there is nothing to report; "
                "bench run --resume measures what is missing."
            )
        for number, entry in enumerate(entries, 1):
            sample = found.samples[entry.line]
            if isinstance(sample, ReportError):
                raise sample
            sample.source.numbers[entry.line] = number
            samples.append(sample)
    return samples


class _Interned:
    """What many records have in common, kept once.

    Attributes:
        alike: by its key, and by what its record held.
    """

    def __init__(self) -> None:
        self.alike: dict[Any, Alike] = {}
        self._texts: dict[str, str] = {}
        self._tables: dict[str, Mapping[str, Any]] = {}

    def text(self, value: str) -> str:
        return self._texts.setdefault(value, value)

    def texts(self, values: Sequence[str]) -> tuple[str, ...]:
        known = self._texts.setdefault
        return tuple([known(value, value) for value in values])

    def table(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        # Unlike equality, this tells 1 from 1.0 and from true.
        return self._tables.setdefault(repr(value), value)


class _Found:
    """What the records of one folder reduce to, by their line: a sample, or why there is none.

    Which records are valid is known only once all are read, so an error waits until then.
    """

    def __init__(self, label: str, interned: _Interned) -> None:
        self.samples: dict[int, Sample | ReportError] = {}
        self._label = label
        self._interned = interned
        self._source: Source | None = None

    def __call__(self, folder: RunFolder, entry: Entry, record: Mapping[str, Any]) -> None:
        if self._source is None:
            self._source = _source(folder, self._label)
        try:
            self.samples[entry.line] = _sample(record, self._source, self._interned, entry.line)
        except ReportError as error:
            # Its traceback would keep the record.
            self.samples[entry.line] = error.with_traceback(None)


def check(run: Path) -> None:
    """Check that every record of a run that counts is one that can be shown.

    Raises:
        StoreError: one is not; a run that has no record, or an unfinished last line, is no error.
    """
    found = _Found(run.name, _Interned())
    for entry in _taken(run, found).entries():
        sample = found.samples[entry.line]
        if isinstance(sample, ReportError):
            raise sample


def group(samples: Iterable[Sample], workloads: Sequence[str] = ()) -> list[Group]:
    """Group samples by workload and device, and pool the rounds of each cell.

    A cell that the plan of a sample's run holds and of which there is no sample gets a row too,
    with one sample whose outcome is `NO_RECORD`.

    Args:
        samples: as `read` returns them.
        workloads: names to keep; all if empty.

    Raises:
        ReportError: no sample is of any of ``workloads``.
    """
    kept = list(samples)
    kept += _without_record(kept)
    if workloads:
        known = list(dict.fromkeys(str(s.workload.get("name")) for s in kept))
        missing = [name for name in workloads if name not in known]
        if missing:
            raise ReportError(f"no workload is called {missing[0]!r}; there are: {listing(known)}")
        kept = [s for s in kept if s.workload.get("name") in workloads]
    grouped: dict[str, dict[tuple[str, str, str], list[Sample]]] = {}
    keys: dict[tuple[int, str, int], str] = {}
    for sample in kept:
        # Samples of one workload share it.
        own = (id(sample.workload), sample.device, id(sample.alike))
        if own not in keys:
            keys[own] = _group_key(sample)
        cells = grouped.setdefault(keys[own], {})
        # A sample without figures says nothing of what it is like: it joins its cell.
        alike = sample.alike.key if sample.ok else ""
        cells.setdefault((sample.source.label, sample.cell_id, alike), []).append(sample)
    groups = [_group(list(cells.values())) for cells in grouped.values()]
    _tell_apart(groups)
    return groups


def listing(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _taken(path: Path, found: _Found) -> RunFolder:
    folder = RunFolder.open(path)
    for entry, line in folder.journal.lines(folder.entries()):
        found(folder, entry, json.loads(line))
    return folder


def _open(path: Path, found: _Found) -> RunFolder:
    folder = _taken(path, found)
    if folder.journal.torn_at is not None:
        raise ReportError(
            f"{folder.path / 'records.jsonl'} is cut off: it ends in an unfinished line at byte "
            f"{folder.journal.torn_at}; bench run --resume mends the run."
        )
    return folder


def _without_record(samples: Sequence[Sample]) -> list[Sample]:
    """Return a sample for each planned cell that none of ``samples`` is of."""
    found = []
    for source in {id(s.source): s.source for s in samples}.values():
        cells = {cell["cell_id"]: cell for cell in source.folder.plan.get("cells", [])}
        entries = source.folder.entries()
        # A plan may ask for any device; which one that is, the records say.
        devices = {cells[e.cell_id].get("device"): e.device for e in entries if e.device}
        measured = {s.cell_id for s in samples if s.source is source}
        for cell_id, cell in cells.items():
            if cell_id in measured:
                continue
            device = devices.get(cell.get("device"), cell.get("device"))
            stands = {"record_id": "", "cell_id": cell_id, "cell": cell, "name": cell.get("name"),
                      "round": 0, "sequence": 0, "outcome": NO_RECORD,
                      "device": device}  # fmt: skip
            found.append(_sample(stands, source, _Interned(), 0))
    return found


def _names(runs: Sequence[Path]) -> list[str]:
    """Return a short unique name for each path: its last part, or as many parts as it takes."""
    absolute = [path.absolute() for path in runs]
    if len(set(absolute)) < len(absolute):
        raise ReportError("the same run was given twice")
    for parts in range(1, max(len(path.parts) for path in absolute) + 1):
        names = ["/".join(path.parts[-parts:]) for path in absolute]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in absolute]


def _source(folder: RunFolder, label: str) -> Source:
    try:
        header = json.loads((folder.path / "plan.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ReportError(f"{folder.path / 'plan.json'} cannot be read: {error}") from error
    return Source(
        label=label,
        path=folder.path,
        run_id=folder.run_id,
        name=str(folder.plan.get("name", label)),
        created_utc=str(header.get("created_utc", "")),
        version=str(header.get("bench_version", "")),
        host=folder.host,
        folder=folder,
    )


class _Foreign(Exception):
    """A field of a record is not what the contract says."""


def _typed(record: Mapping[str, Any]) -> Record | None:
    try:
        return decode(json.dumps(record).encode())
    except RecordError:
        return None


def _sample(record: Mapping[str, Any], source: Source, interned: _Interned, line: int) -> Sample:
    try:
        return _reduced(record, source, interned, line)
    except _Foreign as error:
        raise ReportError(
            f"{source.path / 'records.jsonl'}: record {record.get('record_id', '?')!s:.80} is not "
            f"one of bench's: {error}."
        ) from None


def _reduced(record: Mapping[str, Any], source: Source, interned: _Interned, line: int) -> Sample:
    cell = _mapping(record, "cell")
    asked = _mapping(cell, "workload")
    choice = _mapping(cell, "backend")
    found = _mapping(record, "backend", optional=True)
    if not asked or not choice:
        raise _Foreign("its cell has no workload or no backend")
    warmups = _times(record.get("warmup_s"), "warmup_s")
    stages = _list(record, "stages")
    traces = _list(record, "step_s")
    steps = [_numbers(call, "step_s") for call in traces]
    text, table = interned.text, interned.table
    asked = table(asked)
    return Sample(
        source=source,
        line=line,
        record_id=_text(record, "record_id"),
        cell_id=text(_text(record, "cell_id")),
        name=text(str(record.get("name", cell.get("name", "?")))),
        round=int(record.get("round", 0)),
        attempt=int(record.get("attempt", 0)),
        outcome=text(str(record.get("outcome"))),
        reason=_optional_text(record.get("reason")),
        workload=asked,
        backend=text(_text(choice, "name")),
        options=table(_mapping(choice, "options", optional=True)),
        environment=text(str(choice.get("environment", "current"))),
        cache=text(str(record.get("cache") or cell.get("cache") or "fresh")),
        device=text(str(record.get("device") or cell.get("device") or "?")),
        alike=_alike(record, asked, interned),
        active=found.get("active"),
        lossy=bool(found.get("lossy")),
        scope=tuple(str(s) for s in found.get("scope") or ()),
        evidence=table(_brief_evidence(found.get("evidence"))),
        warnings=tuple(str(w) for w in _list(record, "warnings")),
        rounds_planned=_rounds(cell),
        load_s=_number(record, "load_s"),
        prepare_s=_number(record, "prepare_s"),
        first_call_s=_number(record, "first_call_s"),
        warmup_s=sum(warmups) if warmups else None,
        warmup_calls=len(warmups),
        warmup_stable=record.get("warmup_stable"),
        compile_s=_number(record, "compile_s"),
        prime_s=_number(_mapping(record, "compile_cache", optional=True), "prime_s"),
        e2e_s=_times(record.get("e2e_s"), "e2e_s"),
        device_e2e_s=_times(record.get("device_e2e_s"), "device_e2e_s"),
        it_per_s=tuple(v for v in _numbers(record.get("it_per_s"), "it_per_s") if v > 0),
        steps_per_s_e2e=_times(record.get("steps_per_s_e2e"), "steps_per_s_e2e"),
        stages=tuple(_stage(call) for call in stages),
        step_s=median(intervals) if (intervals := [v for call in steps for v in call]) else None,
        steps_trace=_trace(steps),
        peaks=tuple(_peaks(record)),
        pictures=tuple(_pictures(record, source)),
        sweep=_sweep(record, cell),
        steps=(
            record.get("steps_requested", asked.get("steps")),
            record.get("steps_effective"),
            record.get("denoiser_calls"),
            record.get("denoiser_batch"),
        ),
        pipeline_class=_optional_text(record.get("pipeline_class")),
        scheduler_class=_optional_text(record.get("scheduler_class")),
        synthetic=bool(record.get("synthetic_weights"))
        or str(asked.get("model", "")).startswith("synthetic:"),
        load_average_1m=busy.load_average(record),
        busy=busy.reason(record),
        null_reasons=table(_mapping(record, "null_reasons", optional=True)),
        work=table(_mapping(record, "work", optional=True)),
        ceilings=table(_mapping(record, "ceilings", optional=True)),
        device_busy=table(_mapping(record, "device_busy", optional=True)),
        audited=_typed(record),
        more={name: record[name] for name in KEPT if name in record},
    )


def _alike(record: Mapping[str, Any], asked: Mapping[str, Any], interned: _Interned) -> Alike:
    threads = _mapping(record, "cell").get("threads")
    like: dict[str, Any] = {name: record.get(name) for _, name in comparable.MEASURED}
    backend = {"environment": comparable.environment(record)}
    fingerprint = interned.table(_mapping(record, "fingerprint", optional=True))
    # Long tables are in one place if they are equal, which need not be found out again.
    raw = (id(asked), id(fingerprint), repr((like, backend, threads)))
    known = interned.alike.get(raw)
    if known is not None:
        return known
    like["cell"] = {"workload": asked, "backend": backend, "threads": threads}
    like["fingerprint"] = fingerprint
    told = {**like, "cell": {**like["cell"], "workload": comparable.workload(record)}}
    key = json.dumps(_without_reasons(told), sort_keys=True, default=str)
    found = interned.alike[raw] = interned.alike.setdefault(key, Alike(key, like))
    return found


def _without_reasons(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_reasons(v) for k, v in value.items() if k != "null_reasons"}
    return value


def _brief_evidence(evidence: Any) -> Mapping[str, Any]:
    if not isinstance(evidence, Mapping):
        return {}
    names = ("runtime", "graphs", "graph_breaks", "recompiles")
    return {name: evidence.get(name) for name in names if evidence.get(name) is not None}


def _rounds(cell: Mapping[str, Any]) -> int:
    value = _mapping(cell, "protocol", optional=True).get("rounds", 1)
    return value if isinstance(value, int) else 1


def _stage(call: Any) -> tuple[float | None, ...]:
    if not isinstance(call, dict):
        raise _Foreign("stages is not a list of tables")
    found: tuple[Any, ...] = tuple(map(call.get, STAGES))
    # As for lists of numbers: most calls hold floats throughout.
    if {*map(type, found)} == {float} and math.isfinite(sum(found)):
        return found
    return tuple(_number(call, name) for name in STAGES)


def _trace(calls: Sequence[Sequence[float]]) -> tuple[tuple[float, float, float], ...]:
    """Return (median, smallest, largest) over calls for each interval between steps."""
    longest = max(map(len, calls), default=0)
    whole = [call for call in calls if len(call) == longest]
    ordered = (sorted(at) for at in zip(*whole, strict=True))
    middle, other = (len(whole) - 1) // 2, len(whole) // 2
    return tuple(((at[middle] + at[other]) / 2, at[0], at[-1]) for at in ordered)


def _peaks(record: Mapping[str, Any]) -> Iterable[Peak]:
    for reading in _list(record, "memory"):
        if not isinstance(reading, dict):
            raise _Foreign("memory is not a list of readings")
        if reading.get("bytes") is not None and reading.get("phase") in PHASES:
            yield Peak(
                comparable.meter(record, reading),
                str(reading["phase"]),
                _whole(reading, "bytes"),
            )


def _pictures(record: Mapping[str, Any], source: Source) -> Iterable[Picture]:
    for image in _list(record, "images"):
        if not isinstance(image, Mapping) or not isinstance(image.get("path"), str):
            raise _Foreign("images is not a list of pictures")
        path = (source.path / image["path"]).resolve()
        # A record may come from elsewhere: it must not make the page embed any file of this disk.
        if not path.is_relative_to(source.path.resolve()):
            raise _Foreign(f"a picture lies outside the run folder ({image['path']!r})")
        yield Picture(
            path=path,
            shown=image["path"],
            seed=int(image.get("seed", 0)),
            index=int(image.get("index", 0)),
            sha256=str(image.get("sha256", "")),
        )


def _sweep(record: Mapping[str, Any], cell: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the fields that `bench.sweeps` reads, each as it expects; None without a sweep."""
    lists = {
        "sweep_steps_warmup": _steps_entry,
        "sweep_steps": _ordered_steps_entry,
        "sweep_size": _size_entry,
    }
    if not cell.get("sweep") and all(record.get(name) is None for name in lists):
        return None
    kept: dict[str, Any] = {
        "cell_id": _text(record, "cell_id"),
        "round": _whole(record, "round"),
        "sequence": _whole(record, "sequence"),
        "outcome": record.get("outcome"),
        "it_per_s": [v for v in _numbers(record.get("it_per_s"), "it_per_s") if v > 0],
        "step_s": [_numbers(call, "step_s") for call in _list(record, "step_s")],
        "denoiser_calls": _optional_whole(record, "denoiser_calls"),
    }
    for name, checked in lists.items():
        if record.get(name) is None:
            continue
        try:
            kept[name] = [checked(entry) for entry in _list(record, name)]
        except _Foreign as error:
            raise _Foreign(f"{name}: {error}") from None
    return kept


def _steps_entry(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _Foreign("an entry is no table")
    kept = {
        "steps": _whole(entry, "steps"),
        "steps_effective": _optional_whole(entry, "steps_effective"),
        # None seen is none counted: a line has no place for a call without denoiser calls.
        "denoiser_calls": _optional_whole(entry, "denoiser_calls") or None,
        "e2e_s": _time(entry, "e2e_s"),
        "it_per_s": _number(entry, "it_per_s"),
        "outcome": _text(entry, "outcome"),
        "reason": _optional_text(entry.get("reason")),
    }
    if kept["outcome"] == "ok" and kept["e2e_s"] is None:
        raise _Foreign("e2e_s is missing")
    return kept


def _ordered_steps_entry(entry: Any) -> dict[str, Any]:
    return {**_steps_entry(entry), "order": _whole(entry, "order")}


def _size_entry(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _Foreign("an entry is no table")
    kept = {
        **{name: _whole(entry, name) for name in ("order", "height", "width")},
        **{name: _optional_whole(entry, name) for name in ("output_height", "output_width")},
        **{name: _time(entry, name) for name in ("first_s", "second_s")},
        "e2e_s": list(_times(entry.get("e2e_s"), "e2e_s")),
        **{name: _whole(entry, name) for name in ("graphs", "recompiles")},
        "outcome": _text(entry, "outcome"),
        "reason": _optional_text(entry.get("reason")),
    }
    if kept["outcome"] == "ok" and kept["first_s"] is None:
        raise _Foreign("first_s is missing")
    return kept


def _mapping(owner: Mapping[str, Any], name: str, *, optional: bool = False) -> Mapping[str, Any]:
    value = owner.get(name)
    if value is None and optional:
        return {}
    if not isinstance(value, dict):
        raise _Foreign(f"{name} is missing or no table")
    return value


def _list(owner: Mapping[str, Any], name: str) -> list[Any]:
    value = owner.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Foreign(f"{name} is not a list")
    return value


def _text(owner: Mapping[str, Any], name: str) -> str:
    value = owner.get(name)
    if not isinstance(value, str):
        raise _Foreign(f"{name} is missing or no text")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(owner: Mapping[str, Any], name: str) -> float | None:
    value = owner.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _Foreign(f"{name} is no number")
    return float(value)


def _whole(owner: Mapping[str, Any], name: str) -> int:
    value = owner.get(name)
    # Above 2^53 not every whole number is a float, and above 1e308 none is.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise _Foreign(f"{name} is missing or no count")
    return value


def _optional_whole(owner: Mapping[str, Any], name: str) -> int | None:
    return None if owner.get(name) is None else _whole(owner, name)


def _time(owner: Mapping[str, Any], name: str) -> float | None:
    value = _number(owner, name)
    if value is not None and value <= 0:
        raise _Foreign(f"{name} is not above 0")
    return value


def _numbers(values: Any, name: str) -> list[float]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise _Foreign(f"{name} is not a list")
    # Most lists are floats throughout, and of ten thousand records there are many lists.
    if {*map(type, values)} == {float} and math.isfinite(sum(values)):
        return values
    found = []
    for value in values:
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _Foreign(f"{name} holds something that is no number")
        if not math.isfinite(value):
            raise _Foreign(f"{name} holds a number that is not finite")
        found.append(float(value))
    return found


def _times(values: Any, name: str) -> tuple[float, ...]:
    found = _numbers(values, name)
    if found and min(found) <= 0:
        raise _Foreign(f"{name} holds a number that is not above 0")
    return tuple(found)


def _group_key(sample: Sample) -> str:
    told = {
        "workload": dict(sample.workload),
        "device": sample.device,
        "threads": sample.alike.record["cell"]["threads"],
    }
    return json.dumps(told, sort_keys=True, default=str)


def _group(cells: list[list[Sample]]) -> Group:
    by_cell: dict[tuple[str, str], list[list[Sample]]] = {}
    for members in cells:
        key = (members[0].source.label, members[0].cell_id)
        by_cell.setdefault(key, []).append(members)
    rows: list[Row] = []
    for parts in by_cell.values():
        good = [part for part in parts if part[0].ok]
        rest = [sample for part in parts if not part[0].ok for sample in part]
        for number, part in enumerate(good or [[]]):
            split = None
            if number:
                split = comparable.difference(part[0].alike.record, good[0][0].alike.record)
            rows.append(Row("", "", [*part, *(rest if number == 0 else [])], split))
    for row in rows:
        row.samples.sort(key=lambda s: (s.round, s.attempt))
    rows.sort(key=lambda row: not row.is_baseline)
    _label(rows)
    found = Group("", rows[0].samples[0].workload, rows)
    found.title = str(found.workload.get("name") or rows[0].samples[0].name)
    return found


def _label(rows: list[Row]) -> None:
    """Label rows by backend and options, and by run or number where several share that."""
    labels = comparable.labels([row.cell for row in rows])
    runs: dict[str, set[str]] = {}
    for row, (_, label) in zip(rows, labels, strict=True):
        runs.setdefault(label, set()).add(row.session)
    seen: dict[str, int] = {}
    for row, (short, label) in zip(rows, labels, strict=True):
        more = [comparable.LOSSY] if row.lossy else []
        if len(runs[label]) > 1:
            more.append(f"in {row.session}")
        if row.split:
            more.append(f"({row.split.split(' (')[0]} differs)")
        row.short, row.label = " ".join([short, *more]), " ".join([label, *more])
        seen[row.label] = seen.get(row.label, 0) + 1
        if seen[row.label] > 1:
            row.short, row.label = (f"{each} #{seen[row.label]}" for each in (row.short, row.label))


def _option(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


TOLD_FIRST = ("model", "task", "size", "batch", "steps", "dtype", "device", "scheduler", "guidance")
"""Facts by which workloads of one name are told apart, the most telling first."""

TOLD_LAST = ("prompt", "negative_prompt", "seed")
BY_ITSELF = frozenset({"model", "task", "size", "dtype", "device"})
"""Facts whose value says what it is."""


def _tell_apart(groups: list[Group]) -> None:
    """Add to titles that occur twice what it takes to tell their workloads apart, no more."""
    by_title: dict[str, list[Group]] = {}
    for found in groups:
        by_title.setdefault(found.title, []).append(found)
    for title, same in by_title.items():
        told = [_facts(found) for found in same]
        # Of keys that only some workloads have, those that lack one are at its default.
        known = dict.fromkeys(name for each in told for name in each)
        rest = sorted(n for n in known if n not in TOLD_FIRST and n not in TOLD_LAST)
        chosen: list[str] = []
        for name in (*TOLD_FIRST, *rest, *TOLD_LAST):
            if _kinds(told, [*chosen, name]) > _kinds(told, chosen):
                chosen.append(name)
        for found, own in zip(same, told, strict=True):
            facts = [own[n] if n in BY_ITSELF else f"{n} {own[n]}" for n in chosen if n in own]
            found.title = " · ".join([title, *(fact[:40] for fact in facts)])


def _facts(group: Group) -> dict[str, str]:
    """Return what can differ between workloads of one name, as text."""
    facts = {
        **group.workload,
        "size": f"{group.workload.get('width')}×{group.workload.get('height')}",
        "device": group.first.device,
        "threads": group.first.alike.record["cell"]["threads"],
    }
    return {
        name: _option(value)
        for name, value in facts.items()
        if value is not None and name not in ("height", "width")
    }


def _kinds(told: Sequence[Mapping[str, str]], names: Sequence[str]) -> int:
    return len({tuple(each.get(name) for name in names) for each in told})
