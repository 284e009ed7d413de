"""What a report says, as texts: Markdown and HTML are two ways to lay out this one view.

A figure becomes text here and nowhere later, so the two cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from textwrap import shorten
from typing import Any

from bench import chains, modes, text
from bench.audit import Audited
from bench.contract import PHASES, STAGES
from reports import fidelity, frames, perceptual
from reports.analyse import Comparison, Finding
from reports.fidelity import Likeness
from reports.gallery import Gallery
from reports.gather import BASELINE, NO_RECORD, Group, Sample, Source
from reports.perceptual import Scores
from reports.reference import Published


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; ``value`` is the unrounded figure behind the text."""

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: list[str]
    rows: list[list[Cell]]
    note: str = ""
    folded: bool = False

    @property
    def aligned(self) -> list[tuple[str, bool]]:
        """The head, each name with whether its column holds numbers."""
        return [
            (name, any(row[place].kind == "number" for row in self.rows))
            for place, name in enumerate(self.head)
        ]


@dataclass(frozen=True, slots=True)
class Answer:
    """One workload on the first screen."""

    anchor: str
    title: str
    facts: str
    synthetic: bool
    backend: str
    headline: str
    speedup: str
    interval: str
    times: str
    word: str
    warmup: list[str]
    memory: list[str]
    pictures: str
    pays: list[str]
    trust: str
    why: list[str]
    lost: list[str]


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload. ``picks`` are its answers in short; see `_picks`."""

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
    method: list[str] = field(default_factory=list)


def build(
    comparisons: Sequence[Comparison],
    likenesses: Sequence[Mapping[int, Likeness]],
    galleries: Sequence[Gallery],
    published: frames.References,
    scores: Scores,
    audited: Sequence[Audited],
) -> View:
    samples = [s for c in comparisons for f in c.findings for s in f.row.recorded]
    sources = list({id(s.source): s.source for s in samples}.values())
    workloads = [
        _workload(number, comparison, likeness, gallery, scores)
        for number, (comparison, likeness, gallery) in enumerate(
            zip(comparisons, likenesses, galleries, strict=True), 1
        )
    ]
    rows = sum(len(c.findings) for c in comparisons)
    return View(
        title=", ".join(source.label for source in sources),
        sources=sources,
        counts=f"{text.plural(len(comparisons), 'workload')}, {text.plural(rows, 'cell')}, "
        f"{text.plural(len(samples), 'record')}",
        synthetic=any(c.group.synthetic for c in comparisons),
        workloads=workloads,
        outcomes=_outcomes(comparisons),
        warnings=_warnings(comparisons),
        environments=_environments(samples),
        records=_records(comparisons),
        published=_published(comparisons, published),
        audit=_audit(audited),
        compares=any(not f.row.is_baseline for c in comparisons for f in c.findings),
        method=[*METHOD, *scores.method(), perceptual.why_no_fid(comparisons)],
    )


def _audit(audited: Sequence[Audited]) -> Table:
    """What ``bench audit`` says of the records: here as of anyone's table."""
    found = [(one, finding) for one in audited for finding in one.findings]
    rows = [
        [
            Cell(finding.sure),
            Cell(_audited(one, finding.rows, several=len(audited) > 1)),
            Cell(finding.says),
            Cell(finding.arithmetic),
            Cell(finding.settle),
        ]
        for one, finding in found
    ]
    if not rows:
        says = ("–", "–", "nothing contradicts itself", "–", "–")
        rows = [[Cell(word) for word in says]]
    records = text.plural(sum(len(one.table) for one in audited), "record")
    note = (
        f"bench audit went over {records}: {text.plural(len(found), 'finding')}. Numbers of "
        "records are those of the table of records at the end. docs/audit.md says what it checks."
    )
    return Table(
        "Audit of these records", ["sure", "cells", "finding", "sum", "what settles it"], rows, note
    )


def _audited(one: Audited, rows: Sequence[int], *, several: bool) -> str:
    """Name the cells that a finding is about, and the numbers that it calls their records by."""
    names = one.table.text("name")
    found = [f"{names[i]} (record {one.table.lines[i]})" for i in rows]
    run = f"{one.table.file}: " if several else ""
    return f"{run}{text.listed(found, 6)}"


VERDICTS = "Which verdict to trust"
ONLY_BASELINE = "Only the baseline was measured"

