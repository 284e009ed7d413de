"""Locks: every package of an environment with its exact version, and a checksum over them.

A lock names versions and no files, so that the same lock takes a CUDA build from the registry and
a CPU build from a folder of the user's.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.environments.declare import Declaration, EnvironmentProblem, EnvironmentUnavailable

_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_CHECKSUM = re.compile(r"# sha256 of the packages: ([0-9a-f]{64})")
_MADE_FROM = re.compile(r"# sha256 of the requirements: ([0-9a-f]{64})")
_WHEEL = re.compile(r"([^-]+)-([^-]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")


@dataclass(frozen=True)
class Lock:
    """A lock that was read and checked.

    Attributes:
        packages: normalised name → version.
        requirements_sha256: of the file that it was resolved from.
    """

    packages: Mapping[str, str]
    requirements_sha256: str | None


def normalised(name: str) -> str:
    """Return a package's name as the Python packaging specification normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def render(declaration: Declaration, version: str, packages: Mapping[str, str]) -> str:
    """Return the text of a lock."""
    lines = [f"{name}=={packages[name]}" for name in sorted(packages)]
    made_from = ""
    if declaration.requirements is not None:
        made_from = f"# sha256 of the requirements: {requirements_sha256(declaration)}\n"
    return (
        f"# {declaration.name}, Python {version}. Made by `bench env lock {declaration.name}`; a "
        "changed line is refused.\n"
        f"{made_from}"
        f"# sha256 of the packages: {_checksum(lines)}\n" + "".join(f"{line}\n" for line in lines)
    )


def read(declaration: Declaration, version: str) -> Lock:
    """Return the lock of an environment for a Python version such as 3.11.

    Raises:
        EnvironmentUnavailable: it is missing or damaged.
    """
    path = declaration.lock_path(version)
    remedy = f"restore it, or make it anew with: bench env lock {declaration.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EnvironmentUnavailable(
            f"the lock {path} is missing; make it with: bench env lock {declaration.name}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentUnavailable(
            f"the lock {path} cannot be read ({error}); {remedy}"
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    packages: dict[str, str] = {}
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        match = _PIN.fullmatch(pin)
        if match is None:
            raise EnvironmentUnavailable(
                f"the lock {path} is damaged: {_brief(pin)} is no NAME==VERSION; {remedy}"
            )
        packages[normalised(match[1])] = match[2]
    written = next((m[1] for line in lines if (m := _CHECKSUM.fullmatch(line))), None)
    if written != _checksum(pins):
        how = "has no checksum" if written is None else "does not fit its checksum"
        raise EnvironmentUnavailable(
            f"the lock {path} {how}, so it was cut off or changed by hand; {remedy}"
        )
    made_from = next((m[1] for line in lines if (m := _MADE_FROM.fullmatch(line))), None)
    return Lock(packages, made_from)


def wanted(declaration: Declaration, lock: Lock) -> tuple[dict[str, str], dict[str, Path]]:
    """Return what is to be installed: locked packages, and own wheels by normalised name.

    Raises:
        EnvironmentUnavailable: a wheel is missing or not named like one.
    """
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
        name: version
        for name, version in lock.packages.items()
        if name not in wheels and not any(fnmatch.fnmatch(name, each) for each in left_out)
    }
    return packages, wheels


def wheel_version(path: Path) -> str:
    """Return the version in a wheel's name."""
    match = _WHEEL.fullmatch(path.name)
    assert match is not None
    return match[2]


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


def _checksum(pins: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


def _brief(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
