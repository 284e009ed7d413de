"""What a report says, as texts: Markdown and HTML are two ways to lay out this one view.

A figure becomes text here and nowhere later, so the two cannot disagree. Tables are lists of
columns: to add one to a table, add a line to its list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from bench import text
from bench.audit import Audited
from bench.contract import PHASES, STAGES
from bench.records import Record
from bench.records.arms import ArmGroup, Source, each_once
from compilers.base import BASELINE
from reports import answers, fidelity, perceptual, sections
from reports.analyse import Comparison, Finding
from reports.answers import Answer
from reports.fidelity import Likeness
from reports.gallery import Gallery
from reports.perceptual import Score, Scores
from reports.reference import Published, References
from reports.sections.base import Section
from reports.tables import Cell, Column, Table, present, spread, table


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload. ``picks`` are its answers in short; see `reports.answers.picks`."""

    answer: Answer
    picks: list[Answer]
    prompt: str
    settings: str
    tables: list[Table]
    gallery: Gallery


@dataclass(frozen=True, slots=True)
class View:
    title: str
    sources: list[Source]
    counts: str
    synthetic: bool
    workloads: list[Workload]
    outcomes: Table | None
    warnings: Table | None
    environments: list[Table]
    records: Table
    published: Table | None
    audit: Table
    compares: bool
    method: list[str]
    sections: list[Section]

    @property
    def leads(self) -> bool:
        """Whether sections come first: nothing is compared, so that they hold what was asked."""
        return bool(self.sections) and not self.compares

    @property
    def figures_of_sections(self) -> set[str]:
        return {name for section in self.sections for name in section.figures}

    @property
    def question(self) -> str:
        """What the page is about: its heading, without the run's name."""
        if self.leads:
            return f"{text.listed([section.title for section in self.sections])}:"
        return "Is it worth it?"


def build(
    sources: Sequence[Source],
    comparisons: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    galleries: Sequence[Gallery],
    published: References,
    scores: Scores,
    audited: Sequence[Audited],
) -> View:
    found = [_Found(c, f) for c in comparisons for f in c.findings]
    records = [_Process(*each, record) for each in found for record in each.finding.arm.records]
    return View(
        title=", ".join(source.label for source in sources),
        sources=list(sources),
        counts=f"{text.plural(len(comparisons), 'workload')}, {text.plural(len(found), 'cell')}, "
        f"{text.plural(len(records), 'record')}",
        synthetic=any(c.group.synthetic for c in comparisons),
        workloads=[
            _workload(number, comparison, likeness, gallery, scores)
            for number, (comparison, likeness, gallery) in enumerate(
                zip(comparisons, likenesses, galleries, strict=True), 1
            )
        ],
        outcomes=table(
            "Outcomes that are not ok", OUTCOMES, (e for e in found if e.finding.outcome != "ok")
        ),
        warnings=table(
            "Warnings", WARNINGS, ((e, w) for e in found for w in _worker_warnings(e.finding))
        ),
        environments=_environments([each.record for each in records]),
        records=Table(
            "Records",
            [column.head for column in RECORDS],
            [[column.cell(each) for column in RECORDS] for each in records],
            "One line for each process. A record's number is its place in its run, as in bench "
            "audit. bench export writes all figures of each.",
            folded=True,
        ),
        published=table(
            "Published figures",
            PUBLISHED,
            ((comparisons[place], row) for place, rows in published.items() for row in rows),
            "Published by others, not measured here: on other machines, once each, without "
            "interval. They enter no statistic. reports/reference/ORIGIN.md says what is doubtful "
            "about them.",
        ),
        audit=_audit(audited),
        compares=any(not each.finding.arm.is_baseline for each in found),
        method=[*METHOD, *scores.method(), perceptual.why_no_fid(comparisons)],
        sections=sections.build(comparisons),
    )


class _Found(NamedTuple):
    comparison: Comparison
    finding: Finding


class _Process(NamedTuple):
    comparison: Comparison
    finding: Finding
    record: Record


def _worker_warnings(finding: Finding) -> list[str]:
    return each_once(warning for record in finding.arm.records for warning in record.warnings)


VERDICTS = "Which verdict to trust"

_TEXT = (files("reports") / "templates" / "method.txt").read_text(encoding="utf-8")
METHOD = tuple(
    " ".join(part.split()).format(threshold=fidelity.THRESHOLD_DB) for part in _TEXT.split("\n\n")
)
"""What figures mean, a paragraph each."""


