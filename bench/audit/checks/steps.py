"""Implied steps and implied fixed cost: end-to-end = fixed + n ÷ (it/s).

For a row's claimed n the fixed cost follows: what it takes apart from the loop (text encoder, VAE,
pictures). It cannot be negative, and rows of one network and size share it but for what a backend
saves there. So a wrong n shows itself three ways: a fixed cost below zero; a row whose fixed cost
is unlike its peers'; and a whole network whose fixed cost is larger than its loop and grows in step
with the time of a step, which is what steps do and fixed costs do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.audit import rows
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Floats, Table
from bench.stats.special import student_t_quantile

CHECK = "implied-steps"
FIXED = "fixed-cost"

RELATIVE_NOISE = 0.015
"""What a time and a rate of one call scatter, where the table does not show it."""
PRIOR_ROWS = 4
FALSE_FINDING = 1e-3
RATE_SLACK = 0.08
"""By how much a rate may miss the mean rate of the loop: 4 standard deviations of 1.4 % in each of
time and rate."""
TYPICAL_EQUIVALENTS = 2.5
"""Fixed cost in steps: 1.2 to 6.4 over the 30 rows of reports/reference/onediff_t2i_i2i.csv whose
claimed steps fit, 2.5 in the middle."""
LARGE_EQUIVALENTS = 6.4
BACKEND_SAVES = 0.2
"""Share of the fixed cost that a backend's arms may differ by (one standard deviation)."""
LARGEST_N = 1000
DEFAULT_STRENGTHS = {"xl": 0.3, "": 0.8}
"""Strength that diffusers' image-to-image pipelines take when none is given, by network class."""


