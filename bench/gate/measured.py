"""What a comparison needs of a run: the samples themselves, never summaries of them.

A baseline file holds the same types as JSON, so that a baseline can be judged again by a later
version of the statistics. Names of fields are those of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

import bench
from bench import fidelity, files
from bench.contract import Outcome
from bench.gate import GateError
from bench.records import Cell, Image, Record, alike
from bench.records.types import Backend, Count, Seconds, Text, WarmupRule, check_fingerprint
from bench.runner import session
from bench.store import RunFolder

SCHEMA_VERSION = 1
KIND: Literal["bench baseline"] = "bench baseline"
MEMORY_METER = "torch.max_memory_allocated"
"""Gates use warm allocated memory; values of another meter are never put in its place."""

NOT_MEASURED = frozenset({"unsupported", "unavailable", "skipped"})
"""Outcomes of cells that were not tried, where all others but ``ok`` went wrong."""


class Counts(Struct, frozen=True, kw_only=True):
    """What has to be exactly equal; ``pictures`` are digests by seed and index."""

    steps_effective: Count | None
    denoiser_calls: Count | None
    graphs: Count | None
    graph_breaks: Count | None
    recompiles: Count | None
    output_size: Text | None
    pictures: dict[Text, Text] | None


COUNTS = Counts.__struct_fields__


class Process(Struct, frozen=True, kw_only=True):
    """One record: times in seconds, memory as `MEMORY_METER` reads it while steady."""

    record_id: Text
    round: Count
    outcome: Outcome
    reason: Text | None
    started_utc: Text | None
    fingerprint_key: Text
    e2e_s: tuple[Seconds, ...]
    warmup_s: tuple[Seconds, ...]
    warmup_stable: bool | None
    memory_bytes: Count | None
    memory_reason: Text | None
    counts: Counts
    graph_break_reasons: tuple[Text | None, ...]
    disturbances: tuple[Text, ...]

    @property
    def why(self) -> str:
        """Why it ended as it did."""
        return self.reason or "no reason given"


@dataclass(frozen=True)
class Figure:
    """A figure that is gated by how much it grows; ``samples`` of a process without it is empty."""

    name: Literal["speed", "memory", "warmup"]
    unit: Literal["s", "bytes"]
    samples: Callable[[Process], Sequence[float]]

    def arm(self, processes: Iterable[Process]) -> list[Sequence[float]]:
        """Return the samples of each process that has any."""
        return [values for process in processes if (values := self.samples(process))]


FIGURES = (
    Figure("speed", "s", lambda process: process.e2e_s),
    Figure("memory", "bytes", lambda p: [p.memory_bytes] if p.memory_bytes else []),
    Figure("warmup", "s", lambda p: [sum(p.warmup_s)] if p.warmup_s else []),
)


class Asked(Struct, frozen=True, kw_only=True):
    """What of a cell can change a figure; the workload has no name, and no folder of a file."""

    workload: dict[Text, Any]
    backend: Backend
    cache: Text
    threads: Count
    warmup: WarmupRule | None


class Actual(Struct, frozen=True, kw_only=True):
    """What the worker saw of it."""

    model_revision: Text | None
    input_sha256: Text | None
    scheduler_class: Text | None
    synthetic_weights: bool | None
    device: Text | None
    cache: Text | None


LIKE = [(title, name) for title, name in alike.MEASURED if name in Actual.__struct_fields__]


class Fidelity(Struct, frozen=True, kw_only=True):
    """The verdict on a cell's images; ``word`` is None where there is none, for the reason."""

    word: fidelity.Word | None
    worst_db: float | None
    reason: Text


class MeasuredCell(Struct, frozen=True, kw_only=True):
    cell_id: Text
    rounds_planned: Count
    asked: Asked
    found: Actual
    fingerprint: dict[Text, Any]
    processes: tuple[Process, ...]
    fidelity: Fidelity

    def __post_init__(self) -> None:
        check_fingerprint(self.fingerprint)

    @property
    def good(self) -> list[Process]:
        """The processes that ended ok: the only ones that enter a figure."""
        return [process for process in self.processes if process.outcome == "ok"]

    @property
    def alike(self) -> dict[str, Any]:
        """What else than their workload two cells must share, by the name for users."""
        measured = {title: getattr(self.found, name) for title, name in LIKE}
        return {**measured, "threads": self.asked.threads}


