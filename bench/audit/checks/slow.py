"""Slow rows: time against calls of the denoiser, each row judged by the line through the others.

A row slow by one factor in all its parts ran on a device that was busy, hot or slowed down: the
work was the same. A row slow in one part did more work there: a scheduler of uniform stride that
takes 1000 // 150 = 6 visits 167 timesteps for 150, and its first batch takes 167 steps of time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.audit import rows
from bench.audit.checks.batches import corrected_gaps
from bench.audit.finding import Finding, Note
from bench.audit.lines import Line, fit
from bench.audit.rows import figure
from bench.audit.table import Floats, Table

CHECK = "slow-row"
STEPS = "implied-steps"
ONE_FACTOR = 0.04
"""Parts slow by factors closer than this are slow by one."""
FEWEST_CALLS = 5
"""The rate of a shorter loop hangs on its first step."""
FEWEST_EXTRA_CALLS = 20
SMALL_SCATTER = 0.012
LEAST_BY_RATE = 0.1
NETWORK = ("session", "gpu", "model", "task", "backend", "dtype", "scheduler", "height", "width",
           "batch", "guidance")  # fmt: skip
SETTLE = (
    "the row measured again, with clocks, temperature and other processes of the card on record"
)


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return rows that are slow or quick for the calls that they made."""
    findings: list[Finding] = []
    notes: list[Note] = []
    gaps = corrected_gaps(table)
    first = table.values("first_s")
    with np.errstate(invalid="ignore"):
        parts = np.flatnonzero((first > 0) & (gaps > 0)).tolist()
    for group in rows.groups(table, (*NETWORK, "batches"), parts):
        made, told = _in_batches(table, group, gaps)
        findings += made
        notes += told
    done = set(parts)
    made, told = _single_calls(table, done)
    findings += made
    notes += told
    findings += _by_rate(table, {i for finding in findings for i in finding.rows} | done)
    findings += _repeats(table, {i for finding in findings for i in finding.rows} | done)
    return findings, notes


def _gap_calls(table: Table, i: int) -> float:
    steps, strength = float(table.values("steps")[i]), float(table.values("strength")[i])
    return rows.effective_steps(steps, strength) if 0 < strength < 1 else steps


def _in_batches(table: Table, group: list[int], gaps: Floats) -> tuple[list[Finding], list[Note]]:
    """Rows of a first batch with all steps and further ones with steps × strength."""
    first, total = table.values("first_s")[group], table.values("total_s")[group]
    steps = table.values("steps")[group]
    per_gap = np.array([_gap_calls(table, i) for i in group])
    calls_first = steps.copy()
    by_first = fit(steps, first, table.half("first_s")[group])
    by_gap = fit(per_gap, gaps[group], table.half("gap_s")[group])
    findings: list[Finding] = []
    slow: list[int] = []
    for k, i in enumerate(group):
        off_first = float(by_first.off[k]) if by_first and by_first.odd[k] else 0.0
        off_gap = float(by_gap.off[k]) if by_gap and by_gap.odd[k] else 0.0
        if off_first and off_gap and abs(off_first - off_gap) < ONE_FACTOR:
            assert by_first is not None
            assert by_gap is not None
            slow.append(k)
            findings.append(_slow_in_all(table, i, k, by_first, by_gap, first, gaps[group], steps,
                                         per_gap))  # fmt: skip
        elif off_first and not off_gap and by_first is not None:
            stride = _stride(table, i, k, by_first, float(first[k]))
            if stride is not None:
                calls_first[k] = rows.stride_calls(float(steps[k]))
                findings.append(stride)
            else:
                findings.append(_one_part(table, i, "first batch", by_first, k, first[k], steps[k]))
        elif off_gap and by_gap is not None:
            findings.append(
                _one_part(table, i, "time between batches", by_gap, k, gaps[i], per_gap[k])
            )
    notes = []
    batches = table.values("batches")[group]
    calls = calls_first + (batches - 1) * per_gap
    kept = [k for k in range(len(group)) if k not in slow]
    if len(kept) >= 3 and np.isfinite(total[kept]).all() and len(np.unique(calls[kept])) >= 3:
        slope, fixed = np.polyfit(calls[kept], total[kept], 1)
        left = total[kept] - fixed - slope * calls[kept]
        r2 = 1 - float((left**2).sum() / ((total[kept] - total[kept].mean()) ** 2).sum())
        corrected = [k for k in kept if calls_first[k] != steps[k]]
        how = ""
        if corrected:
            k = corrected[0]
            how = f", with {calls_first[k]:g} calls for {steps[k]:g} steps"
        if slow:
            how += f", without {rows.places(table, [group[k] for k in slow])}"
        notes.append(
            Note(
                CHECK,
                f"Total time of {rows.places(table, [group[k] for k in kept])} is a straight "
                "line in "
                f"calls of the denoiser{how}: {figure(fixed)} s + {figure(slope)} s a "
                f"call, R² = {_r2(r2)}.",
                tuple(group),
            )
        )
    return findings, notes


