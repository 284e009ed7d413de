"""Locks: every package of an environment with its exact version, and a checksum over them.

A lock names versions and no files, so that the same lock takes a CUDA build from the registry and
a CPU build from a folder of the user's.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bench.environments import uv
from bench.environments.declare import Declaration, EnvironmentProblem, EnvironmentUnavailable

_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", re.MULTILINE)
_CHECKSUM = re.compile(r"# sha256 of the packages: ([0-9a-f]{64})")
_MADE_FROM = re.compile(r"# sha256 of the requirements: ([0-9a-f]{64})")
_WHEEL = re.compile(r"([^-]+)-([^-]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")


def normalised(name: str) -> str:
    """Return a package's name as the Python packaging specification normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def render(declaration: Declaration, version: str, packages: Mapping[str, str]) -> str:
    """Return the text of a lock."""
    pins = [f"{name}=={packages[name]}" for name in sorted(packages)]
    name = declaration.name
    made_by = f"Made by `bench env lock {name}`; a changed line is refused."
    lines = [f"# {name}, Python {version}. {made_by}"]
    lines += [f"# sha256 of the packages: {_checksum(pins)}", *pins]
    if declaration.requirements is not None:
        lines.insert(1, f"# sha256 of the requirements: {requirements_sha256(declaration)}")
    return "\n".join(lines) + "\n"


def read(declaration: Declaration, version: str) -> tuple[dict[str, str], str | None]:
    """Return a lock's packages and the hash of the requirements that it was resolved from.

    Raises:
        EnvironmentUnavailable: it is missing or damaged.
    """
    path = declaration.lock_path(version)
    remedy = f"restore it, or make it anew with: bench env lock {declaration.name}"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise EnvironmentUnavailable(
            f"the lock {path} is missing; make it with: bench env lock {declaration.name}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentUnavailable(
            f"the lock {path} cannot be read ({error}); {remedy}"
        ) from error
    packages: dict[str, str] = {}
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        match = _PIN.fullmatch(pin)
        if match is None:
            brief = pin if len(pin) <= 60 else f"{pin[:59]}…"
            raise EnvironmentUnavailable(
                f"the lock {path} is damaged: {brief!r} is no NAME==VERSION; {remedy}"
            )
        packages[normalised(match[1])] = match[2]
    written = next((m[1] for line in lines if (m := _CHECKSUM.fullmatch(line))), None)
    if written != _checksum(pins):
        how = "has no checksum" if written is None else "does not fit its checksum"
        raise EnvironmentUnavailable(
            f"the lock {path} {how}, so it was cut off or changed by hand; {remedy}"
        )
    return packages, next((m[1] for line in lines if (m := _MADE_FROM.fullmatch(line))), None)


def wanted(declaration: Declaration, version: str) -> tuple[dict[str, str], dict[str, Path]]:
    """Return what is to be installed: locked packages, and own wheels by normalised name.

    Raises:
        EnvironmentUnavailable: the lock is missing or damaged; a wheel is missing or not named
            like one.
    """
    locked, _ = read(declaration, version)
    wheels: dict[str, Path] = {}
    for path in declaration.wheels:
        match = _WHEEL.fullmatch(path.name)
        if match is None:
            raise EnvironmentUnavailable(
                f"{declaration.source} names {path}, which is not called like a wheel "
                "(NAME-VERSION-PYTHON-ABI-PLATFORM.whl)"
            )
        if not path.is_file():
            raise EnvironmentUnavailable(
                f"{declaration.source} names the wheel {path}, which is not there"
            )
        wheels[normalised(match[1])] = path
    left_out = [pattern.lower() for pattern in declaration.without]
    packages = {
        name: exact
        for name, exact in locked.items()
        if name not in wheels and not any(fnmatch.fnmatch(name, each) for each in left_out)
    }
    return packages, wheels


def requirements_sha256(declaration: Declaration) -> str:
    """Return the hash of the file that the lock is resolved from.

    Raises:
        EnvironmentProblem: it has none, or it cannot be read.
    """
    if declaration.requirements is None:
        raise EnvironmentProblem(
            f"{declaration.source} names no 'requirements', so there is nothing to lock."
        )
    try:
        return hashlib.sha256(declaration.requirements.read_bytes()).hexdigest()
    except OSError as error:
        raise EnvironmentProblem(
            f"{declaration.requirements} cannot be read: {error.strerror or error}."
        ) from error


def outdated(declaration: Declaration) -> list[str]:
    """Return the Python versions whose locks were made from other requirements than today's."""
    if declaration.requirements is None:
        return []
    today = requirements_sha256(declaration)
    return [each for each in declaration.pythons if read(declaration, each)[1] != today]


def make(
    declared: Declaration, version: str, say: Callable[[str], None] = lambda _: None
) -> tuple[Path, dict[str, tuple[str | None, str | None]]]:
    """Resolve the requirements for a Python version, and write the lock if all went well.

    Returns:
        The lock's path, and what changed: package → (version before, version now).

    Raises:
        EnvironmentProblem: no such Python, nothing that satisfies the requirements, or the lock
            cannot be written.
    """
    requirements_sha256(declared)
    python = uv.find_python(version)
    if python is None:
        raise EnvironmentProblem(
            f"Python {version} was not found here, and a lock is made with the Python it is for."
        )
    say(f"Resolving {declared.name} for Python {version}.")
    with tempfile.TemporaryDirectory(prefix="bench-lock-") as folder:
        log, result = Path(folder) / "output.log", Path(folder) / "lock.txt"
        command = [
            "pip", "compile", "--no-header", "--no-annotate", "--quiet",
            "--python", str(python), "--output-file", str(result), str(declared.requirements),
        ]  # fmt: skip
        output = uv.run(command, log, find_links=declared.find_links)
        if output is not None:
            kept = Path(tempfile.gettempdir()) / f"bench-lock-{declared.name}.log"
            kept.write_bytes(log.read_bytes())
            raise EnvironmentProblem(
                f"{declared.requirements} could not be resolved, and the lock stays as it is: "
                + uv.explain(output, declared.name, kept, source=str(declared.requirements))
            )
        found = _PINNED.findall(result.read_text(encoding="utf-8"))
    packages = {normalised(name): exact.partition("+")[0] for name, exact in found}
    local = sorted(name for name, exact in found if "+" in exact)
    if local:
        say(
            f"Locked by their public version, but found here as another build: {', '.join(local)}. "
            "What the public build needs besides may be missing from the lock."
        )
    path = declared.lock_path(version)
    before: dict[str, str] = {}
    if path.exists():
        before = dict(_PINNED.findall(path.read_text(encoding="utf-8", errors="replace")))
    try:
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text(render(declared, version, packages), encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise EnvironmentProblem(
            f"{path} cannot be written: {error.strerror or error}. Copy the declaration and its "
            "requirements to a folder of your own, and lock it there."
        ) from error
    return path, {
        name: (before.get(name), packages.get(name))
        for name in sorted({*before, *packages})
        if before.get(name) != packages.get(name)
    }


def _checksum(pins: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()
