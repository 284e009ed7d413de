"""From how a worker ended to the outcome of its cell, with a sentence of reason."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.contract import OUT_OF_MEMORY, Outcome
from bench.runner.draft import Draft

_TAIL_BYTES = 8192


@dataclass(frozen=True)
class Exit:
    """How a process ended.

    Attributes:
        code: exit status; None if a signal ended it, or if nobody saw it end.
        signal: number of the signal; None if it exited by itself.
        lost: why nobody saw it end, if so.
    """

    code: int | None = None
    signal: int | None = None
    lost: str | None = None


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    reason: str | None
    warnings: tuple[str, ...] = ()


def conclude(
    draft: Draft,
    end: Exit,
    *,
    timeout_s: float | None,
    oom_kills: int | None,
    tail: str,
    memory_limited: bool,
    over_limit: str | None = None,
    priming: bool = False,
) -> Verdict:
    """Decide the outcome of a cell whose worker is gone.

    Args:
        draft: what the worker had said.
        end: how its process ended.
        timeout_s: the time limit, if that is why it was ended; None otherwise.
        oom_kills: how many processes the kernel killed for memory meanwhile; None if unknown.
        tail: the end of its log.
        memory_limited: whether it ran under a limit of its own.
        over_limit: the sentence that says which memory limit it passed, if it did.
        priming: whether it only filled a compile cache, and has no figures.
    """
    verdict = _concluded(draft, end, timeout_s, oom_kills, tail, memory_limited, over_limit)
    missing = draft.missing() if verdict.outcome == "ok" and not priming else None
    if missing is None:
        return verdict
    return Verdict("failed", f"the worker said ok, but {missing}", verdict.warnings)


def _concluded(
    draft: Draft,
    end: Exit,
    timeout_s: float | None,
    oom_kills: int | None,
    tail: str,
    memory_limited: bool,
    over_limit: str | None,
) -> Verdict:
    if over_limit is not None:
        # Figures under a limit that was passed would not have been had under it.
        return Verdict("oom", over_limit)
    if draft.outcome is not None:
        return Verdict(draft.outcome, draft.reason, _after_the_end(end))  # type: ignore[arg-type]
    cut = _cut_short(draft, end, timeout_s, oom_kills, tail, memory_limited)
    if draft.decided is None:
        return cut
    # The cell's own figures were complete and judged: a pass that kills its worker loses itself.
    outcome, reason = draft.decided
    return Verdict(
        outcome, reason, (f"the {draft.phase} is incomplete ({cut.outcome}): {cut.reason}",)
    )


def _cut_short(
    draft: Draft,
    end: Exit,
    timeout_s: float | None,
    oom_kills: int | None,
    tail: str,
    memory_limited: bool,
) -> Verdict:
    """Decide for a worker that ended without a last word."""
    where = f"during {draft.phase}" if draft.phase else "before its first phase"
    if end.lost is not None:
        return Verdict("failed", f"{end.lost} {where}")
    if timeout_s is not None:
        return Verdict("timeout", f"no end within the time limit of {timeout_s:g} s: {where}")
    if end.signal is not None:
        killed = f"killed by signal {end.signal} ({_signal_name(end.signal)}) {where}"
        if end.signal == signal.SIGKILL and oom_kills:
            return Verdict("oom", f"killed by the kernel for lack of memory {where}")
        # A stack follows what the process said last, so its words may be some lines up.
        memory_line = _memory_line(_lines(tail))
        if memory_limited and memory_line is not None:
            return Verdict("oom", f"{killed}, under a memory limit: {memory_line}")
        return Verdict("failed", killed)
    words = _lines(tail)[-3:]
    memory_line = _memory_line(words)
    if memory_line is not None and end.code != 0:
        return Verdict("oom", f"ended with status {end.code} {where}: {memory_line}")
    said = f"; its last words: {' / '.join(words)}" if words else "; its log is empty"
    return Verdict("failed", f"ended with status {end.code} and no result {where}{said}")


def _after_the_end(end: Exit) -> tuple[str, ...]:
    if end.signal is not None:
        name = _signal_name(end.signal)
        return (f"the process was ended by signal {end.signal} ({name}) after its result",)
    if end.code:
        return (f"the process ended with status {end.code} after its result",)
    if end.lost:
        return (f"{end.lost} after the worker's result",)
    return ()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unnamed"


def _lines(tail: str) -> list[str]:
    lines = [line.strip()[:300] for line in tail.splitlines()]
    return [line for line in lines if line]


def _memory_line(lines: list[str]) -> str | None:
    for line in reversed(lines):
        lower = line.lower()
        if any(word in lower for word in OUT_OF_MEMORY):
            return line
    return None


def read_tail(path: Path) -> str:
    """The last few kilobytes of a log, however large it is; empty if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            data = file.read()
    except OSError:
        return ""
    return data.decode("utf-8", errors="backslashreplace")


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for lack of memory; None where it does not say.

    Adds up what it counts for this control group and for the machine, so only differences between
    two calls have a meaning.
    """
    counts = [_field(path) for path in (*_cgroup_files(root), root / "proc/vmstat")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _cgroup_files(root: Path) -> Iterable[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        group = group.lstrip("/")
        if controllers == "":
            yield root / "sys/fs/cgroup" / group / "memory.events"
        elif "memory" in controllers.split(","):
            yield root / "sys/fs/cgroup/memory" / group / "memory.oom_control"


def _field(path: Path) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
