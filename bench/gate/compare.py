"""Baseline against candidate, cell by cell and figure by figure, down to one exit code.

Nothing passes by being absent: a figure that the baseline has and the candidate lacks, a cell
without a partner, another machine or another workload end as "not comparable", and what was
measured while something else held the GPU back as "unclear". Both leave the gate neither green nor
red.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from statistics import median
from typing import Any, Literal, get_args

from msgspec import to_builtins

from bench import fidelity
from bench.gate import NOT_COMPARABLE, PASSED, REGRESSION, baselines, decide
from bench.gate.limits import Limits
from bench.gate.measured import (
    COUNTS,
    FIGURES,
    MEMORY_METER,
    NOT_MEASURED,
    Figure,
    MeasuredCell,
    Measurement,
    Process,
    key,
)
from bench.records import alike
from bench.stats import flags
from bench.text import plural
from compilers.base import BASELINE

Status = Literal[
    "regression", "not comparable", "unclear", "implausible", "improved", "passed", "not gated"
]
STATUSES: tuple[Status, ...] = get_args(Status)
"""From the gravest to the lightest."""

STOPS: frozenset[Status] = frozenset({"not comparable", "unclear", "implausible"})
"""Neither red nor green."""

MAY_SHRINK = frozenset({"graph_breaks", "recompiles"})
"""Counts of which fewer is better; every other change of a count is another piece of work."""

OTHER_WORK = frozenset({"steps_effective", "denoiser_calls", "output_size"})
"""Counts without whose equality no time can be compared."""

WORDS = get_args(fidelity.Word)
"""Verdicts on images from the best to the worst."""
LOOKS_THE_SAME = WORDS.index("CLOSE")

CLOCKS = ("sm_clock_locked_mhz", "sm_clock_max_mhz", "memory_clock_max_mhz", "power_limit_w")
SOFTWARE_UNDER_TEST = (
    *(*baselines.SOFTWARE, "environment_hash", "settings", "tf32", "cudnn_benchmark"),
)
"""What two arms of one session may differ in, since it is what they are measured for."""


@dataclass(frozen=True)
class Row:
    """One figure of one cell.

    ``baseline`` and ``candidate`` are medians in ``unit``, or what a count is, as JSON; None if
    missing. ``change_pct`` with its 95 % interval is of the figure itself, above 0 worse.
    """

    cell: str
    metric: str
    status: Status
    reason: str
    baseline: Any = None
    candidate: Any = None
    unit: str | None = None
    change_pct: float | None = None
    low_pct: float | None = None
    high_pct: float | None = None
    allowed_pct: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they come to.

    Attributes:
        confirmed: whether there was a confirmation run.
        suspects: names of cells whose figures a confirmation run should settle.
        baseline: provenance of the baseline, as short texts.
        candidate: the same of the candidate.
        rows: in the order of the baseline's cells.
        notes: what a reader should know besides, each once.
    """

    confirmed: bool
    suspects: tuple[str, ...]
    baseline: Mapping[str, str]
    candidate: Mapping[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 if anything has become worse, else 3 if anything could not be compared, else 0."""
        statuses = {row.status for row in self.rows}
        if "regression" in statuses:
            return REGRESSION
        if statuses & STOPS or not statuses & {"passed", "improved"}:
            return NOT_COMPARABLE
        return PASSED

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        if self.exit_code == REGRESSION:
            return f"FAILED: {self._counted('regression', {'regression'}, 'in')}."
        if self.exit_code == PASSED:
            return f"PASSED: {self._counted('figure', {'passed', 'improved'}, 'of')}."
        stopped = [row for row in self.rows if row.status in STOPS]
        if not stopped:
            return "NOT COMPARABLE: nothing was compared."
        gravest = min(stopped, key=lambda row: STATUSES.index(row.status))
        more = f" (and {len(stopped) - 1} more)" if len(stopped) > 1 else ""
        word = "STOPPED" if gravest.status == "implausible" else gravest.status.upper()
        return f"{word}: {gravest.cell}, {gravest.metric}: {gravest.reason}{more}"

    def _counted(self, noun: str, statuses: Collection[str], preposition: str) -> str:
        cells = [row.cell for row in self.rows if row.status in statuses]
        return f"{plural(len(cells), noun)} {preposition} {plural(len(set(cells)), 'cell')}"


def compare(
    baseline: Measurement,
    candidate: Measurement,
    limits: Limits | None = None,
    *,
    confirmation: tuple[Measurement | None, Measurement] | None = None,
    paired: bool = False,
) -> Comparison:
    """Compare two measurements.

    Args:
        baseline: what is compared with.
        candidate: what is judged.
        limits: what is gated.
        confirmation: a second run of the suspect cells: of the baseline, None if only the
            candidate was measured again, and of the candidate.
        paired: both were measured in turn in one session, so that their software may differ.
    """
    limits = limits or Limits()
    again_baseline, again = confirmation or (None, None)
    rows: list[Row] = []
    suspects: list[str] = []
    notes: list[str] = []
    for name in dict.fromkeys((*baseline.cells, *candidate.cells)):
        one, other = baseline.cells.get(name), candidate.cells.get(name)
        if one is None or other is None:
            why = "the candidate has no such cell."
            if one is None:
                why = "the baseline has no such cell; save a baseline that has it."
            rows.append(Row(name, "cell", "not comparable", why))
            continue
        pair = _Pair(
            name, one, other, _again(again_baseline, name), _again(again, name), limits, paired
        )
        rows += pair.rows()
        if pair.suspect:
            suspects.append(name)
        unstable = sum(process.warmup_stable is False for process in other.good)
        if unstable:
            notes.append(f"{name}: warm-up had not settled in {unstable} process(es).")
    unknown = sorted({*limits.acknowledged} - candidate.cells.keys())
    notes += [f"--acknowledge {name}: there is no such cell." for name in unknown]
    return Comparison(
        confirmed=confirmation is not None,
        suspects=tuple(suspects),
        baseline=baseline.provenance(),
        candidate=candidate.provenance(),
        rows=tuple(rows),
        notes=tuple(dict.fromkeys(notes)),
    )


def _again(measurement: Measurement | None, name: str) -> list[Process]:
    cell = measurement and measurement.cells.get(name)
    return cell.good if cell else []


@dataclass
class _Pair:
    """One cell on both sides, with the processes of a confirmation run.

    Attributes:
        machine: in what the machines differ, if not in clocks alone.
        clock: in which clock they differ, if in nothing else.
        suspect: whether a figure should be measured again.
    """

    name: str
    baseline: MeasuredCell
    candidate: MeasuredCell
    again_baseline: Sequence[Process]
    again: Sequence[Process]
    limits: Limits
    paired: bool
    machine: str | None = None
    clock: str | None = None
    suspect: bool = False

    def rows(self) -> Iterator[Row]:
        """Yield a row for each figure, or one for what stands in the way."""
        outcome = self._outcome()
        yield outcome
        tried = outcome.status == "regression" or outcome.candidate not in NOT_MEASURED
        if not (tried and self.baseline.good and self.candidate.good):
            return
        difference = self._difference()
        if difference is not None:
            yield Row(self.name, "cell", "not comparable", f"{difference}.")
            return
        self._look_at_machines()
        barrier = self.machine
        for name in COUNTS:
            before = _values(self.baseline.good, name)
            now = _values([*self.candidate.good, *self.again], name)
            status, reason = self._count(name, before, now)
            yield Row(self.name, name, status, reason, _shown(before), _shown(now))
            if status == "regression" and name in OTHER_WORK:
                barrier = barrier or f"{name} differs: {reason}"
        disturbance = self._disturbance()
        for figure in FIGURES:
            yield self._figure(figure, barrier, disturbance)
        status, reason = self._fidelity()
        words = self.baseline.fidelity.word, self.candidate.fidelity.word
        yield Row(self.name, "fidelity", status, reason, *words)

    def _outcome(self) -> Row:
        """Return how the candidate's processes ended."""
        processes, planned = self.candidate.processes, self.candidate.rounds_planned
        row = partial(Row, self.name, "outcome")
        if not self.baseline.good and self.candidate.good:
            why = "the baseline has no figures of this cell; save a baseline that has them."
            return row("not comparable", why)
        if not self.baseline.good:
            why = f"{processes[0].outcome}, {processes[0].why}" if processes else "no record"
            return row("not gated", f"not measured in either: {why}")
        if not processes:
            return row("not comparable", "the candidate has no record of this cell.")
        bad = [process for process in processes if process.outcome != "ok"]
        row = partial(row, baseline="ok", candidate=bad[0].outcome if bad else "ok")
        if bad and all(process.outcome in NOT_MEASURED for process in bad):
            return row("not comparable", f"{bad[0].outcome} here: {bad[0].why}")
        if bad:
            why = f"{len(bad)} of {len(processes)} processes ended {bad[0].outcome}: {bad[0].why}"
            return row("regression", why)
        if planned > len(processes):
            why = f"{planned - len(processes)} of {planned} rounds have no record."
            return row("not comparable", why)
        which = "its process" if len(processes) == 1 else f"all {len(processes)} processes"
        return row("passed", f"{which} ended ok.")

    def _difference(self) -> str | None:
        """Name the first thing in which the two cells are not the same measurement."""
        cells = (self.candidate, self.baseline)
        asked, other_asked = (cell.asked.workload for cell in cells)
        workload = alike.first_difference(asked, other_asked) or alike.first_difference(
            *(cell.alike for cell in cells)
        )
        if workload is not None:
            return f"another workload: {workload}"
        one, other = (to_builtins(cell.asked) for cell in cells)
        for name, title in (("backend", "backend"), ("cache", "cache"), ("warmup", "warm-up rule")):
            if one[name] != other[name]:
                return f"{title} differs{_inner(one[name], other[name])}"
        cache, other_cache = (cell.found.cache for cell in cells)
        if cache != other_cache:
            return (
                f"compile cache found {cache} (baseline {other_cache}): one was warm and the other "
                "cold"
            )
        warm, other_warm = (_warm(cell.good) for cell in cells)
        if warm != other_warm:
            return f"the candidate was {warm} and the baseline {other_warm}"
        return None

    def _look_at_machines(self) -> None:
        one, other = self.candidate.fingerprint, self.baseline.fingerprint
        if self.paired:
            one, other = _hardware(one), _hardware(other)
        difference = alike.machine_difference(one, other)
        if difference is not None and _without_clocks(one) == _without_clocks(other):
            self.clock = f"wrong clock: {difference}"
        elif difference is not None:
            self.machine = f"another fingerprint: {difference}"

    def _disturbance(self) -> str | None:
        """Return what disturbed a process of either side, with the first one's round."""
        if self.clock is not None:
            return self.clock
        sides = {
            "candidate": [*self.candidate.good, *self.again],
            "baseline": [*self.baseline.good, *self.again_baseline],
        }
        for side, processes in sides.items():
            if len({process.fingerprint_key for process in processes}) > 1:
                return f"the {side}'s processes were not measured on one machine and software"
            for process in processes:
                where = f"{side}, round {process.round + 1}"
                if process.disturbances:
                    return f"{where}: {process.disturbances[0]}"
                slow = flags.slowdown(process.e2e_s)
                if slow.raised:
                    return (
                        f"{where}: calls became {slow.value:.1f} % slower halfway, as when a "
                        "device is throttled"
                    )
        return None

    def _count(self, name: str, before: list[Any], now: list[Any]) -> tuple[Status, str]:
        """Return the status of a count, which has to be exactly equal, and the reason."""
        if before == now == [None]:
            return "not gated", "neither side has it."
        if None in before or None in now:
            return "not comparable", f"missing in the {'candidate' if None in now else 'baseline'}."
        one, other = self.candidate.fingerprint, self.baseline.fingerprint
        software = alike.machine_difference(baselines.software(one), baselines.software(other))
        if software is not None and not self.paired:
            return "not comparable", f"counts belong to their software: {software}."
        if name == "pictures":
            machine = self.machine or self.clock
            if machine is None and one != other:
                machine = "the software differs"
            return _digests(before, now, machine)
        if len(before) > 1:
            why = "the baseline's own processes differ, so there is nothing exact to compare with."
            return "unclear", why
        if now == before:
            return "passed", "exactly as before."
        if name in MAY_SHRINK and all(value < before[0] for value in now):
            return "improved", "fewer; save a new baseline to keep it."
        reason = f"{_shown(before)} before, {_shown(now)} now."
        if name == "graph_breaks":
            reasons = chain(*(process.graph_break_reasons for process in self.candidate.good))
            reason += "".join(f" Reason: {why}" for why in list(filter(None, reasons))[:1])
        return "regression", reason

    def _figure(self, figure: Figure, barrier: str | None, disturbance: str | None) -> Row:
        """Return the row of a figure, which may grow by as much as is allowed."""
        row = partial(Row, self.name, figure.name)
        before, now = figure.arm(self.baseline.good), figure.arm(self.candidate.good)
        allowed = self.limits.allowed_pct.get(figure.name)
        stopped: Status = "not gated" if allowed is None else "not comparable"
        missing = _missing("baseline", figure, self.baseline) or _missing(
            "candidate", figure, self.candidate
        )
        if missing is not None:
            neither = not before and not now and not self.limits.asked
            return row("not gated" if neither else stopped, missing)
        old, new = (median(chain(*arm)) for arm in (before, now))
        if barrier is not None:
            return row(stopped, f"{barrier.rstrip('.')}.", old, new, figure.unit)
        decision = decide.decide(
            before,
            now,
            allowed or 0.0,
            confirmation=(figure.arm(self.again_baseline), figure.arm(self.again))
            if self.again
            else None,
            implausible_pct=self.limits.implausible_pct,
        )
        change, reason = decision.change, decision.reason
        status: Status = decision.status
        if allowed is None:
            status = "not gated"
        elif disturbance is not None:
            status, reason = "unclear", f"{disturbance}. Measured: {reason}"
        elif status == "implausible" and self.name in self.limits.acknowledged:
            status, reason = "improved", f"acknowledged: {reason}"
        self.suspect |= decision.suspect and allowed is not None
        numbers = (change.pct, change.low_pct, change.high_pct, allowed)
        return row(status, reason, old, new, figure.unit, *numbers)

    def _fidelity(self) -> tuple[Status, str]:
        """Return the status of the verdict on the images, which may not worsen, and the reason."""
        before, now = self.baseline.fidelity, self.candidate.fidelity
        stopped: Status = "not comparable" if self.limits.fidelity else "not gated"
        if before.word is None and now.word is None:
            spared = not self.limits.asked or self.candidate.asked.backend.name == BASELINE
            reason = f"neither side has a verdict: {now.reason}."
            return "not gated" if spared else stopped, reason
        if before.word is None:
            return stopped, f"missing in the baseline: {before.reason}."
        if now.word is None:
            return stopped, f"missing in the candidate: {now.reason}."
        if not self.limits.fidelity:
            return "not gated", now.reason
        worse = _rank(now.word) > _rank(before.word)
        return "regression" if worse else "passed", now.reason


def _digests(before: list[Any], now: list[Any], machine: str | None) -> tuple[Status, str]:
    """Return the status of digests of images, and the reason."""
    if machine is not None:
        return "not gated", f"digests are compared within one fingerprint only: {machine}."
    if len(before) > 1:
        return "not gated", "the baseline itself does not repeat its images bit by bit."
    if now == before:
        return "passed", "every pixel as before."
    changed = sorted({place for each in now for place, _ in each.items() ^ before[0].items()})
    return "regression", f"images changed: seed/index {', '.join(changed[:4])}."


def _inner(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                return f": {name} {one.get(name)} (baseline {other.get(name)})"
    return f": {one} (baseline {other})"


def _warm(processes: Sequence[Process]) -> str:
    if not all(process.warmup_s for process in processes):
        return "cold: it had no warm-up call"
    settled = sum(process.warmup_stable is not False for process in processes)
    return "warmed up" if 2 * settled >= len(processes) else "not warmed up: its calls still moved"


def _hardware(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fingerprint.items() if k not in SOFTWARE_UNDER_TEST}


def _without_clocks(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    gpu = fingerprint.get("gpu") or {}
    return {**fingerprint, "gpu": {k: v for k, v in gpu.items() if k not in CLOCKS}}


def _values(processes: Sequence[Process], name: str) -> list[Any]:
    """Return the different values of a count."""
    values: list[Any] = []
    for process in processes:
        value = getattr(process.counts, name)
        if value not in values:
            values.append(value)
    return values


def _shown(values: Sequence[Any]) -> Any:
    if any(isinstance(value, dict) for value in values):
        return " or ".join(sorted({key(value) for value in values}))
    return values[0] if len(values) == 1 else " or ".join(map(str, values))


def _missing(side: str, figure: Figure, cell: MeasuredCell) -> str | None:
    lacking = [process for process in cell.good if not figure.samples(process)]
    if not lacking:
        return None
    reason = f"missing in {len(lacking)} of {len(cell.good)} processes of the {side}"
    if figure.name == "memory":
        reasons = (process.memory_reason for process in cell.good)
        why = next(filter(None, reasons), f"{MEMORY_METER} has no reading here")
        reason += f": {why}"
    return f"{reason}."


def _rank(word: fidelity.Word) -> int:
    return max(WORDS.index(word), LOOKS_THE_SAME)