class Run(Struct, frozen=True, kw_only=True):
    run_id: Text
    started_utc: Text | None


class Commit(Struct, frozen=True, kw_only=True):
    """Of a git checkout; None where there is none."""

    id: Text | None = None
    dirty: bool | None = None

    def __str__(self) -> str:
        return "unknown" if not self.id else self.id[:12] + " (modified)" * bool(self.dirty)


class Measurement(Struct, frozen=True, kw_only=True):
    """A run, its cells by name."""

    name: Text
    schema: int
    bench_version: Text
    runs: Annotated[tuple[Run, ...], Meta(min_length=1)]
    cells: dict[Text, MeasuredCell]
    commit: Commit = Commit()

    @property
    def machine_key(self) -> str:
        """The key of all machines and devices that it was measured on."""
        prints = [cell.fingerprint for cell in self.cells.values() if cell.fingerprint]
        return key(sorted({key(each) for each in prints}))

    @property
    def started_utc(self) -> str:
        return self.runs[0].started_utc or ""

    def provenance(self) -> dict[str, str]:
        """Return where it comes from, as short texts by name."""
        good = [process for cell in self.cells.values() for process in cell.good]
        return {
            "name": self.name,
            "runs": ", ".join(run.run_id[:12] for run in self.runs),
            "commit": str(self.commit),
            "measured": self.started_utc or "unknown",
            "machine": self.machine_key,
            "n": f"{len(good)} processes, {sum(len(p.e2e_s) for p in good)} calls",
        }


class Baseline(Measurement, frozen=True, kw_only=True):
    """A measurement that was kept."""

    machine: Text
    saved_utc: Text
    commit: Commit
    kind: Literal["bench baseline"] = KIND


