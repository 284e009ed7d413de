"""``--fail-on``: what is gated, and how much of a change is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.gate import GateError, decide

DEFAULTS: Mapping[str, float] = {"speed": 1.0, "memory": 2.0, "warmup": 25.0}
"""Allowed growth in per cent. Below 1 % nobody chooses one backend over another for its speed."""

NAMES = ("counts", "speed", "memory", "fidelity", "warmup")


@dataclass(frozen=True)
class Limits:
    """What is gated. Exact counts always are.

    Attributes:
        allowed_pct: growth allowed of ``speed`` (end-to-end time), ``memory`` and ``warmup``, in
            per cent; what is absent is shown and not gated.
        fidelity: whether pictures may not become visibly worse.
        asked: whether this was asked for by name; then a figure that neither side has is missing,
            where the default only gates what the baseline has.
        acknowledged: cells whose implausible improvement is accepted.
        implausible_pct: bound for improvements, in per cent.
    """

    allowed_pct: Mapping[str, float] = field(default_factory=lambda: DEFAULTS)
    fidelity: bool = True
    asked: bool = False
    acknowledged: Collection[str] = ()
    implausible_pct: float = decide.IMPLAUSIBLE_PCT


COUNTS_ALONE = Limits({}, fidelity=False, asked=True)


def parse(
    text: str | None,
    acknowledged: Collection[str] = (),
    implausible_pct: float = decide.IMPLAUSIBLE_PCT,
) -> Limits:
    """Return the limits of ``speed=3%,memory=2%,fidelity,warmup=25%``; None gives the default.

    A name without a number takes the default's. ``counts`` alone gates nothing but counts.

    Raises:
        GateError: an unknown or repeated name, or a number that is none or negative.
    """
    improvements: Any = {"acknowledged": acknowledged, "implausible_pct": implausible_pct}
    if text is None:
        return Limits(**improvements)
    allowed: dict[str, float] = {}
    seen: set[str] = set()
    for item in (part.strip() for part in text.split(",")):
        name, equals, written = (part.strip() for part in item.partition("="))
        if name not in NAMES:
            raise GateError(f"--fail-on: {item!r} is no limit; there are: {', '.join(NAMES)}.")
        if name in seen:
            raise GateError(f"--fail-on: {name} is given twice.")
        seen.add(name)
        if name not in DEFAULTS:
            if equals:
                raise GateError(f"--fail-on: {name} takes no number; write just {name}.")
            continue
        allowed[name] = _percent(name, written) if equals else DEFAULTS[name]
    return Limits(allowed, fidelity="fidelity" in seen, asked=True, **improvements)


def _percent(name: str, written: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", written)
    if match is None or not math.isfinite(float(match.group(1))):
        raise GateError(f"--fail-on: {name}={written} is no percentage; write {name}=3%.")
    return float(match.group(1))
