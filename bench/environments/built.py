"""Environments that were built: where they lie, what they were made from, whether they are whole.

An environment is a folder NAME-HASH in the cache folder; HASH is of what it is made from. It holds
the virtual environment, the installer's log, and, written last, a marker. A folder without a
marker is what a sync that was ended left behind.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

if sys.platform != "win32":
    import fcntl

from bench.environments import interpreters, lock
from bench.environments.declare import (
    APPLICATION,
    CURRENT,
    Declaration,
    EnvironmentProblem,
    EnvironmentUnavailable,
    declaration,
    here,
)

MARKER = "environment.json"
VENV = "venv"
LOG = "install.log"

State = Literal["ready", "broken", "unfinished", "absent", "unusable"]


@dataclass(frozen=True)
class Interpreter:
    """What workers of an environment run with.

    Attributes:
        path: of the Python.
        name: of the environment.
        identity: hash of what it was made from; None for the harness's own.
        variables: environment variables of its processes.
        folder: of the built environment; None for an interpreter that was not built here.
    """

    path: str
    name: str = CURRENT
    identity: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep others from mending or removing it meanwhile."""
        if self.folder is None:
            yield
            return
        with locked(self.folder.parent, self.folder.name, shared=True):
            yield

    def record(self) -> dict[str, Any]:
        """Return what a record keeps of it."""
        return {"name": self.name, "identity": self.identity}


@dataclass(frozen=True)
class Status:
    """How an environment stands.

    Attributes:
        state: ``ready``; ``broken`` if a built one is not whole any more; ``unfinished`` if a sync
            was ended in the middle; ``absent``; ``unusable`` if it cannot be built as declared.
        reason: why it is not ready, in a sentence.
        folder: of the built environment, if there is one.
        bytes: on disk, if it is built.
    """

    declaration: Declaration
    state: State
    reason: str | None = None
    interpreter: Interpreter | None = None
    folder: Path | None = None
    bytes: int | None = None
    python: str | None = None


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where environments are built: BENCH_ENVIRONMENTS, else the platform's cache folder."""
    given = environment.get("BENCH_ENVIRONMENTS")
    if given:
        return Path(given).expanduser().absolute()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / APPLICATION / "environments"


def made_from(declared: Declaration, version: str) -> dict[str, Any]:
    """Return what an environment for a Python version such as 3.11 is made from.

    Raises:
        EnvironmentUnavailable: its lock or one of its wheels is missing or damaged.
    """
    locked = lock.read(declared, version)
    packages, wheels = lock.wanted(declared, locked)
    folders: dict[str, str] = {}
    for folder in declared.find_links:
        if not folder.is_dir():
            raise EnvironmentUnavailable(
                f"{declared.source} names the wheel folder {folder}, which is not there"
            )
        names = sorted(path.name for path in folder.glob("*.whl"))
        folders[str(folder)] = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {
        "name": declared.name,
        "python": version,
        "platform": here(),
        "packages": packages,
        "wheels": {name: _file_hash(path) for name, path in wheels.items()},
        "find_links": folders,
    }


def identity(parts: Mapping[str, Any]) -> str:
    """Return the hash by which an environment is known."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def status(declared: Declaration, cache: Path | None = None) -> Status:
    """Look at an environment without changing anything."""
    cache = cache or cache_folder()
    if declared.own_python is not None:
        return _own(declared)
    if declared.platforms and here() not in declared.platforms:
        return Status(
            declared,
            "unusable",
            f"the environment {declared.name!r} is locked for {', '.join(declared.platforms)}, and "
            f"this is {here()}",
        )
    problem: str | None = None
    unfinished: Path | None = None
    broken: Status | None = None
    for version in declared.pythons:
        try:
            key = identity(made_from(declared, version))
        except EnvironmentUnavailable as error:
            problem = problem or str(error)
            continue
        folder = cache / f"{declared.name}-{key}"
        marker = read_marker(folder)
        if marker is None:
            if folder.exists():
                unfinished = unfinished or folder
            continue
        damage = damage_of(folder, marker)
        interpreter = Interpreter(
            str(python_in(folder)), declared.name, key, dict(declared.variables), folder
        )
        found = Status(
            declared,
            "ready" if damage is None else "broken",
            damage,
            interpreter if damage is None else None,
            folder,
            marker.get("bytes"),
            marker.get("python"),
        )
        if damage is None:
            return found
        broken = broken or found
    if broken is not None:
        return broken
    if problem is not None:
        return Status(declared, "unusable", problem)
    if unfinished is not None:
        return Status(declared, "unfinished", "a sync of it was ended", folder=unfinished)
    return Status(declared, "absent", "it is not built")


def resolve(name: str, cache: Path | None = None) -> Interpreter:
    """Return the interpreter of an environment that is ready.

    Raises:
        EnvironmentUnavailable: it is not; the message says what to do.
    """
    if name == CURRENT:
        return Interpreter(sys.executable)
    try:
        found = status(declaration(name), cache)
    except EnvironmentUnavailable:
        raise
    except EnvironmentProblem as error:
        raise EnvironmentUnavailable(str(error)) from error
    if found.interpreter is not None:
        return found.interpreter
    raise EnvironmentUnavailable(why_not(found))


def why_not(found: Status) -> str:
    """Return why an environment is not ready, with the command that helps."""
    name = found.declaration.name
    if found.declaration.known_problem and found.state != "unusable":
        return found.declaration.known_problem
    if found.state == "unusable":
        return str(found.reason)
    verb = "mends" if found.state in ("broken", "unfinished") else "builds"
    return (
        f"the environment {name!r} is not ready: {found.reason}; `bench env sync {name}` {verb} it"
    )


def python_in(folder: Path) -> Path:
    """Return the path of a built environment's interpreter."""
    return folder / VENV / "bin" / "python"