METHOD = (
    (
        "End-to-end time runs from synchronised start to PIL pictures and synchronised end. The "
        "median "
        "is over all measured calls. With several processes its interval is that median times and "
        "divided by a factor: Student's t for so few processes, times the standard error that a "
        "two-level bootstrap (processes, then calls within them) has on the log scale. Two "
        "processes know little of their own spread, so theirs may be wider than all calls seen. "
        "With one process it is the order-statistic interval of its calls, from 6 calls on; so "
        "are the intervals of it/s. All intervals are 95 %."
    ),
    (
        "Speedup is the baseline's median over the backend's, its interval made in the same way, "
        "with Welch's degrees of freedom. "
        "Only like is compared with like: model, revision, task, effective steps, scheduler, size, "
        "batch, guidance, data type, device, threads and machine must be equal; otherwise the "
        "field "
        "that differs is named."
    ),
    (
        "Verdicts: FASTER or SLOWER when the interval excludes 1; SAME when it lies within 1 % "
        "of 1; "
        "UNCLEAR otherwise. With a single process per cell the interval must clear 1 by 5 %, "
        "because "
        "the spread from process to process is then unknown."
    ),
    (
        "Break-even: (first call of the backend − first call of the baseline) ÷ (saving per "
        "call), in "
        "images; preparation is not part of it, and is stated where it would change the answer; "
        "never when the interval of the saving reaches 0. Warm-up time is the sum of all "
        "warm-up calls, the first included."
    ),
    (
        "Memory is a peak, by the meter that is named, over the steady phase unless stated "
        "otherwise. "
        "Figures of different meters are never compared."
    ),
    (
        f"Pictures are compared image by image at equal seed, with the baseline's first process as "
        f"reference and its further processes as control. The threshold is "
        f"{fidelity.THRESHOLD_DB:g} dB PSNR."
    ),
    (
        "Trust: yes when nothing speaks against the verdict; with care when a process showed "
        "noise, "
        "drift, outliers, a slow-down, time unaccounted for, a load average above its threads + 1, "
        "an unstable warm-up or a lost round; no "
        "when the verdict is UNCLEAR or there is nothing to compare with. Nothing flagged is "
        "dropped."
    ),
    (
        "Only outcome ok enters a figure. Break-even intervals are drawn: 2,000 bootstrap "
        "replicates, 400 for records of more than 200 cells."
    ),
)


def _workload(
    number: int,
    comparison: Comparison,
    likeness: Mapping[int, Likeness],
    gallery: Gallery,
    scores: Scores,
) -> Workload:
    group = comparison.group
    return Workload(
        answer=_answer(number, comparison, likeness),
        picks=_picks(number, comparison, likeness),
        prompt=_prompt(group.workload),
        settings=_settings(group),
        tables=[
            table
            for table in (
                _speed(comparison),
                _cost(comparison),
                _fidelity(comparison, likeness, scores),
                _clip_scores(comparison, scores),
                _verdicts(comparison),
                _stages(comparison),
                _limits(comparison),
                _memory(comparison),
                _sweeps(comparison),
                _lost_steps(comparison),
                _sizes(comparison),
                _flags(comparison),
            )
            if table is not None
        ],
        gallery=gallery,
    )


def _prompt(workload: Mapping[str, Any]) -> str:
    several = workload.get("prompts")
    if several:
        return "drawn for each picture: " + "; ".join(map(str, several))
    return str(workload.get("prompt", ""))


def _answer(number: int, comparison: Comparison, likeness: Mapping[int, Likeness]) -> Answer:
    subject = comparison.best or comparison.leader
    if subject is not None and subject.speedup is not None and subject.verdict is not None:
        return _about(number, comparison, likeness, subject)
    group = comparison.group
    headline, why = _nothing(comparison)
    alone = next((f for f in comparison.findings if f.ok), None)
    only = headline == ONLY_BASELINE and alone is not None
    return Answer(
        anchor=f"workload-{number}",
        title=group.title,
        facts=_facts(group),
        synthetic=group.synthetic,
        backend="",
        headline=headline,
        speedup="",
        interval="",
        times="",
        word="",
        warmup=_warmup_words(comparison, alone) if only and alone else [],
        memory=_memory_words(comparison, alone) if only and alone else [],
        pictures=text.DASH,
        pays=[],
        trust="nothing compared" if only else "no",
        why=why,
        lost=_lost(comparison),
    )


def _picks(number: int, comparison: Comparison, likeness: Mapping[int, Likeness]) -> list[Answer]:
    """Answer for the fastest backend that means to keep the picture, then the fastest other one.

    A backend that is clearly faster goes before one that only has the larger ratio.
    """
    compared = [f for f in comparison.findings if f.speedup and f.verdict and not f.row.is_baseline]
    found: list[Finding] = []
    for lossy in (False, True):
        of_kind = [f for f in compared if f.row.lossy is lossy]
        if comparison.best is not None and comparison.best.row.lossy is lossy:
            found.append(comparison.best)
        elif of_kind:
            found.append(max(of_kind, key=_surest))
    return [_about(number, comparison, likeness, f) for f in found]


