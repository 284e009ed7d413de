"""Figures as text. Every page and export label goes through here, so that they agree to the digit.

The rules are those of the table in the terminal: seconds with three decimals below 10, two below
100, one above; very short times keep three significant digits instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|\r(?!\n)"
)

GIB = 1024**3
DASH = "–"


def plain(text: str) -> str:
    """Return text without what a terminal obeys or what turns the order of letters about.

    Each such character becomes a replacement character; ends of lines and tabs stay.
    """
    return _CONTROL.sub("\ufffd", text)


def seconds(value: float | None) -> str:
    """Return seconds without their unit, such as ``0.845``."""
    if _missing(value):
        return DASH
    assert value is not None
    size = abs(value)
    if 0 < size < 0.01:
        return f"{value:.3g}" if size >= 1e-4 else f"{value:.2e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def number(value: float | None) -> str:
    """Return a rate or another plain number: two decimals below 100, one above."""
    if _missing(value):
        return DASH
    assert value is not None
    return f"{value:.{2 if abs(value) < 100 else 1}f}"


def in_gib(value: float | None) -> float | None:
    """Return bytes in GiB."""
    return None if value is None else value / GIB


def gib(value: float | None) -> str:
    """Return bytes as GiB without their unit."""
    return DASH if _missing(value) else f"{(value or 0) / GIB:.3f}"


def signed_gib(value: float | None) -> str:
    """Return a difference of bytes as GiB with its sign."""
    return DASH if _missing(value) else f"{(value or 0) / GIB:+.3f}"


def ratio(value: float | None) -> str:
    """Return a speedup, such as ``1.42×``; three decimals close to 1, where two say nothing.

    Below 0.1 two significant digits, and none after the point from 100 on.
    """
    if _missing(value):
        return DASH
    assert value is not None
    if value < 0.1:
        return f"{value:.2g}×"
    if value >= 100:
        return f"{value:,.0f}×"
    return f"{value:.{3 if 0.9 < value < 1.1 else 2}f}×"


def whole(value: int | None) -> str:
    """Return a whole number as it is."""
    return DASH if value is None else str(value)


def count(value: float | None) -> str:
    """Return a whole number with separators, such as ``1,496``."""
    return DASH if _missing(value) else f"{round(value or 0):,}"


def percent(value: float | None) -> str:
    """Return per cent with its sign for the unit, one decimal."""
    return DASH if _missing(value) else f"{value:.1f} %"


def with_unit(value: float, unit: str) -> str:
    """Return a figure in ``s``, ``bytes`` or another unit, such as ``0.845 s`` or ``1.250 GiB``."""
    if unit == "bytes":
        return f"{gib(value)} GiB"
    return f"{seconds(value)} s" if unit == "s" else f"{value:g}"


def signed_percent(value: float) -> str:
    """Return a change in per cent, such as ``+4.2 %``; what rounds to nothing has no sign."""
    text = f"{value:+.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def minutes(value: float | None) -> str:
    """Return minutes without their unit."""
    if _missing(value):
        return DASH
    assert value is not None
    return f"{value:.{1 if value < 100 else 0}f}"


def interval(
    low: float | None, high: float | None, show: Callable[[float | None], str] = seconds
) -> str:
    """Return ``low–high``; a dash alone if there is no interval, ``≥ low`` if it is open."""
    if _missing(low):
        return DASH
    return f"≥ {show(low)}" if _missing(high) else f"{show(low)}–{show(high)}"


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    show: Callable[[float | None], str] = seconds,
) -> str:
    """Return ``value (low–high)``, without the brackets if there is no interval."""
    if _missing(value) or _missing(low):
        return show(value)
    return f"{show(value)} ({interval(low, high, show)})"


def plural(number_: int, word: str) -> str:
    """Return ``1 call`` or ``3 calls``."""
    if number_ == 1:
        return f"1 {word}"
    ending = "es" if word.endswith(("s", "ch", "x")) else "s"
    return f"{number_:,} {word}{ending}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return names joined by commas; of many, the first ones and how many more there are."""
    kept = list(names)
    if len(kept) <= most:
        return ", ".join(kept)
    return f"{', '.join(kept[: most - 1])} and {len(kept) - most + 1} more"


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
