"""Build, mend and remove environments, one at a time, whoever else tries the same."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.environments import built, install, interpreters, lock
from bench.environments.built import LOG, MARKER, VENV, Status
from bench.environments.declare import Declaration, EnvironmentProblem, EnvironmentUnavailable, here

GB = 1000**3
DEFAULT_BYTES = 2 * GB
"""What an environment may take whose declaration does not say."""


@dataclass(frozen=True)
class Work:
    """What a sync will do, before it does it.

    Attributes:
        python: to build with.
        version: its version as locks name it.
        packages: how many will be installed.
        download_bytes, installed_bytes: about how much; None if nobody knows.
    """

    declaration: Declaration
    python: interpreters.Python
    version: str
    key: str
    folder: Path
    packages: int
    download_bytes: int | None
    installed_bytes: int | None


def plan(declared: Declaration, cache: Path | None = None) -> Work:
    """Say what building an environment takes, and refuse what cannot go well.

    Raises:
        EnvironmentUnavailable: no Python of a locked version, no room on the disk, a lock or wheel
            missing or damaged, another platform.
    """
    cache = cache or built.cache_folder()
    looked = built.status(declared, cache)
    if looked.state == "unusable":
        raise EnvironmentUnavailable(str(looked.reason))
    python = _python(declared)
    parts = built.made_from(declared, python.minor)
    key = built.identity(parts)
    _check_room(declared, cache)
    return Work(
        declaration=declared,
        python=python,
        version=python.minor,
        key=key,
        folder=cache / f"{declared.name}-{key}",
        packages=len(parts["packages"]) + len(parts["wheels"]),
        download_bytes=declared.download_bytes,
        installed_bytes=declared.installed_bytes,
    )


def sync(
    declared: Declaration,
    cache: Path | None = None,
    *,
    choice: install.Choice = "auto",
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, str], None] = lambda _done, _all, _what: None,
) -> Status:
    """Make an environment ready: nothing if it is, else build or mend it.

    Args:
        declared: which.
        cache: folder of environments.
        choice: installer.
        say: told what is going to be done, in a sentence.
        progress: told (packages begun, all packages, the package).

    Raises:
        EnvironmentUnavailable: it cannot be built; what was begun is taken away again.
    """
    cache = cache or built.cache_folder()
    found = built.status(declared, cache)
    if found.state == "ready":
        return found
    work = plan(declared, cache)
    installer = install.choose(choice, work.python.path)
    say(describe(work, found, installer))
    try:
        with built.locked(cache, work.folder.name, wait=False) as fd:
            return _build(work, installer, fd, progress)
    except BlockingIOError:
        say("Another process builds or uses it; waiting for that one.")
    except OSError as error:
        raise EnvironmentUnavailable(
            f"{cache} cannot be written: {(error.strerror or str(error)).lower()}; "
            "BENCH_ENVIRONMENTS names another folder"
        ) from error
    with built.locked(cache, work.folder.name) as fd:
        # The other one may have built it.
        found = built.status(declared, cache)
        return found if found.state == "ready" else _build(work, installer, fd, progress)


def describe(work: Work, found: Status, installer: install.Installer) -> str:
    """Return what a sync is going to do, and how large it is."""
    declared = work.declaration
    verb = {"broken": f"Mending ({found.reason})", "unfinished": "Building anew what was begun"}
    sizes = size_text(work.download_bytes, work.installed_bytes)
    return (
        f"{verb.get(found.state, 'Building')}: {declared.name}, {work.packages} packages with "
        f"Python {work.python.version}; {sizes}, in {work.folder}. Installer: {installer.name} "
        f"({installer.why})."
    )


def size_text(download_bytes: int | None, installed_bytes: int | None) -> str:
    """Return sizes for people."""
    if installed_bytes is None:
        return "its size is not known"
    on_disk = f"about {bytes_text(installed_bytes)} on disk"
    if download_bytes is None:
        return on_disk
    return f"about {bytes_text(download_bytes)} to download, {on_disk}"


def bytes_text(count: int) -> str:
    """Return an amount of disk for people, in powers of 1000."""
    amount, units = float(count), ["B", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.3g} {units[0]}"


def remove(name: str, cache: Path | None = None) -> list[tuple[Path, int]]:
    """Remove all built environments of a name, finished or not, also those of older locks.

    Returns:
        Their folders and sizes in bytes.

    Raises:
        EnvironmentProblem: one is being built or used, or cannot be removed.
    """
    cache = cache or built.cache_folder()
    gone = []
    for folder in folders_of(name, cache):
        try:
            with built.locked(cache, folder.name, wait=False):
                size = folder_bytes(folder)
                _delete(folder)
                gone.append((folder, size))
        except BlockingIOError:
            raise EnvironmentProblem(
                f"{folder} is being built or used by another process; try again when that is done."
            ) from None
    return gone


def folders_of(name: str, cache: Path) -> list[Path]:
    """Return the folders of all built environments of a name."""
    return [
        folder
        for folder in sorted(cache.glob(f"{name}-*"))
        if folder.is_dir() and folder.name.rpartition("-")[0] == name
    ]


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``, each hard link once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                about = os.lstat(os.path.join(root, name))
                if (about.st_dev, about.st_ino) not in seen:
                    seen.add((about.st_dev, about.st_ino))
                    total += about.st_size
    return total


def _python(declared: Declaration) -> interpreters.Python:
    if declared.build_with is not None:
        asked = interpreters.ask(declared.build_with)
        if asked is None:
            raise EnvironmentUnavailable(
                f"{declared.source} names {declared.build_with} to build with, which does not run"
            )
        if asked.minor not in declared.pythons:
            raise EnvironmentUnavailable(
                f"{declared.build_with} is Python {asked.version}, and {declared.name!r} is locked "
                f"for {' and '.join(declared.pythons)}"
            )
        return asked
    for version in declared.pythons:
        found = interpreters.find(version)
        if found is not None:
            return found
    versions = " or ".join(declared.pythons)
    raise EnvironmentUnavailable(
        f"the environment {declared.name!r} needs Python {versions}, which was not found here; "
        f"install it (such as `uv python install {declared.pythons[0]}`) or name one with "
        f"'build_with' in a file of your own"
    )


def _check_room(declared: Declaration, cache: Path) -> None:
    """Refuse to begin what will not fit: packages in the cache folder, downloads in the other."""
    needed: dict[int, int] = {}
    where: dict[int, Path] = {}
    installed_bytes = declared.installed_bytes or DEFAULT_BYTES
    for folder, size in (
        (cache, int(installed_bytes * 1.05)),
        (Path(tempfile.gettempdir()), declared.download_bytes or 0),
    ):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        device = place.stat().st_dev
        needed[device] = needed.get(device, 0) + size
        where.setdefault(device, place)
    for device, size in needed.items():
        free = shutil.disk_usage(where[device]).free
        if free < size:
            raise EnvironmentUnavailable(
                f"the environment {declared.name!r} needs about {bytes_text(size)} in "
                f"{where[device]}, where {bytes_text(free)} are free; make room, or name another "
                "folder with BENCH_ENVIRONMENTS (and TMPDIR for downloads)"
            )


def _build(
    work: Work,
    installer: install.Installer,
    lock_fd: int,
    progress: Callable[[int, int, str], None],
) -> Status:
    declared, folder = work.declaration, work.folder
    began = time.time()
    try:
        if folder.exists():
            _delete(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentUnavailable(f"{folder} cannot be written: {error}") from error
    log = folder / LOG
    try:
        packages, wheels = lock.wanted(declared, lock.read(declared, work.version))
        requirements = folder / "requirements.txt"
        last = {lock.normalised(name) for name in declared.build_here}
        requirements.write_text(
            "".join(f"{name}=={exact}\n" for name, exact in packages.items() if name not in last)
        )
        # as if it were activated: builds from source ask for ninja by name
        search = os.pathsep.join([str(folder / VENV / "bin"), os.environ.get("PATH", os.defpath)])
        variables = {"PATH": search, **declared.variables}
        seen: set[str] = set()
        output: list[str] = []

        def said(line: str) -> None:
            output.append(line)
            about = install.progress_of(line)
            if about is not None:
                seen.add(about)
                progress(min(len(seen), work.packages), work.packages, about)

        for command in install.commands(
            installer,
            work.python.path,
            folder / VENV,
            declared,
            requirements,
            list(wheels.values()),
            [f"{name}=={exact}" for name, exact in packages.items() if name in last],
        ):
            ended = install.run(command, log, lock_fd=lock_fd, variables=variables, said=said)
            if ended != 0:
                kept = _keep_log(log, folder)
                raise EnvironmentUnavailable(
                    f"the environment {declared.name!r} could not be built: "
                    + install.explain("\n".join(output), declared.name, kept)
                )
        _compare(folder, packages, wheels)
        marker = {
            **built.made_from(declared, work.version),
            "python": work.python.version,
            "platform": here(),
            "installer": installer.name,
            "seconds": round(time.time() - began, 1),
            "bytes": folder_bytes(folder),
            "installed": built.installed(folder),
        }
        text = json.dumps(marker, indent=1) + "\n"
        unfinished = folder / f"{MARKER}.new"
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, folder / MARKER)
    except OSError as error:
        _delete_quietly(folder)
        raise EnvironmentUnavailable(
            f"the environment {declared.name!r} could not be built: {error}"
        ) from error
    except BaseException:
        _delete_quietly(folder)
        raise
    return built.status(declared, folder.parent)


def _compare(folder: Path, packages: dict[str, str], wheels: dict[str, Path]) -> None:
    """Refuse an environment that is not what its lock says.

    Raises:
        EnvironmentUnavailable: a package is missing or of another version.
    """
    wanted = {**packages, **{name: lock.wheel_version(path) for name, path in wheels.items()}}
    there: dict[str, str] = {}
    for metadata in built.installed(folder):
        name, _, version = metadata.removesuffix(".dist-info").partition("-")
        there[lock.normalised(name)] = version
    for name, version in wanted.items():
        # a build of the same version, such as 2.4.0+cpu, is what the lock leaves open
        found = there.get(name)
        if found is None or _bare(found) != _bare(version):
            raise EnvironmentUnavailable(
                f"the installer reported success, but {name} is "
                f"{'missing' if found is None else found} where the lock says {version}"
            )


def _bare(version: str) -> str:
    return version.partition("+")[0].replace("_", "-").lower()


def _keep_log(log: Path, folder: Path) -> Path:
    """Move the log beside the folder, which is about to go."""
    kept = folder.with_name(f"{folder.name}.log")
    with suppress(OSError):
        os.replace(log, kept)
    return kept


def _delete(folder: Path) -> None:
    """Delete a built environment; its marker goes first, so that a half of it is never trusted.

    Raises:
        EnvironmentProblem: something in it cannot be deleted.
    """
    try:
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be removed: {error}") from error
    folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)


def _delete_quietly(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