def _surest(finding: Finding) -> tuple[bool, float]:
    assert finding.speedup is not None
    assert finding.verdict is not None
    return finding.verdict.word == "FASTER", finding.speedup.ratio


def _about(
    number: int, comparison: Comparison, likeness: Mapping[int, Likeness], subject: Finding
) -> Answer:
    assert subject.speedup is not None
    assert subject.verdict is not None
    group = comparison.group
    index = next(i for i, f in enumerate(comparison.findings) if f is subject)
    return Answer(
        anchor=f"workload-{number}",
        title=group.title,
        facts=_facts(group),
        synthetic=group.synthetic,
        backend=subject.row.short,
        headline=_headline(comparison, subject),
        speedup=text.ratio(subject.speedup.ratio),
        interval=text.interval(subject.speedup.low, subject.speedup.high, text.ratio),
        times=_times(subject),
        word=subject.verdict.word,
        warmup=_warmup_words(comparison, subject),
        memory=_memory_words(comparison, subject),
        pictures=_pictures_words(group, likeness.get(index)),
        pays=_pays_words(comparison, subject),
        trust=subject.trust,
        why=_why(subject),
        lost=_lost(comparison),
    )


def _nothing(comparison: Comparison) -> tuple[str, list[str]]:
    ok = [f for f in comparison.findings if f.ok]
    if not ok:
        return "No backend gave a figure", ["No process ended ok."]
    if all(f.row.is_baseline for f in ok):
        told = " and ".join(f"{text.seconds(f.e2e.value)} s" for f in ok if f.e2e)
        why = f"One call of {BASELINE} takes {told}; there is nothing to compare it with"
        waited = [f.row.label for f in comparison.findings if not f.row.recorded]
        if waited:
            why += f" yet, as there is {NO_RECORD} of {text.listed(waited)}"
        return ONLY_BASELINE, [f"{why}."]
    timed = sorted((f.e2e.value, f.row.label) for f in ok if f.e2e)
    alone = text.listed((f"{label} {text.seconds(value)} s" for value, label in timed), 4)
    unlike = [f"{f.row.label}: not comparable, {f.not_comparable}." for f in ok if f.not_comparable]
    return "Nothing can be compared", [
        *(unlike or [f"There is no baseline: no cell with the backend {BASELINE} ended ok."]),
        f"One call, measured alone: {alone}.",
    ]


def _lost(comparison: Comparison) -> list[str]:
    """Return the backends without a figure or a round, together where the reason is the same."""
    found: dict[str, list[str]] = {}
    for f in comparison.findings:
        if f.outcome == "ok":
            continue
        said = "; ".join(f.reasons)
        if f.ok:
            said = f"{f.outcome}; {said}"
        found.setdefault(shorten(said, 240, placeholder=" …"), []).append(f.row.label)
    return [f"{text.listed(names)}: {said}" for said, names in found.items()]


def _times(subject: Finding) -> str:
    assert subject.e2e is not None
    base = subject.baseline.e2e if subject.baseline else None
    told = f"{text.seconds(subject.e2e.value)} s a call"
    if subject.baseline is None or base is None:
        return told
    return f"{told} against {text.seconds(base.value)} s of {subject.baseline.row.called}"


def _headline(comparison: Comparison, subject: Finding) -> str:
    if comparison.best is None:
        words = {f.verdict.word for f in comparison.findings if f.verdict}
        if "UNCLEAR" in words:
            return f"No backend is clearly faster; {subject.row.short} has the largest ratio"
        return f"{BASELINE} is fastest; next is {subject.row.short}"
    says = f"{subject.row.short} is fastest"
    if comparison.several_environments:
        says = f"{subject.row.short} gains most, each against {BASELINE} in its own environment"
    if comparison.tied:
        names = text.listed(dict.fromkeys(f.row.short for f in comparison.tied))
        says = f"{says}, not told apart from {names}"
    return f"{says}{_keeping(comparison)}" if subject.row.lossy else says


def _keeping(comparison: Comparison) -> str:
    """Name the fastest backend that means to keep the picture, beside a best one that does not."""
    faster = [
        (f.speedup.ratio, f.row.short)
        for f in comparison.findings
        if f.speedup and f.verdict and f.verdict.word == "FASTER" and not f.row.lossy
    ]
    if not faster:
        return "; none that keeps the picture is clearly faster"
    ratio, name = max(faster)
    return f"; of those that keep the picture, {name} ({text.ratio(ratio)})"


def _warmup_words(comparison: Comparison, subject: Finding) -> list[str]:
    base = subject.baseline
    told = [
        f"{text.seconds(subject.warmup_s)} s {'cold' if subject.row.cache == 'fresh' else 'warm'}"
    ]
    other = comparison.sibling(subject)
    if other is not None:
        kind = "warm cache" if other.row.cache == "warm" else "cold"
        told.append(f"{text.seconds(other.warmup_s)} s with {kind}")
    if base is not None:
        told.append(f"baseline {text.seconds(base.warmup_s)} s")
    return told


