"""What an environment is declared as: one TOML file, of the project or of the user.

| key | means |
| --- | --- |
| ``description`` | one line for people |
| ``python`` | list of versions with a lock, the preferred one first; or the path of an interpreter
  that is used as it is |
| ``requirements`` | file that ``bench env lock`` resolves, beside this one |
| ``build_with`` | path of the Python to build with, instead of looking for a version |
| ``find_links`` | folders with further wheels |
| ``wheels`` | own wheel files; each takes the place of the locked package of its name |
| ``without`` | locked packages to leave out; ``*`` and ``?`` are wildcards |
| ``build_here`` | locked packages that are built from source, last, with what the environment has
  by then: for those whose build imports torch |
| ``platforms`` | such as ``linux-x86_64``; none means all |
| ``download_bytes``, ``installed_bytes`` | about how large it is |
| ``known_problem`` | why its backends cannot run with this lock; ``bench run`` builds it not |
| ``backends`` | what ``bench env check`` tries besides the backends that need this environment |
| ``variables`` | environment variables of its processes |
| ``extends`` | name of an environment whose keys stand wherever this file has none; its locks too,
  unless this file has ``requirements`` |

Paths are relative to their file; ``~`` is the home folder.
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
        """Where the lock for a Python version such as 3.11 lies."""
        return self.locks_in / f"{self.locks_named}-py{version}.txt"


def user_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where users put declarations of their own: BENCH_ENVIRONMENT_FILES, else their settings."""
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
        EnvironmentProblem: a file cannot be read, or says what it may not.
    """
    sources: dict[str, Path] = {}
    originals: dict[str, Path] = {}
    for path in sorted(shipped.glob("*.toml")):
        sources[path.stem] = originals[path.stem] = path
    for path in sorted(user_folder(environment).glob("*.toml")):
        sources[path.stem] = path
    return {
        name: _declaration(name, _keys(path, sources, originals, ()), path)
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(f"{path} is not TOML: {error}.") from error


def _keys(
    path: Path, sources: Mapping[str, Path], originals: Mapping[str, Path], seen: tuple[Path, ...]
) -> dict[str, Any]:
    """Return the keys of a file over those that it extends, with all paths absolute."""
    if path in seen:
        raise EnvironmentProblem(f"{path} extends itself; take its 'extends' out.")
    written = _read(path)
    for key in written:
        if key not in _KINDS and key != "extends":
            near = difflib.get_close_matches(key, _KINDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KINDS)}."
            raise EnvironmentProblem(f"{path}: unknown key {key!r}; {hint}")
    own = {key: _absolute(key, value, path) for key, value in written.items()}
    if not _NAME.fullmatch(path.stem) or path.stem == CURRENT:
        raise EnvironmentProblem(f"{path}: {path.stem!r} cannot be the name of an environment.")
    base = own.pop("extends", None)
    if base is None or "requirements" in own:
        own.update(locks_in=path.parent, locks_named=path.stem)
    if base is None:
        return own
    # A user's file that extends its own name means the one that the project ships.
    found = originals.get(base) if base == path.stem else sources.get(base)
    if found is None:
        raise EnvironmentProblem(f"{path} extends {base!r}, which is no environment.")
    below = _keys(found, sources, originals, (*seen, path))
    if "variables" in own and isinstance(own["variables"], dict):
        own["variables"] = {**below.get("variables", {}), **own["variables"]}
    return {**below, **own}


def _absolute(key: str, value: Any, path: Path) -> Any:
    def place(text: str) -> Path:
        return path.parent / Path(text).expanduser()

    if key == "python" and isinstance(value, str):
        return place(value)
    if key in ("build_with", "requirements") and isinstance(value, str):
        return place(value)
    if key in ("find_links", "wheels") and isinstance(value, list):
        return [place(item) if isinstance(item, str) else item for item in value]
    return value


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "description": (str, "a text"),
    "python": ((list, Path), "a list of versions or the path of an interpreter"),
    "build_with": (Path, "a path"),
    "requirements": (Path, "a path"),
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
}


def _declaration(name: str, keys: dict[str, Any], path: Path) -> Declaration:
    def refuse(text: str) -> EnvironmentProblem:
        return EnvironmentProblem(f"{path}: {text}.")

    for key in _KINDS.keys() & keys.keys():
        value = keys[key]
        kind, says = _KINDS[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise refuse(f"{key!r} must be {says}")
        if isinstance(value, list) and not all(isinstance(item, (str, Path)) for item in value):
            raise refuse(f"{key!r} must be {says}")
    variables = keys.get("variables", {})
    for variable, text in variables.items():
        if not _VARIABLE.fullmatch(variable) or not isinstance(text, str) or "\x00" in text:
            raise refuse(f"'variables' must be a table of texts; {variable!r} is not")
    python = keys.pop("python", None)
    if python is None:
        raise refuse("it needs 'python': a list of versions or the path of an interpreter")
    if isinstance(python, Path):
        useless = [key for key in ("find_links", "wheels", "without", "build_with") if key in keys]
        if useless:
            raise refuse(
                f"'python' is an interpreter that is used as it is, so {useless[0]!r} means "
                "nothing; to build with it, call it 'build_with' and let 'python' list versions"
            )
    elif not python or not all(_VERSION.fullmatch(version) for version in python):
        raise refuse("'python' must list versions such as \"3.11\", or be a path")
    for list_key in ("find_links", "wheels", "without", "build_here", "platforms", "backends"):
        keys[list_key] = tuple(keys.get(list_key, ()))
    keys["known_problem"] = keys.get("known_problem") or None
    return Declaration(
        name=name,
        source=path,
        pythons=tuple(python) if isinstance(python, list) else (),
        own_python=python if isinstance(python, Path) else None,
        **keys,
    )


@functools.cache
def here() -> str:
    """Return this platform as declarations name it, such as ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine().lower()}"