@dataclass(slots=True)
class Rows:
    """The rows that have a time T, a rate r and claimed steps c, each (n,)."""

    at: list[int]
    time: Floats
    time_half: Floats
    rate: Floats
    rate_half: Floats
    claimed: Floats

    def fixed(self, n: Floats | float) -> Floats:
        return np.asarray(self.time - n / self.rate)

    def take(self, chosen: Sequence[int]) -> Rows:
        k = list(chosen)
        return Rows(
            [self.at[i] for i in k], self.time[k], self.time_half[k], self.rate[k],
            self.rate_half[k], self.claimed[k],
        )  # fmt: skip


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return what claimed steps, times and rates say against each other."""
    known = _known(table)
    if not known.at:
        return [], []
    if _rate_is_derived(known):
        return _derived(table, known)
    findings, notes = _impossible(table, known)
    judged = {i for finding in findings for i in finding.rows}
    if table.counted:
        return findings, notes
    networks = _networks(table, known, judged)
    findings += networks
    judged |= {i for finding in networks for i in finding.rows}
    for finding in _by_default_strength(table, known, networks, judged):
        findings.append(finding)
        judged |= set(finding.rows)
    for finding in _single(table, known, judged):
        findings.append(finding)
        judged |= set(finding.rows)
    notes += _agreeing(table, known, judged)
    return findings, notes


def _known(table: Table) -> Rows:
    time, rate = table.values("e2e_s"), table.values("it_per_s")
    half, rate_half = table.half("e2e_s"), table.half("it_per_s")
    step = table.values("step_s")
    with np.errstate(all="ignore"):
        by_step = ~(rate > 0) & (step > 0)
        rate = np.where(by_step, 1 / step, rate)
        rate_half = np.where(by_step, table.half("step_s") / step**2, rate_half)
    claimed = table.values("denoiser_calls" if table.counted else "steps")
    if not table.has("steps"):
        claimed = table.values("steps_effective")
    at = [
        i for i in range(len(table)) if time[i] > 0 and rate[i] > 0 and claimed[i] >= 1
        and rate_half[i] < 0.2 * rate[i]
    ]  # fmt: skip
    return Rows(at, time[at], half[at], rate[at], rate_half[at], claimed[at])


def _meanings(table: Table, known: Rows, k: int) -> list[float]:
    found = rows.calls_candidates(table, known.at[k]) or [float(known.claimed[k])]
    time, rate = float(known.time[k]), float(known.rate[k])
    return sorted(found, key=lambda n: (time * rate < n, abs(time * rate - n)))


def _rate_is_derived(known: Rows) -> bool:
    """Whether most rates are steps ÷ end-to-end time within rounding, so that they say nothing."""
    if len(known.at) < 2:
        return False
    return float(np.mean(_is_product(known))) > 0.6


def _is_product(known: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    implied = known.time * known.rate
    slack = known.time * known.rate_half + known.rate * known.time_half + 1e-3 * implied
    return np.asarray(np.abs(implied - known.claimed) <= slack)


def _derived(table: Table, known: Rows) -> tuple[list[Finding], list[Note]]:
    same = _is_product(known)
    findings = []
    for k in np.flatnonzero(~same):
        i = known.at[k]
        time, rate, claimed = float(known.time[k]), float(known.rate[k]), float(known.claimed[k])
        implied = time * rate
        if any(abs(n - implied) <= 0.02 * implied for n in rows.calls_candidates(table, i)):
            continue
        if abs(implied / claimed - 1) < 0.02:
            continue
        findings.append(
            Finding(
                CHECK,
                "likely",
                min(1.0, abs(math.log2(implied / claimed)) + 0.3),
                f"The rate of {rows.label(table, i)} is not its {claimed:g} steps ÷ its time, "
                "as it "
                f"is in the other rows; {implied:.3g} steps would fit.",
                (i,),
                f"{figure(time, 's')} × {figure(rate, 'it/s')} = {implied:.4g} steps, not "
                f"{claimed:g}",
                "the number of denoiser calls of this row, or its time and rate measured again",
            )
        )
    note = Note(
        CHECK,
        "it/s is steps ÷ end-to-end time here, not the rate of the loop, so fixed cost and the "
        "steps "
        "that really ran cannot be told from it.",
    )
    return findings, [note]


def _impossible(table: Table, known: Rows) -> tuple[list[Finding], list[Note]]:
    """Rows whose claimed steps alone take longer than the whole call."""
    found: list[tuple[int, float, float]] = []
    notes = []
    most = (known.time + known.time_half) * (known.rate + known.rate_half)
    # The claim is one of its own meanings: where it fits, nothing is impossible.
    for k in np.flatnonzero(known.claimed - 1 > most * (1 + RATE_SLACK)).tolist():
        i, high = known.at[k], float(most[k])
        meanings = _meanings(table, known, k)
        # A rate is taken between callbacks, so the first step may be outside it.
        if all(n - 1 > high * (1 + RATE_SLACK) for n in meanings):
            found.append((i, float(known.claimed[k]), high))
        else:
            notes.append((i, float(known.claimed[k]), meanings[0]))
    findings = []
    for i, claimed, high in found:
        time, rate = _pair_of(known, i)
        findings.append(
            Finding(
                CHECK,
                "certain" if claimed - 1 > 1.2 * high else "likely",
                1.0,
                f"{rows.label(table, i)} cannot have run {claimed:g} steps: at its own rate they "
                f"take longer than the whole call. At most {math.floor(high):d} fit.",
                (i,),
                f"fixed = {figure(time)} − {claimed:g} ÷ {figure(rate)} = "
                f"{figure(time - claimed / rate, 's')}, below zero",
                "the number of denoiser calls (a hook on the denoiser), and for image-to-image the "
                "strength",
            )
        )
    told = [
        Note(
            "effective-steps",
            f"Of {claimed:g} steps asked for, {ran:g} ran (steps × strength, or the "
            "scheduler's own "
            f"count), which its time confirms.",
            (i,),
        )
        for i, claimed, ran in notes
    ]
    return findings, told


def _pair_of(known: Rows, i: int) -> tuple[float, float]:
    k = known.at.index(i)
    return float(known.time[k]), float(known.rate[k])


def _sizes_of(table: Table) -> list[tuple[str, ...]]:
    names = ("gpu", "dtype", "batch", "height", "width")
    return list(zip(*(rows.field(table, name) for name in names), strict=True))


# ---- a whole network ----


def _networks(table: Table, known: Rows, judged: set[int]) -> list[Finding]:
    """Networks whose rows all have a fixed cost larger than the loop, growing with a step."""
    sizes = _sizes_of(table)
    where = {i: k for k, i in enumerate(known.at)}
    names = ("session", "gpu", "model", "task", "dtype", "batch", "strength", "scheduler", "steps")
    findings = []
    suspects: list[tuple[list[int], list[int]]] = []
    for group in rows.groups(table, names, [i for i in known.at if i not in judged]):
        chosen = [where[i] for i in group]
        if len(chosen) >= 2 and _outgrown(table, known, chosen):
            suspects.append((group, chosen))
    accused = {i for group, _ in suspects for i in group} | judged
    for group, chosen in suspects:
        finding = _network(table, known, group, chosen, accused, sizes)
        if finding is not None:
            findings.append(finding)
    return findings


def _outgrown(table: Table, known: Rows, chosen: list[int]) -> bool:
    """Whether, whatever the claim means, more of each call is outside the loop than within."""
    for k in chosen:
        n = max(_meanings(table, known, k))
        equivalents = float(known.time[k] * known.rate[k]) - n
        if equivalents < max(0.8 * n, LARGE_EQUIVALENTS):
            return False
    return True


def _same_size_pairs(
    known: Rows, chosen: list[int], sizes: list[tuple[str, ...]]
) -> list[tuple[int, int]]:
    """Pairs of one size whose steps take unlike long: of those n can be told."""
    found = []
    for place, a in enumerate(chosen[:60]):
        for b in chosen[place + 1 : 60]:
            if sizes[known.at[a]] == sizes[known.at[b]]:
                ratio = float(known.rate[a] / known.rate[b])
                if max(ratio, 1 / ratio) > 1.1:
                    found.append((a, b))
    return found


def _disagreement(known: Rows, pairs: list[tuple[int, int]], n: float, saves: float) -> float:
    """Return the root mean square difference of fixed costs over the pairs, in its noise."""
    squares = []
    for a, b in pairs:
        fixed = [float(known.time[k] - n / known.rate[k]) for k in (a, b)]
        noise = math.hypot(
            RELATIVE_NOISE * math.hypot(float(known.time[a]), float(known.time[b])),
            saves * max(min(abs(fixed[0]), abs(fixed[1])), 0.0),
        )
        squares.append(((fixed[0] - fixed[1]) / noise) ** 2)
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan


def _network(
    table: Table,
    known: Rows,
    group: list[int],
    chosen: list[int],
    accused: set[int],
    sizes: list[tuple[str, ...]],
) -> Finding | None:
    claimed = float(known.claimed[chosen[0]])
    pairs = _same_size_pairs(known, chosen, sizes)
    outside = [
        k
        for k, i in enumerate(known.at)
        if i not in accused and any(sizes[i][3:] == sizes[j][3:] for j in group)
    ]
    usual = [float(known.time[k] * known.rate[k] - known.claimed[k]) for k in outside]
    usual = [x for x in usual if x > 0.2]
    typical = float(np.median(usual)) if len(usual) >= 3 else TYPICAL_EQUIVALENTS
    scores = _scores(known, chosen, pairs, typical)
    if not scores:
        return None
    best = min(scores, key=lambda n: scores[n])
    if abs(best - claimed) < 2:
        return None
    before = _disagreement(known, pairs, claimed, 0.0)
    after = _disagreement(known, pairs, float(best), 0.0)
    by_pairs = bool(pairs) and before > 4 and after < before / 2.5
    far = typical and len(usual) >= 3 and all(
        float(known.time[k] * known.rate[k]) - claimed > 4 * typical for k in chosen
    )  # fmt: skip
    spread = float(known.rate[chosen].max() / known.rate[chosen].min())
    equivalents = known.time[chosen] * known.rate[chosen] - claimed
    in_step = spread > 1.5 and float(np.std(equivalents) / np.mean(equivalents)) < 0.15
    if not (by_pairs or (far and in_step)):
        return None
    fitting = sorted(n for n, score in scores.items() if score <= scores[best] + 1.0)
    others = f" ({fitting[0]} to {fitting[-1]} fit within noise)" if len(fitting) > 1 else ""
    first = max(chosen, key=lambda k: float(known.time[k]))
    time, rate = float(known.time[first]), float(known.rate[first])
    fixed_claimed = known.fixed(claimed)[chosen]
    fixed_best = known.fixed(float(best))[chosen]
    sure = "certain" if by_pairs and len(chosen) >= 3 and before > 6 else "likely"
    return Finding(
        CHECK,
        sure,  # type: ignore[arg-type]
        1.0,
        f"{rows.places(table, group).capitalize()} ({_name(table, group)}) cannot have run "
        f"{claimed:g} steps; {best} fits{others}.",
        tuple(group),
        f"fixed = time − n ÷ (it/s): with {claimed:g} it is {_range(fixed_claimed)} s, more "
        "than the "
        f"loop itself and growing with the time of a step ({figure(time)} − {claimed:g} ÷ "
        f"{figure(rate)} = {figure(time - claimed / rate)}); with {best} it is "
        f"{_range(fixed_best)} s ({figure(time)} − {best} ÷ {figure(rate)} = "
        f"{figure(time - best / rate)})",
        "the number of denoiser calls of one call, or the command line that was really run",
    )


def _scores(
    known: Rows, chosen: list[int], pairs: list[tuple[int, int]], typical: float
) -> dict[int, float]:
    """Return how badly each whole n fits: disagreement of pairs, and an unusual fixed cost."""
    high = float(np.min(known.time[chosen] * known.rate[chosen]))
    scores = {}
    for n in range(1, min(int(high), LARGEST_N) + 1):
        left = np.maximum(known.time[chosen] * known.rate[chosen] - n, 0.05)
        unusual = float(np.mean((np.log(left / typical) / 0.7) ** 2)) / 2
        apart = (
            _disagreement(known, pairs, n, BACKEND_SAVES) ** 2 * len(pairs) / 2 if pairs else 0.0
        )
        # People type round numbers.
        scores[n] = apart + unusual + (0.0 if n % 5 == 0 else 0.35)
    return scores


def _by_default_strength(
    table: Table, known: Rows, networks: Sequence[Finding], judged: set[int]
) -> list[Finding]:
    """Image-to-image rows beside a network that ran other steps than claimed.

    If the session's other script ran its default N in place of the claim, this one probably did
    too, and then took int(N × default strength) of it.
    """
    findings = []
    where = {i: k for k, i in enumerate(known.at)}
    sizes = _sizes_of(table)
    tasks, sessions = table.text("task"), table.text("session")
    ran: dict[str, int] = {}
    for network in networks:
        if network.sure == "certain":
            ran[sessions[network.rows[0]]] = _best_n(known, network, sizes)
    for group in rows.groups(table, ("session", "model", "steps", "strength"), known.at):
        group = [i for i in group if i not in judged and _is_image_to_image(tasks[i])]
        session = sessions[group[0]] if group else ""
        if len(group) < 2 or session not in ran or rows.field(table, "strength")[group[0]]:
            continue
        chosen = [where[i] for i in group]
        claimed = float(known.claimed[chosen[0]])
        model = table.text("model")[group[0]]
        strength = DEFAULT_STRENGTHS["xl" if "xl" in model.lower() else ""]
        ran_n = rows.effective_steps(ran[session], strength)
        pairs = _same_size_pairs(known, chosen, sizes)
        if ran_n == claimed or not pairs or (known.fixed(ran_n)[chosen] <= 0).any():
            continue
        before = _disagreement(known, pairs, claimed, 0.0)
        after = _disagreement(known, pairs, ran_n, 0.0)
        if after > 0.75 * before or before < 1:
            continue
        gaps = [abs(float(known.fixed(n)[a] - known.fixed(n)[b]))
                for n in (claimed, ran_n) for a, b in pairs]  # fmt: skip
        half = len(pairs)
        findings.append(
            Finding(
                CHECK,
                "likely",
                0.5,
                f"{rows.places(table, group).capitalize()} ({_name(table, group)}) fit {ran_n:g} "
                f"steps better than {claimed:g}: {ran[session]} × {strength:g}, the pipeline's own "
                f"strength, as other rows of this table ran {ran[session]}.",
                tuple(group),
                "fixed costs of the two arms at one size differ by "
                f"{_range(np.array(gaps[:half]))} "
                f"s with n = {claimed:g}, and by {_range(np.array(gaps[half:]))} s with n = "
                f"{ran_n:g}",
                "the strength and the steps of the command line, or the number of denoiser calls",
            )
        )
    return findings


def _best_n(known: Rows, finding: Finding, sizes: list[tuple[str, ...]]) -> int:
    where = {i: k for k, i in enumerate(known.at)}
    chosen = [where[i] for i in finding.rows]
    pairs = _same_size_pairs(known, chosen, sizes)
    scores = _scores(known, chosen, pairs, TYPICAL_EQUIVALENTS)
    return min(scores, key=lambda n: scores[n])


def _is_image_to_image(task: str) -> bool:
    low = task.lower()
    return "i2i" in low or "img2img" in low or ("image" in low and low.count("image") >= 2)


# ---- single rows ----


def _single(table: Table, known: Rows, judged: set[int]) -> list[Finding]:
    """Rows whose fixed cost is unlike that of their peers: same network and size."""
    sizes = _sizes_of(table)
    where = {i: k for k, i in enumerate(known.at)}
    models = table.text("model")
    peers: dict[tuple[str, ...], list[int]] = {}
    by_size: dict[tuple[str, ...], list[int]] = {}
    for i in known.at:
        if i not in judged:
            peers.setdefault((models[i], *sizes[i]), []).append(where[i])
            by_size.setdefault(sizes[i], []).append(where[i])
    meant = _nearest(table, known)
    fixed = known.fixed(meant)
    noise = np.hypot(known.time_half, meant / known.rate**2 * known.rate_half)
    groups = [group for group in peers.values() if len(group) >= 3]
    for group in groups:
        # Of a claim's meanings, the one that agrees with the row's peers.
        middle = float(np.median(fixed[group]))
        for k in group:
            found = rows.calls_candidates(table, known.at[k])
            if len(found) < 2:
                continue
            left = [float(known.time[k]) - n / float(known.rate[k]) for n in found]
            if left:
                fixed[k] = left[int(np.argmin(np.abs(np.array(left) - middle)))]
    scale, freedom = _scale(known, fixed, groups)
    tested = sum(len(group) for group in groups)
    reach = scale * student_t_quantile(FALSE_FINDING / max(tested, 1), freedom)
    findings = []
    for group in groups:
        reference = _reference(known, fixed, group)
        off = (fixed[group] - reference) / known.time[group]
        limit = reach + 2 * noise[group] / known.time[group]
        odd = [place for place in range(len(group)) if abs(off[place]) > limit[place]]
        if not odd or len(odd) > len(group) // 3:
            continue
        # Those left must agree far better than the odd one does, else nobody knows which is wrong.
        rest = float(np.max(np.abs(np.delete(off, odd))))
        for place in odd:
            if abs(off[place]) < 2 * rest:
                continue
            finding = _odd_row(table, known, group[place], float(reference[place]), group)
            findings += [] if finding is None else [finding]
    for group in peers.values():
        finding = _odd_pair(table, known, group, fixed, by_size, sizes)
        findings += [] if finding is None else [finding]
    return findings


def _reference(known: Rows, fixed: Floats, group: list[int]) -> Floats:
    """Return the fixed cost that each row of a group should have.

    The group's middle in seconds or, where that suits a row better, in steps: a backend may speed
    up the rest as much as the loop.
    """
    seconds = np.full(len(group), float(np.median(fixed[group])))
    steps = float(np.median(fixed[group] * known.rate[group])) / known.rate[group]
    nearer = np.abs(fixed[group] - steps) < np.abs(fixed[group] - seconds)
    return np.asarray(np.where(nearer & (steps > 0), steps, seconds))


def _nearest(table: Table, known: Rows) -> Floats:
    """Return what each row's claim means, (n,): of its meanings the one that leaves the usual."""
    loop = known.time * known.rate
    meant = known.claimed.copy()
    own = rows.kinds(table, rows.CLAIM)[known.at]
    for kind in np.unique(own).tolist():
        chosen = np.flatnonzero(own == kind)
        found = np.array(rows.calls_candidates(table, known.at[int(chosen[0])]))
        if not len(found):
            continue
        left = loop[chosen, None] - found[None, :]
        fits = found[None, :] <= loop[chosen, None] * 1.02
        unusual = np.abs(np.log(np.maximum(left, 0.05) / TYPICAL_EQUIVALENTS))
        best = np.argmin(np.where(fits, unusual, np.inf), axis=1)
        some = fits.any(axis=1)
        meant[chosen[some]] = found[best[some]]
    return meant