def _memory_words(comparison: Comparison, subject: Finding) -> list[str]:
    own = subject.peak(comparison.meter)
    base = subject.baseline.peak(comparison.meter) if subject.baseline else None
    if own is None:
        return ["no figure"]
    if base is None:
        return [f"{text.gib(own)} GiB", f"meter {comparison.meter}"]
    return [
        f"{text.signed_gib(own - base)} GiB",
        f"{text.gib(own)} against {text.gib(base)} GiB",
        f"meter {comparison.meter}",
    ]


def _pictures_words(group: Group, likeness: Likeness | None) -> str:
    said = fidelity.same(likeness)
    if likeness is not None and likeness.verdict and likeness.verdict.worst_db is not None:
        said += f" ({likeness.verdict.worst_db:.1f} dB)"
    return f"{said}; synthetic weights, no real content" if group.synthetic else said


def _pays_words(comparison: Comparison, subject: Finding) -> list[str]:
    own = subject.breakeven
    if own is None or own.kind != "after" or own.images is None:
        told = [_pays(subject)]
        if own is not None and own.kind == "never":
            told.append("a saving per call is not proven: its 95 % interval reaches 0")
    else:
        told = [f"after {text.plural(own.images, 'image')}"]
        if own.low_images is not None:
            span = text.interval(own.low_images, own.high_images, text.count)
            told.append(f"95 % interval {span}")
        told.append(f"{text.minutes(own.minutes)} min of baseline work")
    prepared = _pays_prepared(subject)
    if prepared is not None:
        told.append(prepared)
    other = comparison.sibling(subject)
    if other is not None:
        told.append(f"{other.row.cache} cache: {_pays(other)}")
    return told


def _pays_prepared(subject: Finding) -> str | None:
    """Say after how many images it pays with preparation, if that is another answer.

    Break-even is defined over first calls. A backend that compiles ahead of time waits before.
    """
    own, base = subject.breakeven, subject.baseline
    if own is None or base is None or own.kind == "never":
        return None
    waits = (subject.prepare_s, subject.first_call_s, base.prepare_s, base.first_call_s)
    if None in waits or subject.e2e is None or base.e2e is None:
        return None
    prepare_s, first_s, base_prepare_s, base_first_s = (wait or 0.0 for wait in waits)
    saving_s = base.e2e.value - subject.e2e.value
    if saving_s <= 0:
        return None
    batch = chains.pictures(subject.row.first.workload)
    extra_s = prepare_s + first_s - base_prepare_s - base_first_s
    images = max(0, ceil(extra_s / saving_s * batch))
    without = own.images or 0
    if images <= max(1.05 * without, without + 1):
        return None
    return (
        f"with its preparation of {text.seconds(prepare_s)} s, which break-even leaves out, after "
        f"{text.plural(images, 'image')}"
    )


def _pays(finding: Finding) -> str:
    own = finding.breakeven
    if own is None:
        return "not known: a process has no first call"
    minutes = f", {text.minutes(own.minutes)} min of baseline work" if own.minutes else ""
    return frames.pays(finding) + minutes


def _why(subject: Finding) -> list[str]:
    if subject.doubts:
        return list(subject.doubts)
    assert subject.speedup is not None
    arms = (subject.speedup.baseline, subject.speedup.candidate)
    told = " and ".join(
        f"{text.plural(arm.processes, 'process')} × {text.count(arm.calls / arm.processes)} calls"
        for arm in arms
    )
    return [f"Nothing speaks against it: {told}, no flag raised."]


def _facts(group: Group) -> str:
    first = group.first
    asked = group.workload
    requested, effective, calls, batch = first.steps
    steps = f"{requested} steps"
    if effective is not None and effective != requested:
        steps += f", {effective} effective"
    if calls is not None and calls != effective:
        steps += f", {calls} denoiser calls"
    if batch is not None:
        steps += f", denoiser batch {batch}"
    like = first.alike.record
    height = like.get("output_height") or asked.get("height")
    width = like.get("output_width") or asked.get("width")
    parts = [
        str(asked.get("task", "")),
        str(asked.get("model", "")),
        "synthetic weights" if group.synthetic else "",
        f"{width}×{height}",
        f"{asked['samples']} pictures, {asked['max_batch']} at a time"
        if "samples" in asked
        else f"batch {asked['batch']}"
        if asked.get("batch", 1) != 1
        else "",
        str(asked.get("dtype", "")),
        first.device,
        *modes.facts(asked),
        steps,
    ]
    return " · ".join(part for part in parts if part)


