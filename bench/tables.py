"""Records to tables: one flat row for each record, and the table of a run in the terminal.

Everything here is computed from records alone and can be computed again at any time. Only outcome
``ok`` enters a figure; raw lists stay in the records.
"""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import busy, comparable, modes
from bench.contract import Cell, Record
from bench.stats.order import median_interval
from bench.store import RunFolder

if TYPE_CHECKING:
    import pandas
    from rich.console import Console, RenderableType

BASELINE = "none"

GIB = 1024**3

COLUMNS = {
    "name": "name of the cell, unique within the run",
    "cell_id": "identity of the cell",
    "round": "round, from 0",
    "attempt": "0, or the number of the retry",
    "workload": "name of the workload",
    "task": "text-to-image, image-to-image, edit or chain",
    "model": "model as configured",
    "model_revision": "revision that was loaded",
    "synthetic_weights": "whether the weights are random",
    "backend": "backend that was asked for",
    "environment": "environment that it was asked to run in",
    "active": "whether the backend was proved to be active",
    "cache": "compile cache: fresh or warm",
    "device": "device that it ran on",
    "dtype": "data type",
    "memory": "memory modes, none without",
    "precision": "precision: fp32, tf32, autocast; else as the data type",
    "between": "what is done after each call, none without",
    "threads": "CPU threads of torch",
    "batch": "pictures in one call; of a chain, in its largest round",
    "height": "height of the pictures, in pixels",
    "width": "width of the pictures, in pixels",
    "steps_requested": "steps asked for",
    "steps_effective": "steps that the scheduler took",
    "denoiser_calls": "calls of the denoiser",
    "denoiser_batch": "largest batch that the denoiser was given",
    "outcome": "how the cell ended; figures below are null unless it is ok",
    "reason": "why, if it is not ok",
    "warnings": "number of warnings",
    "load_average_start_1m": "the system's 1-minute load average as measuring began",
    "load_average_end_1m": "the same as it ended",
    "load_s": "time to load the pipeline, in seconds",
    "prepare_s": "time of the backend's own call, in seconds",
    "first_call_s": "first generation, in seconds",
    "warmup_s": "sum of all warm-up calls, in seconds",
    "warmup_calls": "number of warm-up calls",
    "warmup_stable": "whether warm-up ended with stable calls",
    "compile_s": "first call less the median steady call, in seconds",
    "calls": "number of measured calls",
    "e2e_s": "median end-to-end time, in seconds",
    "e2e_low_s": "lower end of the 95 % interval of that median; null below six calls",
    "e2e_high_s": "upper end of it",
    "device_e2e_s": "median end-to-end time by device events, in seconds",
    "step_s": "median interval between steps, in seconds",
    "it_per_s": "median of OneDiff's iterations per second",
    "steps_per_s_e2e": "median of requested steps by end-to-end time",
    "ttfi_s": "chains: median time to the first round's pictures, in seconds",
    "tbb_s": "chains: median of the mean gaps between the ends of rounds, in seconds",
    "images_per_s": "chains: median of pictures by end-to-end time",
    **{f"peak_{meter}_bytes": f"steady peak by {meter}, in bytes" for meter in comparable.READ},
    "speedup": "e2e_s of backend none in the same round and environment by e2e_s; null if not "
    "comparable",
    "not_comparable": "the field in which the two are unlike",
    "started_utc": "when the worker was started",
}
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
    baselines: dict[Any, list[Record]] = {}
    for record in filter(_is_baseline, kept):
        baselines.setdefault((_workload_name(record), record.get("round")), []).append(record)
    found = []
    for record in kept:
        rivals = baselines.get((_workload_name(record), record.get("round")), [])
        speedup, unlike = _ratio([record] if record.get("outcome") == "ok" else [], rivals)
        found.append({**row(record), "speedup": speedup, "not_comparable": unlike})
    return found