def _workload(
    number: int,
    comparison: Comparison,
    likeness: Mapping[int, Likeness],
    gallery: Gallery,
    scores: Scores,
) -> Workload:
    group, findings = comparison.group, comparison.findings
    return Workload(
        answer=answers.answer(number, comparison, likeness),
        picks=answers.picks(number, comparison, likeness),
        prompt=_prompt(group),
        settings=_settings(group),
        tables=present(
            table("Speed", SPEED, findings, _speed_note(comparison)),
            table(
                "Cost",
                COST,
                findings,
                "Medians over processes; warm-up is the sum of its calls. Memory meter: "
                f"{comparison.meter or 'none'}. Compile is the first call less the median steady "
                "call.",
            ),
            _fidelity(comparison, likeness, scores),
            _clip_scores(comparison, scores),
            table(VERDICTS, TRUST, (f for f in findings if not f.arm.is_baseline or f.doubts)),
            table(
                "Stages",
                STAGE,
                (f for f in findings if f.stages),
                "Means over all measured calls, which add up to the mean end-to-end time.",
                folded=True,
            ),
            table(
                "Memory by phase",
                MEMORY,
                ((f, meter) for f in findings for meter in each_once(m for m, _ in f.arm.peaks)),
                "Largest peak over processes. Compare within a meter only.",
                folded=True,
            ),
            *sections.tables(comparison),
            table(
                "Flags of single processes",
                FLAGS,
                ((f, record_id, flag) for f in findings for record_id, flag in f.flags),
                "Kept, not dropped. Medians shrug off a few outliers.",
                folded=True,
            ),
        ),
        gallery=gallery,
    )


def _prompt(group: ArmGroup) -> str:
    asked = group.cell.workload
    if asked.prompts:
        return "drawn for each image: " + "; ".join(asked.prompts)
    return asked.prompt


def _settings(group: ArmGroup) -> str:
    asked = group.cell.raw["workload"]
    names = ("seed", "steps", "guidance", "image_guidance", "strength", "start_from",
             "scheduler", "negative_prompt", "variant")  # fmt: skip
    parts = [f"{n.replace('_', ' ')} {asked[n]}" for n in names if asked.get(n) is not None]
    parts.insert(1, f"{asked['width']}×{asked['height']}")
    first = group.first
    if first and first.scheduler_class and not asked.get("scheduler"):
        parts.append(f"scheduler {first.scheduler_class}")
    if first and first.pipeline_class:
        parts.append(first.pipeline_class)
    return ", ".join(parts)


# -------------------------------------------------------------------- tables of a workload


def _outcome(outcome: str) -> Cell:
    return Cell(outcome, None, "ok" if outcome == "ok" else "bad")


def _word(finding: Finding) -> Cell:
    if finding.arm.is_baseline:
        return Cell("baseline")
    if finding.not_comparable:
        return Cell(f"not comparable: {finding.not_comparable}", None, "bad")
    return Cell(finding.verdict.word, None, "word") if finding.verdict else Cell(text.DASH)


def _count(finding: Finding) -> Cell:
    n = f"{finding.processes} × {finding.calls / finding.processes:.3g}" if finding.ok else None
    return Cell(n or text.DASH, None, "number")


BACKEND = Column("backend", "arm.label", kind="name")

SPEED = (
    BACKEND,
    Column("outcome", lambda f: _outcome(f.outcome)),
    Column("end-to-end [s]", "e2e.value", text.seconds),
    Column("95 % interval", lambda f: spread(f.e2e)),
    Column("speedup", "speedup.ratio", text.ratio),
    Column("95 % interval", lambda f: spread(f.speedup, text.ratio)),
    Column("verdict", _word),
    Column("it/s", "it.value", text.number),
    Column("steps/s end to end", "steps_per_s_e2e", text.number),
    Column("step [s]", "step_s", text.seconds),
    Column("n", _count),
)


def _speed_note(comparison: Comparison) -> str:
    several = f"{BASELINE} is in several runs: each backend is compared with its run's own."
    return " ".join(
        [
            "Medians. n = processes × calls.",
            "it/s leaves out text encoding, VAE and the first step;",
            "steps/s end to end divides the requested steps by the whole time.",
            *([several] if comparison.several_runs else []),
            *comparison.between,
        ]
    )


COST = (
    BACKEND,
    Column("compile cache", "arm.cache"),
    Column("load [s]", "load_s", text.seconds),
    Column("prepare [s]", "prepare_s", text.seconds),
    Column("first call [s]", "first_call_s", text.seconds),
    Column("warm-up [s]", "warmup_s", text.seconds),
    Column("warm-up calls", "warmup_calls", text.whole),
    Column("compile [s]", "compile_s", text.seconds),
    Column("steady peak [GiB]", lambda f: f.peak(), text.gib),
    Column(
        "break-even",
        lambda f: Cell(answers.breakeven(f), f.breakeven.images if f.breakeven else None),
    ),
    Column("baseline minutes", "breakeven.minutes", text.minutes),
)