def _settings(group: Group) -> str:
    asked = group.workload
    names = ("seed", "steps", "guidance", "image_guidance", "strength", "start_from",
             "scheduler", "negative_prompt", "variant")  # fmt: skip
    parts = [f"{n.replace('_', ' ')} {asked[n]}" for n in names if asked.get(n) is not None]
    first = group.first
    parts.insert(1, f"{asked.get('width')}×{asked.get('height')}")
    if first.scheduler_class and not asked.get("scheduler"):
        parts.append(f"scheduler {first.scheduler_class}")
    if first.pipeline_class:
        parts.append(first.pipeline_class)
    return ", ".join(parts)


def _number(value: float | None, show: Any = text.seconds) -> Cell:
    return Cell(show(value), value, "number")


def _span(low: float | None, high: float | None, show: Any = text.seconds) -> Cell:
    return Cell(text.interval(low, high, show), None, "number")


def _name(finding: Finding) -> Cell:
    return Cell(finding.row.label, None, "name")


def _outcome(finding: Finding) -> Cell:
    return Cell(finding.outcome, None, "ok" if finding.outcome == "ok" else "bad")


def _word(finding: Finding) -> Cell:
    if finding.row.is_baseline:
        return Cell("baseline")
    if finding.not_comparable:
        return Cell(f"not comparable: {finding.not_comparable}", None, "bad")
    return Cell(finding.verdict.word, None, "word") if finding.verdict else Cell(text.DASH)


def _speed(comparison: Comparison) -> Table:
    rows = []
    for f in comparison.findings:
        e2e, speed = f.e2e, f.speedup
        rows.append(
            [
                _name(f),
                _outcome(f),
                _number(e2e.value if e2e else None),
                _span(e2e.low, e2e.high) if e2e else _span(None, None),
                _number(speed.ratio if speed else None, text.ratio),
                _span(speed.low, speed.high, text.ratio) if speed else _span(None, None),
                _word(f),
                _number(f.it.value if f.it else None, text.number),
                _number(f.steps_per_s_e2e, text.number),
                _number(f.step_s),
                Cell(f"{f.processes} × {_each(f)}" if f.ok else text.DASH, None, "number"),
            ]
        )
    return Table(
        "Speed",
        ["backend", "outcome", "end-to-end [s]", "95 % interval", "speedup", "95 % interval",
         "verdict", "it/s", "steps/s end to end", "step [s]", "n"],
        rows,
        " ".join(
            [
                "Medians. n = processes × calls.",
                "it/s leaves out text encoding, VAE and the first step;",
                "steps/s end to end divides the requested steps by the whole time.",
                *(
                    [f"{BASELINE} is in several runs: each backend is compared with its run's own."]
                    if comparison.several_runs
                    else []
                ),
                *comparison.between,
            ]
        ),
    )  # fmt: skip


def _each(finding: Finding) -> str:
    return f"{finding.calls / finding.processes:.3g}" if finding.processes else text.DASH


def _cost(comparison: Comparison) -> Table:
    meter = comparison.meter
    rows = []
    for f in comparison.findings:
        own = f.breakeven
        rows.append(
            [
                _name(f),
                Cell(f.row.cache),
                _number(f.load_s),
                _number(f.prepare_s),
                _number(f.first_call_s),
                _number(f.warmup_s),
                Cell(str(f.warmup_calls) if f.warmup_calls is not None else text.DASH, None,
                     "number"),
                _number(f.compile_s),
                _number(f.peak(meter), text.gib),
                Cell(frames.pays(f) if own else text.DASH, own.images if own else None),
                _number(own.minutes if own else None, text.minutes),
            ]
        )  # fmt: skip
    return Table(
        "Cost",
        ["backend", "compile cache", "load [s]", "prepare [s]", "first call [s]", "warm-up [s]",
         "warm-up calls", "compile [s]", "steady peak [GiB]", "pays", "baseline minutes"],
        rows,
        f"Medians over processes; warm-up is the sum of its calls. Memory meter: {meter or 'none'}."
        " Compile is the first call less the median steady call.",
    )  # fmt: skip