def key(fingerprint: Any) -> str:
    """Return twelve hexadecimal digits that name a fingerprint, or several."""
    text = json.dumps(fingerprint, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def of_run(path: Path | str, *, judge_images: bool = True) -> Measurement:
    """Reduce a run to what a comparison needs.

    Args:
        path: of the run folder, whose name the measurement gets.
        judge_images: compare images with those of the eager baseline, which takes most of the time.

    Raises:
        bench.store.StoreError: there is no run, or it cannot be read.
        GateError: it has no record.
    """
    run = RunFolder.open(path).source()
    if not run.records:
        raise GateError(f"{path} has no record: nothing was measured there.")
    disturbances = session.read(run.path, run.records)
    by_cell: dict[str, list[Record]] = {}
    for record in run.records:
        by_cell.setdefault(record.cell_id, []).append(record)
    judge = _Images(run.path, run.records).judge if judge_images else lambda _: _none("not judged")
    return Measurement(
        name=run.path.name,
        schema=SCHEMA_VERSION,
        bench_version=bench.__version__,
        runs=(
            Run(
                run_id=run.run_id,
                started_utc=min(filter(None, (r.started_utc for r in run.records)), default=None),
            ),
        ),
        cells={
            cell.name: _cell(cell, records, disturbances, judge(records))
            for cell in run.cells
            for records in [by_cell.get(cell.cell_id, [])]
        },
    )


def _cell(
    cell: Cell,
    records: Sequence[Record],
    disturbances: Mapping[tuple[str, int], Sequence[str]],
    verdict: Fidelity,
) -> MeasuredCell:
    first = next((record for record in records if record.outcome == "ok"), None)
    return MeasuredCell(
        cell_id=cell.cell_id,
        rounds_planned=cell.protocol.rounds,
        asked=Asked(
            workload=_portable(cell.raw["workload"]),
            backend=cell.backend,
            cache=cell.cache,
            threads=cell.threads,
            warmup=cell.protocol.warmup,
        ),
        found=Actual(**{name: getattr(first, name, None) for name in Actual.__struct_fields__}),
        fingerprint=_without_reasons(first.fingerprint) if first else {},
        processes=tuple(
            _process(record, disturbances.get((record.cell_id, record.round), ()))
            for record in records
        ),
        fidelity=verdict,
    )


def _portable(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload without its name, and with the names of its files alone.

    Another checkout has other folders; what a file holds is compared by its digest.
    """
    portable = {name: value for name, value in workload.items() if name != "name"}
    for name in ("input_image", "control_image", "lora", "custom_pipeline"):
        text = portable.get(name)
        if text is not None and not str(text).startswith(("embedded:", "hub:", "drawn:")):
            portable[name] = Path(str(text)).name
    for name in ("model", "controlnet"):
        text = str(portable.get(name))
        if text.startswith("path:"):
            portable[name] = f"path:{Path(text[5:]).name}"
    return portable


def _process(record: Record, disturbances: Sequence[str]) -> Process:
    evidence = record.backend.evidence
    size = (record.output_width, record.output_height)
    kept: dict[str, Any] = {
        name: getattr(record, name)
        for name in Process.__struct_fields__
        if name in Record.__struct_fields__
    }
    return Process(
        **kept,
        fingerprint_key=key(_without_reasons(record.fingerprint)),
        memory_bytes=record.peaks.get((MEMORY_METER, "steady")),
        memory_reason=record.null_reasons.get(f"memory.{MEMORY_METER}"),
        counts=Counts(
            steps_effective=record.steps_effective,
            denoiser_calls=record.denoiser_calls,
            graphs=evidence.graphs,
            graph_breaks=evidence.graph_breaks,
            recompiles=evidence.recompiles,
            output_size=None if None in size else f"{size[0]}x{size[1]}",
            pictures={f"{i.seed}/{i.index}": i.sha256 for i in record.images} or None,
        ),
        graph_break_reasons=tuple(each.get("reason") for each in evidence.graph_break_reasons),
        disturbances=tuple(disturbances),
    )


def _without_reasons(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fingerprint.items() if name != "null_reasons"}


def _none(reason: str) -> Fidelity:
    return Fidelity(word=None, worst_db=None, reason=reason)


class _Images:
    """Compares stored images with those of the eager baseline; equal pairs once."""

    def __init__(self, root: Path, records: Sequence[Record]) -> None:
        self._root = root
        self._known: dict[tuple[str, str], fidelity.Comparison] = {}
        self._eager: dict[str, list[Record]] = {}
        for record in sorted(records, key=lambda record: record.round):
            if record.is_baseline and record.outcome == "ok":
                self._eager.setdefault(alike.key(record), []).append(record)

    def judge(self, records: Sequence[Record]) -> Fidelity:
        """Return the verdict on a cell's records."""
        ok = [record for record in records if record.outcome == "ok"]
        if not ok:
            return _none("the cell is not ok")
        if ok[0].is_baseline:
            return _none("this is the eager baseline itself; its images are compared by digest")
        eager = self._eager.get(alike.key(ok[0]))
        if not eager:
            return _none("the run has no comparable cell of backend none")
        reference, *again = eager
        try:
            control = [pair for other in again for pair in self._pairs(reference, other)]
            pairs = [pair for record in ok for pair in self._pairs(reference, record)]
        except (OSError, ValueError) as error:
            return _none(f"an image cannot be read: {error}")
        if not pairs:
            return _none("no image of the same seed was stored")
        verdict = fidelity.verdict(control, pairs)
        return Fidelity(word=verdict.word, worst_db=verdict.worst_db, reason=verdict.reason)

    def _pairs(self, reference: Record, other: Record) -> list[fidelity.Comparison]:
        partners = {(image.seed, image.index): image for image in reference.images}
        pairs = []
        for image in other.images:
            partner = partners.get((image.seed, image.index))
            if partner is None:
                continue
            pair = (partner.sha256, image.sha256)
            if pair not in self._known:
                self._known[pair] = fidelity.compare(self._load(partner), self._load(image))
            pairs.append(self._known[pair])
        return pairs

    def _load(self, image: Image) -> Any:
        pixels = files.image(files.inside(self._root, image.path))
        if hashlib.sha256(pixels.tobytes()).hexdigest() != image.sha256:
            raise ValueError(f"{image.path} is not the image that its record describes")
        return pixels
