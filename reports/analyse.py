"""Arms to findings: medians, speedups, verdicts, break-even, and what to trust."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_all_start_methods, get_context
from statistics import fmean
from typing import cast

from bench import text
from bench.contract import STAGES
from bench.records import Record, alike
from bench.records.arms import NO_RECORD, Arm, ArmGroup, each_once
from bench.records.types import median
from bench.stats import flags
from bench.stats.bootstrap import REPLICATES, ArmSummary, Speedup, arm_summary, speedup
from bench.stats.breakeven import Breakeven, breakeven
from bench.stats.median import median_interval
from bench.stats.order import CONFIDENCE
from bench.stats.verdict import Verdict, verdict

MANY_ARMS = 200
"""Above this number of arms, break-even is drawn less often, so that huge reports stay quick."""
FEW_REPLICATES = 400
"""Leaves a standard error that is drawn uncertain by 1 / sqrt(2 x 400) = 3.5 %."""
MANY_OUTLIERS = 0.1
"""Share of an arm's calls from which on outliers cast doubt; medians shrug off fewer."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median in seconds or per second with its interval, None where there is none."""

    value: float
    low: float | None
    high: float | None


def _middle(name: str) -> Callable[[Finding], float | None]:
    """Return a getter of the median over processes of a record's figure."""

    def get(finding: Finding) -> float | None:
        return finding.arm.middle(lambda record: cast("float | None", getattr(record, name)))

    return get


def _pooled(name: str) -> Callable[[Finding], float | None]:
    """Return a getter of the median over all calls of a record's figure."""

    def get(finding: Finding) -> float | None:
        return finding.arm.pooled(lambda record: getattr(record, name) or ())

    return get


@dataclass(eq=False)
class Finding:
    """All that is known of one arm. Times in seconds, memory in bytes.

    Attributes:
        meter: the memory meter that its comparison is shown with.
        e2e: median end-to-end time; over several processes with the two-level bootstrap interval,
            over the calls of one with the order-statistic interval.
        speedup: against ``none`` of the same workload; None if there is nothing alike.
        not_comparable: the field that differs, if speedup is None for that reason.
        flags: raised in any process: (record id, flag).
        trust: ``yes``, ``with care`` or ``no``; what the verdict may be used for.
        doubts: why not ``yes``, one sentence each.
    """

    arm: Arm
    meter: str | None = None
    e2e: Interval | None = None
    between_pct: float | None = None
    within_pct: float | None = None
    baseline: Finding | None = None
    speedup: Speedup | None = None
    verdict: Verdict | None = None
    breakeven: Breakeven | None = None
    not_comparable: str | None = None
    flags: list[tuple[str, flags.Flag]] = field(default_factory=list)
    trust: str = "no"
    doubts: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.arm.good)

    @property
    def processes(self) -> int:
        return len(self.arm.good)

    @property
    def calls(self) -> int:
        return sum(len(record.e2e_s) for record in self.arm.good)

    @cached_property
    def it(self) -> Interval | None:
        rates = [rate for record in self.arm.good for rate in record.rates]
        return _of_calls(rates) if rates else None

    load_s = property(_middle("load_s"))
    prepare_s = property(_middle("prepare_s"))
    first_call_s = property(_middle("first_call_s"))
    warmup_s = property(_middle("warmup_total_s"))
    compile_s = property(_middle("compile_s"))
    steps_per_s_e2e = property(_pooled("steps_per_s_e2e"))
    device_e2e_s = property(_pooled("device_e2e_s"))

    @property
    def step_s(self) -> float | None:
        return self.arm.middle(lambda record: median(record.step_intervals_s))

    @property
    def warmup_calls(self) -> int | None:
        return max((len(record.warmup_s) for record in self.arm.good), default=None)

    @cached_property
    def stages(self) -> dict[str, float]:
        """Mean seconds by stage, so that they add up to the mean end-to-end time."""
        calls = [call.seconds for record in self.arm.good for call in record.stages]
        if not calls or any(call[STAGES.index("unaccounted_s")] is None for call in calls):
            return {}
        means = [fmean(seconds or 0.0 for seconds in at) for at in zip(*calls, strict=True)]
        return dict(zip(STAGES, means, strict=True))

    @property
    def outcome(self) -> str:
        """``ok``, or the commonest other outcome; with its share if rounds ended differently."""
        return self.arm.outcome()

    @property
    def reasons(self) -> list[str]:
        """Of the rounds that are not ok, each once; those without a record together."""
        missing, total = self.arm.outcomes[NO_RECORD], self.arm.outcomes.total()
        if not missing:
            return self.arm.reasons
        of = "" if missing == total else f" of {missing} of {total} rounds"
        return [
            *self.arm.reasons,
            f"{NO_RECORD}{of} (the run has not finished, or was interrupted)",
        ]

    def peak(self, meter: str | None = None, phase: str = "steady") -> int | None:
        """Return the peak in bytes, by the comparison's meter unless another is given."""
        return self.arm.peaks.get((meter or self.meter or "", phase))