def _fidelity(
    comparison: Comparison, likeness: Mapping[int, Likeness], scores: Scores
) -> Table | None:
    rows = []
    distances = {
        index: scores.of(comparison.group, comparison.findings[index]) for index in likeness
    }
    with_lpips = any(each.lpips is not None for each in distances.values())
    for index, finding in enumerate(comparison.findings):
        found = likeness.get(index)
        if found is None:
            continue
        worst = found.worst
        figures = dict(fidelity.metrics(worst.figures)) if worst else {}
        rows.append(
            [
                _name(finding),
                Cell(found.verdict.word if found.verdict else "not compared", None, "word"),
                *(
                    Cell(figures.get(name, text.DASH), None, "number")
                    for name in ("max abs difference", "PSNR", "SSIM", "FLIP")
                ),
                *([_distance(distances[index].lpips)] if with_lpips else []),
                Cell(str(len([p for p in found.pairs if p.figures])), None, "number"),
                Cell(str(len([p for p in found.control if p.figures])), None, "number"),
                Cell(found.verdict.reason if found.verdict else f"{found.why}."),
            ]
        )
    if not rows:
        return None
    note = "Figures of the worst picture of each backend, against the baseline's of the same seed."
    if comparison.group.synthetic:
        note += " Synthetic weights: the pictures have no content, only their equality means much."
    if with_lpips:
        note += " LPIPS is the largest of any of its pictures."
    why = perceptual.why_no_clip_score(comparison.group)
    if why and "clip_score" in scores.weights:
        note += f" There is no CLIP score: {why}."
    return Table(
        "Fidelity",
        ["backend", "verdict", "max abs difference", "PSNR", "SSIM", "FLIP",
         *(["LPIPS"] if with_lpips else []), "pictures", "control pairs", "why"],
        rows,
        note,
    )  # fmt: skip


def _distance(value: float | None) -> Cell:
    return Cell(perceptual.lpips(value), value, "number")


def _clip_scores(comparison: Comparison, scores: Scores) -> Table | None:
    if "clip_score" not in scores.weights or perceptual.why_no_clip_score(comparison.group):
        return None
    found = [(f, scores.of(comparison.group, f)) for f in comparison.findings if f.ok]
    rows = [
        [
            _name(finding),
            *(
                Cell(perceptual.clip_score(value, sign), value, "number")
                for value, sign in (
                    (score.clip_score, ""),
                    (score.clip_score_baseline, ""),
                    (score.clip_score_difference, "+"),
                )
            ),
            Cell(str(score.pictures), score.pictures, "number"),
            Cell(score.reasons.get("clip_score", text.DASH)),
        ]
        for finding, score in found
        if score.pictures
    ]
    if not rows:
        return None
    note = "How well pictures fit the prompt, 0 to 100; beside it the baseline's of the same seeds."
    if any(score.prompt_cut for _, score in found):
        note += " The prompt is longer than CLIP reads; its end was cut off."
    return Table(
        "CLIP score",
        ["backend", "CLIP score", "baseline", "difference", "seeds", "why"],
        rows,
        note,
    )


def _verdicts(comparison: Comparison) -> Table | None:
    rows = [
        [_name(f), _word(f), Cell(f.trust, None, f"trust-{f.trust.replace(' ', '-')}"),
         Cell(" ".join([f.verdict.reason if f.verdict else "", *_except_reason(f)]).strip()
              or text.DASH)]
        for f in comparison.findings
        if not f.row.is_baseline or f.doubts
    ]  # fmt: skip
    return Table(VERDICTS, ["backend", "verdict", "trust", "why"], rows) if (rows) else None


def _except_reason(finding: Finding) -> list[str]:
    reason = finding.verdict.reason if finding.verdict else ""
    return [doubt.removeprefix(reason).strip() if reason else doubt for doubt in finding.doubts]


def _stages(comparison: Comparison) -> Table | None:
    kept = [f for f in comparison.findings if f.stages]
    if not kept:
        return None
    rows = [[_name(f), *(_number(f.stages.get(stage)) for stage in STAGES)] for f in kept]
    names = [stage.removesuffix("_s").replace("_", " ") + " [s]" for stage in STAGES]
    note = "Means over all measured calls, which add up to the mean end-to-end time."
    return Table("Stages", ["backend", *names], rows, note, folded=True)


def _limits(comparison: Comparison) -> Table | None:
    """What the time is made of: the least that it could be, what is above, and the rest."""
    rows = []
    for f in comparison.findings:
        found = frames.limits(comparison, f)
        if found is None:
            continue
        loop_s = f.stages["denoise_s"]
        floor_s = max(found.ideal_s, found.least_s)
        rest_s = sum(f.stages.values()) - loop_s
        launches = {None: "not measurable here", True: "yes", False: "no"}[found.launch_bound]
        rows.append(
            [
                _name(f),
                _number(found.flops_per_s / 1e12),
                Cell(text.percent(found.mfu_pct), found.mfu_pct, "number"),
                _number(floor_s),
                _number(loop_s - floor_s),
                _number(rest_s),
                _number(found.least_s),
                _number(found.operators_s),
                Cell(text.percent(found.busy_pct), found.busy_pct, "number"),
                Cell(text.percent(found.loop_busy_pct), found.loop_busy_pct, "number"),
                Cell(launches),
            ]
        )
    if not rows:
        return None
    head = [
        "backend", "denoiser [TFLOP/s]", "of the measured limit", "loop at the limit [s]",
        "loop above it [s]", "rest of the call [s]", "weights at the copy rate [s]",
        "operators' bytes at it [s]", "device busy, call", "device busy, loop",
        "bound by launches",
    ]  # fmt: skip
    note = (
        "The limit is the slower of two: the counted operations at the matrix-product rate, and "
        "the weights read once a step at the copy rate, both measured on this device in this run. "
        "Operators' bytes: what diffusers' own operators read and write, each for itself, which "
        "fusing spares. Bound by launches: the device is busy for under 90 % of the loop."
    )
    return Table("Against the device's limits", head, rows, note, folded=True)