def _r2(value: float) -> str:
    return f"{value:.6f}"


def _slow_in_all(
    table: Table,
    i: int,
    k: int,
    by_first: Line,
    by_gap: Line,
    first: Floats,
    gaps: Floats,
    steps: Floats,
    per_gap: Floats,
) -> Finding:
    factors = (float(by_first.off[k]), float(by_gap.off[k]))
    word = "slow" if factors[0] > 0 else "quick"
    return Finding(
        CHECK,
        "likely",
        0.6,
        f"{rows.label(table, i)} was {abs(factors[0]) * 100:.1f} % {word} in its first batch and "
        f"{abs(factors[1]) * 100:.1f} % in the others, against the rows beside it: one factor "
        "in all "
        "its parts is "
        + (
            "a busy or throttled card, not more work."
            if factors[0] > 0
            else "another card or clock, not less work."
        ),
        (i,),
        f"first batch {figure(first[k])} s ÷ {figure(first[k] / (1 + factors[0]))} s at "
        f"{steps[k]:g} calls = {1 + factors[0]:.4g}; between batches {figure(gaps[k])} s ÷ "
        f"{figure(gaps[k] / (1 + factors[1]))} s at {per_gap[k]:g} calls = "
        f"{1 + factors[1]:.4g}",
        SETTLE,
    )


def _stride(table: Table, i: int, k: int, line: Line, time: float) -> Finding | None:
    """Whether a row's steps are those of a uniform stride that overshoots."""
    steps = float(table.values("steps")[i])
    stride = rows.stride_calls(steps)
    if stride == steps or line.slope <= 0:
        return None
    through = time / (1 + float(line.off[k]))
    implied = steps + (time - through) / line.slope
    if abs(implied - stride) > max(1.5, 0.02 * stride):
        return None
    return Finding(
        STEPS,
        "certain",
        0.5,
        f"{rows.label(table, i)} ran {stride} steps, not {steps:g}: a uniform stride of 1000 // "
        f"{steps:g} = {1000 // int(steps)} visits {stride} timesteps.",
        (i,),
        f"{figure(time)} s is {figure(time - through)} s more than {steps:g} steps take; at "
        f"{figure(line.slope)} s a step that is {implied:.1f} steps; len(range(0, 1000, "
        f"{1000 // int(steps)})) = {stride}",
        "the scheduler's list of timesteps",
    )


def _one_part(
    table: Table, i: int, part: str, line: Line, k: int, value: float, calls: float
) -> Finding:
    off = float(line.off[k])
    at = float(value) / (1 + off)
    implied = calls + (float(value) - at) / line.slope
    return Finding(
        CHECK,
        "likely",
        0.45,
        f"The {part} of {rows.label(table, i)} is {abs(off) * 100:.1f} % "
        f"{'longer' if off > 0 else 'shorter'} than its {calls:g} calls take in the other rows"
        + (f"; {implied:.0f} calls would fit." if implied >= 1 else "."),
        (i,),
        f"{figure(value)} s ÷ {figure(at)} s = {1 + off:.4g}",
        "the number of denoiser calls of this row, and the row measured again",
    )


