"""A run folder: ``plan.json``, ``records.jsonl``, ``logs/``, ``pictures/``, ``cache/``, ``.lock``.

Reading needs no lock and changes nothing, so a run can be looked at while it goes on. Writing needs
the lock, which the system drops with its holder: there are no stale locks.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import msgspec

from bench import files
from bench.contract import SCHEMA_VERSION
from bench.records import Cell, Record
from bench.records.arms import Source
from bench.records.read import RecordError, checked
from bench.records.types import Text, cell_of, check_depth
from bench.store.journal import Entry, Journal, Key, StoreError, newer, write_atomically

_DEAD_HOLDER_S = 2.0
MOST_ROUNDS = 100_000


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What plan.json holds."""

    schema: int
    run_id: Text = ""
    created_utc: Text = ""
    planned_utc: Text = ""
    bench_version: Text = ""
    host: dict[str, Any] = {}
    plan: dict[str, Any] = {}


class _Rounds(msgspec.Struct, frozen=True):
    rounds: Annotated[int, msgspec.Meta(ge=0, le=MOST_ROUNDS)]


class _Planned(msgspec.Struct, frozen=True):
    cell_id: Text
    protocol: _Rounds


class _Plan(msgspec.Struct, frozen=True):
    """What is read of a plan; its cells are checked whole by `RunFolder.cells`."""

    name: Text = ""
    cells: list[_Planned] = []
    seeds_drawn: dict[Text, Any] | None = None
    search: dict[Text, Any] | None = None


_header = msgspec.json.Decoder(_Header)


