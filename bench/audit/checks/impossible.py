"""What no measurement gives: negative times, shares above 100 %, averages above peaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.audit import rows
from bench.audit.columns import QUANTITIES
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Floats, Table

CHECK = "impossible"
GIB = 1024**3
CARD = re.compile(r"(\d{1,3})\s*G(?:i?B)?\b", re.IGNORECASE)

ABOVE_ZERO = (
    "e2e_s", "it_per_s", "steps_per_s_e2e", "images_per_s", "step_s", "total_s", "first_s", "gap_s",
    "min_s", "max_s", "mean_s", "median_s", "baseline_s", "peak_bytes", "mean_bytes", "steps",
    "height", "width", "batch", "speedup",
)  # fmt: skip
NOT_NEGATIVE = (
    "warmup_s", "first_call_s", "load_s", "stddev_s", "steps_effective", "denoiser_calls", "fid",
    "lpips", "util_pct", "util_peak_pct", "mean_memory_pct", "peak_memory_pct", "samples",
    "batches",
)  # fmt: skip
AT_MOST_ONE = ("strength", "ssim", "lpips")
ORDERED = (
    ("mean_bytes", "peak_bytes"),
    ("mean_memory_pct", "peak_memory_pct"),
    ("util_pct", "util_peak_pct"),
)
LIMITS: tuple[tuple[tuple[str, ...], Callable[[Floats], Any], str], ...] = (
    (ABOVE_ZERO, lambda v: v <= 0, "is not above 0"),
    (NOT_NEGATIVE, lambda v: v < 0, "is negative"),
    (AT_MOST_ONE, lambda v: v > 1 + 1e-9, "is above 1"),
)
SETTLE = "the log that the figure was read from"


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return figures outside what their quantity can be."""
    findings: list[Finding] = []
    for names, bad, word in LIMITS:
        for name in names:
            values = table.values(name)
            with np.errstate(invalid="ignore"):
                at = np.flatnonzero(bad(values)).tolist()
            if at and name == "lpips" and word == "is above 1" and values[at].max() < 2:
                continue
            findings += _out(table, name, at, word)
    for name in ("util_pct", "util_peak_pct", "mean_memory_pct", "peak_memory_pct"):
        with np.errstate(invalid="ignore"):
            at = np.flatnonzero(table.values(name) > 100 + table.half(name)).tolist()
        findings += _out(table, name, at, "is above 100 %")
    for low, high in ORDERED:
        findings += _ordered(table, low, high)
    findings += _larger_than_card(table)
    findings += _throughput(table)
    return findings, []


def _out(table: Table, name: str, at: Sequence[int], word: str) -> list[Finding]:
    if not at:
        return []
    values = [_shown(table, name, i) for i in at[:4]]
    return [
        Finding(
            CHECK,
            "certain",
            0.9,
            f"{QUANTITIES[name][1].capitalize()} ({table.header(name)!r}) {word} in "
            f"{rows.places(table, at)}.",
            tuple(at),
            f"stated {', '.join(values)}",
            SETTLE,
        )
    ]


def _shown(table: Table, name: str, i: int) -> str:
    column = table.numbers[name]
    return f"{column.values[i] / column.scale:g} {column.unit}".strip()


def _ordered(table: Table, low: str, high: str) -> list[Finding]:
    mean, peak = table.values(low), table.values(high)
    with np.errstate(invalid="ignore"):
        slack = table.half(low) + table.half(high) + 1e-9 * np.abs(peak)
        at = np.flatnonzero(mean > peak + slack).tolist()
    return [
        Finding(
            CHECK,
            "certain",
            0.8,
            f"The {QUANTITIES[low][1]} of {rows.label(table, i)} is above the "
            f"{QUANTITIES[high][1]}.",
            (i,),
            f"{_shown(table, low, i)} > {_shown(table, high, i)}",
            SETTLE,
        )
        for i in at
    ]


def capacity(table: Table) -> Floats:
    """Return the memory of each row's card in bytes, as stated or by its name; NaN if unknown."""
    stated = table.values("capacity_bytes")
    named = np.array(
        [
            float(found[1]) * GIB if (found := CARD.search(gpu)) else np.nan
            for gpu in table.text("gpu")
        ]
    )
    if not len(named):
        return stated
    return np.asarray(np.where(np.isfinite(stated), stated, named))


def _larger_than_card(table: Table) -> list[Finding]:
    card = capacity(table)
    peak = table.values("peak_bytes")
    with np.errstate(invalid="ignore"):
        over = np.flatnonzero(peak > card * 1.01 + table.half("peak_bytes")).tolist()
    return [
        Finding(
            CHECK,
            "likely",
            0.8,
            f"Peak memory of {rows.label(table, i)} is more than its card holds.",
            (i,),
            f"{figure(peak[i] / GIB)} GiB on {table.text('gpu')[i] or 'the card'} of "
            f"{figure(card[i] / GIB)} GiB",
            "the meter, and whether it counts several processes or host memory",
        )
        for i in over
    ]


def _throughput(table: Table) -> list[Finding]:
    """Pictures per second that are not batch ÷ time."""
    rate, time = table.values("images_per_s"), table.values("e2e_s")
    batch = table.values("batch")
    if not table.has("images_per_s", "e2e_s"):
        return []
    batch = np.where(np.isfinite(batch), batch, 1.0)
    with np.errstate(all="ignore"):
        implied = batch / time
        slack = implied * (table.half("e2e_s") / time) + table.half("images_per_s")
        off = np.abs(rate - implied) > slack + 0.05 * implied
        # A table that never fits counts something else.
        known = np.isfinite(rate) & np.isfinite(implied)
    if not known.any() or off[known].mean() > 0.5:
        return []
    return [
        Finding(
            CHECK,
            "likely",
            0.6,
            f"The pictures per second of {rows.label(table, i)} are not its batch ÷ its time, "
            "as in "
            "the other rows.",
            (i,),
            f"{batch[i]:g} ÷ {figure(time[i], 's')} = {figure(implied[i])}, stated "
            f"{figure(rate[i])}",
            "the time of this row",
        )
        for i in np.flatnonzero(off & known).tolist()
    ]
