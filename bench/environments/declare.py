"""What an environment is declared as: one TOML file, of the project or of the user.

docs/environments.md has a table of the keys. Paths are relative to their file; ``~`` is the home
folder.
"""

from __future__ import annotations

import difflib
import functools
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CURRENT = "current"
"""The environment that the harness itself runs in; it is never built."""

SHIPPED = Path(__file__).resolve().parents[2] / "compilers" / "environments"

APPLICATION = "diffusion-compiler-bench"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_VERSION = re.compile(r"3\.\d{1,2}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "description": (str, "a text"),
    "python": ((list, str), "a list of versions or the path of an interpreter"),
    "build_with": (str, "a path"),
    "requirements": (str, "a path"),
    "find_links": (list, "a list of folders"),
    "wheels": (list, "a list of wheel files"),
    "without": (list, "a list of package names"),
    "build_here": (list, "a list of package names"),
    "platforms": (list, "a list of platforms"),
    "download_bytes": (int, "a number of bytes"),
    "installed_bytes": (int, "a number of bytes"),
    "known_problem": (str, "a text"),
    "backends": (list, "a list of backends"),
    "variables": (dict, "a table of texts"),
    "extends": (str, "the name of an environment"),
}
_PATHS = ("build_with", "requirements", "find_links", "wheels")


class EnvironmentProblem(Exception):
    """What is wrong with an environment; ``str()`` is a sentence that helps."""


class EnvironmentUnavailable(EnvironmentProblem):
    """There is no interpreter for an environment; ``str()`` is the reason for the record."""


@dataclass(frozen=True)
class Declaration:
    """One environment. Paths are absolute; sizes in bytes, None if nobody measured them.

    Attributes:
        name: what backends and configurations call it.
        source: its file.
        pythons: versions that have a lock, the preferred one first; empty if `own_python` is used.
        own_python: an interpreter of the user's, used as it is.
    """

    name: str
    source: Path
    description: str = ""
    pythons: tuple[str, ...] = ()
    own_python: Path | None = None
    build_with: Path | None = None
    requirements: Path | None = None
    find_links: tuple[Path, ...] = ()
    wheels: tuple[Path, ...] = ()
    without: tuple[str, ...] = ()
    build_here: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    download_bytes: int | None = None
    installed_bytes: int | None = None
    known_problem: str | None = None
    backends: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    locks_in: Path = Path()
    locks_named: str = ""

    def lock_path(self, version: str) -> Path:
        """Return where the lock for a Python version such as 3.11 is."""
        return self.locks_in / f"{self.locks_named}-py{version}.txt"


def user_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where users put their own files: BENCH_ENVIRONMENT_FILES, else their settings."""
    given = environment.get("BENCH_ENVIRONMENT_FILES")
    if given:
        return Path(given).expanduser()
    settings = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / APPLICATION / "environments"


def declarations(
    shipped: Path = SHIPPED, environment: Mapping[str, str] = os.environ
) -> dict[str, Declaration]:
    """Return every environment by its name; a user's file takes the place of a shipped one.

    Raises:
        EnvironmentProblem: a file cannot be read, or has a key or value that is not allowed.
    """
    originals = {path.stem: path for path in sorted(shipped.glob("*.toml"))}
    own = {path.stem: path for path in sorted(user_folder(environment).glob("*.toml"))}
    sources = {**originals, **own}
    return {
        name: _declaration(path, _merged(path, sources, originals, ()))
        for name, path in sources.items()
    }


def declaration(name: str, known: Mapping[str, Declaration] | None = None) -> Declaration:
    """Return the environment of this name.

    Raises:
        EnvironmentProblem: there is none, or a file is wrong.
    """
    known = declarations() if known is None else known
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known) or 'none'}."
    raise EnvironmentProblem(f"no environment is called {name!r}.{hint}")


@functools.cache
def here() -> str:
    """Return this platform as declarations name it, such as ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine().lower()}"


def _read(path: Path) -> dict[str, Any]:
    """Return the checked keys of one file, with absolute paths."""

    def place(text: str) -> Path:
        return path.parent / Path(text).expanduser()

    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(f"{path} is not TOML: {error}.") from error
    if not _NAME.fullmatch(path.stem) or path.stem == CURRENT:
        raise EnvironmentProblem(f"{path}: {path.stem!r} cannot be the name of an environment.")
    for key, value in keys.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KEYS)}."
            raise EnvironmentProblem(f"{path}: unknown key {key!r}; {hint}")
        kind, expected = _KEYS[key]
        items = value if isinstance(value, list) else []
        right = isinstance(value, kind) and not isinstance(value, bool)
        if not right or not all(isinstance(item, str) for item in items):
            raise EnvironmentProblem(f"{path}: {key!r} must be {expected}.")
        if isinstance(value, list):
            keys[key] = tuple(place(item) if key in _PATHS else item for item in items)
        elif key in _PATHS or key == "python":
            keys[key] = place(value)
    for variable, text in keys.get("variables", {}).items():
        if not _VARIABLE.fullmatch(variable) or not isinstance(text, str) or "\x00" in text:
            raise EnvironmentProblem(
                f"{path}: 'variables' must be a table of texts; {variable!r} is not."
            )
    return keys


def _merged(
    path: Path, sources: Mapping[str, Path], originals: Mapping[str, Path], seen: tuple[Path, ...]
) -> dict[str, Any]:
    """Return the keys of a file over those that it extends."""
    if path in seen:
        raise EnvironmentProblem(f"{path} extends itself; take its 'extends' out.")
    keys = _read(path)
    base = keys.pop("extends", None)
    if base is None or "requirements" in keys:
        keys |= {"locks_in": path.parent, "locks_named": path.stem}
    if base is None:
        return keys
    # A user's file that extends its own name means the one that the project ships.
    extended = originals.get(base) if base == path.stem else sources.get(base)
    if extended is None:
        raise EnvironmentProblem(f"{path} extends {base!r}, which is no environment.")
    below = _merged(extended, sources, originals, (*seen, path))
    variables = {**below.get("variables", {}), **keys.get("variables", {})}
    return {**below, **keys, "variables": variables}


def _declaration(path: Path, keys: dict[str, Any]) -> Declaration:
    python = keys.pop("python", None)
    if python is None:
        raise EnvironmentProblem(
            f"{path}: it needs 'python': a list of versions or the path of an interpreter."
        )
    if isinstance(python, Path):
        for key in ("find_links", "wheels", "without", "build_with"):
            if key in keys:
                raise EnvironmentProblem(
                    f"{path}: 'python' is an interpreter that is used as it is, so {key!r} means "
                    "nothing; to build with it, call it 'build_with' and let 'python' list "
                    "versions."
                )
        keys["own_python"] = python
    elif not python or not all(_VERSION.fullmatch(version) for version in python):
        raise EnvironmentProblem(
            f"{path}: 'python' must list versions such as \"3.11\", or be a path."
        )
    else:
        keys["pythons"] = python
    keys["known_problem"] = keys.get("known_problem") or None
    return Declaration(name=path.stem, source=path, **keys)
