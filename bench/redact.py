"""Keeps the user's tokens and passwords out of all that is written: the one place that knows how.

Run as a program it is a filter between processes that print and their logs, so that what reaches
the disk is redacted already, whatever kills whom: see `main`.
"""

from __future__ import annotations

import array
import base64
import contextlib
import html
import itertools
import json
import math
import os
import re
import select
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "[hidden]"

SECRET_NAME = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|APIKEY|AUTHORIZATION|COOKIE|BEARER"
    r"|(^|[_.-])(PASS|PAT|AUTH|SIG|SIGNATURE|KEY)($|[_.-])|[_-](PWD|KEYS?)$|ACCESSKEY|PRIVATE_?KEY",
    re.IGNORECASE,
)
_SHORTEST = 6
_ORDINARY = re.compile(
    r"[a-z]{,7}|[A-Z]{,7}|[A-Z]?[a-z]{,6}|[+-]?[\d.]{,7}(e[+-]?\d+)?|disabled|inductor|optional"
    r"|required|external|internal"
)
_KNOWN = re.compile(
    r"(hf_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA|ASIA|AIza|npm_|pypi-|eyJ)[\w.+/=-]{12,}"
)
_RANDOM = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[\w+/=.~-]{20,}")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://([^\s/?#@:]*)(?::([^\s/?#@]*))?@")
_QUERY = re.compile(r"[?&;]([^=&\s]+)=([^&#\s]+)")
_PATTERNS = re.compile(
    rb"(?P<url>[a-zA-Z][a-zA-Z0-9+.-]{,20}://)[^\s/?#@\"'<>]+@"
    rb"|\b(?:hf_[A-Za-z0-9]{8,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"
    rb"|(?P<word>\b(?i:bearer|authorization:\s*basic)\s+)(?=\S*\d)[\w.+/=~-]{8,}"
    rb"|(?P<query>[?&;](?i:[\w-]*(?:token|secret|passw\w*|signature|credential|api_?key)|key|sig)=)"
    rb"[^&#\s\"'<>]+"
)
_LONGEST_LINE = 2**16
_READ_BYTES = 2**18
_PATIENCE_S = 10.0


class Redactor:
    """Replaces secret values wherever they occur.

    Secret are the values of variables that are called like one, of any that look like a random
    token, user names and passwords inside URLs, and the stored Hugging Face token: plain, percent-
    encoded, in base64, and escaped as in JSON or HTML. Besides, whatever stands in a URL before
    its host. Short and ordinary values, such as numbers, words and paths, are not.

    Args:
        environment: of the workers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {value.strip() for value in _secrets(environment)}
        # Lines of a key are told one by one too, since whoever prints them may indent them.
        values |= {line.strip() for v in values for line in v.splitlines() if len(line) >= 16}
        values = {v for v in values if len(v) >= _SHORTEST and not re.fullmatch("-----.*", v)}
        forms = {form for value in values for form in _forms(value)}
        # The longest first, so that a secret inside another one leaves no rest of it.
        self._needles = sorted(forms, key=len, reverse=True)
        self._known: dict[str, str] = {}

    def raw(self, data: bytes) -> bytes:
        for needle in self._needles:
            if needle in data:
                data = data.replace(needle, HIDDEN.encode())
        return _PATTERNS.sub(_hide, data) if _may_match(data) else data

    def text(self, text: str) -> str:
        known = self._known.get(text)
        if known is None:
            data = text.encode(errors="surrogatepass")
            known = self.raw(data).decode(errors="surrogatepass")
            if len(text) < 100:
                # Records repeat their keys and most of their values.
                self._known[text] = known
        return known

    def value(self, value: Any) -> Any:
        """Redact every string in a JSON value, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def held(self, data: bytes) -> int:
        """Return how many bytes at the end of ``data`` may be the beginning of a secret."""
        longest = min(len(data), len(self._needles[0]) - 1 if self._needles else 0)
        for length in range(longest, 0, -1):
            end = data[-length:]
            if any(needle.startswith(end) for needle in self._needles):
                return length
        return 0