def _scale(known: Rows, fixed: Floats, groups: list[list[int]]) -> tuple[float, float]:
    """Return the table's own scatter of fixed costs relative to times, and its degrees of freedom.

    By differences within groups, so that it needs no middle; robust, so that an odd row does not
    hide itself; pooled with what single calls commonly scatter.
    """
    every = [k for group in groups for k in group]
    if len(every) < 3:
        return RELATIVE_NOISE, float(PRIOR_ROWS)
    off = {
        k: abs(float(fixed[k] - at)) / float(known.time[k])
        for group in groups
        for k, at in zip(group, _reference(known, fixed, group), strict=True)
    }
    # In a small table half of all differences are with the one odd row.
    worst = max(every, key=lambda k: off[k])
    apart = [
        abs(float(fixed[a] - fixed[b])) / math.hypot(float(known.time[a]), float(known.time[b]))
        for group in groups
        for place, a in enumerate(group[:40])
        for b in group[place + 1 : 40]
        if worst not in (a, b)
    ]
    prior = RELATIVE_NOISE
    if len(apart) < 3:
        return prior, float(PRIOR_ROWS)
    robust = 1.4826 * float(np.median(apart))
    freedom = sum(len(group) - 1 for group in groups)
    pooled = math.sqrt((PRIOR_ROWS * prior**2 + freedom * robust**2) / (PRIOR_ROWS + freedom))
    # A median knows a scale about half as well as squares do.
    return pooled, PRIOR_ROWS + freedom / 2


