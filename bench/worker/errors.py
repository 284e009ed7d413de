"""What ends a cell with a sentence of its own, and how such sentences are made."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bench.contract import Outcome
from bench.redact import redacted


class Sentence(Exception):
    """Has an outcome, and ``str()`` is the sentence for the user."""

    outcome: Outcome


class Ended(Sentence):
    """Ends a cell early."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class SourceError(Sentence):
    """A model cannot be loaded or driven as asked.

    Raised by all of the sources, families, inputs and tasks, with the remedy where there is one.

    Attributes:
        outcome: "unavailable" when the model is out of reach from here (no network, no access, no
            room on the disk); "failed" when what was asked or what was found is wrong.
    """

    def __init__(self, message: str, *, outcome: Outcome = "failed") -> None:
        super().__init__(message)
        self.outcome = outcome


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `` (nearest: A, B)``, or nothing when no known name is close."""
    lowered = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.6)
    return f" (nearest: {', '.join(lowered[match] for match in found)})" if found else ""


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """Return the first line of an exception's message, without secrets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = redacted(" ".join(lines[:2])) if lines else ""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