@dataclass(eq=False)
class Comparison:
    """A group with its findings, in the order of the group's arms.

    Attributes:
        meter: the most telling memory meter that has a steady value; figures of others never join.
        best: the fastest finding that was compared, if it is clearly faster than the baseline.
        leader: the finding with the largest measured ratio, clear or not.
        tied: findings that ``best`` is not clearly faster than.
        between: how the baselines of several environments compare, in sentences.
    """

    group: ArmGroup
    findings: list[Finding]
    meter: str | None = None
    best: Finding | None = None
    leader: Finding | None = None
    tied: list[Finding] = field(default_factory=list)
    between: list[str] = field(default_factory=list)

    @property
    def panel(self) -> str:
        """The title of a panel: a figure is read alone, so it says what its times are of."""
        title = self.group.title
        return f"{title} (synthetic weights)" if self.group.synthetic else title

    @property
    def several_environments(self) -> bool:
        """Whether figures are from several, so that no speedup compares all of them."""
        return len({f.arm.cell.backend.environment for f in self.findings if f.ok}) > 1

    @property
    def several_runs(self) -> bool:
        """Whether the baseline is from several, each for the backends measured beside it."""
        return len({f.arm.source.label for f in self.findings if f.arm.is_baseline}) > 1

    def sibling(self, finding: Finding) -> Finding | None:
        """Return the same backend with the other compile cache, of its own run if that has one."""
        arm = finding.arm
        found = [
            f
            for f in self.findings
            if f.ok and f.arm.choice == arm.choice and f.arm.cache != arm.cache
        ]
        return min(found, key=lambda f: f.arm.source.label != arm.source.label, default=None)


