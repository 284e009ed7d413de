"""Which distributions are installed, read from their metadata without importing them."""

from __future__ import annotations

import importlib.metadata
import re

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
    found = [int(part) for part in re.findall(r"\d+", version)[:2]]
    major, minor = [*found, 0, 0][:2]
    return major, minor


def installed(*distributions: str) -> Verdict:
    """Say which of these distributions is missing, if one is."""
    missing = [name for name in distributions if version_of(name) is None]
    if not missing:
        return Verdict(True)
    are = "is" if len(missing) == 1 else "are"
    return lacking(f"{', '.join(missing)} {are} not installed")
