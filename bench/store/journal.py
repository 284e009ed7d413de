"""Append-only records: one JSON object a line, each stored whole or not at all.

A line counts from the moment its newline is on disk. A crash can therefore leave at most one
unfinished line, and only at the end; `Journal.recover` moves it aside.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bench import files
from bench.contract import SCHEMA_VERSION, Outcome
from bench.records.read import NotJsonError, RecordError, checked, decode
from bench.records.types import Count, Record, Text

Key = tuple[str, int]
"""What a record is about: (cell_id, round)."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StoreError(Exception):
    """The run folder cannot be used as asked; ``str()`` is the whole message for the user."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a record lies and what is needed to decide about it without reading it again.

    Attributes:
        line: number in the file, from 1.
        offset: first byte of the line.
        length: bytes of the line, its newline included.
        attempt: 0 for the first record of its key; a retry has the next number and supersedes it.
        seconds: wall time of the cell; None if the record does not say.
    """

    line: int
    offset: int
    length: int
    cell_id: str
    round: int
    attempt: int
    name: str
    outcome: str
    device: str | None
    seconds: float | None

    @property
    def key(self) -> Key:
        return self.cell_id, self.round


class _Process(msgspec.Struct, frozen=True):
    wall_s: float | None = None


class _Schema(msgspec.Struct, frozen=True):
    schema: int


class _Head(_Schema, frozen=True, kw_only=True):
    """What the index needs of a line."""

    cell_id: Text
    round: Count
    outcome: Outcome
    attempt: Count = 0
    name: Text = ""
    device: Text | None = None
    process: _Process | None = None


_head = msgspec.json.Decoder(_Head)
_schema = msgspec.json.Decoder(_Schema)