def packages_in(folder: Path) -> Path:
    """Return the folder of a built environment's packages."""
    found = sorted((folder / VENV / "lib").glob("python3*/site-packages"))
    return found[0] if found else folder / VENV / "lib"


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return a built environment's marker, or None if it was not finished."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def damage_of(folder: Path, marker: Mapping[str, Any]) -> str | None:
    """Return what a built environment lacks, or None if it is whole.

    Compares names in its folders with those that were there when it was built; no file is read.
    """
    python = python_in(folder)
    if not python.exists():
        base = python.resolve() if python.is_symlink() else python
        return f"its interpreter is gone ({base})"
    site = packages_in(folder)
    there = set(os.listdir(site)) if site.is_dir() else set()
    for metadata, entries in marker.get("installed", {}).items():
        if metadata not in there:
            return f"{_told(metadata)} was removed from it or replaced"
        for entry in entries:
            if entry not in there:
                return f"{_told(metadata)} is not whole: {entry} is missing"
    return None


def installed(folder: Path) -> dict[str, list[str]]:
    """Return each distribution's metadata folder, with the top-level names that belong to it."""
    site = packages_in(folder)
    found: dict[str, list[str]] = {}
    for metadata in sorted(site.glob("*.dist-info")):
        names: set[str] = set()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in (metadata / "RECORD").read_text(encoding="utf-8").splitlines():
                first = line.lstrip('"').partition("/")[0].partition(",")[0]
                if first not in ("..", "__pycache__", metadata.name, ""):
                    names.add(first)
        found[metadata.name] = sorted(name for name in names if (site / name).exists())
    return found


@contextlib.contextmanager
def locked(cache: Path, key: str, *, wait: bool = True, shared: bool = False) -> Iterator[int]:
    """Hold the lock of an environment; yields its descriptor, which an installer inherits.

    Shared holders exclude those that build or remove, and not each other.

    Raises:
        BlockingIOError: somebody else holds it, and ``wait`` is false.
    """
    cache.mkdir(parents=True, exist_ok=True)
    fd = os.open(cache / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(fd, kind | (0 if wait else fcntl.LOCK_NB))
        yield fd
    finally:
        os.close(fd)


_OWN = (
    "import importlib.metadata as m, json, platform; print(json.dumps([platform.python_version(), "
    "sorted({f'{d.name}=={d.version}' for d in m.distributions()})]))"
)


def _own(declared: Declaration) -> Status:
    path = declared.own_python
    assert path is not None
    asked = interpreters.ask(path)
    if asked is None:
        why = "does not run" if path.exists() else "is not there"
        return Status(
            declared,
            "unusable",
            f"{declared.source} names the interpreter {path}, which {why}",
        )
    contents = _contents(path)
    key = identity({"name": declared.name, "python": str(path), "contents": contents})
    return Status(
        declared,
        "ready",
        interpreter=Interpreter(str(path), declared.name, key, dict(declared.variables)),
        python=asked.version,
    )


@functools.cache
def _contents(path: Path) -> str:
    return interpreters.output(path, _OWN) or ""


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _told(metadata: str) -> str:
    return metadata.removesuffix(".dist-info").replace("-", " ")
