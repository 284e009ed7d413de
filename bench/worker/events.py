"""What a worker reports to its parent, as only what JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from bench.contract import Outcome
from bench.redact import redacted

Emit = Callable[[dict[str, Any]], None]


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it.

    Numbers that are not finite become None, numpy and torch scalars their Python value, arrays and
    tuples lists, anything else its text.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Yield (name, value) of each number that JSON has not; entries of a list go by its name."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _not_finite(item, place)


def sanitised(emit: Emit) -> Emit:
    """Return an ``emit`` that passes on what JSON can hold, whatever a library put in."""

    def send(event: dict[str, Any]) -> None:
        emit(plain(event))

    return send


class Report:
    """What a worker tells its parent, field by field.

    Attributes:
        phase: the phase that was entered last; "start" before the first.
    """

    def __init__(self, emit: Emit) -> None:
        self.phase = "start"
        self._sent = 0
        self._emit_event = emit
        self._warnings: set[str] = set()
        self._null_reasons: dict[str, str] = {}

    def _emit(self, event: dict[str, Any]) -> None:
        self._emit_event(event)
        self._sent += 1

    def enter(self, phase: str) -> None:
        self.phase = phase
        self._emit({"event": "phase", "phase": phase})

    def set(self, **fields: Any) -> None:
        self._emit({"event": "set", "fields": fields})
        self._explain(fields)

    def append(self, **fields: Any) -> None:
        self._emit({"event": "append", "fields": fields})
        self._explain(fields)

    def _explain(self, fields: Mapping[str, Any]) -> None:
        """Give the reason for each value that `plain` makes None, unless there is one."""
        reasons: dict[str, str] = {}
        for name, value in fields.items():
            for place, number in _not_finite(value, name):
                if place not in self._null_reasons:
                    reasons[place] = f"the worker's value was {number}, which is no finite number"
        if reasons:
            self.null(reasons)

    def warn(self, *texts: str) -> None:
        for text in texts:
            if text not in self._warnings:
                self._warnings.add(text)
                self.append(warnings=redacted(text))

    def null(self, reasons: dict[str, str]) -> None:
        if not reasons.items() <= self._null_reasons.items():
            self._null_reasons.update(reasons)
            self.set(null_reasons=dict(self._null_reasons))

    def decided(self, outcome: Outcome, reason: str | None) -> None:
        """Say how the cell ended, before a sweep that may be the end of this process."""
        said = redacted(reason) if reason is not None else None
        self._emit({"event": "decided", "outcome": outcome, "reason": said})

    def end(self, outcome: Outcome, reason: str | None) -> None:
        said = redacted(reason) if reason is not None else None
        self._emit({"event": "end", "outcome": outcome, "reason": said, "events": self._sent})
