"""Append-only records: one JSON object a line, each stored whole or not at all.

A line counts from the moment its newline is on disk. A crash can therefore leave at most one
unfinished line, and only at the end; `Journal.recover` moves it aside.

The file may be changed by others: lines that are no record are passed over, counted and named, and
before and after each append the open file is compared with what its path names now.
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
from bench.records.read import RecordError, checked, decode
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

    Attributes:
        entries: one for each line that is a record, in the file's order; a line that is there twice
            counts once.
        latest: of each key, the entry of the last attempt.
        bad: line → why it is no record, of all lines that were passed over so far.
        torn_at: where an unfinished last line begins; None if there is none.

    Args:
        path: the file; it need not exist.
        whole: check every field of each record now, as one who adds to them has to.

    Raises:
        StoreError: the file cannot be read, two records differ that have the same key and attempt,
            or a record has a newer schema.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.latest: dict[Key, Entry] = {}
        self.bad: dict[int, str] = {}
        self.torn_at: int | None = None
        self._attempts: dict[tuple[str, int, int], Entry] = {}
        self._fd: int | None = None
        self._lines = 0
        self._end = 0
        try:
            with self._reader() as file:
                self._scan(file, whole=whole)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {why(error)}.") from error

    def _scan(self, file: BinaryIO, *, whole: bool) -> None:
        offset = last = number = 0
        line = b"\n"
        for chunk in iter(lambda: file.readline(files.JSON_BYTES + 1), b""):
            number, last, line = number + 1, offset, chunk
            offset += len(line)
            if len(line) > files.JSON_BYTES:
                raise StoreError(
                    f"{self.path}, line {number}: it has more than the {files.JSON_BYTES:,} bytes "
                    "that are read of a record."
                )
            if line.endswith(b"\n"):
                self._lines, self._end = number, offset
                if line.strip():
                    self._take(line, number, last, file.fileno(), whole=whole)
        if not line.endswith(b"\n"):
            self.torn_at = last
        elif self._lines in self.bad and not _is_json(line):
            # A power cut can leave a newline behind half a record.
            del self.bad[self._lines]
            self._lines -= 1
            self._end = self.torn_at = last

    def _take(self, line: bytes, number: int, offset: int, fd: int, *, whole: bool) -> None:
        try:
            entry = self._entry(line, number, offset)
            if whole:
                decode(line)
        except RecordError as error:
            self.bad[number] = str(error)
            return
        before = self._attempts.get((*entry.key, entry.attempt))
        if before is None:
            self._index(entry)
        elif _value(os.pread(fd, before.length, before.offset)) != _value(line):
            raise StoreError(
                f"{self.path}, line {number}: cell {entry.name!r} round {entry.round} attempt "
                f"{entry.attempt} is already on line {before.line}, and the two differ; remove one "
                "of them."
            )

    def _entry(self, data: bytes, line: int, offset: int) -> Entry:
        """Return the entry of a line.

        Raises:
            RecordError: it holds something else than a record that can be read.
            StoreError: it has a newer schema.
        """
        newer(f"{self.path}, line {line},", data)
        head = checked(_head, data)
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
        self.entries.append(entry)
        self._attempts[(*entry.key, entry.attempt)] = entry
        before = self.latest.get(entry.key)
        if before is None or entry.attempt > before.attempt:
            self.latest[entry.key] = entry

    def notes(self) -> list[str]:
        """Return a sentence on what of the file was passed over, for whoever reads the rest."""
        notes = []
        if self.bad:
            named = [f"line {line} ({reason})" for line, reason in sorted(self.bad.items())[:3]]
            more = ", …" if len(self.bad) > len(named) else ""
            notes.append(
                f"{self.path}: {len(self.bad)} line(s) are not records of a run and were passed "
                f"over: {', '.join(named)}{more}. The file was changed by something else."
            )
        if self.torn_at is not None:
            notes.append(
                f"{self.path} ends in an unfinished line at byte {self.torn_at}: a record is being "
                "written, or a run was cut off; bench run --resume fixes that."
            )
        return notes

    def warn(self) -> None:
        """Write `notes` to standard error."""
        for note in self.notes():
            sys.stderr.write(f"bench: {note}\n")

    def recover(self) -> Path | None:
        """Move an unfinished last line into ``records.torn-<n>.jsonl``.

        Returns:
            That file, or None if nothing was torn.

        Raises:
            StoreError: the disk does not take it; nothing was changed.
        """
        if self.torn_at is None:
            return None
        aside = free_name(self.path, "torn")
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
            StoreError: it was not stored, and the file is as it was before; or something else has
                changed the file. The message says what is safe, and what to do.
            ValueError: the record is not JSON, holds NaN, or its key and attempt are taken.
        """
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode("utf-8", errors="replace") + b"\n"
        fd = self._open()
        try:
            entry = self._entry(data, self._lines + 1, self._end)
        except RecordError as error:
            raise StoreError(f"The record cannot be stored: {error}.") from None
        before = self.latest.get(entry.key)
        if entry.attempt != (0 if before is None else before.attempt + 1):
            raise ValueError(
                f"cell {entry.name!r} round {entry.round}: attempt {entry.attempt} is not the next"
            )
        self.check(data)
        try:
            written = os.write(fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(fd, self._end)
                os.fsync(fd)
            raise StoreError(
                f"The record of cell {entry.name!r} round {entry.round} could not be written to "
                f"{self.path}: {why(error)}. All records before it are safe. {remedy(error)}"
            ) from error
        self._index(entry)
        self._lines += 1
        self._end += len(data)
        self.check()
        return entry

    def check(self, pending: bytes = b"") -> None:
        """Compare the open file with what its path names now.

        What the path has lost is still in the open file: it is put back where nothing is, and else
        kept beside it.

        Args:
            pending: the record that is about to be written.

        Raises:
            StoreError: they are not the same, or the file has another size than was written.
        """
        if self._fd is None:
            return
        ours, count = os.fstat(self._fd), len(self.entries)
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            there = None
        if there is not None and os.path.samestat(there, ours):
            if ours.st_size == self._end:
                return
            what, safe = "was written to", f"All {count} record(s) before that are safe in it."
            if ours.st_size < self._end:
                whole = sum(e.offset + e.length <= ours.st_size for e in self.entries)
                what = f"was cut to {ours.st_size} bytes"
                safe = f"{count - whole} of its {count} record(s) are lost."
            if pending:
                safe += f" The one since then: {self._keep(pending, 1)}"
        elif pending:
            # It goes to the open file like the others, and `check` is called again.
            return
        elif there is not None:
            what, safe = "was replaced", self._keep(self._written(), count)
        elif ours.st_nlink:
            what = "was moved"
            safe = f"All {count} record(s) are safe in it, wherever it is now."
        else:
            what, safe = "was deleted", self._put_back(count)
        raise StoreError(
            f"{self.path} {what} by something else during this run, which ends here. {safe}"
        )

    def _written(self) -> bytes:
        assert self._fd is not None
        return os.pread(self._fd, self._end, 0)

    def _keep(self, content: bytes, count: int) -> str:
        """Write records beside the file; returns a sentence that says where they are."""
        aside = free_name(self.path, "saved")
        if (problem := _write_new(aside, content)) is not None:
            return f"{count} record(s) are lost: {aside} cannot be written ({problem})."
        return (
            f"All {count} record(s) are safe in {aside.name}; put them into {self.path.name}, then "
            "run again with --resume."
        )

    def _put_back(self, count: int) -> str:
        if (problem := _write_new(self.path, self._written())) is not None:
            return f"Its {count} record(s) are lost: it cannot be written again ({problem})."
        return f"It was put back with all {count} record(s); --resume continues the run."

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
        """Read the records at ``entries``, one at a time, without those that are none.

        Of these a field has another type or is out of range; they are added to `bad`.
        """
        for entry, line in self.lines(entries):
            try:
                yield decode(line)
            except RecordError as error:
                self.bad[entry.line] = str(error)

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

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def free_name(path: Path, word: str) -> Path:
    """Return ``records.<word>-<n>.jsonl`` beside ``path``, with the first number that is free."""
    number = 1
    while os.path.lexists(free := path.with_name(f"{path.stem}.{word}-{number}{path.suffix}")):
        number += 1
    return free


def _write_new(path: Path, content: bytes) -> str | None:
    """Write a file that is not there yet; returns why that failed, or None."""
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return why(error)
    return None


def _value(line: bytes) -> Any:
    return msgspec.json.decode(line)


def _is_json(line: bytes) -> bool:
    try:
        _value(line)
    except RecursionError:
        return True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


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