def _odd_row(
    table: Table, known: Rows, k: int, reference: float, group: list[int]
) -> Finding | None:
    i = known.at[k]
    time, rate, claimed = float(known.time[k]), float(known.rate[k]), float(known.claimed[k])
    implied = (time - reference) * rate
    fixed = time - claimed / rate
    if implied < 0.5 or abs(implied - claimed) < 0.6:
        return None
    meanings = rows.calls_candidates(table, i)
    # Time and rate scatter by a few per cent of the loop; and where claims have several meanings,
    # the peers' may have been taken one step off.
    several = any(len(rows.calls_candidates(table, known.at[j])) > 1 for j in group)
    if any(abs(implied - n) < max(0.06 * n, 1.5 * several) for n in meanings):
        return None
    ran = min(meanings, key=lambda n: abs(n - implied), default=claimed)
    told = f"{claimed:g} steps" + (f", of which {ran:g} should have run" if ran < claimed else "")
    n = max(1, round(implied))
    whole = abs(implied - n) < 0.25
    arithmetic = (
        f"fixed = {figure(time)} − {claimed:g} ÷ {figure(rate)} = {figure(fixed, 's')} against "
        f"{figure(reference, 's')} of {len(group) - 1} like rows; ({figure(time)} − "
        f"{figure(reference)}) × {figure(rate)} = {implied:.3g}"
    )
    if whole or abs(implied - claimed) >= 2:
        return Finding(
            CHECK,
            "likely",
            min(1.0, 0.5 + abs(math.log2(implied / claimed)) / 2),
            f"{rows.label(table, i)} does not fit {told}: its fixed cost is unlike that "
            f"of the other rows of this network and size; {n} steps fit.",
            (i,),
            arithmetic,
            "the number of denoiser calls of this row; if it is as claimed, its time is disturbed",
        )
    return Finding(
        FIXED,
        "likely",
        0.4,
        f"The fixed cost of {rows.label(table, i)} is unlike that of the other rows of this "
        "network "
        "and size, and no whole number of steps mends it.",
        (i,),
        arithmetic,
        "this row measured again, several times",
    )


