"""Which Pythons this machine has."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ASK = (
    "import json, sys, platform; print(json.dumps([platform.python_version(), "
    "sys.implementation.name]))"
)
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Python:
    """An interpreter that was asked.

    Attributes:
        path: of its executable.
        version: such as 3.11.7.
        implementation: cpython, pypy, …
    """

    path: Path
    version: str
    implementation: str

    @property
    def minor(self) -> str:
        """Return the version as locks name it, such as 3.11."""
        return ".".join(self.version.split(".")[:2])


@functools.cache
def ask(path: Path) -> Python | None:
    """Return what an interpreter says of itself, or None if it does not run."""
    said = output(path, _ASK)
    try:
        version, implementation = json.loads(said or "")
    except ValueError:
        return None
    return Python(path, version, implementation)


def output(path: Path, program: str) -> str | None:
    """Return what a one-line program prints under an interpreter, or None if it fails."""
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def find(version: str) -> Python | None:
    """Return a Python of a version such as 3.11: this one, one on the PATH, or a manager's."""
    for path in _candidates(version):
        found = ask(path)
        if found is not None and found.minor == version and found.implementation == "cpython":
            return found
    return None


def _candidates(version: str) -> Iterator[Path]:
    if ".".join(map(str, sys.version_info[:2])) == version:
        # of a virtual environment, the Python that it was made with
        yield Path(getattr(sys, "_base_executable", None) or sys.executable)
    for name in (f"python{version}", "python3"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    home = Path.home()
    for folder, pattern in (
        (Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions", f"{version}.*"),
        (
            Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "uv/python",
            f"cpython-{version}.*",
        ),
    ):
        for installed in sorted(folder.glob(pattern), reverse=True):
            yield installed / "bin" / f"python{version}"