def _single_calls(table: Table, done: set[int]) -> tuple[list[Finding], list[Note]]:
    """Rows of one network, size and arm at several step counts."""
    findings: list[Finding] = []
    notes: list[Note] = []
    for name in ("e2e_s", "total_s", "mean_s", "median_s"):
        if name == "total_s" and (table.has("runs") or table.has("e2e_s")):
            continue
        if name in ("mean_s", "median_s") and table.has("e2e_s"):
            continue
        if not table.has(name):
            continue
        time = table.values(name)
        calls = _all_calls(table)
        with np.errstate(invalid="ignore"):
            usable = [
                i for i in np.flatnonzero((time > 0) & (calls >= 1)).tolist() if i not in done
            ]
        keys = (*NETWORK, "batches", "samples") if name == "total_s" else NETWORK
        for group in rows.groups(table, keys, usable):
            line = fit(calls[group], time[group], table.half(name)[group])
            if line is None:
                continue
            for k in np.flatnonzero(line.odd).tolist():
                findings.append(_off_line(table, group, k, line, time, calls))
            kept = [group[k] for k in np.flatnonzero(~line.odd)]
            notes.append(
                Note(
                    CHECK,
                    f"Time of {rows.places(table, kept)} is a straight line in calls of the "
                    f"denoiser: {figure(line.fixed)} s + {figure(line.slope)} s a call, R² = "
                    f"{_r2(line.r2)}.",
                    tuple(group),
                )
            )
    return findings, notes[:20]


def _all_calls(table: Table) -> Floats:
    own = rows.kinds(table, rows.CLAIM)
    _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    return np.array([_calls(table, i) for i in first.tolist()])[inverse]


def _calls(table: Table, i: int) -> float:
    for name in ("denoiser_calls", "steps_effective"):
        value = float(table.values(name)[i])
        if value >= 1:
            return value
    steps = float(table.values("steps")[i])
    strength = float(table.values("strength")[i])
    if steps >= 1 and 0 < strength < 1:
        steps = rows.effective_steps(steps, strength)
    return rows.extra_calls(table.text("scheduler")[i], steps) if steps >= 1 else np.nan


def _off_line(
    table: Table, group: Sequence[int], k: int, line: Line, time: Floats, calls: Floats
) -> Finding:
    i = group[k]
    value, n = float(time[i]), float(calls[i])
    off = float(line.off[k])
    at = value / (1 + off)
    stride = _stride(table, i, k, line, value) if not table.has("strength") else None
    if stride is not None:
        return stride
    rate = table.values("it_per_s")
    peers = [j for j in group if j != i and rate[j] > 0]
    extra = ""
    if rate[i] > 0 and len(peers) >= 2:
        usual = float(np.median(rate[peers]))
        slower = usual / float(rate[i]) - 1
        if abs(slower - off) < ONE_FACTOR:
            extra = (
                f"; its it/s is off by the same factor ({figure(usual)} ÷ {figure(rate[i])} = "
                f"{1 + slower:.4g}), as on a busy or throttled card"
            )
        elif abs(slower) < ONE_FACTOR / 2:
            implied = n + (value - at) / line.slope
            return Finding(
                STEPS,
                "likely",
                0.7,
                f"{rows.label(table, i)} does not fit {n:g} calls of the denoiser, while its "
                "it/s is "
                f"as usual; {implied:.0f} fit.",
                (i,),
                f"{figure(value)} s against {figure(at)} s on the line of the other rows; at "
                f"{figure(line.slope)} s a call that is {implied:.1f} calls",
                "the number of denoiser calls of this row",
            )
    word = "slow" if off > 0 else "quick"
    implied = n + (value - at) / line.slope
    other = f" (or ran {implied:.0f} calls, not {n:g})" if implied >= 1 and not extra else ""
    return Finding(
        CHECK,
        "likely",
        0.55,
        f"{rows.label(table, i)} is {abs(off) * 100:.1f} % too {word} for its {n:g} calls of the "
        f"denoiser{other}{extra}.",
        (i,),
        f"{figure(value)} s ÷ {figure(at)} s on the line of the other {len(group) - 1} rows = "
        f"{1 + off:.4g}",
        SETTLE,
    )


def _calls_more(table: Table) -> NDArray[np.bool_]:
    """Return which rows' schedulers call the denoiser more often than they step, (rows,)."""
    more = {name: rows.extra_calls(name, 10) != 10 for name in set(table.text("scheduler"))}
    return np.array([more[name] for name in table.text("scheduler")], dtype=np.bool_)