@dataclass(frozen=True)
class Line:
    """One backend of one workload, over all its rounds.

    Attributes:
        name: of the cell.
        backend: as shown: its name, and what tells it from others of that name.
        outcome: of all rounds, or "no record".
        counts: rounds by outcome; "no record" for those that are missing.
        reasons: of the rounds that are not ok, each once, with the outcome before it.
        warnings: of all rounds, each once.
        rounds: that are ok.
        warmup_s: sum over the warm-up calls; median over the rounds.
        e2e_s: median end-to-end time of all calls of all rounds.
        e2e_interval_s: with one round, the 95 % interval of its median, or None below six calls;
            with several, the smallest and the largest round median.
        it_per_s: median of all calls of all rounds.
        peaks: steady peak in bytes by meter; the largest over the rounds.
        steps: (requested, effective, denoiser calls, denoiser batch).
        speedup: ratio of ``none``'s e2e_s to this one's; None if there is none to compare with.
        not_comparable: why speedup is None, if this line and the baseline both have figures.
    """

    name: str
    backend: str
    outcome: str
    counts: dict[str, int]
    reasons: list[str]
    warnings: list[str]
    rounds: int
    warmup_s: float | None
    e2e_s: float | None
    e2e_interval_s: tuple[float, float] | None
    it_per_s: float | None
    peaks: dict[str, int]
    steps: tuple[int | None, int | None, int | None, int | None] | None
    speedup: float | None
    not_comparable: str | None


@dataclass(frozen=True)
class Group:
    """All backends of one workload on one device.

    Attributes:
        title: the cells' name without the backend: the workload and what the matrix varies of it.
        facts: what the lines share, as short texts.
        meter: the memory meter that the group is shown with; None if no line has a value.
        lines: in the order of the plan.
        baselines: how the baselines of several environments compare, in sentences.
    """

    title: str
    facts: list[str]
    meter: str | None
    lines: list[Line] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)


def summarise(
    records: Iterable[Record], cells: Sequence[Cell] = (), *, all_rounds: bool = False
) -> list[Group]:
    """Pool the rounds of each cell and group the cells by workload.

    Args:
        records: of one run; at most one for each cell and round.
        cells: of its plan, so that cells without a record are shown too.
        all_rounds: a line for each round instead, compared with the baseline of its own round.
    """
    by_cell: dict[str, list[Record]] = {}
    baselines: dict[Any, list[Record]] = {}
    known: dict[str, Mapping[str, Any]] = {cell["cell_id"]: cell for cell in cells}
    for record in records:
        by_cell.setdefault(record["cell_id"], []).append(record)
        known.setdefault(record["cell_id"], record.get("cell") or {})
        if _is_baseline(record):
            baselines.setdefault(_workload_name(record), []).append(record)
    grouped: dict[str, list[_Member]] = {}
    for cell_id, cell in known.items():
        member = _Member(cell, by_cell.get(cell_id, []), baselines.get(_workload_name_of(cell), []))
        grouped.setdefault(_group_key(cell), []).append(member)
    return [_group(members, all_rounds) for members in grouped.values()]


