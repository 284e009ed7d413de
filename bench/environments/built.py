"""Environments that were built: where they are, what they were made from, whether they are whole.

An environment is a folder NAME-HASH in the cache folder; HASH is of what it is made from. It holds
the virtual environment, uv's log, and, written last, a marker. A folder without a marker is what
an interrupted sync left behind.
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

from bench import files

if sys.platform != "win32":
    import fcntl

from bench.environments import lock
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

State = Literal["ready", "broken", "unusable", "unfinished", "absent"]
_PRECEDENCE: tuple[State, ...] = ("broken", "unusable", "unfinished", "absent")


@dataclass(frozen=True)
class Interpreter:
    """What workers of an environment run with; only one that was built here has a folder."""

    path: str
    name: str = CURRENT
    identity: str | None = None
    """Hash of what it was made from; None for the harness's own."""
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
    """How an environment stands, and a sentence on why it is not ready.

    ``broken``: a built one is not whole any more; ``unusable``: it cannot be built as declared;
    ``unfinished``: a sync was interrupted.
    """

    declaration: Declaration
    state: State
    reason: str | None = None
    interpreter: Interpreter | None = None
    folder: Path | None = None
    bytes: int | None = None
    python: str | None = None


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where environments are built: BENCH_ENVIRONMENTS, else the platform's cache folder."""
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
    packages, wheels = lock.wanted(declared, version)
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
    """Return how an environment stands, without changing anything."""
    cache = cache or cache_folder()
    if declared.own_python is not None:
        return _status_of_own(declared, declared.own_python)
    if declared.platforms and here() not in declared.platforms:
        platforms = ", ".join(declared.platforms)
        reason = (
            f"the environment {declared.name!r} is locked for {platforms}, and this is {here()}"
        )
        return Status(declared, "unusable", reason)
    candidates = [Status(declared, "absent", "it is not built")]
    for version in declared.pythons:
        try:
            key = identity(made_from(declared, version))
        except EnvironmentUnavailable as error:
            candidates.append(Status(declared, "unusable", str(error)))
            continue
        folder = cache / f"{declared.name}-{key}"
        marker = read_marker(folder)
        if marker is None:
            if folder.exists():
                reason = "a sync of it was interrupted"
                candidates.append(Status(declared, "unfinished", reason, folder=folder))
            continue
        facts = (folder, marker.get("bytes"), marker.get("python"))
        damage = damage_of(folder, marker)
        if damage is None:
            python = str(python_in(folder))
            interpreter = Interpreter(python, declared.name, key, declared.variables, folder)
            return Status(declared, "ready", None, interpreter, *facts)
        candidates.append(Status(declared, "broken", damage, None, *facts))
    return min(candidates, key=lambda each: _PRECEDENCE.index(each.state))


def resolve(name: str, cache: Path | None = None) -> Interpreter:
    """Return the interpreter of an environment that is ready.

    Raises:
        EnvironmentUnavailable: it is not; the message says what to do.
    """
    if name == CURRENT:
        return Interpreter(sys.executable)
    try:
        current = status(declaration(name), cache)
    except EnvironmentProblem as error:
        raise EnvironmentUnavailable(str(error)) from error
    if current.interpreter is None:
        raise EnvironmentUnavailable(why_not(current))
    return current.interpreter


def why_not(current: Status) -> str:
    """Return why an environment is not ready, with the command that helps."""
    if current.state == "unusable":
        return str(current.reason)
    name = current.declaration.name
    verb = "mends" if current.state in ("broken", "unfinished") else "builds"
    return current.declaration.known_problem or (
        f"the environment {name!r} is not ready: {current.reason}; "
        f"`bench env sync {name}` {verb} it"
    )


def python_in(folder: Path) -> Path:
    """Return the path of a built environment's interpreter."""
    return folder / VENV / "bin" / "python"


def packages_in(folder: Path) -> Path:
    """Return the folder of a built environment's packages."""
    return next((folder / VENV / "lib").glob("python3*/site-packages"), folder / VENV / "lib")


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return a built environment's marker, or None if it was not finished."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def damage_of(folder: Path, marker: Mapping[str, Any]) -> str | None:
    """Return what a built environment lacks, or None if it is whole; no file is read."""
    python = python_in(folder)
    if not python.exists():
        return f"its interpreter is gone ({python.resolve()})"
    lost = sorted(set(marker.get("installed", ())) - set(installed(folder)))
    if not lost:
        return None
    # A package's metadata is named best: it has the version.
    name = next((each for each in lost if each.endswith(".dist-info")), lost[0])
    package, is_metadata, _ = name.partition(".dist-info")
    if is_metadata:
        return f"{package.replace('-', ' ')} was removed from it or replaced"
    return f"it is not whole: {name} is missing"


def installed(folder: Path) -> list[str]:
    """Return the names in a built environment's folder of packages."""
    site = packages_in(folder)
    return sorted({*os.listdir(site)} - {"__pycache__"}) if site.is_dir() else []


@contextlib.contextmanager
def locked(cache: Path, key: str, *, wait: bool = True, shared: bool = False) -> Iterator[int]:
    """Hold the lock of an environment; yields its descriptor, which uv inherits.

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


_ABOUT = (
    "import importlib.metadata as m, json, platform; print(json.dumps([platform.python_version(), "
    "sorted({f'{d.name}=={d.version}' for d in m.distributions()})]))"
)


@functools.cache
def about(python: Path) -> tuple[str, str] | None:
    """Return an interpreter's version and a text of what it has, or None if it does not run."""
    command = [str(python), "-I", "-c", _ABOUT]
    try:
        text = files.answer(command).decode()
        version = json.loads(text)[0]
        return (version, text) if isinstance(version, str) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _status_of_own(declared: Declaration, python: Path) -> Status:
    known = about(python)
    if known is None:
        why = "does not run" if python.exists() else "is not there"
        reason = f"{declared.source} names the interpreter {python}, which {why}"
        return Status(declared, "unusable", reason)
    version, contents = known
    key = identity({"name": declared.name, "python": str(python), "contents": contents})
    interpreter = Interpreter(str(python), declared.name, key, declared.variables)
    return Status(declared, "ready", interpreter=interpreter, python=version)


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