class Journal:
    """records.jsonl of one run folder.

    The index of all entries is read once and kept; records themselves are read when asked for, so
    that memory does not grow with what they hold.

    Args:
        path: the file; it need not exist.

    Raises:
        StoreError: a line other than the last is no record, or a record has a newer schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.latest: dict[Key, Entry] = {}
        self.torn_at: int | None = None
        self._fd: int | None = None
        self._lines = 0
        self._scan()

    def _scan(self) -> None:
        try:
            file = self._reader()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {why(error)}.") from error
        offset = 0
        torn: tuple[int, int, str] | None = None
        with file:
            lines = iter(lambda: file.readline(files.JSON_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > files.JSON_BYTES:
                    raise StoreError(
                        f"{self.path}, line {number}: it has more than the {files.JSON_BYTES:,} "
                        "bytes that are read of a record."
                    )
                if torn is not None:
                    raise StoreError(
                        f"{self.path}, line {torn[1]}: {torn[2]}. The file was changed by "
                        "something else than this program; mend or remove that line, or start "
                        "again in another folder with --out."
                    )
                if not line.endswith(b"\n"):
                    torn = (offset, number, "the line has no end")
                elif line.strip():
                    try:
                        entry = self._entry(line, number, offset)
                    except NotJsonError:
                        torn = (offset, number, "the line is not JSON")
                    else:
                        self._index(entry)
                if torn is None:
                    offset += len(line)
                    self._lines = number
        self.torn_at = None if torn is None else torn[0]

    def _entry(self, data: bytes, line: int, offset: int) -> Entry:
        """Return the entry of a line.

        Raises:
            StoreError: it holds something else than a record that can be read.
            NotJsonError: it is not even JSON.
        """
        try:
            newer(f"{self.path}, line {line},", data)
            head = checked(_head, data)
        except NotJsonError:
            raise
        except RecordError as error:
            raise self._foreign(line, error) from None
        return Entry(
            line=line,
            offset=offset,
            length=len(data),
            cell_id=head.cell_id,
            round=head.round,
            attempt=head.attempt,
            name=head.name or head.cell_id,
            outcome=head.outcome,
            device=head.device,
            seconds=head.process.wall_s if head.process else None,
        )

    def _index(self, entry: Entry) -> None:
        before = self.latest.get(entry.key)
        if before is not None and entry.attempt <= before.attempt:
            raise StoreError(
                f"{self.path}, line {entry.line}: cell {entry.name!r} round {entry.round} attempt "
                f"{entry.attempt} is already on line {before.line}; remove one of the two."
            )
        self.entries.append(entry)
        self.latest[entry.key] = entry

    def recover(self) -> Path | None:
        """Move an unfinished last line into ``records.torn-<n>.jsonl``.

        Returns:
            That file, or None if nothing was torn.

        Raises:
            StoreError: the disk does not take it; nothing was changed.
        """
        if self.torn_at is None:
            return None
        number = 1
        while (aside := self.path.with_name(f"records.torn-{number}.jsonl")).exists():
            number += 1
        try:
            with os.fdopen(files.create(self.path, os.O_RDWR), "r+b") as file:
                file.seek(self.torn_at)
                tail = file.read()
                with aside.open("xb") as copy:
                    copy.write(tail)
                    copy.flush()
                    os.fsync(copy.fileno())
                file.truncate(self.torn_at)
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path} ends in an unfinished line, and that could not be moved to "
                f"{aside.name}: {why(error)}. {remedy(error)}"
            ) from error
        self.torn_at = None
        return aside

    def append(self, record: dict[str, Any]) -> Entry:
        """Store one record: a single write, then a flush to the disk.

        Raises:
            StoreError: it was not stored, and the file is as it was before. The message says what
                to do.
            ValueError: the record is not JSON, holds NaN, or its key and attempt are taken.
        """
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode("utf-8", errors="replace") + b"\n"
        fd = self._open()
        end = os.fstat(fd).st_size
        entry = self._entry(data, self._lines + 1, end)
        before = self.latest.get(entry.key)
        if entry.attempt != (0 if before is None else before.attempt + 1):
            raise ValueError(
                f"cell {entry.name!r} round {entry.round}: attempt {entry.attempt} is not the next"
            )
        try:
            written = os.write(fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(fd, end)
                os.fsync(fd)
            raise StoreError(
                f"The record of cell {entry.name!r} round {entry.round} could not be written to "
                f"{self.path}: {why(error)}. All records before it are safe. {remedy(error)}"
            ) from error
        self._index(entry)
        self._lines += 1
        return entry

    def _open(self) -> int:
        if self._fd is None:
            try:
                self._fd = files.create(self.path, os.O_RDWR | os.O_APPEND)
                _sync_folder(self.path.parent)
            except OSError as error:
                raise StoreError(
                    f"{self.path} cannot be written: {why(error)}. {remedy(error)}"
                ) from error
        return self._fd

    def read(self, entries: Iterable[Entry]) -> Iterator[Record]:
        """Read the records at ``entries``, one at a time.

        Raises:
            StoreError: a field of one has another type or is out of range.
        """
        for entry, line in self.lines(entries):
            try:
                yield decode(line)
            except RecordError as error:
                raise self._foreign(entry.line, error) from None

    def lines(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Read the lines at ``entries``, one at a time."""
        try:
            file = self._reader()
        except FileNotFoundError:
            return
        with file:
            for entry in entries:
                file.seek(entry.offset)
                yield entry, file.read(entry.length)

    def _reader(self) -> BinaryIO:
        return files.open_file(files.inside(self.path.parent, self.path.name), sys.maxsize)

    def _foreign(self, line: int, error: RecordError) -> StoreError:
        return StoreError(
            f"{self.path}, line {line}: this is not a record of a run: {error}; fix or remove "
            "that line."
        )

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def newer(where: str, data: bytes) -> None:
    """Raise StoreError if JSON has a schema that this version does not know."""
    schema = checked(_schema, data).schema
    if schema > SCHEMA_VERSION:
        raise StoreError(
            f"{where} was written with schema {schema}, and this version of bench reads up to "
            f"schema {SCHEMA_VERSION}; update bench to read this run."
        )


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` so that a crash leaves either the old content or the new.

    Raises:
        StoreError: it could not be written; the old content is untouched.
    """
    try:
        files.write(path, text, sync=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}. {remedy(error)}") from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems cannot flush a folder; the file itself was flushed.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def why(error: OSError) -> str:
    """Return the system's reason, as a part of a sentence."""
    return (error.strerror or str(error)).lower()


def remedy(error: OSError) -> str:
    """Return the sentence that says what a user can do about a folder that cannot be written."""
    if error.errno in _FULL:
        return "Free some space (or raise the limit), then run again with --resume."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Make the folder writable, or choose another one with --out."
    return "Mend that, then run again with --resume, or choose another folder with --out."