def as_json(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Return the groups as JSON values; units as in the names."""
    return [
        {
            "workload": group.title,
            "facts": group.facts,
            "meter": group.meter,
            "baselines": group.baselines,
            "backends": [
                {
                    "name": line.name,
                    "backend": line.backend,
                    "outcome": line.outcome,
                    "rounds_by_outcome": line.counts,
                    "reasons": line.reasons,
                    "warnings": line.warnings,
                    "warmup_s": line.warmup_s,
                    "e2e_s": line.e2e_s,
                    "e2e_interval_s": line.e2e_interval_s,
                    "it_per_s": line.it_per_s,
                    "steady_peak_bytes": line.peaks,
                    "steps": line.steps
                    and dict(
                        zip(
                            ("requested", "effective", "denoiser_calls", "denoiser_batch"),
                            line.steps,
                            strict=True,
                        )
                    ),
                    "speedup": line.speedup,
                    "not_comparable": line.not_comparable,
                }
                for line in group.lines
            ],
        }
        for group in groups
    ]


def read(path: Path, *, all_rounds: bool = False) -> list[Group]:
    """Return the groups of the run in ``path``, complete or not; see `summarise`.

    Raises:
        StoreError: there is no run, or it cannot be read.
    """
    folder = RunFolder.open(path)
    return summarise(folder.raw_records(), folder.plan.get("cells", []), all_rounds=all_rounds)


def print_run(path: Path, console: Console, *, all_rounds: bool = False) -> None:
    """Print the table of the run in ``path``, complete or not, and where its pictures are.

    A reader that goes away, such as ``head``, ends the printing and nothing else.

    Raises:
        StoreError: there is no run, or it cannot be read.
    """
    groups = read(path, all_rounds=all_rounds)
    with console.capture() as captured:
        console.print(render(groups, console.width), highlight=False)
        if any(line.rounds for group in groups for line in group.lines):
            console.print(f"Pictures: {shown_path(path / 'pictures')}", soft_wrap=True)
        console.print(f"Records:  {shown_path(path / 'records.jsonl')}", soft_wrap=True)
    try:
        console.file.write(captured.get())
        console.file.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, console.file.fileno())
        os.close(nowhere)


def shown_path(path: Path) -> str:
    """Return a path as short as it can be said from the working folder."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def render(groups: Sequence[Group], width: int) -> RenderableType:
    """Return what `rich` prints: a table for each group, then notes, each once.

    Args:
        width: columns of the terminal; below 100 the interval goes under its figure.
    """
    from rich import box
    from rich.console import Group as Stack
    from rich.table import Table
    from rich.text import Text

    narrow = width < 100
    parts: list[RenderableType] = []
    for group in groups:
        parts.append(Text(group.title, style="bold"))
        parts.append(Text(" · ".join(group.facts), style="dim"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 2, 0, 0))
        table.add_column("backend", overflow="fold", min_width=12)
        table.add_column("warm-up\ns", justify="right", no_wrap=True)
        table.add_column("end-to-end\ns", justify="right", no_wrap=True)
        table.add_column("\nit/s", justify="right", no_wrap=True)
        table.add_column("peak mem\nGiB", justify="right", no_wrap=True)
        table.add_column("\noutcome", no_wrap=True)
        table.add_column("\nspeedup", justify="right", no_wrap=True)
        for line in group.lines:
            table.add_row(
                line.backend,
                _seconds(line.warmup_s),
                _with_interval(line, "\n" if narrow else "  "),
                _number(line.it_per_s),
                _gib(line.peaks.get(group.meter) if group.meter else None),
                Text(line.outcome, style=_STYLES.get(line.outcome, "red")),
                _speedup(line),
            )
        parts.append(table)
        meter = f"peak memory: {group.meter}, steady phase" if group.meter else "no memory figure"
        parts.append(Text(f"{meter}\n", style="dim"))
    parts.extend(Text(f"• {note}") for note in _notes(groups))
    return Stack(*parts)


_PEAKS = tuple(name for name in COLUMNS if name.startswith("peak_"))
_AS_THEY_STAND = tuple(
    name for name in COLUMNS if name not in (*_PEAKS, "speedup", "not_comparable")
)

_STYLES = {"ok": "green", "no record": "dim", "skipped": "yellow", "unsupported": "yellow"}
_DASH = "–"


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the row of a record holds of that record alone: all but its comparison."""
    cell = record.get("cell") or {}
    asked = cell.get("workload") or {}
    requested = cell.get("backend") or {}
    ok = record.get("outcome") == "ok"
    figures: Mapping[str, Any] = record if ok else {}
    times = _numbers(figures.get("e2e_s"))
    low, high = median_interval(times) or (None, None)
    peaks = {f"peak_{reading['meter']}_bytes": value for reading, value in _steady(figures)}
    warmups = _numbers(figures.get("warmup_s"))
    return {
        **{name: record.get(name) for name in _AS_THEY_STAND},
        **{name: asked.get(name) for name in ("task", "model", "dtype", "batch")},
        **{name: modes.word_of(asked, name) for name in modes.KEYS},
        "workload": asked.get("name"),
        "backend": requested.get("name"),
        "environment": comparable.environment(record),
        "active": _mapping(record.get("backend")).get("active"),
        "cache": record.get("cache", cell.get("cache")),
        "threads": cell.get("threads"),
        "height": record.get("output_height", asked.get("height")),
        "width": record.get("output_width", asked.get("width")),
        "steps_requested": record.get("steps_requested", asked.get("steps")),
        "warnings": len(record.get("warnings") or []),
        "load_average_start_1m": busy.load_average(record),
        "load_average_end_1m": busy.load_average(record, "end"),
        **{
            name: figures.get(name)
            for name in ("load_s", "prepare_s", "first_call_s", "compile_s", "warmup_stable")
        },
        "warmup_s": sum(warmups) if warmups else None,
        "warmup_calls": len(warmups) if ok else None,
        "calls": len(times) if ok else None,
        "e2e_s": _median(times),
        "e2e_low_s": low,
        "e2e_high_s": high,
        "device_e2e_s": _median(_numbers(figures.get("device_e2e_s"))),
        "step_s": _median([s for call in figures.get("step_s") or [] for s in _numbers(call)]),
        "it_per_s": _median(_numbers(figures.get("it_per_s"))),
        "steps_per_s_e2e": _median(_numbers(figures.get("steps_per_s_e2e"))),
        **{
            name: _median(_numbers(figures.get(name)))
            for name in ("ttfi_s", "tbb_s", "images_per_s")
        },
        **{name: peaks.get(name) for name in _PEAKS},
    }


def _ratio(
    measured: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]]
) -> tuple[float | None, str | None]:
    """Return (speedup, None) against the first baseline that is alike, or (None, what differs)."""
    baselines = [record for record in baselines if record.get("outcome") == "ok"]
    if _pooled(measured) is None or not baselines:
        return None, None
    # Those of its own environment first: what they lack is the reason worth reading.
    own = comparable.environment(measured[0])
    baselines.sort(key=lambda record: comparable.environment(record) != own)
    unlike = None
    for cell_id in dict.fromkeys(record.get("cell_id") for record in baselines):
        same = [record for record in baselines if record.get("cell_id") == cell_id]
        found = next(
            (d for m in measured for b in same if (d := comparable.difference(m, b))), None
        )
        # Only rounds in which both ran: that is what interleaving them is for.
        met = {m.get("round") for m in measured} & {b.get("round") for b in same}
        time = _pooled([m for m in measured if m.get("round") in met])
        baseline_time = _pooled([b for b in same if b.get("round") in met])
        if found is None and baseline_time is not None and time is not None:
            return baseline_time / time, None
        unlike = unlike or found or "no round in which both are ok"
    return None, unlike


def _pooled(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the median of all calls of all rounds, as `bench.stats.bootstrap.speedup` does."""
    return _median(_all(records, "e2e_s")) or None


def _all(records: Sequence[Mapping[str, Any]], field: str) -> list[float]:
    return [value for record in records for value in _numbers(record.get(field))]


def _group_key(cell: Mapping[str, Any]) -> str:
    asked = sorted(comparable.workload({"cell": cell}).items(), key=str)
    return repr((_workload_name_of(cell), asked, cell.get("device"), cell.get("threads")))


@dataclass(frozen=True)
class _Member:
    """A cell of a group with its records, and those that it may be compared with.

    ``round`` is None for all rounds together.
    """

    cell: Mapping[str, Any]
    records: list[Record]
    baselines: list[Record]
    round: int | None = None

    @property
    def rounds(self) -> int:
        """How many records there are when the run is complete."""
        if self.round is not None:
            return 1
        return int(_mapping(self.cell.get("protocol")).get("rounds") or len(self.records))

    @property
    def lossy(self) -> bool:
        """Whether its backend changes the picture on purpose."""
        return any(_mapping(record.get("backend")).get("lossy") for record in self.records)

    def each_round(self) -> list[_Member]:
        def of(records: list[Record], number: int) -> list[Record]:
            return [record for record in records if record.get("round") == number]

        last = max([self.rounds, *(record.get("round", 0) + 1 for record in self.records)])
        return [
            _Member(self.cell, of(self.records, n), of(self.baselines, n), n) for n in range(last)
        ]


def _group(members: list[_Member], all_rounds: bool) -> Group:
    labels = [
        f"{label} {comparable.LOSSY}" if member.lossy else label
        for member, (_, label) in zip(
            members, comparable.labels([m.cell for m in members]), strict=True
        )
    ]
    lines = [
        _line(part, label if part.round is None else f"{label} round {part.round + 1}")
        for member, label in zip(members, labels, strict=True)
        for part in (member.each_round() if all_rounds else [member])
    ]
    cell = members[0].cell
    meter = comparable.shared_meter(line.peaks for line in lines)
    title = _title(cell)
    records = [record for member in members for record in member.records]
    between = _between_environments(members)
    return Group(title, _facts(cell, records, lines), meter, lines, between)


def _between_environments(members: Sequence[_Member]) -> list[str]:
    measured = []
    for member in members:
        good = [record for record in member.records if record.get("outcome") == "ok"]
        time = _pooled(good)
        if time is not None and _is_baseline(good[0]):
            label = comparable.label(_mapping(member.cell.get("backend")))
            measured.append((label, good[0], time))
    return comparable.between_environments(measured)


def _line(member: _Member, label: str) -> Line:
    records = member.records
    good = [record for record in records if record.get("outcome") == "ok"]
    counts = Counter(str(record.get("outcome")) for record in records)
    if member.rounds > len(records):
        counts["no record"] = member.rounds - len(records)
    medians = [m for r in good if (m := _median(_numbers(r.get("e2e_s")))) is not None]
    interval = None
    if len(medians) == 1:
        interval = median_interval(_numbers(good[0].get("e2e_s")))
    elif medians:
        interval = (min(medians), max(medians))
    warmups = [sum(times) for r in good if (times := _numbers(r.get("warmup_s")))]
    peaks: dict[str, int] = {}
    for record in good:
        for reading, value in _steady(record):
            meter = comparable.meter(record, reading)
            peaks[meter] = max(value, peaks.get(meter, 0))
    speedup, unlike = _ratio(good, member.baselines)
    return Line(
        name=str(member.cell.get("name", label)),
        backend=label,
        outcome=_outcome(counts),
        counts=dict(counts),
        reasons=_each_once(
            f"{record.get('outcome')}: {record.get('reason') or 'no reason was given'}"
            for record in records
            if record.get("outcome") != "ok"
        ),
        warnings=_each_once(w for record in records for w in _warnings(record)),
        rounds=len(good),
        warmup_s=_median(warmups),
        e2e_s=_median(_all(good, "e2e_s")),
        e2e_interval_s=interval,
        it_per_s=_median(_all(good, "it_per_s")),
        peaks=peaks,
        steps=next((_steps(record) for record in good), None),
        speedup=speedup,
        not_comparable=unlike,
    )


def _warnings(record: Mapping[str, Any]) -> list[str]:
    beside = busy.reason(record)
    return [*(record.get("warnings") or []), *([beside] if beside else [])]


def _title(cell: Mapping[str, Any]) -> str:
    name, workload = str(cell.get("name") or ""), _workload_name_of(cell)
    before, found, _ = name.rpartition(f"/{_mapping(cell.get('backend')).get('name')}")
    return before if found else str(workload or name or "?")


def _facts(cell: Mapping[str, Any], records: list[Record], lines: list[Line]) -> list[str]:
    asked = _mapping(cell.get("workload"))
    done = next((r for r in records if r.get("outcome") == "ok"), records[0] if records else {})
    shown = [asked.get("task"), asked.get("model")]
    if done.get("synthetic_weights"):
        shown.append("synthetic weights")
    width = done.get("output_width", asked.get("width"))
    height = done.get("output_height", asked.get("height"))
    shown.append(f"{width}×{height}" if width and height else None)
    if "samples" in asked:
        shown.append(f"{asked['samples']} pictures, {asked['max_batch']} at a time")
    else:
        shown.append(f"batch {asked['batch']}" if asked.get("batch", 1) != 1 else None)
    shown += [asked.get("dtype"), done.get("device", cell.get("device")), *modes.facts(asked)]
    steps = _each_once(_steps_text(line.steps) for line in lines if line.steps)
    shown.append("; ".join(steps) if steps else f"{asked.get('steps')} steps")
    shown += _chain_texts(records)
    return [str(fact) for fact in shown if fact is not None]


def _steps(
    record: Mapping[str, Any],
) -> tuple[int | None, int | None, int | None, int | None]:
    return (
        record.get("steps_requested"),
        record.get("steps_effective"),
        record.get("denoiser_calls"),
        record.get("denoiser_batch"),
    )


def _steps_text(steps: tuple[int | None, int | None, int | None, int | None]) -> str:
    requested, effective, calls, batch = steps
    text = f"{requested} steps"
    if effective is not None and effective != requested:
        text += f", {effective} effective"
    if calls is not None and calls != effective:
        text += f", {calls} denoiser calls"
    return f"{text}, denoiser batch {batch}" if batch is not None else text


def _chain_texts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the two times of each backend's chains, pooled over its rounds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("outcome") == "ok" and "ttfi_s" in record:
            label = comparable.label(_mapping(_mapping(record.get("cell")).get("backend")))
            found.setdefault(label, []).append(record)
    texts = []
    for label, own in found.items():
        first, gap = (_median(_all(own, name)) for name in ("ttfi_s", "tbb_s"))
        between = "" if gap is None else f", TBB {_seconds(gap)} s"
        texts.append(f"{label}: TTFI {_seconds(first)} s{between}")
    return texts


def _outcome(counts: Mapping[str, int]) -> str:
    """Return ``ok`` with its share if any round is ok, else the commonest other outcome."""
    total = sum(counts.values())
    if not total:
        return "no record"
    name = max(counts, key=lambda key: (key == "ok", key != "no record", counts[key]))
    return name if counts[name] == total else f"{name} {counts[name]}/{total}"


def _notes(groups: Sequence[Group]) -> list[str]:
    """Return what a reader must know, each sentence once, after the lines that it is about."""
    about: dict[str, list[str]] = {}

    def add(text: str, group: Group, line: Line) -> None:
        about.setdefault(text, []).append(f"{group.title} / {line.backend}")

    warned: dict[str, list[tuple[str, Group, Line]]] = {}
    single = several = missing = 0
    for group in groups:
        for sentence in group.baselines:
            about.setdefault(sentence, []).append(group.title)
        for line in group.lines:
            for reason in line.reasons:
                add(reason, group, line)
            if line.not_comparable:
                add(f"no speedup, not comparable: {line.not_comparable}", group, line)
            for warning in line.warnings:
                warned.setdefault(_NUMBER.sub("#", warning), []).append((warning, group, line))
            single += line.rounds == 1
            several += line.rounds > 1
            missing += line.counts.get("no record", 0)
    for alike in warned.values():
        sentence = folded([warning for warning, _, _ in alike])
        for _, group, line in alike:
            add(sentence, group, line)
    notes = [f"{_list(_each_once(lines))}: {text}" for text, lines in about.items()]
    if missing:
        notes.append(f"{missing} planned round(s) without a record; bench run --resume adds them.")
    if single:
        notes.append(
            "One round only: intervals are of the median within one process (95 %, from 6 calls "
            "on), and the spread from process to process is not covered."
        )
    if several:
        notes.append(
            "Several rounds: the median of all their calls, with the range of the rounds' medians."
        )
    return notes


def folded(sentences: Sequence[str]) -> str:
    """Return one sentence for several that differ in their numbers alone.

    A number that is not the same in all of them becomes the range of what it is there.
    """
    if len({*sentences}) == 1:
        return sentences[0]
    words = _NUMBER.split(sentences[0])
    ranges = [
        own[0] if len({*own}) == 1 else f"{min(own, key=float)} to {max(own, key=float)}"
        for own in zip(*map(_NUMBER.findall, sentences), strict=True)
    ]
    told = "".join(word + number for word, number in zip(words, [*ranges, ""], strict=True))
    return f"{told} ({len(sentences)} times, the numbers from least to most)"


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _list(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


def _is_baseline(record: Mapping[str, Any]) -> bool:
    return bool(_mapping(_mapping(record.get("cell")).get("backend")).get("name") == BASELINE)


def _workload_name(record: Mapping[str, Any]) -> Any:
    return _workload_name_of(_mapping(record.get("cell")))


def _workload_name_of(cell: Mapping[str, Any]) -> Any:
    return _mapping(cell.get("workload")).get("name")


def _steady(record: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], int]]:
    """Return the readings of the steady phase that have a value, each with its bytes."""
    return [
        (reading, int(reading["bytes"]))
        for reading in record.get("memory") or []
        if reading.get("phase") == "steady" and reading.get("bytes") is not None
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(values: Any) -> list[float]:
    # Most lists are floats throughout, and of ten thousand records there are many lists.
    if isinstance(values, list) and {*map(type, values)} == {float}:
        return values
    return [float(value) for value in values or [] if isinstance(value, (int, float))]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _each_once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _seconds(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:.{3 if value < 10 else 2 if value < 100 else 1}f}"


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.{2 if value < 100 else 1}f}"


def _gib(value: int | None) -> str:
    return _DASH if value is None else f"{value / GIB:.3f}"


def _with_interval(line: Line, separator: str) -> str:
    if line.e2e_s is None or line.e2e_interval_s is None:
        return _seconds(line.e2e_s)
    low, high = line.e2e_interval_s
    return f"{_seconds(line.e2e_s)}{separator}{_seconds(low)}–{_seconds(high)}"


def _speedup(line: Line) -> str:
    return _DASH if line.speedup is None else f"{line.speedup:.2f}×"
