"""The one kind of error that a configuration can raise, and the sentences it is made of."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_LONGEST_VALUE = 60


class Place(NamedTuple):
    """Where a value was written.

    Attributes:
        source: the file as the user named it, an option such as ``--set steps=0``, or how the
            API was called.
        line: 1-based, None where the source has no lines.
        column: 1-based, None where the source has no columns.
    """

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


class ConfigError(Exception):
    """A configuration that cannot be run. ``str()`` of it is the whole message for the user.

    Attributes:
        file: where the mistake is: a file, ``--set …``, or ``--only …``.
        line: 1-based line in ``file``, or None.
        column: 1-based column in ``file``, or None.
    """

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(_one_line(f"{place}: {message}"))
        self.file = place.source
        self.line = place.line
        self.column = place.column


def nearest(word: object, names: Iterable[str]) -> str | None:
    """Return the name most like ``word``, or None if none is near."""
    if not isinstance(word, str):
        return None
    by_lower = {name.lower(): name for name in names}
    lowered = word.lower()[:200]
    close = difflib.get_close_matches(lowered, by_lower, n=1, cutoff=0.6)
    if close:
        return by_lower[close[0]]
    if len(lowered) >= 3:
        inside = [name for low, name in by_lower.items() if lowered in low]
        if len(inside) == 1:
            return inside[0]
    return None


def did_you_mean(word: object, names: Sequence[str]) -> str:
    """Return a sentence with the nearest of ``names``, or with all of them if none is near."""
    near = nearest(word, names)
    if near is not None:
        return f"Did you mean '{near}'?"
    return f"There are: {', '.join(names)}." if names else "There are none."


def shown(value: object) -> str:
    """Return ``value`` as a user would write it, shortened, on one line."""
    if isinstance(value, str):
        text = f"'{_one_line(value)}'"
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            text = type(value).__name__
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def storable(text: str) -> bool:
    """Return whether ``text`` can be written as UTF-8: lone surrogates cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _one_line(text: str) -> str:
    """Return ``text`` with escapes for what would break a line or a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