def compare(groups: Sequence[ArmGroup]) -> list[Comparison]:
    """Compute the findings of every group; groups share the work over the processors if many.

    The result does not depend on how the work was shared.
    """
    arms = sum(len(group.arms) for group in groups)
    replicates = REPLICATES if arms <= MANY_ARMS else FEW_REPLICATES
    workers = min(os.cpu_count() or 1, 8)
    if arms <= MANY_ARMS or workers == 1 or "fork" not in get_all_start_methods():
        return [_compare(group, replicates) for group in groups]
    share = max(1, len(groups) // (workers * 8))
    global _SHARED
    _SHARED = [groups[i : i + share] for i in range(0, len(groups), share)]
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            jobs = [pool.submit(_without_records, i, replicates) for i in range(len(_SHARED))]
            found = [comparison for job in jobs for comparison in job.result()]
    finally:
        _SHARED = []
    for group, comparison in zip(groups, found, strict=True):
        comparison.group = group
        for arm, finding in zip(group.arms, comparison.findings, strict=True):
            finding.arm = arm
    return found


_SHARED: list[Sequence[ArmGroup]] = []
"""What forked workers inherit, so that records need not be sent to them."""


def _without_records(chunk: int, replicates: int) -> list[Comparison]:
    """Return comparisons that can be sent back: the parent has their groups and arms."""
    found = [_compare(group, replicates) for group in _SHARED[chunk]]
    for comparison in found:
        comparison.group = cast("ArmGroup", None)
        for finding in comparison.findings:
            finding.arm = cast("Arm", None)
    return found


def _compare(group: ArmGroup, replicates: int) -> Comparison:
    findings = [_measure(arm) for arm in group.arms]
    for finding in findings:
        _against_baseline(finding, findings, replicates)
    for finding in findings:
        if finding.e2e is None and finding.ok:
            summary = arm_summary(finding.arm.calls_s)
            finding.e2e = _over_processes(summary)
            finding.between_pct, finding.within_pct = summary.between_pct, summary.within_pct
    found = Comparison(group, findings)
    found.meter = alike.shared_meter(f.arm.steady_peaks for f in findings if f.ok)
    compared = [f for f in findings if f.speedup and not f.arm.is_baseline]
    found.leader = max(compared, key=lambda f: f.speedup.ratio if f.speedup else 0, default=None)
    faster = [f for f in compared if f.verdict and f.verdict.word == "FASTER"]
    found.best = max(faster, key=lambda f: f.speedup.ratio if f.speedup else 0, default=None)
    if found.best is not None:
        tied = [f for f in faster if f is not found.best and not _clear(found.best, f)]
        # A compile cache changes the warm-up and not the steady call: of the two, name the cold.
        arm = found.best.arm
        cold = [f for f in tied if f.arm.choice == arm.choice and f.arm.cache == "fresh"]
        found.best = cold[0] if cold and arm.cache != "fresh" else found.best
        found.tied = [f for f in tied if f.arm.choice != arm.choice]
    for finding in findings:
        finding.meter = found.meter
        _judge(finding)
    found.between = alike.between_environments(
        [
            (f.arm.cell.backend.place, f.arm.good[0], f.e2e.value)
            for f in findings
            if f.arm.is_baseline and f.ok and f.e2e
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
    if alike.key(best.arm.good[0]) != alike.key(other.arm.good[0]):
        return False
    if best.arm.source is not other.arm.source:
        return False
    ratio = speedup(other.arm.calls_s, best.arm.calls_s)
    return verdict(ratio).word == "FASTER"


def _measure(arm: Arm) -> Finding:
    finding = Finding(arm)
    alone = len(arm.good) == 1
    if alone:
        finding.e2e = _of_calls(arm.good[0].e2e_s)
    for record in arm.good:
        finding.flags += [(record.record_id, flag) for flag in _flags(record, alone=alone)]
    return finding


def _over_processes(found: ArmSummary) -> Interval:
    return Interval(found.median_s, found.low_s, found.high_s)


def _of_calls(values: Sequence[float]) -> Interval:
    found = median_interval(values, CONFIDENCE)
    if not found.meets_level:
        return Interval(found.median, None, None)
    return Interval(found.median, found.low, found.high)


def _flags(record: Record, *, alone: bool) -> list[flags.Flag]:
    times = record.e2e_s
    found = [
        # An interval over several processes holds the noise within each of them.
        *([flags.noise(times)] if alone else []),
        flags.drift(times),
        flags.outliers(times),
        flags.slowdown(times),
    ]
    if len(record.stages) == len(times):
        stages = [dict(zip(STAGES, call.seconds, strict=True)) for call in record.stages]
        found.append(flags.accounting(stages, times))
    load = record.load_average_1m
    if load is not None and record.busy is not None:
        found.append(flags.Flag("load", True, load.start, record.busy))
    return [flag for flag in found if flag.raised]


def _against_baseline(finding: Finding, findings: Sequence[Finding], replicates: int) -> None:
    arm = finding.arm
    if arm.is_baseline or not finding.ok:
        return
    rivals = [f for f in findings if f.arm.is_baseline and f.ok]
    rivals.sort(
        key=lambda f: (
            f.arm.cell.backend.environment != arm.cell.backend.environment,
            f.arm.source is not arm.source,
            f.arm.cache != arm.cache,
        )
    )
    if not rivals:
        return
    key = alike.key(arm.good[0])
    base = next((f for f in rivals if alike.key(f.arm.good[0]) == key), None)
    if base is None:
        finding.not_comparable = alike.difference(arm.good[0], rivals[0].arm.good[0])
        return
    finding.baseline = base
    finding.speedup = speedup(base.arm.calls_s, arm.calls_s)
    finding.verdict = verdict(finding.speedup)
    for one, summary in ((base, finding.speedup.baseline), (finding, finding.speedup.candidate)):
        one.between_pct, one.within_pct = summary.between_pct, summary.within_pct
        # What the comparison has drawn anyway; over one process there is a sharper interval.
        if summary.processes > 1:
            one.e2e = _over_processes(summary)
    firsts = [
        [r.first_call_s for r in f.arm.good if r.first_call_s is not None and r.first_call_s > 0]
        for f in (base, finding)
    ]
    if [len(each) for each in firsts] == [base.processes, finding.processes]:
        finding.breakeven = breakeven(
            firsts[0],
            firsts[1],
            base.arm.calls_s,
            arm.calls_s,
            images_per_call=arm.cell.workload.images_per_call,
            compared=finding.speedup,
            replicates=replicates,
        )


def _judge(finding: Finding) -> None:
    """Decide how far the arm's verdict may be trusted, and say why not further."""
    if not finding.ok:
        finding.doubts = finding.reasons or ["There is no figure."]
        return
    doubts: list[str] = []
    grave = False
    if finding.not_comparable is not None:
        doubts.append(f"It cannot be compared with the baseline: {finding.not_comparable}.")
        grave = True
    elif finding.verdict is None and not finding.arm.is_baseline:
        doubts.append("There is no baseline to compare it with.")
        grave = True
    if finding.verdict is not None and (
        finding.verdict.word == "UNCLEAR" or finding.verdict.remedy is not None
    ):
        grave = grave or finding.verdict.word == "UNCLEAR"
        doubts.append(" ".join(filter(None, (finding.verdict.reason, finding.verdict.remedy))))
    base = finding.baseline
    if base is not None and base.arm.source is not finding.arm.source:
        doubts.append(
            f"Its baseline is of another run, {base.arm.source.label}: the two were not "
            "interleaved, so what the machine did otherwise in between is in the ratio."
        )
    lost = {name: n for name, n in finding.arm.outcomes.items() if name != "ok"}
    if lost:
        counts = text.listed(f"{n} {name}" for name, n in sorted(lost.items()))
        doubts.append(f"Not every round ended ok: {counts}.")
    if any(record.warmup_stable is False for record in finding.arm.good):
        doubts.append("Warm-up ended before calls were stable.")
    for each, whose in ((finding, ""), (base, "Baseline: ")):
        if each is not None:
            doubts += [f"{whose}{_flag_text(name, each)}" for name in _flag_names(each)]
    finding.doubts = doubts
    finding.trust = "no" if grave else "with care" if doubts else "yes"


def _flag_names(finding: Finding) -> list[str]:
    quiet = set()
    stray = sum(len(flag.indices) for _, flag in finding.flags if flag.name == "outliers")
    if stray < MANY_OUTLIERS * finding.calls:
        quiet.add("outliers")
    return each_once(f.name for _, f in finding.flags if f.name not in quiet)


def _flag_text(name: str, finding: Finding) -> str:
    raised = [flag for _, flag in finding.flags if flag.name == name]
    worst = max(raised, key=lambda flag: abs(flag.value or 0))
    if finding.processes == 1:
        return worst.reason
    return f"{name} in {len(raised)} of {text.plural(finding.processes, 'process')}: {worst.reason}"