def _odd_pair(
    table: Table,
    known: Rows,
    group: list[int],
    fixed: Floats,
    by_size: dict[tuple[str, ...], list[int]],
    sizes: list[tuple[str, ...]],
) -> Finding | None:
    """Two rows of a network at a size: one of them, where their fixed costs differ grossly.

    By three times, and by four steps and a third of the claim: a backend's savings have not been
    seen to go so far. The one that is less like the other networks' rows of this size, or less like
    a usual fixed cost, is named.
    """
    if len(group) != 2:
        return None
    low, high = sorted(float(fixed[k]) for k in group)
    if high < 3 * low:
        return None
    others = [k for k in by_size[sizes[known.at[group[0]]]] if k not in group and fixed[k] > 0]
    usual = float(np.median(fixed[others])) if len(others) >= 2 else None

    def strange(k: int) -> float:
        expected = TYPICAL_EQUIVALENTS / float(known.rate[k]) if usual is None else usual
        return abs(math.log(max(float(fixed[k]), 0.02 * expected) / expected))

    odd, other = sorted(group, key=strange, reverse=True)
    claimed = float(known.claimed[odd])
    if (high - low) * float(known.rate[odd]) < max(4.0, 0.35 * claimed):
        return None
    finding = _odd_row(table, known, odd, max(float(fixed[other]), 0.0), group)
    return finding if finding is not None and finding.check == CHECK else None