class Stream:
    """Redacts a stream in pieces; what may become a secret is held back until it is clear."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be written now: whole lines."""
        data = self._rest + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > _LONGEST_LINE:
            end = max(len(data) - _LONGEST_LINE // 2, end)
        end -= self._redactor.held(data[:end])
        out = self._redactor.raw(data[:end])
        self._rest = data[end:]
        return out

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._redactor.raw(rest)


def redacted(text: str) -> str:
    """Return ``text`` without the secrets of this process's environment."""
    return Redactor(os.environ).text(text)


def _hide(match: re.Match[bytes]) -> bytes:
    before = match["url"] or match["word"] or match["query"] or b""
    return before + HIDDEN.encode() + (b"@" if match["url"] else b"")


_MARKS = (b"://", b"hf_", b"gh", b"github_pat_", b"?", b"&", b";")


def _may_match(data: bytes) -> bool:
    return (
        any(mark in data for mark in _MARKS)
        or b"bearer" in (low := data.lower())
        or b"basic" in low
    )


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, whole in environment.items():
        value = whole.strip()
        if SECRET_NAME.search(name) and not _is_ordinary(value):
            yield value
            # "Bearer abc", as in AUTHORIZATION, is printed without its first word as well.
            yield from (word for word in value.split()[1:] if len(word) >= 12)
        elif _KNOWN.fullmatch(value) or _looks_random(value):
            yield value
        for user, password in _URL.findall(value):
            yield from (password, unquote(password))
            # A name without a password may be a token; "git" and "ubuntu" are none.
            if _KNOWN.fullmatch(user) or len(user) >= (20 if user.isalpha() or password else 8):
                yield user
        for key, item in _QUERY.findall(value) if "://" in value else ():
            if SECRET_NAME.search(key):
                yield item
    yield _stored_token(environment)


def _is_ordinary(value: str) -> bool:
    return bool(_ORDINARY.fullmatch(value)) or _is_path(value) or ("://" in value and "@" in value)


def _is_path(value: str) -> bool:
    first = value.split("/")[1] if value.startswith("/") else ""
    return value.startswith(("~/", "./", "../")) or bool(first and os.path.isdir(f"/{first}"))


def _looks_random(value: str) -> bool:
    """Return whether a value has a token's entropy, and changes its kind of letter as often."""
    if not _RANDOM.fullmatch(value) or _is_path(value) or value.startswith(("GPU-", "MIG-")):
        return False
    counts, length = Counter(value).values(), len(value)
    bits = -sum(n / length * math.log2(n / length) for n in counts)
    kinds = [each.isdigit() + 2 * each.isupper() + 4 * each.islower() for each in value]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    return bits >= 3.5 and changes >= 0.4 * length


def _forms(value: str) -> Iterable[bytes]:
    """Return a secret as it may be written."""
    plain = value.encode(errors="surrogateescape")
    texts = {value, html.escape(value), repr(value)[1:-1]}
    texts |= {json.dumps(value, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False)}
    for percent in (quote(plain, safe=""), quote(plain), quote_plus(plain)):
        texts |= {percent, re.sub("%..", lambda match: match[0].lower(), percent)}
    forms = {text.encode(errors="surrogateescape") for text in texts}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            # Within something longer it can begin at each of three places; its borders differ.
            whole = encode(b"\0" * before + plain).rstrip(b"=")
            begins, bits = (0, 2, 3)[before], 8 * (before + len(plain))
            forms.add(whole[begins : bits // 6])
    return {form for form in forms if len(form) >= _SHORTEST}


def _stored_token(environment: Mapping[str, str]) -> str:
    home = environment.get("HF_HOME") or os.path.join(
        environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    path = environment.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    try:
        return Path(path).read_text(encoding="utf-8").strip() if os.path.isfile(path) else ""
    except (OSError, ValueError):
        return ""


class Logs:
    """The runner's end of the filter: a process of its own, which outlives the runner.

    Args:
        environment: of the workers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        self._names = itertools.count()
        self._ended: set[bytes] = set()
        with theirs:
            # Without the packages of its interpreter it starts at once.
            command = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )

    def open(self, path: Path) -> tuple[bytes, int]:
        """Empty a log; returns its name here, and a descriptor to print to, which is the caller's.

        Raises:
            OSError: the file cannot be written, or the filter is gone.
        """
        name = next(self._names).to_bytes(4, "big")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
        file = os.open(path, flags, 0o644)
        read, write = os.pipe()
        try:
            socket.send_fds(self._control, [name], [read, file])
        except OSError:
            os.close(write)
            raise
        finally:
            os.close(read)
            os.close(file)
        return name, write

    def wait(self, name: bytes, seconds: float = 2.0) -> None:
        """Wait until all that was printed is in the file, once nobody prints to it any more."""
        self._control.settimeout(seconds)
        with contextlib.suppress(OSError):
            while name not in self._ended and (ended := self._control.recv(4)):
                self._ended.add(ended)

    def close(self) -> None:
        self._control.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Log:
    """One log of the filter: a pipe that is read, and a file that is written."""

    def __init__(self, redactor: Redactor, name: bytes, pipe: int, file: int) -> None:
        self.name, self._pipe, self._file = name, pipe, file
        self._stream = Stream(redactor)

    def copy(self) -> bool:
        """Copy what is there; return whether there can be more."""
        data = os.read(self._pipe, _READ_BYTES)
        out = self._stream.feed(data) if data else self._stream.end()
        try:
            while out:
                out = out[os.write(self._file, out) :]
        except OSError:
            # A full disk: what prints must not stand still for that, and the record says it.
            out = b""
        if not data:
            os.close(self._file)
            os.close(self._pipe)
        return bool(data)


def main() -> None:
    """Filter logs until the runner is gone and all that print are.

    Standard input is a socket. Each four bytes that come bring two descriptors, a pipe to read and
    the file to write, and go back when the pipe has ended and all of it is in the file.
    """
    redactor = Redactor(os.environ)
    control = socket.socket(fileno=0)
    logs: dict[int, _Log] = {}
    poll = select.poll()
    poll.register(0, select.POLLIN)
    runner = True
    while runner or logs:
        ready = poll.poll(None if runner else _PATIENCE_S * 1000)
        if not ready:
            return
        for fd, _ in ready:
            if fd:
                if not logs[fd].copy():
                    poll.unregister(fd)
                    with contextlib.suppress(OSError):
                        control.send(logs.pop(fd).name)
                continue
            fds = array.array("i")
            data, ancillary = b"", list[tuple[int, int, bytes]]()
            # Reset: the runner is gone, and had not read all answers.
            with contextlib.suppress(ConnectionResetError):
                data, ancillary, _, _ = control.recvmsg(4, socket.CMSG_SPACE(2 * fds.itemsize))
            for _, _, content in ancillary:
                fds.frombytes(content)
            if fds:
                logs[fds[0]] = _Log(redactor, data, *fds)
                poll.register(fds[0], select.POLLIN | select.POLLHUP)
            elif not data:
                runner = False
                poll.unregister(0)


if __name__ == "__main__":
    main()
