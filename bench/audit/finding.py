"""What an audit says: findings, which are wrong, and notes, which are missing or worth knowing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sure = Literal["certain", "likely", "possible"]

CERTAINTY: dict[Sure, float] = {"certain": 1.0, "likely": 0.6, "possible": 0.3}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be true or cannot be compared.

    Attributes:
        check: name of the check; docs/audit.md explains each.
        sure: how sure.
        severity: 0 to 1, how much of what a reader takes from the table falls with it.
        says: one sentence.
        rows: indices into the table, from 0.
        arithmetic: the sum that shows it, in one line.
        settle: what would settle it.
    """

    check: str
    sure: Sure
    severity: float
    says: str
    rows: tuple[int, ...]
    arithmetic: str
    settle: str

    @property
    def weight(self) -> float:
        """How far up it stands: certainty times severity, 0 to 1."""
        return CERTAINTY[self.sure] * self.severity


@dataclass(frozen=True, slots=True)
class Note:
    """What a table leaves out or does not say. ``rows`` are indices into it, from 0."""

    check: str
    says: str
    rows: tuple[int, ...] = ()
