"""From an exception to an outcome and one sentence."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import stat
import sys
import termios
import time
import traceback
from collections.abc import Iterator

from bench.contract import LOG, OUT_OF_MEMORY, Outcome
from bench.redact import redacted
from bench.worker.errors import Sentence

SENTENCE_LENGTH = 400
WORDS_BYTES = 4096


def outcome_and_reason(error: BaseException, doing: str) -> tuple[Outcome, str]:
    """Return how a cell ends that meets ``error`` while ``doing`` something.

    An exception of ours that carries an outcome is a sentence for the user already. It is ``oom``
    if memory ran out anywhere in the chain of causes, and else that, or ``failed``.
    """
    # Any library's exception may have an attribute of that name: ours alone decide.
    ours = isinstance(error, Sentence)
    own: Outcome = error.outcome if isinstance(error, Sentence) else "failed"
    reason = redacted(str(error)) if ours else sentence(error, doing)
    return "oom" if own == "failed" and ran_out_of_memory(error) else own, reason


def last_words() -> str | None:
    """Return the last line that this process wrote to its log, or None if there is no log to read.

    Libraries that end the process say why on standard output, if at all.
    """
    try:
        sys.stdout.flush()
        path = os.environ.get(LOG)
        if path:
            _wait_for_filter()
        elif not stat.S_ISREG(os.fstat(1).st_mode):
            return None
        with open(path or "/dev/fd/1", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - WORDS_BYTES))
            lines = log.read().decode("utf-8", errors="backslashreplace").splitlines()
    except OSError:
        return None
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def _wait_for_filter() -> None:
    """Wait until what was printed is out of the pipe, and a moment for it to be written."""
    left = array.array("i", [1])
    deadline = time.monotonic() + 1.0
    while left[0] and time.monotonic() < deadline:
        time.sleep(0.05)
        fcntl.ioctl(1, termios.FIONREAD, left)


def sentence(error: BaseException, doing: str) -> str:
    """Return "Type: first line of the message, while doing it"."""
    if isinstance(error, SystemExit):
        said = error.code if isinstance(error.code, str) else last_words()
        status = int(bool(error.code)) if not isinstance(error.code, int) else error.code
        what = f"something ended the process with status {status}"
        what += f", and its last words were: {said}" if said else ""
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    what = redacted(what)
    if len(what) > SENTENCE_LENGTH:
        what = what[: SENTENCE_LENGTH - 1] + "…"
    return f"{what.rstrip('.')} (while {doing})"


def log(error: BaseException) -> None:
    """Write the traceback to standard error, which is the cell's log."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    print(redacted("".join(lines)), file=sys.stderr, flush=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error``, or anything in the chain of its causes, is a lack of memory."""
    return any(_is_out_of_memory(link) for link in _chain(error))


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # The others, such as ValueError, quote what users wrote; a sentence of ours quotes its cause.
    says = isinstance(error, (RuntimeError, OSError, ImportError, SystemError))
    says = says or type(error).__module__ != "builtins"
    text = str(error).lower()
    return says and not isinstance(error, Sentence) and any(mark in text for mark in OUT_OF_MEMORY)
