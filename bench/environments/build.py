"""Build, mend and remove environments, one at a time, whoever else tries the same."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.environments import built, lock, uv
from bench.environments.built import LOG, MARKER, VENV, Interpreter, Status
from bench.environments.declare import (
    CURRENT,
    Declaration,
    EnvironmentProblem,
    EnvironmentUnavailable,
    declaration,
)

DEFAULT_BYTES = 2_000_000_000
"""What an environment may take whose declaration does not say."""


@dataclass(frozen=True)
class Work:
    """What a sync will do, before it does it."""

    declaration: Declaration
    python: Path
    """To build with."""
    exact: str
    """Its version, such as 3.11.7."""
    version: str
    """Its version as locks name it, such as 3.11."""
    folder: Path
    packages: int


def plan(declared: Declaration, cache: Path | None = None) -> Work:
    """Return what building an environment takes, and refuse what cannot go well.

    Raises:
        EnvironmentUnavailable: no uv, no Python of a locked version, no room on the disk, a lock or
            wheel missing or damaged, another platform.
    """
    cache = cache or built.cache_folder()
    current = built.status(declared, cache)
    if current.state == "unusable":
        raise EnvironmentUnavailable(str(current.reason))
    python, exact = _python(declared)
    version = exact.rpartition(".")[0]
    parts = built.made_from(declared, version)
    _check_room(declared, cache)
    folder = cache / f"{declared.name}-{built.identity(parts)}"
    count = len(parts["packages"]) + len(parts["wheels"])
    return Work(declared, python, exact, version, folder, count)


def sync(
    declared: Declaration,
    cache: Path | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> Status:
    """Make an environment ready: nothing if it is, else build or mend it.

    Args:
        say: called with what is going to be done, in a sentence.
        progress: called with lines of uv that show how far it is.

    Raises:
        EnvironmentUnavailable: it cannot be built; what was begun is removed again.
    """
    cache = cache or built.cache_folder()
    current = built.status(declared, cache)
    if current.state == "ready":
        return current
    work = plan(declared, cache)
    verbs = {"broken": f"Mending ({current.reason})", "unfinished": "Building anew what was begun"}
    say(
        f"{verbs.get(current.state, 'Building')}: {declared.name}, {work.packages} packages with "
        f"Python {work.exact}; {size_text(declared)}, in {work.folder}."
    )
    try:
        with built.locked(cache, work.folder.name, wait=False) as fd:
            return _build(work, fd, progress)
    except BlockingIOError:
        say("Another process builds or uses it; waiting for that one.")
    except OSError as error:
        raise EnvironmentUnavailable(
            f"{cache} cannot be written: {(error.strerror or str(error)).lower()}; "
            "BENCH_ENVIRONMENTS names another folder"
        ) from error
    with built.locked(cache, work.folder.name) as fd:
        # The other one may have built it.
        current = built.status(declared, cache)
        return current if current.state == "ready" else _build(work, fd, progress)


def provide(
    name: str,
    cache: Path | None = None,
    *,
    may_build: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Interpreter:
    """Return the interpreter of an environment for a run, building it first if it is not ready.

    Raises:
        EnvironmentUnavailable: it is not ready and was not, or could not be, built.
    """

    def progress(line: str) -> None:
        if not line.startswith("Downloading"):
            say(line)

    if may_build and name != CURRENT:
        try:
            declared = declaration(name)
        except EnvironmentProblem as error:
            raise EnvironmentUnavailable(str(error)) from error
        if not declared.known_problem:
            sync(declared, cache, say=say, progress=progress)
    return built.resolve(name, cache)


def size_text(declared: Declaration) -> str:
    """Return about how large an environment is."""
    if declared.installed_bytes is None:
        return "its size is not known"
    on_disk = f"about {bytes_text(declared.installed_bytes)} on disk"
    if declared.download_bytes is None:
        return on_disk
    return f"about {bytes_text(declared.download_bytes)} to download, {on_disk}"


def bytes_text(count: int) -> str:
    """Return an amount of disk for people, in powers of 1000."""
    amount, units = float(count), ["B", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.3g} {units[0]}"


def remove(name: str, cache: Path | None = None) -> list[tuple[Path, int]]:
    """Remove all built environments of a name, also unfinished ones and those of older locks.

    Returns:
        Their folders and sizes in bytes.

    Raises:
        EnvironmentProblem: one is being built or used, or cannot be removed.
    """
    cache = cache or built.cache_folder()
    removed = []
    for folder in folders_of(name, cache):
        try:
            with built.locked(cache, folder.name, wait=False):
                removed.append((folder, folder_bytes(folder)))
                _delete(folder)
        except BlockingIOError:
            raise EnvironmentProblem(
                f"{folder} is being built or used by another process; try again when that is done."
            ) from None
    return removed


def folders_of(name: str, cache: Path) -> list[Path]:
    """Return the folders of all built environments of a name."""
    return [
        folder
        for folder in sorted(cache.glob(f"{name}-*"))
        if folder.is_dir() and folder.name.rpartition("-")[0] == name
    ]


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``, each hard link once."""
    sizes: dict[tuple[int, int], int] = {}
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                about = os.lstat(os.path.join(root, name))
                sizes[about.st_dev, about.st_ino] = about.st_size
    return sum(sizes.values())


