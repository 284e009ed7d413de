"""What torch.compile did, read from torch's own counters and log.

They are private to torch and differ from version to version: what a version lacks is read as
nothing, and nothing here loads the compiler into a process that does not use it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import CodeType
from typing import Any

ELSEWHERE = "elsewhere"
REASON_LENGTH = 200
METRICS_KEPT = 4096

# What compiling gives up on without being broken: the frame runs eager and dynamo goes on.
SOFT_FAILURES = ("Unsupported", "UserError", "SkipFrame", "SkipCodeRecursiveException")
# How torch's log begins an error that it swallows, how Python ends a traceback, and how the log
# names what it stops compiling anew.
SWALLOWED_MARK = "WON'T CONVERT "
RAISED = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Failed)\w*: .*)$", re.MULTILINE)
LIMITED = re.compile(r"hit config\.\w*limit .*\n\s*function: '([^']+)'")
LIMIT_MARKS = ("recompile limit", "recompile_limit", "cache_size_limit")


@dataclass(frozen=True)
class Counts:
    """How much torch.compile has done so far.

    Attributes:
        graphs: graphs compiled.
        graph_breaks: places where a graph ended because torch could not trace on.
        attempts: times torch set out to compile some code.
        recompiles: attempts on code that had been compiled before.
    """

    graphs: int = 0
    graph_breaks: int = 0
    attempts: int = 0
    recompiles: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            *(max(0, getattr(self, f.name) - getattr(other, f.name)) for f in fields(self))
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def read_counts() -> Counts:
    """Read torch's counters; zeros in a process that never loaded its compiler."""
    if "torch._dynamo" not in sys.modules:
        return Counts()
    from torch._dynamo import convert_frame
    from torch._dynamo.utils import counters

    by_frame: Mapping[Any, int] | None = getattr(convert_frame, "FRAME_COMPILE_COUNTER", None)
    if by_frame is None:  # torch 2.0
        attempts = counters["frames"]["total"]
        recompiles = sum(len(reasons) for reasons in _guard_failures().values())
    else:
        attempts = sum(by_frame.values())
        recompiles = sum(count - 1 for count in by_frame.values() if count > 1)
    return Counts(
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=sum(counters["graph_break"].values()),
        attempts=attempts,
        recompiles=recompiles,
    )


class ScopeWatch:
    """Credits what torch compiled to the scope in which it happened; a ``Watch`` of the borders.

    Attributes:
        by_scope: counts by scope; ``prepare`` and ``elsewhere`` hold what no scope can claim.
        entered: scopes that were called at all.
    """

    def __init__(self) -> None:
        self.by_scope: dict[str, Counts] = {}
        self.entered: set[str] = set()
        self._stack = [ELSEWHERE]
        self._last = read_counts()

    def enter(self, scope: str) -> None:
        self.settle()
        self._stack.append(scope)
        self.entered.add(scope)

    def leave(self, scope: str) -> None:
        self.settle()
        if self._stack[-1] == scope:
            self._stack.pop()

    def settle(self) -> None:
        now = read_counts()
        spent = now - self._last
        self._last = now
        if spent != Counts():
            scope = self._stack[-1]
            self.by_scope[scope] = self.by_scope.get(scope, Counts()) + spent

    def total(self) -> Counts:
        return sum(self.by_scope.values(), Counts())


