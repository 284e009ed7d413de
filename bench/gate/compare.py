"""Baseline against candidate, cell by cell and figure by figure, down to one exit code.

Nothing passes by being absent: a figure that the baseline has and the candidate lacks, a cell
without a partner, another machine or another workload end as "not comparable", and what was
measured while something else held the GPU back as "unclear". Both leave the gate neither green nor
red.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench import comparable
from bench.gate import NOT_COMPARABLE, PASSED, REGRESSION, baselines, decide, measured
from bench.gate.limits import DEFAULT, Limits
from bench.stats import flags

Status = Literal[
    "regression", "not comparable", "unclear", "implausible", "improved", "passed", "not gated"
]
STATUSES: tuple[Status, ...] = (
    "regression",
    "not comparable",
    "unclear",
    "implausible",
    "improved",
    "passed",
    "not gated",
)
"""From the gravest to the lightest."""

STOPS: frozenset[Status] = frozenset({"not comparable", "unclear", "implausible"})
"""Neither red nor green."""

FIGURES = ("speed", "memory", "warmup")
UNITS = {"speed": "s", "memory": "bytes", "warmup": "s"}
MAY_SHRINK = frozenset({"graph_breaks", "recompiles"})
"""Counts of which fewer is better; every other change of a count is another piece of work."""

ACCEPTABLE = ("IDENTICAL", "WITHIN NOISE", "CLOSE")
WORDS = (ACCEPTABLE, ("VISIBLY DIFFERENT",), ("OTHER PICTURE",), ("INVALID",))
"""Verdicts on pictures from the best to the worst; the first group looks the same."""

CLOCKS = ("sm_clock_locked_mhz", "sm_clock_max_mhz", "memory_clock_max_mhz", "power_limit_w")
SOFTWARE_UNDER_TEST = (
    *baselines.SOFTWARE,
    "environment_hash",
    "settings",
    "tf32",
    "cudnn_benchmark",
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
        baseline: provenance of the baseline, as short texts.
        candidate: the same of the candidate.
        rows: in the order of the baseline's cells.
        suspects: names of cells whose figures a confirmation run should settle.
        confirmed: whether there was a confirmation run.
        notes: what a reader should know besides, each once.
    """

    baseline: Mapping[str, str]
    candidate: Mapping[str, str]
    rows: tuple[Row, ...]
    suspects: tuple[str, ...] = ()
    confirmed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 if anything has become worse, else 3 if anything could not be said, else 0."""
        found = {row.status for row in self.rows}
        if "regression" in found:
            return REGRESSION
        if found & STOPS or not found & {"passed", "improved"}:
            return NOT_COMPARABLE
        return PASSED

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        counted = Counter(row.status for row in self.rows)
        if self.exit_code == REGRESSION:
            what = _several(counted["regression"], "regression")
            return f"FAILED: {what} in {_several(self._cells({'regression'}), 'cell')}."
        if self.exit_code == NOT_COMPARABLE:
            stopped = [row for row in self.rows if row.status in STOPS]
            if not stopped:
                return "NOT COMPARABLE: nothing was compared."
            gravest = min(stopped, key=lambda row: STATUSES.index(row.status))
            more = f" (and {len(stopped) - 1} more)" if len(stopped) > 1 else ""
            word = {"unclear": "UNCLEAR", "implausible": "STOPPED"}.get(
                gravest.status, "NOT COMPARABLE"
            )
            return f"{word}: {gravest.cell}, {gravest.metric}: {gravest.reason}{more}"
        good = {"passed", "improved"}
        gated = sum(counted[status] for status in ("passed", "improved"))
        return f"PASSED: {_several(gated, 'figure')} of {_several(self._cells(good), 'cell')}."

    def _cells(self, statuses: Collection[str]) -> int:
        return len({row.cell for row in self.rows if row.status in statuses})


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


@dataclass
class _Pair:
    """One cell on both sides, with the processes of a confirmation run."""

    name: str
    baseline: Mapping[str, Any]
    candidate: Mapping[str, Any]
    again_baseline: Sequence[Mapping[str, Any]]
    again: Sequence[Mapping[str, Any]]
    paired: bool
    disturbed: str | None = None
    machine: str | None = None
    clock: str | None = None
    rows: list[Row] = field(default_factory=list)
    suspect: bool = False


def compare(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    limits: Limits = DEFAULT,
    *,
    confirmation: tuple[Mapping[str, Any] | None, Mapping[str, Any]] | None = None,
    paired: bool = False,
    acknowledged: Collection[str] = (),
    implausible_pct: float = decide.IMPLAUSIBLE_PCT,
) -> Comparison:
    """Compare two measured runs (`bench.gate.measured.of_run`, or a baseline's content).

    Args:
        baseline: what is compared with.
        candidate: what is judged.
        limits: what is gated.
        confirmation: a second run of the suspect cells: of the baseline, None if only the
            candidate was measured again, and of the candidate.
        paired: both were measured in turn in one session, so that their software may differ.
        acknowledged: cells whose implausible improvement is accepted.
        implausible_pct: bound for improvements, in per cent.
    """
    again_baseline, again = confirmation or (None, None)
    rows: list[Row] = []
    suspects: list[str] = []
    notes: list[str] = []
    for name in [
        *baseline["cells"],
        *(n for n in candidate["cells"] if n not in baseline["cells"]),
    ]:
        one, other = baseline["cells"].get(name), candidate["cells"].get(name)
        if one is None or other is None:
            why = "the baseline has no such cell; save a baseline that has it"
            if other is None:
                why = "the candidate has no such cell"
            rows.append(Row(name, "cell", "not comparable", f"{why}."))
            continue
        pair = _Pair(
            name,
            one,
            other,
            _processes(again_baseline, name),
            _processes(again, name),
            paired,
        )
        _judge(pair, limits, name in acknowledged, implausible_pct)
        rows += pair.rows
        if pair.suspect:
            suspects.append(name)
        notes += _notes(pair)
    unknown = set(acknowledged) - set(candidate["cells"])
    notes += [f"--acknowledge {name}: there is no such cell." for name in sorted(unknown)]
    return Comparison(
        baseline=provenance(baseline),
        candidate=provenance(candidate),
        rows=tuple(rows),
        suspects=tuple(suspects),
        confirmed=confirmation is not None,
        notes=tuple(dict.fromkeys(notes)),
    )


def provenance(content: Mapping[str, Any]) -> dict[str, str]:
    """Return where a measured run comes from, as short texts by name."""
    good = [p for cell in content["cells"].values() for p in measured.good(cell)]
    commit = content.get("commit") or {}
    return {
        "name": str(content.get("name") or "run"),
        "runs": ", ".join(str(run["run_id"])[:12] for run in content["runs"]),
        "commit": (str(commit["id"])[:12] + (" (modified)" if commit.get("dirty") else ""))
        if commit.get("id")
        else "unknown",
        "measured": str(content["runs"][0].get("started_utc") or "unknown"),
        "machine": measured.machine_key(content),
        "n": f"{len(good)} processes, {sum(len(p['e2e_s']) for p in good)} calls",
    }


def _processes(content: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    cell = (content or {"cells": {}})["cells"].get(name)
    return [] if cell is None else measured.good(cell)


def _judge(pair: _Pair, limits: Limits, acknowledged: bool, implausible_pct: float) -> None:
    """Fill the pair's rows."""
    if not _outcomes(pair):
        return
    differs = _asked(pair)
    if differs is not None:
        pair.rows.append(Row(pair.name, "cell", "not comparable", f"{differs}."))
        return
    pair.machine, pair.clock = _machine(pair)
    pair.disturbed = _disturbance(pair)
    _counts(pair)
    work = _other_work(pair)
    for metric in FIGURES:
        _figure(pair, metric, limits, work, acknowledged, implausible_pct)
    _fidelity(pair, limits)


def _outcomes(pair: _Pair) -> bool:
    """Add the row of how the processes ended; return whether there are figures on both sides."""
    if not measured.good(pair.baseline):
        if not measured.good(pair.candidate):
            reason = _why_not(pair.candidate)
            pair.rows.append(
                Row(pair.name, "outcome", "not gated", f"not measured in either: {reason}")
            )
        else:
            reason = "the baseline has no figures of this cell; save a baseline that has them."
            pair.rows.append(Row(pair.name, "outcome", "not comparable", reason))
        return False
    processes = pair.candidate["processes"]
    missing = pair.candidate["rounds_planned"] - len(processes)
    bad = [process for process in processes if process["outcome"] != "ok"]
    row: dict[str, Any] = {"baseline": "ok", "candidate": bad[0]["outcome"] if bad else "ok"}
    if not processes:
        reason = "the candidate has no record of this cell."
        pair.rows.append(Row(pair.name, "outcome", "not comparable", reason))
        return False
    if bad and all(process["outcome"] in measured.NOT_MEASURED for process in bad):
        reason = f"{bad[0]['outcome']} here: {bad[0]['reason'] or 'no reason given'}"
        pair.rows.append(Row(pair.name, "outcome", "not comparable", reason, **row))
        return False
    if bad:
        reason = (
            f"{len(bad)} of {len(processes)} processes ended {bad[0]['outcome']}: "
            f"{bad[0]['reason'] or 'no reason given'}"
        )
        pair.rows.append(Row(pair.name, "outcome", "regression", reason, **row))
    elif missing > 0:
        reason = f"{missing} of {pair.candidate['rounds_planned']} rounds have no record."
        pair.rows.append(Row(pair.name, "outcome", "not comparable", reason, **row))
    else:
        ended = "its process" if len(processes) == 1 else f"all {len(processes)} processes"
        pair.rows.append(Row(pair.name, "outcome", "passed", f"{ended} ended ok.", **row))
    return bool(measured.good(pair.candidate))


def _why_not(cell: Mapping[str, Any]) -> str:
    for process in cell["processes"]:
        return f"{process['outcome']}, {process['reason'] or 'no reason given'}"
    return "no record"


def _asked(pair: _Pair) -> str | None:
    """Name the first thing in which the two cells are not the same measurement."""
    one, other = pair.candidate, pair.baseline
    like = [_as_record(cell) for cell in (one, other)]
    found = comparable.difference(*like)
    if found is not None:
        return f"another workload: {found}"
    asked, other_asked = one["asked"], other["asked"]
    for name in ("backend", "cache", "warmup"):
        if asked[name] != other_asked[name]:
            inner = _inner(asked[name], other_asked[name])
            title = "warm-up rule" if name == "warmup" else name
            return f"{title} differs{inner}"
    if one["found"]["cache"] != other["found"]["cache"]:
        return (
            f"compile cache found {one['found']['cache']} (baseline {other['found']['cache']}): "
            "one was warm and the other cold"
        )
    warm = [_warm(measured.good(cell)) for cell in (one, other)]
    if warm[0] != warm[1]:
        return f"the candidate was {warm[0]} and the baseline {warm[1]}"
    return None


def _inner(one: Any, other: Any) -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                return f": {name} {one.get(name)} (baseline {other.get(name)})"
    return f": {one} (baseline {other})"


def _as_record(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `bench.comparable` looks at, without what is gated and without the machine."""
    asked = cell["asked"]
    return {
        "cell": {"workload": asked["workload"], "threads": asked["threads"]},
        **{name: cell["found"][name] for name in measured.LIKE},
    }


def _warm(processes: Sequence[Mapping[str, Any]]) -> str:
    if not all(process["warmup_s"] for process in processes):
        return "cold: it had no warm-up call"
    settled = sum(process["warmup_stable"] is not False for process in processes)
    return "warmed up" if 2 * settled >= len(processes) else "not warmed up: its calls still moved"


def _machine(pair: _Pair) -> tuple[str | None, str | None]:
    """Return the fingerprint's first difference, and, if all are clocks, what to say of those."""
    one, other = pair.candidate["fingerprint"], pair.baseline["fingerprint"]
    if pair.paired:
        one, other = _hardware(one), _hardware(other)
    found = comparable.difference({"fingerprint": one}, {"fingerprint": other})
    if found is None:
        return None, None
    plain = [_without_clocks(fingerprint) for fingerprint in (one, other)]
    if plain[0] == plain[1]:
        return None, f"wrong clock: {found}"
    return f"another fingerprint: {found}", None


def _hardware(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fingerprint.items() if k not in SOFTWARE_UNDER_TEST}


def _without_clocks(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    gpu = fingerprint.get("gpu") or {}
    return {**fingerprint, "gpu": {k: v for k, v in gpu.items() if k not in CLOCKS}}


def _disturbance(pair: _Pair) -> str | None:
    """Return what disturbed a process of either side, with the first one's round."""
    if pair.clock is not None:
        return pair.clock
    sides = (
        ("candidate", [*measured.good(pair.candidate), *pair.again]),
        ("baseline", [*measured.good(pair.baseline), *pair.again_baseline]),
    )
    for side, processes in sides:
        keys = {process["fingerprint_key"] for process in processes}
        if len(keys) > 1:
            return f"the {side}'s processes were not measured on one machine and software"
        for process in processes:
            where = f"{side}, round {process['round'] + 1}"
            if process["disturbances"]:
                return f"{where}: {process['disturbances'][0]}"
            slow = flags.slowdown(process["e2e_s"])
            if slow.raised:
                return (
                    f"{where}: calls became {slow.value:.1f} % slower halfway, as when a device is "
                    "throttled"
                )
    return None


def _counts(pair: _Pair) -> None:
    counts_machine = None
    if not pair.paired:
        one, other = pair.candidate["fingerprint"], pair.baseline["fingerprint"]
        software = [baselines.software(fingerprint) for fingerprint in (one, other)]
        counts_machine = comparable.difference(
            {"fingerprint": software[0]}, {"fingerprint": software[1]}
        )
    for name in measured.COUNTS:
        pair.rows.append(_count(pair, name, counts_machine))


def _count(pair: _Pair, name: str, software: str | None) -> Row:
    before = _values(measured.good(pair.baseline), name)
    now = _values([*measured.good(pair.candidate), *pair.again], name)
    shown = {"baseline": _shown(before), "candidate": _shown(now)}
    if before == [None] and now == [None]:
        return Row(pair.name, name, "not gated", "neither side has it.", **shown)
    if None in before or None in now:
        side = "candidate" if None in now else "baseline"
        return Row(pair.name, name, "not comparable", f"missing in the {side}.", **shown)
    if software is not None:
        reason = f"counts belong to their software: {software}."
        return Row(pair.name, name, "not comparable", reason, **shown)
    if name == "pictures":
        return _picture_row(pair, before, now)
    if len(before) > 1:
        reason = "the baseline's own processes differ, so there is nothing exact to compare with."
        return Row(pair.name, name, "unclear", reason, **shown)
    if now == before:
        return Row(pair.name, name, "passed", "exactly as before.", **shown)
    if name in MAY_SHRINK and all(value < before[0] for value in now):
        return Row(pair.name, name, "improved", "fewer; save a new baseline to keep it.", **shown)
    reason = f"{_shown(before)} before, {_shown(now)} now."
    if name == "graph_breaks":
        why = [r for p in measured.good(pair.candidate) for r in p["graph_break_reasons"] if r]
        reason += f" Reason: {why[0]}" if why else ""
    return Row(pair.name, name, "regression", reason, **shown)


def _picture_row(pair: _Pair, before: list[Any], now: list[Any]) -> Row:
    shown = {"baseline": _shown(before), "candidate": _shown(now)}
    if pair.paired and pair.candidate["fingerprint"] != pair.baseline["fingerprint"]:
        reason = "digests are compared within one fingerprint only, and the software differs."
        return Row(pair.name, "pictures", "not gated", reason, **shown)
    if pair.machine or pair.clock:
        reason = f"digests are compared within one fingerprint only: {pair.machine or pair.clock}."
        return Row(pair.name, "pictures", "not gated", reason, **shown)
    if len(before) > 1:
        reason = "the baseline itself does not repeat its pictures bit by bit."
        return Row(pair.name, "pictures", "not gated", reason, **shown)
    if now == before:
        return Row(pair.name, "pictures", "passed", "every pixel as before.", **shown)
    changed = sorted(
        {
            seed
            for value in now
            for seed in {*value, *before[0]}
            if value.get(seed) != before[0].get(seed)
        }
    )
    reason = f"pictures changed: seed/index {', '.join(changed[:4])}."
    return Row(pair.name, "pictures", "regression", reason, **shown)


def _values(processes: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    found: list[Any] = []
    for process in processes:
        value = process["counts"][name]
        if value not in found:
            found.append(value)
    return found


def _shown(values: Sequence[Any]) -> Any:
    if any(isinstance(value, Mapping) for value in values):
        return " or ".join(sorted({measured.key(value) for value in values}))
    return values[0] if len(values) == 1 else " or ".join(str(value) for value in values)


def _other_work(pair: _Pair) -> str | None:
    """Return the count that shows that the two did not do the same work."""
    for row in pair.rows:
        if row.status == "regression" and row.metric in (
            "steps_effective",
            "denoiser_calls",
            "output_size",
        ):
            return f"{row.metric} differs: {row.reason}"
    return None


def _figure(
    pair: _Pair,
    metric: str,
    limits: Limits,
    work: str | None,
    acknowledged: bool,
    implausible_pct: float,
) -> None:
    before, now = (_arm(measured.good(cell), metric) for cell in (pair.baseline, pair.candidate))
    gated = limits.gates(metric)
    missing = _missing(pair, metric, before, now)
    if missing is not None:
        absent_in_both = not before and not now
        skip = not gated or (absent_in_both and not limits.asked)
        status: Status = "not gated" if skip else "not comparable"
        pair.rows.append(Row(pair.name, metric, status, missing))
        return
    base: dict[str, Any] = {
        "baseline": _median(before),
        "candidate": _median(now),
        "unit": UNITS[metric],
    }
    why = pair.machine or work
    if why is not None:
        status = "not comparable" if gated else "not gated"
        pair.rows.append(Row(pair.name, metric, status, why.rstrip(".") + ".", **base))
        return
    allowed = limits.allowed_pct.get(metric, 0.0)
    confirmation = None
    if pair.again:
        confirmation = (_arm(pair.again_baseline, metric), _arm(pair.again, metric))
    found = decide.decide(
        before, now, allowed, confirmation=confirmation, implausible_pct=implausible_pct
    )
    numbers: dict[str, Any] = {
        **base,
        "change_pct": found.change.pct,
        "low_pct": found.change.low_pct,
        "high_pct": found.change.high_pct,
    }
    if not gated:
        pair.rows.append(Row(pair.name, metric, "not gated", found.reason, **numbers))
        return
    numbers["allowed_pct"] = allowed
    pair.suspect |= found.suspect
    word, reason = found.word, found.reason
    if pair.disturbed is not None:
        word, reason = "unclear", f"{pair.disturbed}. Measured: {found.reason}"
    elif word == "implausible" and acknowledged:
        word, reason = "improved", f"acknowledged: {found.reason}"
    pair.rows.append(Row(pair.name, metric, _status(word), reason, **numbers))


def _status(word: str) -> Status:
    return next(status for status in STATUSES if status == word)


def _arm(processes: Sequence[Mapping[str, Any]], metric: str) -> list[list[float]]:
    if metric == "speed":
        return [process["e2e_s"] for process in processes if process["e2e_s"]]
    if metric == "warmup":
        return [[sum(process["warmup_s"])] for process in processes if process["warmup_s"]]
    return decide.arm_of([process["memory_bytes"] or None for process in processes])


def _missing(pair: _Pair, metric: str, before: Sequence[Any], now: Sequence[Any]) -> str | None:
    sides = (("baseline", before, pair.baseline), ("candidate", now, pair.candidate))
    for side, arm, cell in sides:
        processes = measured.good(cell)
        if len(arm) < len(processes):
            reason = f"missing in {len(processes) - len(arm)} of {len(processes)} processes of the "
            reason += side
            if metric == "memory":
                why = next((p["memory_reason"] for p in processes if p["memory_reason"]), None)
                reason += f": {why or measured.MEMORY_METER + ' has no reading here'}"
            return reason + "."
    return None


def _median(arm: Sequence[Sequence[float]]) -> float:
    values = sorted(value for process in arm for value in process)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def _fidelity(pair: _Pair, limits: Limits) -> None:
    before, now = pair.baseline["fidelity"], pair.candidate["fidelity"]
    shown = {"baseline": before["word"], "candidate": now["word"]}
    gated = limits.fidelity
    if before["word"] is None and now["word"] is None:
        eager = pair.candidate["asked"]["backend"]["name"] == measured.BASELINE_BACKEND
        stops = gated and limits.asked and not eager
        reason = f"neither side has a verdict: {now['reason']}."
        status: Status = "not comparable" if stops else "not gated"
        pair.rows.append(Row(pair.name, "fidelity", status, reason, **shown))
        return
    if before["word"] is None or now["word"] is None:
        side, why = ("baseline", before) if before["word"] is None else ("candidate", now)
        reason = f"missing in the {side}: {why['reason']}."
        status = "not comparable" if gated else "not gated"
        pair.rows.append(Row(pair.name, "fidelity", status, reason, **shown))
        return
    worse = _rank(now["word"]) > _rank(before["word"])
    if not gated:
        pair.rows.append(Row(pair.name, "fidelity", "not gated", now["reason"], **shown))
    elif worse:
        pair.rows.append(Row(pair.name, "fidelity", "regression", now["reason"], **shown))
    else:
        pair.rows.append(Row(pair.name, "fidelity", "passed", now["reason"], **shown))


def _rank(word: str) -> int:
    return next(i for i, group in enumerate(WORDS) if word in group)


def _notes(pair: _Pair) -> list[str]:
    unstable = [p for p in measured.good(pair.candidate) if p["warmup_stable"] is False]
    if not unstable:
        return []
    return [f"{pair.name}: warm-up had not settled in {len(unstable)} process(es)."]