# ---- notes ----


def _agreeing(table: Table, known: Rows, judged: set[int]) -> list[Note]:
    notes = []
    where = {i: k for k, i in enumerate(known.at)}
    nearest = _nearest(table, known)
    left = known.fixed(nearest)
    for group in rows.groups(table, ("session", "model", "task", "steps"), known.at)[:40]:
        group = [i for i in group if i not in judged]
        if not group:
            continue
        chosen = [where[i] for i in group]
        meant, fixed = nearest[chosen], left[chosen]
        if (fixed <= 0).any():
            continue
        told = f"{meant[0]:g}" if len(set(meant.tolist())) == 1 else "the claimed numbers of"
        notes.append(
            Note(
                FIXED,
                f"{told} steps fit {rows.places(table, group)} ({_name(table, group)}): fixed cost "
                f"{_range(fixed)} s.",
                tuple(group),
            )
        )
    return notes


def _name(table: Table, group: Sequence[int]) -> str:
    first = group[0]
    model = table.text("model")[first].rstrip("/").rpartition("/")[2]
    parts = [table.text("session")[first], model, table.text("task")[first]]
    return ", ".join(part for part in parts if part) or "one network"


def _range(values: Floats) -> str:
    low, high = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
    return low if low == high else f"{low} to {high}"