@dataclass
class CompilerLog:
    """Reasons and cache figures from torch, since this object was made."""

    _breaks: Counter[str] = field(default_factory=Counter)
    _metrics: int = 0
    _caches: dict[str, int] = field(default_factory=dict)
    _guards: dict[Any, int] = field(default_factory=dict)
    _swallowed: int = 0
    _limited: int = 0

    def __post_init__(self) -> None:
        _HEARD.listen()
        self._swallowed = len(_HEARD.swallowed)
        self._limited = len(_HEARD.limited)
        self._breaks = Counter(_dynamo_counter("graph_break"))
        self._metrics = len(_compilation_metrics())
        self._caches = _cache_counters()
        self._guards = {code: len(reasons) for code, reasons in _guard_failures().items()}

    def graph_breaks(self) -> list[dict[str, Any]]:
        """Return each reason for a graph break with its count, the most frequent first."""
        new = Counter(_dynamo_counter("graph_break"))
        new.subtract(self._breaks)
        merged: Counter[str] = Counter()
        for reason, count in new.items():
            if count > 0:
                merged[_first_line(reason)] += count
        return [{"reason": reason, "count": count} for reason, count in merged.most_common()]

    def recompile_reasons(self) -> list[str]:
        """Return why code was compiled again, as far as torch says."""
        found = []
        for metric in self._new_metrics():
            reason = getattr(metric, "recompile_reason", None)
            if reason:
                # A guard is followed by the line of source that it came from.
                guard = _first_line(reason).partition(" # ")[0]
                found.append(f"{getattr(metric, 'co_name', '?')}: {guard}")
        for code, reasons in self._new_guard_failures():
            for reason in reasons:
                guard = _first_line(reason or "a guard").partition(" # ")[0]
                found.append(f"{code.co_name}: {guard}")
        return list(dict.fromkeys(found))

    def failures(self) -> list[str]:
        """Return compile errors that torch swallowed, running the code eager instead.

        An error that is not swallowed ends the call, so whatever is found here was.
        """
        found = []
        for metric in self._new_metrics():
            kind = getattr(metric, "fail_type", None)
            if kind and not any(soft in kind for soft in SOFT_FAILURES):
                reason = _first_line(getattr(metric, "fail_reason", None) or "")
                found.append(f"{getattr(metric, 'co_name', '?')}: {kind}: {reason}".rstrip(": "))
        if not _metrics_tell("fail_type"):
            found += _HEARD.swallowed[self._swallowed :]
        return list(dict.fromkeys(found))

    def limits_hit(self) -> list[str]:
        """Return the code that torch stopped compiling anew, so that other shapes run eager."""
        found = []
        for metric in self._new_metrics():
            reason = getattr(metric, "fail_reason", None) or ""
            if any(mark in reason for mark in LIMIT_MARKS):
                found.append(getattr(metric, "co_name", None) or "?")
        return list(dict.fromkeys([*found, *_HEARD.limited[self._limited :]]))

    def compile_cache(self) -> dict[str, int] | None:
        """Return hits, misses and bypasses of Inductor's disk cache; None if torch had no use."""
        new = {key: value - self._caches.get(key, 0) for key, value in _cache_counters().items()}
        return new if any(new.values()) else None

    def _new_metrics(self) -> Sequence[Any]:
        return _compilation_metrics()[self._metrics :]

    def _new_guard_failures(self) -> list[tuple[CodeType, list[str | None]]]:
        return [
            (code, reasons[self._guards.get(code, 0) :])
            for code, reasons in _guard_failures().items()
            if len(reasons) > self._guards.get(code, 0)
        ]


class _Heard(logging.Handler):
    """Listens to torch's log for what older ones tell nowhere else.

    Attributes:
        swallowed: errors that torch ran eager around, with the code's name.
        limited: code that reached the recompile limit.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.swallowed: list[str] = []
        self.limited: list[str] = []

    def listen(self) -> None:
        # A name only: it loads nothing, and a handler is added once.
        logging.getLogger("torch._dynamo.convert_frame").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.limited += LIMITED.findall(text)
        if text.startswith(SWALLOWED_MARK):
            name = text[len(SWALLOWED_MARK) :].partition(" ")[0]
            raised = RAISED.findall(text)
            self.swallowed.append(f"{name}: {_first_line(raised[-1] if raised else 'an error')}")


_HEARD = _Heard()


def keep_metrics() -> None:
    """Make torch keep enough of its compilation log to count in; its default is 64 entries."""
    if "torch._dynamo" in sys.modules:
        utils: Any = sys.modules["torch._dynamo"].utils
        if hasattr(utils, "set_compilation_metrics_limit"):
            utils.set_compilation_metrics_limit(METRICS_KEPT)


def _dynamo_counter(name: str) -> Mapping[str, int]:
    if "torch._dynamo" not in sys.modules:
        return {}
    from torch._dynamo.utils import counters

    found: Mapping[str, int] = counters[name]
    return found


def _metrics_tell(name: str) -> bool:
    """Say whether an entry of this torch's compilation log has the field ``name``."""
    utils = getattr(sys.modules.get("torch._dynamo"), "utils", None)
    entry = getattr(utils, "CompilationMetrics", None)
    return name in getattr(entry, "__dataclass_fields__", {})


def _compilation_metrics() -> list[Any]:
    if "torch._dynamo" not in sys.modules:
        return []
    utils: Any = sys.modules["torch._dynamo"].utils
    read = getattr(utils, "get_compilation_metrics", None)
    return list(read()) if read is not None else []


def _guard_failures() -> Mapping[CodeType, list[str | None]]:
    """Return why compiled code did not fit a call, by code, where the compilation log does not.

    In torch 2.0 each entry is one recompilation; later there is one for each version tried.
    """
    if "torch._dynamo" not in sys.modules or _metrics_tell("recompile_reason"):
        return {}
    utils: Any = sys.modules["torch._dynamo"].utils
    found: Mapping[CodeType, list[str | None]] = getattr(utils, "guard_failures", {})
    return found


def _cache_counters() -> dict[str, int]:
    inductor = _dynamo_counter("inductor")
    autograd = _dynamo_counter("aot_autograd")
    return {
        "hits": inductor.get("fxgraph_cache_hit", 0),
        "misses": inductor.get("fxgraph_cache_miss", 0),
        "bypassed": inductor.get("fxgraph_cache_bypass", 0),
        "autograd_hits": autograd.get("autograd_cache_hit", 0),
        "autograd_misses": autograd.get("autograd_cache_miss", 0),
    }


def _first_line(text: str) -> str:
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"