def _memory(comparison: Comparison) -> Table | None:
    rows = [
        [
            _name(f),
            Cell(meter),
            *(_number(f.peak(meter, phase), text.gib) for phase in PHASES),
        ]
        for f in comparison.findings
        for meter in dict.fromkeys(m for m, _ in f.peaks)
    ]
    if not rows:
        return None
    head = ["backend", "meter", *(f"{phase} [GiB]" for phase in PHASES)]
    return Table(
        "Memory by phase", head, rows, "Largest peak over processes. Compare within a meter only.",
        folded=True,
    )  # fmt: skip


def _sweeps(comparison: Comparison) -> Table | None:
    rows = []
    for f in comparison.findings:
        found = f.sweep
        if found is None:
            continue
        fit = found.fit
        r2 = fit.r2 if fit else None
        notes = [*(fit.notes if fit else ()), found.check.reason if found.check else ""]
        rows.append(
            [
                _name(f),
                _number(fit.fixed_s if fit else None),
                _span(*((fit.fixed_interval_s if fit else None) or (None, None))),
                _number(fit.marginal_step_s if fit else None),
                _span(*((fit.marginal_interval_s if fit else None) or (None, None))),
                _number(found.marginal_it_per_s, text.number),
                _number(found.it_per_s, text.number),
                Cell(text.DASH if r2 is None else f"{r2:.4f}", r2, "number"),
                Cell(str(len(found.calls)), len(found.calls), "number"),
                Cell(found.reason or " ".join(notes).strip() or text.DASH),
            ]
        )
    if not rows:
        return None
    return Table(
        "Steps against time",
        ["backend", "fixed [s]", "95 % interval", "per denoiser call [s]", "95 % interval",
         "marginal_it_per_s [it/s]", "it_per_s [it/s]", "R²", "calls", "notes"],
        rows,
        "end-to-end = fixed + per denoiser call × denoiser calls, fitted robustly. "
        "marginal_it_per_s is what the slope gives in step events per second, the unit of "
        "it_per_s.",
    )  # fmt: skip


def _lost_steps(comparison: Comparison) -> Table | None:
    rows = [
        [
            _name(f),
            Cell(lost.point),
            Cell(str(lost.round + 1), lost.round + 1, "number"),
            Cell(lost.outcome, None, "bad"),
            Cell(lost.reason or "no reason was given"),
        ]
        for f in comparison.findings
        if f.sweep is not None
        for lost in f.sweep.failures
    ]
    if not rows:
        return None
    return Table(
        "Step counts without a figure", ["backend", "point", "round", "outcome", "reason"], rows
    )


def _sizes(comparison: Comparison) -> Table | None:
    rows = []
    for f in comparison.findings:
        for size in f.sizes:
            lost = [
                f"{each.outcome}: {each.reason or 'no reason was given'}" for each in size.failures
            ]
            shown = f"{size.width}×{size.height}"
            returned = f"{size.output_width}×{size.output_height}"
            if size.output_width is not None and returned != shown:
                shown = f"{shown}, returned {returned}"
            rows.append(
                [
                    _name(f),
                    Cell(_option(f.row.samples[0].options.get("dynamic"))),
                    Cell(shown, None, "number"),
                    _number(frames.middle(size.first_s)),
                    _number(frames.middle(size.second_s)),
                    _number(size.median_s),
                    _number(frames.middle(size.recompile_s)),
                    _number(frames.middle(size.graphs), text.count),
                    _number(frames.middle(size.recompiles), text.count),
                    Cell("; ".join(dict.fromkeys(lost)) or "ok"),
                ]
            )
    if not rows:
        return None
    return Table(
        "Sizes",
        ["backend", "dynamic", "size", "first call [s]", "second call [s]", "steady [s]",
         "recompile_s [s]", "graphs", "recompiles", "outcome"],
        rows,
        "What each new size costs in a process that has been warmed up at the cell's own: medians "
        "over processes, in the order of the sweep. recompile_s is the first call less the steady "
        "ones; graphs and recompiles are those of the first two calls.",
    )  # fmt: skip