def _reason(finding: Finding) -> str:
    """Return why the verdict is what it is, then the doubts without what that says already."""
    reason = finding.verdict.reason if finding.verdict else ""
    doubts = (doubt.removeprefix(reason).strip() if reason else doubt for doubt in finding.doubts)
    return " ".join([reason, *doubts]).strip() or text.DASH


TRUST = (
    BACKEND,
    Column("verdict", _word),
    Column("trust", lambda f: Cell(f.trust, None, f"trust-{f.trust.replace(' ', '-')}")),
    Column("why", _reason),
)


def _stage(name: str) -> Column:
    head = f"{name.removesuffix('_s').replace('_', ' ')} [s]"
    return Column(head, lambda f: f.stages.get(name), text.seconds)


STAGE = (BACKEND, *map(_stage, STAGES))


def _phase(name: str) -> Column:
    return Column(f"{name} [GiB]", lambda row: row[0].peak(row[1], name), text.gib)


MEMORY = (
    Column("backend", lambda row: row[0].arm.label, kind="name"),
    Column("meter", lambda row: row[1]),
    *map(_phase, PHASES),
)

FLAGS = (
    Column("backend", lambda row: row[0].arm.label, kind="name"),
    Column("record", lambda row: row[1], kind="id"),
    Column("flag", lambda row: row[2].name),
    Column("finding", lambda row: row[2].reason),
)


class _Images(NamedTuple):
    """The images of a finding; ``worst`` has the figures of the worst one by name."""

    finding: Finding
    likeness: Likeness
    worst: dict[str, str]
    score: Score


def _metric(name: str) -> Column:
    return Column(name, lambda row: Cell(row.worst.get(name, text.DASH), None, "number"))


def _compared(which: str) -> Any:
    def count(row: _Images) -> Cell:
        return Cell(str(len([p for p in getattr(row.likeness, which) if p.figures])), None,
                    "number")  # fmt: skip

    return count


_NAME = Column("backend", "finding.arm.label", kind="name")
_LPIPS = Column("LPIPS", "score.lpips", perceptual.lpips)


def _why_verdict(row: _Images) -> str:
    verdict = row.likeness.verdict
    return verdict.reason if verdict else f"{row.likeness.why}."


def _fidelity_columns(*, with_lpips: bool) -> list[Column]:
    return [
        _NAME,
        Column(
            "verdict",
            lambda r: r.likeness.verdict.word if r.likeness.verdict else "not compared",
            kind="word",
        ),
        *map(_metric, ("max abs difference", "PSNR", "SSIM", "FLIP")),
        *([_LPIPS] if with_lpips else []),
        Column("images", _compared("pairs")),
        Column("control pairs", _compared("control")),
        Column("why", _why_verdict),
    ]


def _fidelity(
    comparison: Comparison, likeness: Mapping[int, Likeness], scores: Scores
) -> Table | None:
    rows = []
    for index, found in sorted(likeness.items()):
        finding, worst = comparison.findings[index], found.worst
        figures = dict(fidelity.metrics(worst.figures)) if worst else {}
        rows.append(_Images(finding, found, figures, scores.of(comparison.group, finding)))
    with_lpips = any(row.score.lpips is not None for row in rows)
    note = "Figures of the worst image of each backend, against the baseline's of the same seed."
    if comparison.group.synthetic:
        note += " Synthetic weights: the images have no content, only their equality means much."
    if with_lpips:
        note += " LPIPS is the largest of any of its pictures."
    why = perceptual.why_no_clip_score(comparison.group)
    if why and "clip_score" in scores.weights:
        note += f" There is no CLIP score: {why}."
    return table("Fidelity", _fidelity_columns(with_lpips=with_lpips), rows, note)


CLIP = (
    Column("backend", lambda row: row[0].arm.label, kind="name"),
    Column("CLIP score", lambda row: row[1].clip_score, perceptual.clip_score),
    Column("baseline", lambda row: row[1].clip_score_baseline, perceptual.clip_score),
    Column(
        "difference",
        lambda row: row[1].clip_score_difference,
        lambda value: perceptual.clip_score(value, "+"),
    ),
    Column("seeds", lambda row: row[1].pictures, text.whole),
    Column("why", lambda row: row[1].reasons.get("clip_score", text.DASH)),
)


def _clip_scores(comparison: Comparison, scores: Scores) -> Table | None:
    if "clip_score" not in scores.weights or perceptual.why_no_clip_score(comparison.group):
        return None
    found = [(f, scores.of(comparison.group, f)) for f in comparison.findings if f.ok]
    note = "How well images fit the prompt, 0 to 100; beside it the baseline's of the same seeds."
    if any(score.prompt_cut for _, score in found):
        note += " The prompt is longer than CLIP reads; its end was cut off."
    return table("CLIP score", CLIP, ((f, score) for f, score in found if score.pictures), note)


