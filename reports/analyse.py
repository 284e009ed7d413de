"""Groups of samples to findings: medians, speedups, verdicts, break-even, and what to trust."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_all_start_methods, get_context
from statistics import fmean, median

from bench import chains, comparable, text
from bench.contract import STAGES
from bench.stats import flags
from bench.stats.bootstrap import REPLICATES, ArmSummary, Speedup, arm_summary, speedup
from bench.stats.breakeven import Breakeven, breakeven
from bench.stats.median import median_interval
from bench.stats.order import CONFIDENCE
from bench.stats.verdict import Verdict, verdict
from bench.sweeps import SizePoint, StepSweep, size_sweep, step_sweep
from reports.gather import NO_RECORD, Group, Row, Sample

MANY_ROWS = 200
"""Above this number of rows, break-even is drawn less often, so that huge reports stay quick."""
FEW_REPLICATES = 400
"""Leaves a standard error that is drawn uncertain by 1 / sqrt(2 x 400) = 3.5 %."""
MANY_OUTLIERS = 0.1
"""Share of a row's calls from which on outliers cast doubt; medians shrug off fewer."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median in seconds or per second with its interval, None where there is none."""

    value: float
    low: float | None
    high: float | None
    level: float
    kind: str


@dataclass(slots=True)
class Finding:
    """All that is said of one row. Times in seconds, memory in bytes, by (meter, phase).

    Attributes:
        e2e: median end-to-end time; over several processes with the two-level bootstrap interval,
            over the calls of one with the order-statistic interval.
        stages: mean seconds by stage, so that they add up to the mean end-to-end time.
        speedup: against ``none`` of the same workload; None if there is nothing alike.
        not_comparable: the field that differs, if speedup is None for that reason.
        flags: raised in any process: (record id, flag).
        trust: ``yes``, ``with care`` or ``no``; what the verdict may be used for.
        doubts: why not ``yes``, one sentence each.
    """

    row: Row
    e2e: Interval | None = None
    it: Interval | None = None
    calls: int = 0
    processes: int = 0
    between_pct: float | None = None
    within_pct: float | None = None
    steps_per_s_e2e: float | None = None
    step_s: float | None = None
    device_e2e_s: float | None = None
    load_s: float | None = None
    prepare_s: float | None = None
    first_call_s: float | None = None
    warmup_s: float | None = None
    warmup_calls: int | None = None
    compile_s: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    peaks: dict[tuple[str, str], int] = field(default_factory=dict)
    baseline: Finding | None = None
    speedup: Speedup | None = None
    verdict: Verdict | None = None
    breakeven: Breakeven | None = None
    not_comparable: str | None = None
    flags: list[tuple[str, flags.Flag]] = field(default_factory=list)
    sweep: StepSweep | None = None
    sizes: list[SizePoint] = field(default_factory=list)
    trust: str = "no"
    doubts: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.processes > 0

    @property
    def counts(self) -> Counter[str]:
        """Rounds by outcome, and those of the plan without a record."""
        found = Counter(sample.outcome for sample in self.row.recorded)
        missing = self.row.samples[0].rounds_planned - found.total()
        if missing > 0 and self.row.split is None:
            found[NO_RECORD] = missing
        return found

    @property
    def outcome(self) -> str:
        """``ok``, or the commonest other outcome; with its share if rounds ended differently."""
        counts = self.counts
        name = max(counts, key=lambda key: (key == "ok", key != NO_RECORD, counts[key]))
        total = sum(counts.values())
        return name if counts[name] == total else f"{name} {counts[name]} of {total}"

    @property
    def reasons(self) -> list[str]:
        """Of the rounds that are not ok, each once; those without a record together."""
        found = [
            f"{s.outcome}: {s.reason or 'no reason was given'}"
            for s in self.row.recorded
            if s.outcome != "ok"
        ]
        missing, total = self.counts[NO_RECORD], self.counts.total()
        if missing:
            of = "" if missing == total else f" of {missing} of {total} rounds"
            found.append(f"{NO_RECORD}{of} (the run has not finished, or was interrupted)")
        return list(dict.fromkeys(found))

    def peak(self, meter: str | None, phase: str = "steady") -> int | None:
        return None if meter is None else self.peaks.get((meter, phase))

    def steady_meters(self) -> set[str]:
        """Return the meters that have a steady value."""
        return {meter for meter, phase in self.peaks if phase == "steady"}


