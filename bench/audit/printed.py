"""Printed figures: a text from a table → the value, and how far rounding may have moved it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Locale = Literal["point", "comma"]
"""The decimal mark of a table; the other mark groups thousands."""

_NUMBER = re.compile(
    r"""^\s*(?P<bound>[<>≤≥]=?)?\s*(?:~|≈|ca\.)?\s*[$€]?\s*
    (?P<number>[-+−–]?(?:\d[\d.,'\u202f\u00a0 _]*|[.,]\d+)(?:[eE][-+]?\d+)?)
    \s*(?:(?:±|\+/-|\+-)\s*[\d.,]+\s*%?)?
    \s*(?P<unit>[A-Za-zµμ%×/°]+(?:/[A-Za-z]+)?)?\s*(?:±\s*[\d.,]+\s*\S*)?\s*$""",
    re.VERBOSE,
)
_GROUP = {"point": ",", "comma": "."}
_SPACES = re.compile(r"['\u202f\u00a0 _]")
_COMMA_SURE = re.compile(r"(?<![\d.,])0,\d|\d,\d{1,2}(?!\d)|\d,\d{4,}|\d\.\d{3},\d")
_POINT_SURE = re.compile(r"(?<![\d.,])0\.\d|\d\.\d{1,2}(?![\d.,])|\d\.\d{4,}|\d,\d{3}\.\d")
_THOUSANDS_SURE = re.compile(r"\d,\d{3},\d{3}")
EXACT_DIGITS = 12
"""A figure with more significant digits was not rounded for a reader."""


@dataclass(frozen=True, slots=True)
class Printed:
    """One figure as printed.

    ``half`` is half a unit of the last printed digit: the true value lies within ``value`` ± half.
    ``unit`` is what stood behind it; ``bound`` is "<" or ">" where only a bound is stated, else "".
    """

    value: float
    half: float
    decimals: int
    unit: str
    bound: str


def marks_of(cells: Iterable[str]) -> tuple[int, int]:
    """Return how many cells surely have a decimal comma, and how many a decimal point.

    ``0,979`` and ``12,5`` have a decimal comma, ``0.979`` and ``1,234.5`` a point; ``4,829`` tells
    nothing.
    """
    comma = point = 0
    for cell in cells:
        comma += "," in cell and bool(_COMMA_SURE.search(cell))
        point += "." in cell and bool(_POINT_SURE.search(cell))
    return comma, point


def locale_of(cells: Sequence[str], elsewhere: tuple[int, int], *, never_thousands: bool) -> Locale:
    """Return the decimal mark of a column.

    Its own cells decide; where they tell nothing, what the mark is elsewhere in the table
    (``elsewhere``, as `marks_of` counts); and then whether the column can hold thousands at all:
    ``4,829`` is four thousand MiB, but not four thousand GiB or it/s.
    """
    comma, point = marks_of(cells)
    if comma != point:
        return "comma" if comma > point else "point"
    if any("," in cell for cell in cells):
        if any(_THOUSANDS_SURE.search(cell) for cell in cells):
            return "point"
        return "comma" if elsewhere[0] or never_thousands else "point"
    return "comma" if elsewhere[0] and not elsewhere[1] else "point"


def parse(text: str, locale: Locale = "point") -> Printed | None:
    """Return the figure in ``text``, or None where it holds none (empty, n/a, OOM, words)."""
    try:
        # Most cells of a large file are plain.
        value = float(text)
    except ValueError:
        pass
    else:
        if locale == "point" or "." not in text:
            return _plain(text.strip(), value)
    found = _NUMBER.match(text)
    if found is None:
        return None
    number = _SPACES.sub("", found["number"]).replace("−", "-").replace("–", "-")
    group = _GROUP[locale]
    mantissa = re.split("[eE]", number)[0]
    if group in mantissa and not re.fullmatch(
        rf"[-+]?\d{{1,3}}(?:{re.escape(group)}\d{{3}})+(?:[.,]\d+)?", mantissa
    ):
        return None
    number = number.replace(group, "").replace(",", ".")
    try:
        value = float(number)
    except ValueError:
        return None
    plain = _plain(number, value)
    if plain is None:
        return None
    bound = (found["bound"] or "").replace("≤", "<").replace("≥", ">")[:1]
    return Printed(plain.value, plain.half, plain.decimals, found["unit"] or "", bound)


def _plain(number: str, value: float) -> Printed | None:
    if not math.isfinite(value):
        return None
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2].replace("_", "")) - int(exponent or 0)
    digits = len(re.sub(r"\D", "", mantissa).lstrip("0"))
    half = 0.0 if digits > EXACT_DIGITS else 0.5 * 10.0**-decimals
    return Printed(value, half, decimals, "", "")