class RunFolder:
    """Open one with `RunFolder.open` (to read) or `RunFolder.acquire` (to run in it).

    Attributes:
        path: absolute.
        run_id: identity of the run, kept over resumptions; empty before the first plan.
        plan: the plan as last run, as JSON; empty before the first plan.
        host: machine and software that the run began on; see `bench.runner.host`.
        journal: all entries of records.jsonl.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self.path = path.absolute()
        self._locks: list[int] = []
        self._planned: list[_Planned] = []
        self._header = self._read_header()
        self.journal = Journal(self.path / "records.jsonl", whole=whole)

    @property
    def run_id(self) -> str:
        return self._header.run_id

    @property
    def plan(self) -> dict[str, Any]:
        return self._header.plan

    @property
    def host(self) -> dict[str, Any]:
        return self._header.host

    @staticmethod
    def holds_run(path: Path | str) -> bool:
        """Return whether ``path`` is the folder of a run that has begun."""
        return (Path(path) / "plan.json").is_file()

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open an existing run for reading.

        Raises:
            StoreError: there is no run, or it cannot be read.
        """
        path = Path(path)
        if not cls.holds_run(path):
            raise StoreError(f"{path} is not the folder of a run: it has no plan.json.")
        return cls(path)

    @classmethod
    def acquire(cls, path: Path | str) -> RunFolder:
        """Create the folder if need be, and hold its lock until `close`.

        Raises:
            StoreError: another runner is at work in it, it cannot be written, or it holds files
                that no run has left.
        """
        path = Path(path).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            names = os.listdir(path)
        except OSError as error:
            raise StoreError(_unusable(path, error)) from error
        if names and not {"plan.json", ".lock"} & set(names):
            raise StoreError(
                f"{path} is not empty and is not the folder of a run; choose another one "
                "with --out."
            )
        locks = _lock(path)
        try:
            folder = cls(path, whole=True)
            for name in ("logs", "pictures", "cache"):
                files.folder(path / name)
        except (OSError, StoreError) as error:
            _close(locks)
            if isinstance(error, StoreError):
                raise
            raise StoreError(_unusable(path, error)) from error
        folder._locks = locks
        return folder

    def _read_header(self) -> _Header:
        path = self.path / "plan.json"
        try:
            data = files.read(files.inside(self.path, "plan.json"))
            newer(str(path), data)
            header = checked(_header, data)
            check_depth([header.plan, header.host])
            self._planned = msgspec.convert(header.plan, _Plan).cells
            return header
        except FileNotFoundError:
            return _Header(schema=SCHEMA_VERSION)
        except RecursionError:
            raise StoreError(f"{path} cannot be read: it nests too deeply.") from None
        except (OSError, RecordError, msgspec.ValidationError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}); start again in another folder with --out."
            ) from error

    def write_plan(self, plan: dict[str, Any], host: dict[str, Any], version: str) -> None:
        """Make ``plan`` the current one, atomically. Records of cells outside it are kept.

        Raises:
            StoreError: it could not be written; the former plan is still there.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._header = _Header(
            schema=SCHEMA_VERSION,
            run_id=self.run_id or uuid.uuid4().hex,
            created_utc=self._header.created_utc or now,
            planned_utc=now,
            bench_version=version,
            host=host,
            plan=plan,
        )
        self._planned = msgspec.convert(plan, _Plan).cells
        text = json.dumps(msgspec.structs.asdict(self._header), indent=1)
        write_atomically(self.path / "plan.json", f"{text}\n")

    def append(self, record: dict[str, Any]) -> Entry:
        """Store a record. See `Journal.append`; needs the lock.

        Raises:
            StoreError: it was not stored, and the file is as it was before.
            RuntimeError: the folder was opened for reading.
        """
        if not self._locks:
            raise RuntimeError("a run folder is written under its lock only; see RunFolder.acquire")
        entry = self.journal.append(record)
        self.check()
        return entry

    def check(self) -> None:
        """Compare the folder that is locked, and its records, with what their paths name now.

        Raises:
            StoreError: something else has moved, deleted or changed them. The message says whether
                the records are safe.
        """
        self.journal.check()
        places = (self.path, self.path / ".lock")
        if self._locks and not any(map(_names, places, self._locks)):
            raise StoreError(
                f"{self.path} was deleted or moved by something else during this run, which ends "
                f"here. {len(self.journal.entries)} record(s) were in it."
            )

    def latest(self) -> dict[Key, Entry]:
        """The valid entry of each (cell_id, round): that of the last attempt."""
        return dict(self.journal.latest)

    def current_keys(self) -> set[Key]:
        """Each (cell_id, round) of the current plan, with or without a record."""
        return {(each.cell_id, n) for each in self._planned for n in range(each.protocol.rounds)}

    def records(self, *, every: bool = False) -> Iterator[Record]:
        """Read records one at a time, in the order in which they were measured.

        Args:
            every: also those that a retry superseded and those of what the current plan no
                longer has. Without it, at most one for each (cell_id, round) of the plan.

        A line with a field of another type or out of range is passed over; see `Journal.bad`.
        """
        return self.journal.read(self.journal.entries if every else self.entries())

    def entries(self) -> list[Entry]:
        """The valid entry of each (cell_id, round) of the current plan, in the order measured."""
        keys, valid = self.current_keys(), self.journal.latest
        return [e for e in self.journal.entries if valid[e.key] is e and e.key in keys]

    def cells(self) -> list[Cell]:
        """The cells of the current plan.

        Raises:
            StoreError: one of them is none.
        """
        try:
            return [cell_of(cell) for cell in self.plan.get("cells", [])]
        except (RecordError, msgspec.ValidationError) as error:
            raise StoreError(f"{self.path / 'plan.json'} holds no plan of cells: {error}") from None

    def source(self, label: str = "") -> Source:
        """Return all that readers want of this run, read now.

        Args:
            label: the folder's name without it.

        Raises:
            StoreError: a cell of the plan cannot be read.
        """
        label = label or self.path.name
        records = self._all_records()
        self.journal.warn()
        return Source(
            label=label,
            path=self.path,
            run_id=self.run_id,
            name=str(self.plan.get("name", label)),
            created_utc=self._header.created_utc,
            version=self._header.bench_version,
            host=self.host,
            plan=self.plan,
            cells=self.cells(),
            records=records,
        )

    def _all_records(self) -> list[Record]:
        collecting = gc.isenabled()
        # Records hold no cycles, and a search for some would walk all of them time and again.
        gc.disable()
        try:
            return list(self.records())
        finally:
            if collecting:
                gc.enable()

    def close(self) -> None:
        """Release the lock; the folder can still be read."""
        self.journal.close()
        _close(self._locks)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lock(path: Path) -> list[int]:
    """Return the descriptors that hold the lock: of the folder itself, and of ``.lock`` in it.

    The folder's keeps others out when ``.lock`` is deleted; some network file systems lock files
    alone.
    """
    file = path / ".lock"
    fds: list[int] = []
    try:
        fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        # Also proves that the folder can be written, before anything starts.
        fds.append(files.create(file, os.O_RDWR))
        holder = _wait_for_lock(fds[0], fds[1])
        if holder is None:
            holder = _wait_for_lock(fds[1], fds[1])
        if holder is None:
            os.ftruncate(fds[1], 0)
            os.pwrite(fds[1], f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return fds
    except OSError as error:
        _close(fds)
        raise StoreError(_unusable(path, error)) from error
    _close(fds)
    raise StoreError(
        f"{path} is in use by another runner ({holder or 'pid unknown'}); wait for it to end, or "
        "choose another folder with --out."
    )


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _names(path: Path, fd: int) -> bool:
    """Return whether ``path`` is what ``fd`` is open on."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except OSError:
        return False


def _wait_for_lock(fd: int, named_in: int) -> str | None:
    """Take the lock; returns who has it, as written in the lock file, if nobody lets go.

    Only a holder that is dead is waited for: a child that it was about to start can keep the lock
    for the moment between fork and exec.
    """
    deadline = time.monotonic() + _DEAD_HOLDER_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(named_in, 300, 0).decode(errors="replace").strip()
            if not _is_dead(holder) or time.monotonic() > deadline:
                return holder
            time.sleep(0.01)
        except OSError as error:
            if fd == named_in or error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOTSUP):
                raise
            return None
        else:
            return None


def _is_dead(holder: str) -> bool:
    match = re.fullmatch(r"pid (\d+) on (.*)", holder)
    if match is None or match.group(2) != socket.gethostname():
        return False
    try:
        os.kill(int(match.group(1)), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _unusable(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        why = "a part of that path is a file"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full"
    elif error.errno == errno.EROFS:
        why = "the file system is read-only"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "the folder is not writable"
    else:
        why = (error.strerror or str(error)).lower()
    return f"Cannot run in {path}: {why}. Nothing was started; choose another folder with --out."
