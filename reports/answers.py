"""The answers of a report's first screen, and the words of its judgements wherever they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from textwrap import shorten
from typing import Any

from bench import text
from bench.records import arms
from bench.records.arms import NO_RECORD, ArmGroup
from compilers.base import BASELINE
from reports import fidelity
from reports.analyse import Comparison, Finding
from reports.fidelity import Likeness

ONLY_BASELINE = "Only the baseline was measured"


@dataclass(frozen=True, slots=True)
class Answer:
    """One workload on the first screen; without ``speedup`` there is nothing compared."""

    anchor: str
    title: str
    facts: str
    synthetic: bool
    headline: str
    trust: str
    why: list[str]
    lost: list[str]
    warmup: list[str] = field(default_factory=list)
    memory: list[str] = field(default_factory=list)
    backend: str = ""
    speedup: str = ""
    interval: str = ""
    times: str = ""
    word: str = ""
    pictures: str = text.DASH
    breakeven: list[str] = field(default_factory=list)


def answer(number: int, comparison: Comparison, likeness: Mapping[int, Likeness]) -> Answer:
    """Return the answer about the best backend, or why there is none."""
    subject = comparison.best or comparison.leader
    if subject is not None and subject.speedup is not None and subject.verdict is not None:
        return _about(number, comparison, likeness, subject)
    headline, why = _nothing(comparison)
    alone = next((f for f in comparison.findings if f.ok), None)
    only = headline == ONLY_BASELINE and alone is not None
    return Answer(
        **_place(number, comparison),
        headline=headline,
        warmup=_warmup(comparison, alone) if only and alone else [],
        memory=_memory(alone) if only and alone else [],
        trust="nothing compared" if only else "no",
        why=why,
    )


def picks(number: int, comparison: Comparison, likeness: Mapping[int, Likeness]) -> list[Answer]:
    """Answer for the fastest backend that means to keep the image, then the fastest other one.

    A backend that is clearly faster goes before one that only has the larger ratio.
    """
    compared = [f for f in comparison.findings if f.speedup and f.verdict and not f.arm.is_baseline]
    found: list[Finding] = []
    for lossy in (False, True):
        of_kind = [f for f in compared if f.arm.lossy is lossy]
        if comparison.best is not None and comparison.best.arm.lossy is lossy:
            found.append(comparison.best)
        elif of_kind:
            found.append(max(of_kind, key=_surest))
    return [_about(number, comparison, likeness, f) for f in found]


def _surest(finding: Finding) -> tuple[bool, float]:
    assert finding.speedup is not None
    assert finding.verdict is not None
    return finding.verdict.word == "FASTER", finding.speedup.ratio


def _place(number: int, comparison: Comparison) -> dict[str, Any]:
    group = comparison.group
    return {
        "anchor": f"workload-{number}",
        "title": group.title,
        "facts": " · ".join(arms.facts(group)),
        "synthetic": group.synthetic,
        "lost": _lost(comparison),
    }


def _about(
    number: int, comparison: Comparison, likeness: Mapping[int, Likeness], subject: Finding
) -> Answer:
    assert subject.speedup is not None
    assert subject.verdict is not None
    return Answer(
        **_place(number, comparison),
        backend=subject.arm.short,
        headline=_headline(comparison, subject),
        speedup=text.ratio(subject.speedup.ratio),
        interval=text.interval(subject.speedup.low, subject.speedup.high, text.ratio),
        times=_times(subject),
        word=subject.verdict.word,
        warmup=_warmup(comparison, subject),
        memory=_memory(subject),
        pictures=_images(comparison.group, likeness.get(comparison.findings.index(subject))),
        breakeven=_breakeven(comparison, subject),
        trust=subject.trust,
        why=_why(subject),
    )


def _nothing(comparison: Comparison) -> tuple[str, list[str]]:
    ok = [f for f in comparison.findings if f.ok]
    if not ok:
        return "No backend gave a figure", ["No process ended ok."]
    if all(f.arm.is_baseline for f in ok):
        times = " and ".join(f"{text.seconds(f.e2e.value)} s" for f in ok if f.e2e)
        why = f"One call of {BASELINE} takes {times}; there is nothing to compare it with"
        waited = [f.arm.label for f in comparison.findings if not f.arm.records]
        if waited:
            why += f" yet, as there is {NO_RECORD} of {text.listed(waited)}"
        return ONLY_BASELINE, [f"{why}."]
    timed = sorted((f.e2e.value, f.arm.label) for f in ok if f.e2e)
    alone = text.listed((f"{label} {text.seconds(value)} s" for value, label in timed), 4)
    unlike = [f"{f.arm.label}: not comparable, {f.not_comparable}." for f in ok if f.not_comparable]
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
        why = "; ".join(f.reasons)
        if f.ok:
            why = f"{f.outcome}; {why}"
        found.setdefault(shorten(why, 240, placeholder=" …"), []).append(f.arm.label)
    return [f"{text.listed(names)}: {why}" for why, names in found.items()]


def _times(subject: Finding) -> str:
    assert subject.e2e is not None
    base = subject.baseline.e2e if subject.baseline else None
    each = f"{text.seconds(subject.e2e.value)} s a call"
    if subject.baseline is None or base is None:
        return each
    return f"{each} vs {text.seconds(base.value)} s ({subject.baseline.arm.cell.backend.place})"


def _headline(comparison: Comparison, subject: Finding) -> str:
    name = subject.arm.short
    if comparison.best is None:
        words = {f.verdict.word for f in comparison.findings if f.verdict}
        if "UNCLEAR" in words:
            return f"No backend is clearly faster; {name} has the largest ratio"
        return f"{BASELINE} is fastest; next is {name}"
    headline = f"{name} is fastest"
    if comparison.several_environments:
        headline = f"{name} gains most, each against {BASELINE} in its own environment"
    if comparison.tied:
        names = text.listed(dict.fromkeys(f.arm.short for f in comparison.tied))
        headline = f"{headline}, not told apart from {names}"
    return f"{headline}{_keeping(comparison)}" if subject.arm.lossy else headline


def _keeping(comparison: Comparison) -> str:
    """Name the fastest backend that means to keep the image, beside a best one that does not."""
    faster = [
        (f.speedup.ratio, f.arm.short)
        for f in comparison.findings
        if f.speedup and f.verdict and f.verdict.word == "FASTER" and not f.arm.lossy
    ]
    if not faster:
        return "; none that keeps the image is clearly faster"
    ratio, name = max(faster)
    return f"; of those that keep the image, {name} ({text.ratio(ratio)})"


def _warmup(comparison: Comparison, subject: Finding) -> list[str]:
    kind = "cold" if subject.arm.cache == "fresh" else "warm"
    words = [f"{text.seconds(subject.warmup_s)} s {kind}"]
    other = comparison.sibling(subject)
    if other is not None:
        kind = "warm cache" if other.arm.cache == "warm" else "cold"
        words.append(f"{text.seconds(other.warmup_s)} s with {kind}")
    if subject.baseline is not None:
        words.append(f"baseline {text.seconds(subject.baseline.warmup_s)} s")
    return words


def _memory(subject: Finding) -> list[str]:
    peak = subject.peak()
    base = subject.baseline.peak() if subject.baseline else None
    if peak is None:
        return ["no figure"]
    if base is None:
        return [f"{text.gib(peak)} GiB", f"meter {subject.meter}"]
    return [
        f"{text.signed_gib(peak - base)} GiB",
        f"{text.gib(peak)} vs {text.gib(base)} GiB",
        f"meter {subject.meter}",
    ]


def _images(group: ArmGroup, likeness: Likeness | None) -> str:
    words = fidelity.same(likeness)
    if likeness is not None and likeness.verdict and likeness.verdict.worst_db is not None:
        words += f" ({likeness.verdict.worst_db:.1f} dB)"
    return f"{words}; synthetic weights, no real content" if group.synthetic else words


def breakeven(finding: Finding) -> str:
    """Return when a backend breaks even, in words: ``after 1,496 images (1,400–1,600)``."""
    found = finding.breakeven
    if found is None:
        return text.DASH
    if found.kind == "never":
        return "never"
    if found.kind == "immediately" or found.images is None:
        return "from the first image"
    span = ""
    if found.low_images is not None:
        span = f" ({text.interval(found.low_images, found.high_images, text.count)})"
    return f"after {text.plural(found.images, 'image')}{span}"


def _with_minutes(finding: Finding) -> str:
    if finding.breakeven is None:
        return "not known: a process has no first call"
    minutes = finding.breakeven.minutes
    more = f", {text.minutes(minutes)} min of baseline work" if minutes else ""
    return breakeven(finding) + more


def _breakeven(comparison: Comparison, subject: Finding) -> list[str]:
    found = subject.breakeven
    if found is None or found.kind != "after" or found.images is None:
        words = [_with_minutes(subject)]
        if found is not None and found.kind == "never":
            words.append("a saving per call is not proven: its 95 % interval reaches 0")
    else:
        words = [f"after {text.plural(found.images, 'image')}"]
        if found.low_images is not None:
            span = text.interval(found.low_images, found.high_images, text.count)
            words.append(f"95 % interval {span}")
        words.append(f"{text.minutes(found.minutes)} min of baseline work")
    prepared = _with_preparation(subject)
    other = comparison.sibling(subject)
    return [
        *words,
        *([prepared] if prepared else []),
        *([f"{other.arm.cache} cache: {_with_minutes(other)}"] if other else []),
    ]


def _with_preparation(subject: Finding) -> str | None:
    """Return after how many images it breaks even with preparation, if that is another answer.

    Break-even is defined over first calls. A backend that compiles ahead of time waits before.
    """
    found, base = subject.breakeven, subject.baseline
    if found is None or base is None or found.kind == "never":
        return None
    waits = (subject.prepare_s, subject.first_call_s, base.prepare_s, base.first_call_s)
    if None in waits or subject.e2e is None or base.e2e is None:
        return None
    prepare_s, first_s, base_prepare_s, base_first_s = (wait or 0.0 for wait in waits)
    saving_s = base.e2e.value - subject.e2e.value
    if saving_s <= 0:
        return None
    extra_s = prepare_s + first_s - base_prepare_s - base_first_s
    images = max(0, ceil(extra_s / saving_s * subject.arm.cell.workload.images_per_call))
    without = found.images or 0
    if images <= max(1.05 * without, without + 1):
        return None
    return (
        f"with its preparation of {text.seconds(prepare_s)} s, which break-even leaves out, after "
        f"{text.plural(images, 'image')}"
    )


def _why(subject: Finding) -> list[str]:
    if subject.doubts:
        return list(subject.doubts)
    assert subject.speedup is not None
    counts = " and ".join(
        f"{text.plural(arm.processes, 'process')} × {text.count(arm.calls / arm.processes)} calls"
        for arm in (subject.speedup.baseline, subject.speedup.candidate)
    )
    return [f"No warnings: {counts}, no flag raised."]