def _by_rate(table: Table, judged: set[int]) -> list[Finding]:
    """Rows with another it/s than the same arm at other step counts, and a time to match.

    Too few step counts for a line are enough for this, since a step takes as long however many
    there are.
    """
    time, rate, calls = table.values("e2e_s"), table.values("it_per_s"), _all_calls(table)
    if not table.has("e2e_s", "it_per_s"):
        return []
    with np.errstate(all="ignore"):
        loop = calls / rate
        # A rate that is steps ÷ time says nothing of its own.
        usable = (loop > 0) & (time > loop * 1.005) & (calls >= FEWEST_CALLS)
        # Whether such a rate counts steps or calls, nobody says; in long loops it matters less.
        usable &= (calls >= FEWEST_EXTRA_CALLS) | ~_calls_more(table)
    at = [i for i in np.flatnonzero(usable).tolist() if i not in judged]
    # Mere repeats are judged by their own scatter below.
    arms = [
        group
        for group in rows.groups(table, NETWORK, at)
        if len(group) >= 3 and len(set(calls[group].tolist())) > 1
    ]
    if not arms:
        return []
    off: dict[int, float] = {}
    for group in arms:
        off |= zip(group, (np.median(rate[group]) / rate[group] - 1).tolist(), strict=True)
    scale = max(1.4826 * float(np.median(np.abs(list(off.values())))), SMALL_SCATTER)
    findings = []
    for group in arms:
        far = [i for i in group if abs(off[i]) > max(6 * scale, LEAST_BY_RATE)]
        rest = [i for i in group if i not in far]
        if not far or len(far) > len(group) // 3 or len(rest) < 2:
            continue
        usual = float(np.median(rate[rest]))
        fixed = float(np.median(time[rest] - calls[rest] / usual))
        for i in far:
            whole = float(time[i]) / (fixed + float(calls[i]) / usual) - 1
            if fixed <= 0 or abs(whole - off[i]) > max(ONE_FACTOR, 0.3 * abs(off[i])):
                continue
            word = "slow" if off[i] > 0 else "quick"
            findings.append(
                Finding(
                    CHECK,
                    "likely",
                    0.5,
                    f"{rows.label(table, i)} is {abs(whole) * 100:.1f} % {word} as a whole and "
                    f"{abs(off[i]) * 100:.1f} % in its it/s, against the same arm in "
                    f"{rows.places(table, rest)}: one factor in all its parts is another state of "
                    "the card, not other work.",
                    (i,),
                    f"{figure(usual)} it/s ÷ {figure(float(rate[i]))} it/s = {1 + off[i]:.4g}; "
                    f"{figure(float(time[i]), 's')} ÷ ({figure(fixed)} + {calls[i]:g} ÷ "
                    f"{figure(usual)}) s = {1 + whole:.4g}",
                    SETTLE,
                )
            )
    return findings


def _repeats(table: Table, judged: set[int]) -> list[Finding]:
    """Rows that repeat one another, and one of them that is off."""
    time = table.values("e2e_s") if table.has("e2e_s") else table.values("mean_s")
    rate = table.values("it_per_s")
    findings = []
    names = (*NETWORK, "steps", "strength", "name")
    with np.errstate(invalid="ignore"):
        usable = [i for i in np.flatnonzero(time > 0).tolist() if i not in judged]
    for group in rows.groups(table, names, usable):
        if len(group) < 4 or table.counted:
            continue
        values = time[group]
        middle = float(np.median(values))
        off = values / middle - 1
        spread = 1.4826 * float(np.median(np.abs(off)))
        # Eight robust deviations: rounds of one cell scatter more than calls within one.
        far = np.abs(off) > max(8 * spread, 0.08)
        if far.sum() > len(group) // 3:
            continue
        for k in np.flatnonzero(far).tolist():
            i = group[k]
            part = ""
            if rate[i] > 0:
                slower = float(np.median(rate[group])) / float(rate[i]) - 1
                if abs(slower - off[k]) < ONE_FACTOR:
                    part = ", its it/s by the same factor"
            findings.append(
                Finding(
                    CHECK,
                    "likely",
                    0.5,
                    f"{rows.label(table, i)} is {abs(off[k]) * 100:.1f} % "
                    f"{'slower' if off[k] > 0 else 'quicker'} than {len(group) - 1} rows like "
                    f"it{part}.",
                    (i,),
                    f"{figure(values[k])} s ÷ {figure(middle)} s = {1 + off[k]:.4g}",
                    SETTLE,
                )
            )
    return findings
