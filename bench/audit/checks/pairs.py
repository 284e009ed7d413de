"""Notes on every pair of a baseline and another arm: break-even and memory; and unequal arms."""

from __future__ import annotations

import numpy as np

from bench.audit import rows
from bench.audit.build import is_baseline
from bench.audit.checks.meters import meters
from bench.audit.finding import Finding, Note
from bench.audit.rows import Pair, figure
from bench.audit.table import Table

ARMS = "unequal-arms"
BREAKEVEN = "break-even"
MEMORY = "memory-change"

_WORDS = {"gpu": "graphics card", "dtype": "data type", "steps_effective": "effective steps",
          "denoiser_calls": "calls of the denoiser", "warmups": "number of warm-up calls",
          "torch": "version of torch", "diffusers": "version of diffusers",
          "cuda": "version of CUDA", "driver": "driver version", "batch": "batch size",
          "version": "software version", "scope": "compiled scope"}  # fmt: skip
_WORST = {"steps", "steps_effective", "denoiser_calls", "gpu", "dtype", "batch", "scheduler",
          "guidance", "strength"}  # fmt: skip


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return unequal arms, and for each pair when warm-up pays and what memory it costs."""
    pairs = rows.pairs(table)
    notes = []
    for pair in pairs:
        notes += _breakeven(table, pair)
    found = meters(table)
    for pair in pairs:
        notes += _memory(table, pair, found)
    return [*_unequal(table, pairs), *_scopes(table)], notes


def _breakeven(table: Table, pair: Pair) -> list[Note]:
    time = table.values("e2e_s")
    start = next(
        (
            values
            for name in ("first_call_s", "warmup_s", "compile_s")
            if np.isfinite((values := table.values(name))[pair.other])
        ),
        None,
    )
    base, other = float(time[pair.base]), float(time[pair.other])
    if start is None or not (base > 0 and other > 0):
        return []
    before = float(start[pair.base])
    extra = float(start[pair.other]) - (before if before == before else 0.0)
    name = rows.label(table, pair.other)
    members = (pair.base, pair.other)
    half = float(table.half("e2e_s")[pair.base] + table.half("e2e_s")[pair.other])
    ratio = f"{base / other:.3g}× the baseline's speed"
    if base - other <= half:
        return [
            Note(BREAKEVEN, f"{name}: {ratio}; it saves nothing per image, so its warm-up never "
                 "pays.", members)
        ]  # fmt: skip
    if extra <= 0:
        return [Note(BREAKEVEN, f"{name}: {ratio}; it pays from the first image on.", members)]
    images = extra / (base - other)
    return [
        Note(
            BREAKEVEN,
            f"{name}: {ratio}; warm-up pays after {images:,.0f} images, {_span(images * base)} of "
            f"the baseline's work ({figure(extra, 's')} ÷ {figure(base - other, 's')} saved an "
            "image).",
            members,
        )
    ]


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _memory(table: Table, pair: Pair, found: list[str]) -> list[Note]:
    peak = table.values("peak_bytes")
    base, other = float(peak[pair.base]), float(peak[pair.other])
    meters_differ = found[pair.base] and found[pair.other] and found[pair.base] != found[pair.other]
    if not (base > 0 and other > 0) or meters_differ:
        return []
    return [
        Note(
            MEMORY,
            f"{rows.label(table, pair.other)}: peak memory {100 * (other / base - 1):+.1f} % "
            f"({figure(base / 1024**3)} → {figure(other / 1024**3)} GiB).",
            (pair.base, pair.other),
        )
    ]


def _unequal(table: Table, pairs: list[Pair]) -> list[Finding]:
    by_difference: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        if table.text("session")[pair.base] != table.text("session")[pair.other]:
            continue
        arm = f"{table.text('backend')[pair.other]} {table.text('name')[pair.other]}".lower()
        named = [
            name
            for name in pair.differs
            # The arm may be just that: "fp16", "Euler 20 steps".
            if not _says(arm, rows.field(table, name)[pair.other])
        ]
        named = _without_followers(named)
        if named:
            by_difference.setdefault(tuple(named), []).append(pair)
    findings = []
    for names, unlike in by_difference.items():
        first = unlike[0]
        told = "; ".join(
            f"{_WORDS.get(name, name)}: {_stated(table, name, first.base)} in the baseline, "
            f"{_stated(table, name, first.other)} in {table.text('backend')[first.other]}"
            for name in names
        )
        findings.append(
            Finding(
                ARMS,
                "certain",
                0.85 if set(names) & _WORST else 0.6,
                f"{rows.places(table, [p.other for p in unlike]).capitalize()} and the baselines "
                f"beside them differ in more than the backend: "
                f"{', '.join(_WORDS.get(name, name) for name in names)}.",
                tuple(dict.fromkeys(i for p in unlike for i in (p.base, p.other))),
                f"{rows.places(table, [first.base, first.other])}: {told}",
                "both arms run with the same settings",
            )
        )
    return findings


def _without_followers(names: list[str]) -> list[str]:
    """Leave out differences that follow from another one, such as calls from steps."""
    kept = list(names)
    if "steps" in kept:
        kept = [n for n in kept if n not in ("steps_effective", "denoiser_calls")]
    if "steps_effective" in kept:
        kept = [n for n in kept if n != "denoiser_calls"]
    return kept


def _says(arm: str, value: str) -> bool:
    low = value.lower()
    short = {"float16": "fp16", "float32": "fp32", "bfloat16": "bf16"}.get(low, low)
    return bool(low) and len(short) > 1 and (low in arm or short in arm)


def _stated(table: Table, name: str, i: int) -> str:
    return rows.field(table, name)[i]


def _scopes(table: Table) -> list[Finding]:
    """Accelerated arms of one comparison that compiled different parts, or were other versions."""
    findings = []
    names = [n for n in (*rows.COMPARED, "steps", "batch", "dtype") if table.has(n)]
    arms = table.text("backend")
    accelerated = [i for i in range(len(table)) if not is_baseline(arms[i])]
    for field in ("scope", "version"):
        if not table.has(field):
            continue
        values = rows.field(table, field)
        seen: set[tuple[str, ...]] = set()
        for group in rows.groups(table, names, [i for i in accelerated if values[i]]):
            parts = rows.groups(table, ["backend"], group) if field == "version" else [group]
            for part in parts:
                kinds = tuple(dict.fromkeys(values[i] for i in part))
                told = {arms[i] + " " + table.text("name")[i] for i in part}
                if len(kinds) < 2 or kinds in seen:
                    continue
                if all(any(kind.lower() in t.lower() for t in told) for kind in kinds):
                    continue
                seen.add(kinds)
                findings.append(
                    Finding(
                        ARMS,
                        "certain",
                        0.6,
                        f"{rows.places(table, part).capitalize()} are compared with one another, "
                        f"but differ in their {_WORDS[field]}: {' and '.join(kinds)}.",
                        tuple(part),
                        "; ".join(f"{table.place} {table.lines[i]}: {values[i]}" for i in part[:4]),
                        "arms with the same scope and version, or one row for each",
                    )
                )
    return findings