def _python(declared: Declaration) -> tuple[Path, str]:
    """Return the Python to build with, and its version."""
    versions = declared.pythons
    own = declared.build_with
    for python in [own] if own else filter(None, map(uv.find_python, versions)):
        known = built.about(python)
        if known and known[0].rpartition(".")[0] in versions:
            return python, known[0]
        if own and known:
            raise EnvironmentUnavailable(
                f"{own} is Python {known[0]}, and {declared.name!r} is locked for "
                f"{' and '.join(versions)}"
            )
    if own:
        raise EnvironmentUnavailable(
            f"{declared.source} names {own} to build with, which does not run"
        )
    raise EnvironmentUnavailable(
        f"the environment {declared.name!r} needs Python {' or '.join(versions)}, which was not "
        f"found here; install it (such as `uv python install {versions[0]}`) or name one with "
        "'build_with' in a file of your own"
    )


def _check_room(declared: Declaration, cache: Path) -> None:
    """Refuse what will not fit: uv unpacks into its cache, and links or copies from there."""
    size = int((declared.installed_bytes or DEFAULT_BYTES) * 1.05)
    for folder, variable in ((cache, "BENCH_ENVIRONMENTS"), (uv.cache_folder(), "UV_CACHE_DIR")):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if free < size:
            raise EnvironmentUnavailable(
                f"the environment {declared.name!r} needs about {bytes_text(size)} in {place}, "
                f"where {bytes_text(free)} are free; make room, or name another folder with "
                f"{variable}"
            )


def _build(work: Work, lock_fd: int, progress: Callable[[str], None]) -> Status:
    declared, folder = work.declaration, work.folder
    began = time.time()
    try:
        if folder.exists():
            _delete(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentUnavailable(f"{folder} cannot be written: {error}") from error
    try:
        packages, wheels = lock.wanted(declared, work.version)
        _install(work, packages, wheels, lock_fd, progress)
        marker = {
            **built.made_from(declared, work.version),
            "python": work.exact,
            "seconds": round(time.time() - began, 1),
            "bytes": folder_bytes(folder),
            "installed": built.installed(folder),
        }
        unfinished = folder / f"{MARKER}.new"
        unfinished.write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / MARKER)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise EnvironmentUnavailable(
            f"the environment {declared.name!r} could not be built: {error}"
        ) from error
    return built.status(declared, folder.parent)


def _install(
    work: Work,
    packages: Mapping[str, str],
    wheels: Mapping[str, Path],
    lock_fd: int,
    progress: Callable[[str], None],
) -> None:
    """Make the virtual environment, and install what is locked and nothing else.

    Raises:
        EnvironmentUnavailable: uv failed, and its log is kept beside the folder; or what it
            installed is not what the lock says.
    """
    declared, folder = work.declaration, work.folder
    venv = folder / VENV
    last = [name for name in map(lock.normalised, declared.build_here) if name in packages]
    requirements = folder / "requirements.txt"
    pins = [f"{name}=={exact}\n" for name, exact in packages.items() if name not in last]
    requirements.write_text("".join(pins))
    # With bytecode, as pip installs: else the first start would be slower than those that follow.
    add = ["pip", "install", "--python", str(built.python_in(folder)), "--no-deps"]
    add.append("--compile-bytecode")
    steps = [
        ["venv", "--quiet", "--no-project", "--python", str(work.python), str(venv)],
        [*add, "-r", str(requirements), *map(str, wheels.values())],
        [*add, "--no-build-isolation", *(f"{name}=={packages[name]}" for name in last)],
    ]
    # As if it were activated: builds from source ask for ninja by name.
    search = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)])
    run = functools.partial(
        uv.run,
        log=folder / LOG,
        find_links=declared.find_links,
        variables={"PATH": search, **declared.variables},
        lock_fd=lock_fd,
        progress=progress,
    )
    for step in steps if last else steps[:-1]:
        output = run(step)
        # Without a network, uv fails even if its cache and folders of wheels have everything.
        if output and uv.unreachable(output) and run([*step, "--offline"]) is None:
            output = None
        if output is not None:
            kept = folder.with_name(f"{folder.name}.log")
            with suppress(OSError):
                os.replace(folder / LOG, kept)
            explained = uv.explain(output, declared.name, kept)
            raise EnvironmentUnavailable(
                f"the environment {declared.name!r} could not be built: {explained}"
            )
    installed = {}
    for metadata in built.packages_in(folder).glob("*.dist-info"):
        name, _, exact = metadata.stem.partition("-")
        installed[lock.normalised(name)] = exact
    wanted = {**packages, **{name: path.name.split("-")[1] for name, path in wheels.items()}}
    for name, exact in wanted.items():
        # A build of the same version, such as 2.4.0+cpu, is what the lock leaves open.
        if _public(installed.get(name, "")) != _public(exact):
            raise EnvironmentUnavailable(
                f"uv reported success, but {name} is {installed.get(name, 'missing')} where the "
                f"lock says {exact}"
            )


def _public(version: str) -> str:
    return version.partition("+")[0].replace("_", "-").lower()


def _delete(folder: Path) -> None:
    """Delete a built environment; its marker goes first, so that a half of it is never trusted."""
    try:
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be removed: {error}") from error
    folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)