def _flags(comparison: Comparison) -> Table | None:
    rows = [
        [_name(f), Cell(record, None, "id"), Cell(flag.name), Cell(flag.reason)]
        for f in comparison.findings
        for record, flag in f.flags
    ]
    if not rows:
        return None
    return Table(
        "Flags of single processes", ["backend", "record", "flag", "finding"], rows,
        "Kept, not dropped. Medians shrug off a few outliers.", folded=True,
    )  # fmt: skip


def _option(value: Any) -> str:
    return (
        text.DASH
        if value is None
        else "on"
        if value is True
        else ("off" if value is False else str(value))
    )


def _outcomes(comparisons: Sequence[Comparison]) -> Table | None:
    rows = [
        [
            Cell(c.group.title),
            _name(f),
            _outcome(f),
            Cell("; ".join(reason.removeprefix(f"{f.outcome}: ") for reason in f.reasons)),
        ]
        for c in comparisons
        for f in c.findings
        if f.outcome != "ok"
    ]
    if not rows:
        return None
    return Table("Outcomes that are not ok", ["workload", "backend", "outcome", "reason"], rows)


def _warnings(comparisons: Sequence[Comparison]) -> Table | None:
    rows = []
    for c in comparisons:
        for f in c.findings:
            told = dict.fromkeys(w for s in f.row.samples for w in s.warnings)
            rows += [[Cell(c.group.title), _name(f), Cell(w)] for w in told]
    return Table("Warnings", ["workload", "backend", "warning"], rows) if rows else None


def _environments(samples: Sequence[Sample]) -> list[Table]:
    """Return a table for each machine and software, with the cells that ran there."""
    found: dict[str, tuple[Mapping[str, Any], dict[str, None]]] = {}
    for sample in samples:
        if not sample.alike.fingerprint:
            continue
        key = json.dumps(sample.alike.fingerprint, sort_keys=True, default=str)
        where = f"{sample.backend}" + (
            f" ({sample.environment})" if sample.environment != "current" else ""
        )
        found.setdefault(key, (sample.alike.fingerprint, {}))[1][where] = None
    tables = []
    for number, (print_, backends) in enumerate(found.values(), 1):
        rows = [[Cell(name), Cell(value)] for name, value in _flat(print_)]
        title = "Machine and software" + (f" {number}" if len(found) > 1 else "")
        tables.append(
            Table(title, ["field", "value"], rows, f"Backends: {text.listed(backends, 12)}.", True)
        )
    return tables


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


def _records(comparisons: Sequence[Comparison]) -> Table:
    rows = []
    for c in comparisons:
        for f in c.findings:
            for s in f.row.recorded:
                times = sorted(s.e2e_s) if s.ok else []
                middle = (
                    (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2 if times else None
                )
                rows.append(
                    [
                        Cell(str(s.number), s.number, "number"),
                        Cell(c.group.title),
                        _name(f),
                        Cell(str(s.round + 1), s.round + 1, "number"),
                        Cell(s.outcome, None, "ok" if s.outcome == "ok" else "bad"),
                        _number(middle),
                        Cell(str(len(times)), len(times), "number"),
                        _number(s.warmup_s if s.ok else None),
                        Cell(s.record_id, None, "id"),
                    ]
                )
    return Table(
        "Records",
        ["record", "workload", "backend", "round", "outcome", "median end-to-end [s]", "calls",
         "warm-up [s]", "record id"],
        rows,
        "One line for each process. A record's number is its place in its run, as in bench audit. "
        "bench export writes all figures of each.",
        folded=True,
    )  # fmt: skip


def _published(comparisons: Sequence[Comparison], published: frames.References) -> Table | None:
    rows = []
    for place, own in published.items():
        for row in own:
            rows.append([Cell(comparisons[place].group.title), *_published_cells(row)])
    if not rows:
        return None
    return Table(
        "Published figures",
        ["workload", "backend", "origin", "end-to-end [s]", "it/s", "warm-up [s]",
         "memory [GiB]", "meter", "settings"],
        rows,
        "Published by others, not measured here: on other machines, once each, without interval. "
        "They enter no statistic. reports/reference/ORIGIN.md says what is doubtful about them.",
    )  # fmt: skip


def _published_cells(row: Published) -> list[Cell]:
    return [
        Cell(row.label),
        Cell(row.origin),
        _number(row.e2e_s),
        _number(row.it_per_s, text.number),
        _number(row.warmup_s),
        Cell(text.DASH if row.memory_gib is None else f"{row.memory_gib:.3f}", row.memory_gib,
             "number"),
        Cell(row.meter),
        Cell(row.settings),
    ]  # fmt: skip
