"""Which distributions are installed, read from their metadata without importing them."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable

from compilers.base import Verdict, lacking


def version_of(distribution: str) -> str | None:
    """Return the installed version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*distributions: str) -> dict[str, str | None]:
    """Return the installed version of each."""
    return {name: version_of(name) for name in distributions}


def numbers(version: str) -> tuple[int, int]:
    """Return major and minor of a version; 0 for what it does not have."""
    parts = [int(part) for part in re.findall(r"\d+", version)[:2]]
    major, minor = [*parts, 0, 0][:2]
    return major, minor


def attempt(action: Callable[[], object], sentence: str) -> Verdict:
    """Return whether ``action`` works; if not, the reason is ``sentence`` and what was raised."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises
        return lacking(f"{sentence}: {type(error).__name__}: {error}")
    return Verdict(True)


def beside_torch(distribution: str) -> str:
    """Return the beginning of a sentence on a package that does not work with this torch."""
    return (
        f"{distribution} {version_of(distribution)} does not {{}} with torch {version_of('torch')}"
    )


def installed(*distributions: str) -> Verdict:
    """Return which of these distributions is missing, if one is."""
    missing = [name for name in distributions if version_of(name) is None]
    if not missing:
        return Verdict(True)
    are = "is" if len(missing) == 1 else "are"
    return lacking(f"{', '.join(missing)} {are} not installed")
