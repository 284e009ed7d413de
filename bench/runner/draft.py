"""A record in the making: bytes of the event pipe in, record fields out."""

from __future__ import annotations

import json
import math
from typing import Any

from bench.contract import OUTCOMES, REQUIRED_OF_OK, Outcome

OWN = frozenset(
    {
        "schema",
        "record_id",
        "run_id",
        "cell_id",
        "name",
        "round",
        "attempt",
        "sequence",
        "cell",
        "device",
        "started_utc",
        "ended_utc",
        "process",
        "compile_cache",
        "load_average_1m",
        "outcome",
        "reason",
        "last_phase",
        "memory_limit",
        "dominated_by",
    }
)
"""Fields that the parent alone writes, besides those of passes."""

MAX_LINE_BYTES = 16 * 2**20


class Draft:
    """Everything that a worker has said so far.

    A library that writes to the event pipe, or a worker that dies in the middle of a line, costs
    that line and a warning, never the record.

    Args:
        own: fields that the parent alone writes; an event that sets one is counted as strange.

    Attributes:
        fields: record fields, as set and appended.
        phase: the last phase that was announced; None before the first.
        outcome: of the ``end`` event; None without one.
        reason: of the ``end`` event.
        decided: outcome and reason of a ``decided`` event; None without one.
        events: how many were understood.
    """

    def __init__(self, own: frozenset[str] = OWN) -> None:
        self._own = own
        self.fields: dict[str, Any] = {}
        self.phase: str | None = None
        self.outcome: str | None = None
        self.reason: str | None = None
        self.decided: tuple[Outcome, str | None] | None = None
        self.events = 0
        self._sent: int | None = None
        self._buffer = b""
        self._skipping = False
        self._strange = 0
        self._example = ""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take the next bytes of the pipe and return the events that they complete."""
        *lines, rest = (self._buffer + data).split(b"\n")
        self._buffer = rest
        understood = []
        for line in lines:
            if self._skipping:
                self._skipping = False
                continue
            event = self._parse(line)
            if event is None:
                self._count_strange(line)
            else:
                self.events += 1
                understood.append(event)
        if len(self._buffer) > MAX_LINE_BYTES:
            if not self._skipping:
                self._count_strange(self._buffer[:200])
            self._skipping = True
            self._buffer = b""
        return understood

    def missing(self) -> str | None:
        """Return what keeps these fields from being those of an ``ok`` record; None if nothing."""
        absent = [name for name in REQUIRED_OF_OK if not self.fields.get(name)]
        if absent:
            return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
        times = self.fields["e2e_s"]
        if not isinstance(times, list) or not all(_is_time(each) for each in times):
            return "e2e_s holds what is no time"
        backend = self.fields["backend"]
        if not isinstance(backend, dict) or backend.get("active") is not True:
            return "its field backend does not say that the backend was active"
        # The end itself is not among those that came before it.
        if self._sent is not None and self._sent != self.events - 1:
            return f"{self.events - 1} of its {self._sent} events arrived"
        return None

    def warnings(self) -> list[str]:
        if not self._strange:
            return []
        text = (
            f"{self._strange} line(s) on the event pipe were no events and were ignored; "
            f"the first: {self._example!r}"
        )
        return [text]

    def _count_strange(self, line: bytes) -> None:
        self._strange += 1
        if self._strange == 1:
            self._example = line[:200].decode("utf-8", errors="backslashreplace")

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(event, dict):
            return None
        kind = event.get("event")
        if kind == "phase" and isinstance(event.get("phase"), str):
            self.phase = event["phase"]
            return event
        if kind == "end" and event.get("outcome") in OUTCOMES:
            self.outcome = event["outcome"]
            reason = event.get("reason")
            self.reason = None if reason is None else str(reason)
            sent = event.get("events")
            self._sent = sent if isinstance(sent, int) else None
            return event
        if kind == "decided" and event.get("outcome") in OUTCOMES:
            reason = event.get("reason")
            self.decided = (event["outcome"], None if reason is None else str(reason))
            return event
        fields = event.get("fields")
        if (
            kind not in ("set", "append")
            or not isinstance(fields, dict)
            or self._own & fields.keys()
        ):
            return None
        if kind == "append":
            if not all(isinstance(self.fields.get(name, []), list) for name in fields):
                return None
            for name, value in fields.items():
                self.fields.setdefault(name, []).append(value)
        else:
            self.fields.update(fields)
        return event


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def finite(fields: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which JSON has not, by None with a reason in ``null_reasons``."""
    strange: list[str] = []
    clean = {name: _finite(value, name, strange) for name, value in fields.items()}
    if strange:
        reasons = clean.get("null_reasons")
        reasons = dict(reasons) if isinstance(reasons, dict) else {}
        for name in strange:
            reasons.setdefault(name, "the worker reported a value that is not a finite number")
        clean["null_reasons"] = reasons
    return clean


def _finite(value: Any, name: str, strange: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        strange.append(name)
        return None
    if isinstance(value, dict):
        return {key: _finite(item, name, strange) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, name, strange) for item in value]
    return value