@dataclass(slots=True)
class Comparison:
    """A group with its findings, in the order of the group's rows.

    Attributes:
        meter: the most telling memory meter that has a steady value; figures of others never join.
        best: the fastest finding that was compared, if it is clearly faster than the baseline.
        leader: the finding with the largest measured ratio, clear or not.
        tied: findings that ``best`` is not clearly faster than.
        between: how the baselines of several environments compare, in sentences.
    """

    group: Group
    findings: list[Finding]
    meter: str | None = None
    best: Finding | None = None
    leader: Finding | None = None
    tied: list[Finding] = field(default_factory=list)
    between: list[str] = field(default_factory=list)

    @property
    def several_environments(self) -> bool:
        """Whether figures are from several, so that no speedup compares all of them."""
        return len({f.row.first.environment for f in self.findings if f.ok}) > 1

    @property
    def several_runs(self) -> bool:
        """Whether the baseline is from several, each for the backends measured beside it."""
        return len({f.row.session for f in self.findings if f.row.is_baseline}) > 1

    def sibling(self, finding: Finding) -> Finding | None:
        """Return the same backend with the other compile cache, of its own run if that has one."""
        own = finding.row
        found = [
            f
            for f in self.findings
            if f.ok and f.row.choice == own.choice and f.row.cache != own.cache
        ]
        return min(found, key=lambda f: f.row.session != own.session, default=None)


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Compute the findings of every group; groups share the work over the processors if many.

    The result does not depend on how the work was shared.
    """
    rows = sum(len(group.rows) for group in groups)
    replicates = REPLICATES if rows <= MANY_ROWS else FEW_REPLICATES
    workers = min(os.cpu_count() or 1, 8)
    if rows <= MANY_ROWS or workers == 1 or "fork" not in get_all_start_methods():
        return [_compare(group, replicates) for group in groups]
    share = max(1, len(groups) // (workers * 8))
    chunks = [list(groups[i : i + share]) for i in range(0, len(groups), share)]
    global _SHARED
    _SHARED = chunks
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            jobs = [pool.submit(_compare_chunk, i, replicates) for i in range(len(chunks))]
            found = [part for job in jobs for part in job.result()]
    finally:
        _SHARED = []
    return [_joined(group, slim) for group, slim in zip(groups, found, strict=True)]


_SHARED: list[list[Group]] = []
"""What forked workers inherit, so that samples need not be sent to them."""


@dataclass(slots=True)
class _Slim:
    """A comparison without its samples; rows by their index."""

    findings: list[Finding]
    baselines: list[int | None]
    meter: str | None
    best: int | None
    leader: int | None
    tied: list[int]


def _compare_chunk(chunk: int, replicates: int) -> list[_Slim]:
    slim = []
    for group in _SHARED[chunk]:
        found = _compare(group, replicates)
        place = {id(finding): i for i, finding in enumerate(found.findings)}
        empty = Row("", "", [])
        slim.append(
            _Slim(
                findings=[replace(f, row=empty, baseline=None) for f in found.findings],
                baselines=[place[id(f.baseline)] if f.baseline else None for f in found.findings],
                meter=found.meter,
                best=place[id(found.best)] if found.best else None,
                leader=place[id(found.leader)] if found.leader else None,
                tied=[place[id(f)] for f in found.tied],
            )
        )
    return slim


def _joined(group: Group, slim: _Slim) -> Comparison:
    findings = slim.findings
    for finding, row, baseline in zip(findings, group.rows, slim.baselines, strict=True):
        finding.row = row
        finding.baseline = None if baseline is None else findings[baseline]
    return Comparison(
        group,
        findings,
        slim.meter,
        None if slim.best is None else findings[slim.best],
        None if slim.leader is None else findings[slim.leader],
        [findings[i] for i in slim.tied],
    )


def _compare(group: Group, replicates: int) -> Comparison:
    findings = [_measure(row) for row in group.rows]
    for finding in findings:
        _against_baseline(finding, findings, replicates)
    for finding in findings:
        if finding.e2e is None and finding.ok:
            summary = arm_summary(_arm(finding.row))
            finding.e2e = _over_processes(summary)
            finding.between_pct, finding.within_pct = summary.between_pct, summary.within_pct
    found = Comparison(group, findings)
    found.meter = comparable.shared_meter(f.steady_meters() for f in findings if f.ok)
    compared = [f for f in findings if f.speedup and not f.row.is_baseline]
    found.leader = max(compared, key=lambda f: f.speedup.ratio if f.speedup else 0, default=None)
    faster = [f for f in compared if f.verdict and f.verdict.word == "FASTER"]
    found.best = max(faster, key=lambda f: f.speedup.ratio if f.speedup else 0, default=None)
    if found.best is not None:
        tied = [f for f in faster if f is not found.best and not _clear(found.best, f)]
        # A compile cache changes the warm-up and not the steady call: of the two, name the cold.
        own = found.best.row
        cold = [f for f in tied if f.row.choice == own.choice and f.row.cache == "fresh"]
        found.best = cold[0] if cold and own.cache != "fresh" else found.best
        found.tied = [f for f in tied if f.row.choice != own.choice]
    for finding in findings:
        _judge(finding)
    found.between = comparable.between_environments(
        [
            (f.row.called, f.row.first.alike.record, f.e2e.value)
            for f in findings
            if f.row.is_baseline and f.ok and f.e2e
        ]
    )
    return found


def _clear(best: Finding, other: Finding) -> bool:
    """Whether ``best`` gains more for sure: by the gains, or by the times where those may meet.

    Times of two runs do not: a machine is not the same from one session to the next.
    """
    one, two = best.speedup, other.speedup
    if one and two and one.low is not None and two.high is not None and two.high < one.low:
        return True
    if best.row.first.alike.key != other.row.first.alike.key:
        return False
    if best.row.session != other.row.session:
        return False
    ratio = speedup(_arm(other.row), _arm(best.row))
    return verdict(ratio).word == "FASTER"


def _arm(row: Row) -> list[list[float]]:
    return [list(sample.e2e_s) for sample in row.good]


def _measure(row: Row) -> Finding:
    good = row.good
    finding = Finding(row)
    if not good:
        return finding
    if len(good) == 1:
        finding.e2e = _of_calls(good[0].e2e_s)
    rates = [s.it_per_s for s in good if s.it_per_s]
    finding.it = _rate([rate for s in rates for rate in s])
    finding.processes = len(good)
    finding.calls = sum(len(s.e2e_s) for s in good)
    finding.steps_per_s_e2e = _middle(v for s in good for v in s.steps_per_s_e2e)
    finding.step_s = _middle(s.step_s for s in good)
    finding.device_e2e_s = _middle(v for s in good for v in s.device_e2e_s)
    finding.load_s = _middle(s.load_s for s in good)
    finding.prepare_s = _middle(s.prepare_s for s in good)
    finding.first_call_s = _middle(s.first_call_s for s in good)
    finding.warmup_s = _middle(s.warmup_s for s in good)
    finding.warmup_calls = max(s.warmup_calls for s in good)
    finding.compile_s = _middle(s.compile_s for s in good)
    calls = [call for s in good for call in s.stages]
    if calls and all(call[STAGES.index("unaccounted_s")] is not None for call in calls):
        for place, name in enumerate(STAGES):
            finding.stages[name] = fmean(call[place] or 0.0 for call in calls)
    for sample in good:
        for peak in sample.peaks:
            key = (peak.meter, peak.phase)
            finding.peaks[key] = max(peak.bytes, finding.peaks.get(key, 0))
        found = _flags(sample, alone=len(good) == 1)
        finding.flags += [(sample.record_id, flag) for flag in found]
    swept = [sample.sweep for sample in good if sample.sweep is not None]
    finding.sweep, finding.sizes = step_sweep(swept), size_sweep(swept)
    return finding


def _over_processes(found: ArmSummary) -> Interval:
    return Interval(found.median_s, found.low_s, found.high_s, found.level, "processes")


def _of_calls(values: Sequence[float]) -> Interval:
    found = median_interval(values, CONFIDENCE)
    if not found.meets_level:
        return Interval(found.median, None, None, CONFIDENCE, "calls")
    return Interval(found.median, found.low, found.high, CONFIDENCE, "calls")


def _rate(values: Sequence[float]) -> Interval | None:
    return _of_calls(values) if values else None


def _flags(sample: Sample, *, alone: bool) -> list[flags.Flag]:
    found = [
        # An interval over several processes holds the noise within each of them.
        *([flags.noise(sample.e2e_s)] if alone else []),
        flags.drift(sample.e2e_s),
        flags.outliers(sample.e2e_s),
        flags.slowdown(sample.e2e_s),
    ]
    if len(sample.stages) == len(sample.e2e_s):
        told = [dict(zip(STAGES, call, strict=True)) for call in sample.stages]
        found.append(flags.accounting(told, sample.e2e_s))
    if sample.busy is not None:
        found.append(flags.Flag("load", True, sample.load_average_1m, sample.busy))
    return [flag for flag in found if flag.raised]


def _against_baseline(finding: Finding, findings: Sequence[Finding], replicates: int) -> None:
    if finding.row.is_baseline or not finding.ok:
        return
    own = finding.row.first
    rivals = [f for f in findings if f.row.is_baseline and f.ok]
    rivals.sort(
        key=lambda f: (
            f.row.first.environment != own.environment,
            f.row.session != finding.row.session,
            f.row.cache != finding.row.cache,
        )
    )
    if not rivals:
        return
    alike = [f for f in rivals if f.row.first.alike.key == own.alike.key]
    if not alike:
        finding.not_comparable = comparable.difference(
            own.alike.record, rivals[0].row.first.alike.record
        )
        return
    finding.baseline = alike[0]
    base, arm = _arm(alike[0].row), _arm(finding.row)
    finding.speedup = speedup(base, arm)
    finding.verdict = verdict(finding.speedup)
    for one, summary in (
        (alike[0], finding.speedup.baseline),
        (finding, finding.speedup.candidate),
    ):
        one.between_pct, one.within_pct = summary.between_pct, summary.within_pct
        # What the comparison has drawn anyway; over one process there is a sharper interval.
        if summary.processes > 1:
            one.e2e = _over_processes(summary)
    firsts = [
        [s.first_call_s for s in f.row.good if s.first_call_s is not None and s.first_call_s > 0]
        for f in (alike[0], finding)
    ]
    if [len(f) for f in firsts] == [len(base), len(arm)]:
        finding.breakeven = breakeven(
            firsts[0],
            firsts[1],
            base,
            arm,
            images_per_call=chains.pictures(own.workload),
            compared=finding.speedup,
            replicates=replicates,
        )


def _judge(finding: Finding) -> None:
    """Decide how far the row's verdict may be trusted, and say why not further."""
    if not finding.ok:
        finding.doubts = finding.reasons or ["There is no figure."]
        return
    doubts: list[str] = []
    grave = False
    if finding.not_comparable is not None:
        doubts.append(f"It cannot be compared with the baseline: {finding.not_comparable}.")
        grave = True
    elif finding.verdict is None and not finding.row.is_baseline:
        doubts.append("There is no baseline to compare it with.")
        grave = True
    if finding.verdict is not None and (
        finding.verdict.word == "UNCLEAR" or finding.verdict.remedy is not None
    ):
        grave = grave or finding.verdict.word == "UNCLEAR"
        doubts.append(" ".join(filter(None, (finding.verdict.reason, finding.verdict.remedy))))
    base = finding.baseline
    if base is not None and base.row.session != finding.row.session:
        doubts.append(
            f"Its baseline is of another run, {base.row.session}: the two were not interleaved, so "
            "what the machine did otherwise in between is in the ratio."
        )
    lost = {name: n for name, n in finding.counts.items() if name != "ok"}
    if lost:
        told = text.listed(f"{n} {name}" for name, n in sorted(lost.items()))
        doubts.append(f"Not every round ended ok: {told}.")
    if any(sample.warmup_stable is False for sample in finding.row.good):
        doubts.append("Warm-up ended before calls were stable.")
    for arm, whose in ((finding, ""), (finding.baseline, "Baseline: ")):
        if arm is not None:
            doubts += [f"{whose}{_told(name, arm)}" for name in _names(arm)]
    finding.doubts = doubts
    finding.trust = "no" if grave else "with care" if doubts else "yes"


def _names(finding: Finding) -> list[str]:
    quiet = set()
    stray = sum(len(flag.indices) for _, flag in finding.flags if flag.name == "outliers")
    if stray < MANY_OUTLIERS * finding.calls:
        quiet.add("outliers")
    return list(dict.fromkeys(f.name for _, f in finding.flags if f.name not in quiet))


def _told(name: str, finding: Finding) -> str:
    own = [flag for _, flag in finding.flags if flag.name == name]
    worst = max(own, key=lambda flag: abs(flag.value or 0))
    if finding.processes == 1:
        return worst.reason
    return f"{name} in {len(own)} of {text.plural(finding.processes, 'process')}: {worst.reason}"


def _middle(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None