# ------------------------------------------------------------------------ tables of the page

WORKLOAD = Column("workload", "comparison.group.title")

OUTCOMES = (
    WORKLOAD,
    _NAME,
    Column("outcome", lambda row: _outcome(row.finding.outcome)),
    Column(
        "reason",
        lambda row: "; ".join(
            reason.removeprefix(f"{row.finding.outcome}: ") for reason in row.finding.reasons
        ),
    ),
)

WARNINGS = (
    Column("workload", lambda row: row[0].comparison.group.title),
    Column("backend", lambda row: row[0].finding.arm.label, kind="name"),
    Column("warning", lambda row: row[1]),
)


def _number(row: _Process) -> int:
    return row.finding.arm.source.numbers[id(row.record)]


RECORDS = (
    Column("record", _number, text.whole),
    WORKLOAD,
    _NAME,
    Column("round", lambda row: row.record.round + 1, text.whole),
    Column("outcome", lambda row: _outcome(row.record.outcome)),
    Column("median end-to-end [s]", "record.median_e2e_s", text.seconds),
    Column("calls", lambda row: len(row.record.e2e_s) if row.record.ok else 0, text.whole),
    Column(
        "warm-up [s]", lambda row: row.record.warmup_total_s if row.record.ok else None,
        text.seconds,
    ),
    Column("record id", "record.record_id", kind="id"),
)  # fmt: skip


def _gib(row: tuple[Comparison, Published]) -> Cell:
    gib = row[1].memory_gib
    return Cell(text.DASH if gib is None else f"{gib:.3f}", gib, "number")


PUBLISHED = (
    Column("workload", lambda row: row[0].group.title),
    Column("backend", lambda row: row[1].label),
    Column("origin", lambda row: row[1].origin),
    Column("end-to-end [s]", lambda row: row[1].e2e_s, text.seconds),
    Column("it/s", lambda row: row[1].it_per_s, text.number),
    Column("warm-up [s]", lambda row: row[1].warmup_s, text.seconds),
    Column("memory [GiB]", _gib),
    Column("meter", lambda row: row[1].meter),
    Column("settings", lambda row: row[1].settings),
)

AUDIT = ("sure", "cells", "finding", "calculation", "how to verify")


def _audit(audited: Sequence[Audited]) -> Table:
    """Return what ``bench audit`` finds in the records: here as in anyone's table."""
    found = [(one, finding) for one in audited for finding in one.findings]
    several = len(audited) > 1
    rows: list[tuple[str, ...]] = [
        (f.sure, _audited_cells(one, f.rows, several=several), f.says, f.arithmetic, f.settle)
        for one, f in found
    ] or [("–", "–", "nothing contradicts itself", "–", "–")]
    records = text.plural(sum(len(one.table) for one in audited), "record")
    return Table(
        "Audit of these records",
        list(AUDIT),
        [[Cell(word) for word in row] for row in rows],
        f"bench audit went over {records}: {text.plural(len(found), 'finding')}. Numbers of "
        "records are those of the table of records at the end. docs/audit.md says what it checks.",
    )


def _audited_cells(one: Audited, rows: Sequence[int], *, several: bool) -> str:
    """Name the cells that a finding is about, and the numbers that it calls their records by."""
    names = one.table.text("name")
    found = [f"{names[i]} (record {one.table.lines[i]})" for i in rows]
    run = f"{one.table.file}: " if several else ""
    return f"{run}{text.listed(found, 6)}"


FIELDS = (Column("field", lambda row: row[0]), Column("value", lambda row: row[1]))


def _environments(records: Iterable[Record]) -> list[Table]:
    """Return a table for each machine and software, with the cells that ran there."""
    found: dict[int, tuple[Mapping[str, Any], dict[str, None]]] = {}
    for record in records:
        if record.fingerprint:
            backend = record.cell.backend
            where = f" ({backend.environment})" if backend.environment != "current" else ""
            # Equal ones of the records that were read are one object.
            print_ = found.setdefault(id(record.fingerprint), (record.fingerprint, {}))
            print_[1][f"{backend.name}{where}"] = None
    return present(
        *(
            table(
                "Machine and software" + (f" {number}" if len(found) > 1 else ""),
                FIELDS,
                _flat(print_),
                f"Backends: {text.listed(backends, 12)}.",
                folded=True,
            )
            for number, (print_, backends) in enumerate(found.values(), 1)
        )
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, one in value.items():
        if name == "null_reasons":
            continue
        if isinstance(one, Mapping):
            found += _flat(one, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", text.DASH if one is None else str(one)))
    return found
