"""Effective steps: what strength and scheduler make of the steps asked for."""

from __future__ import annotations

import numpy as np

from bench.audit import rows
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Table

CHECK = "effective-steps"
STRIDING = ("ddim", "plms")
"""Samplers of LDM's scripts, whose default list of timesteps is a uniform stride."""


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return stated effective steps that strength and scheduler contradict."""
    findings: list[Finding] = []
    notes: list[Note] = []
    steps, strength = table.values("steps"), table.values("strength")
    effective, calls = table.values("steps_effective"), table.values("denoiser_calls")
    schedulers = table.text("scheduler")
    fewer: dict[tuple[float, float, float], list[int]] = {}
    more: dict[tuple[float, float, str], list[int]] = {}
    strides: dict[tuple[float, int], list[int]] = {}
    with np.errstate(invalid="ignore"):
        known = np.flatnonzero(steps >= 1).tolist()
    for i in known:
        n = float(steps[i])
        part = float(strength[i])
        ran = rows.effective_steps(n, part) if 0 < part < 1 else n
        if part == part and 0 < part < 1 and part * n < 1:
            findings.append(_nothing(table, i, n, part))
            continue
        if effective[i] == effective[i] and not table.counted:
            findings += _stated(table, i, n, part, ran)
        if 0 < part < 1 and ran != n and not np.isfinite(effective[i]):
            fewer.setdefault((n, part, ran), []).append(i)
        if calls[i] == n and ran != n and not table.counted:
            findings.append(_all_called(table, i, n, part, ran))
        makes = rows.extra_calls(schedulers[i], ran)
        if makes != ran:
            if calls[i] == calls[i] and calls[i] == ran and not table.counted:
                findings.append(_uncounted(table, i, ran, makes))
            elif calls[i] != calls[i]:
                more.setdefault((ran, makes, schedulers[i]), []).append(i)
        stride = rows.stride_calls(n)
        if stride != n and schedulers[i].lower() in STRIDING:
            strides.setdefault((n, stride), []).append(i)
    for (n, part, ran), group in fewer.items():
        notes.append(
            Note(
                CHECK,
                f"With strength {part:g}, image-to-image takes {ran:g} of {n:g} steps (int({n:g} × "
                f"{part:g})): {rows.places(table, group)}.",
                tuple(group),
            )
        )
    for (ran, makes, scheduler), group in more.items():
        notes.append(
            Note(
                CHECK,
                f"{scheduler} calls the denoiser {makes:g} times for {ran:g} steps: "
                f"{rows.places(table, group)}.",
                tuple(group),
            )
        )
    for (n, stride), group in strides.items():
        notes.append(
            Note(
                CHECK,
                f"With a uniform stride, 1000 // {n:g} = {1000 // int(n)} visits {stride} "
                "timesteps, "
                f"not {n:g}: {rows.places(table, group)}.",
                tuple(group),
            )
        )
    findings += _by_requested(table)
    return findings, notes


def _nothing(table: Table, i: int, n: float, part: float) -> Finding:
    return Finding(
        CHECK,
        "certain",
        0.9,
        f"{rows.label(table, i)} runs no step at all: strength × steps is below 1.",
        (i,),
        f"{part:g} × {n:g} = {figure(part * n)}, int() of it 0",
        "the strength and the steps of the command line",
    )


def _stated(table: Table, i: int, n: float, part: float, ran: float) -> list[Finding]:
    stated = float(table.values("steps_effective")[i])
    scheduler = table.text("scheduler")[i]
    allowed = {ran, rows.extra_calls(scheduler, ran), float(rows.stride_calls(ran))}
    if 0 < part < 1:
        # Some pipelines round up, or drop the last timestep.
        allowed |= {float(np.ceil(n * part)), float(round(n * part))}
        allowed.add(rows.effective_steps(float(rows.stride_calls(n)), part))
    if stated in allowed:
        return []
    # Without a strength, fewer steps than asked for may have a reason of their own.
    usual = stated <= n or abs(stated - n) <= 1 or stated in (2 * n, 2 * n - 1, n + 9)
    if not 0 < part < 1 and usual:
        return []
    told = f"int({n:g} × {part:g}) = {ran:g}" if 0 < part < 1 else f"{n:g} asked for"
    return [
        Finding(
            CHECK,
            "likely",
            0.6,
            f"{rows.label(table, i)} states {stated:g} effective steps; "
            + (f"strength {part:g} leaves {ran:g} of {n:g}." if 0 < part < 1 else
               f"{n:g} were asked for."),
            (i,),
            f"{told}, stated {stated:g}",
            "the number of denoiser calls",
        )
    ]  # fmt: skip


def _uncounted(table: Table, i: int, ran: float, makes: float) -> Finding:
    scheduler = table.text("scheduler")[i]
    return Finding(
        CHECK,
        "likely",
        0.5,
        f"{rows.label(table, i)} states {ran:g} calls of the denoiser, but {scheduler} makes "
        f"{makes:g} for {ran:g} steps.",
        (i,),
        f"{scheduler}: {ran:g} steps → {makes:g} calls, stated {ran:g}",
        "a counter on the denoiser",
    )


def _all_called(table: Table, i: int, n: float, part: float, ran: float) -> Finding:
    return Finding(
        CHECK,
        "likely",
        0.6,
        f"{rows.label(table, i)} states {n:g} calls of the denoiser, as if all its steps ran; "
        f"strength {part:g} leaves {ran:g}.",
        (i,),
        f"int({n:g} × {part:g}) = {ran:g}, stated {n:g}",
        "a counter on the denoiser",
    )


def _by_requested(table: Table) -> list[Finding]:
    """Rates that count steps which strength left out."""
    rate = table.values("it_per_s")
    time, steps, strength = (table.values(n) for n in ("e2e_s", "steps", "strength"))
    with np.errstate(all="ignore"):
        usable = np.flatnonzero((rate > 0) & (time > 0) & (steps >= 1) & (strength < 1))
        whole = np.abs(time * rate - steps)[usable] < 0.01 * steps[usable]
    if not len(usable) or whole.mean() < 0.6:
        # A single row may come near by chance.
        return []
    findings = []
    for i in usable.tolist():
        n = float(steps[i])
        ran = rows.effective_steps(n, float(strength[i]))
        implied = float(time[i] * rate[i])
        slack = float(time[i] * table.half("it_per_s")[i] + rate[i] * table.half("e2e_s")[i])
        if ran < 1 or ran >= n or abs(implied - n) > slack + 1e-3 * n:
            continue
        findings.append(
            Finding(
                CHECK,
                "likely",
                min(1.0, 0.4 + (1 - ran / n)),
                f"The it/s of {rows.label(table, i)} counts {n:g} steps, of which strength "
                f"{strength[i]:g} leaves {ran:g}: it is too high by the factor {n / ran:.3g}.",
                (i,),
                f"{figure(time[i], 's')} × {figure(rate[i], 'it/s')} = {implied:.4g} "
                f"steps; int({n:g} × {strength[i]:g}) = {ran:g}; {ran:g} ÷ {figure(time[i])} s "
                f"= {figure(ran / float(time[i]), 'it/s')}",
                "the number of denoiser calls",
            )
        )
    return findings
