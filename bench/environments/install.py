"""Which program installs packages, how it is run, and what its failures mean."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from bench.environments import interpreters
from bench.environments.declare import Declaration, EnvironmentProblem, EnvironmentUnavailable

Choice = Literal["auto", "pip", "uv"]
CHOICES: tuple[Choice, ...] = ("auto", "pip", "uv")

_PIP_ONLY = ("index-url", "extra-index-url", "find-links", "no-index", "cert", "client-cert",
             "trusted-host", "proxy")  # fmt: skip
"""Settings of pip that decide where packages come from; uv reads none of them."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Installer:
    """A program that installs.

    Attributes:
        name: pip or uv.
        uv: its executable, None for pip.
        why: why this one was chosen, for people.
    """

    name: str
    uv: Path | None
    why: str


def pip_command(python: Path, base: Path) -> list[str]:
    """Return the start of a command of pip that works on ``python``, which needs none of its own.

    pip's runner brings pip alone into that process, of this Python or else of ``base``: so an
    environment holds what its lock says, and what installs is one process that can be ended.

    Raises:
        EnvironmentUnavailable: neither has a pip with a runner.
    """
    # setuptools' import hook takes any usual question for pip for pip at work, and from then on
    # cannot be imported itself.
    found = PathFinder.find_spec("pip")
    place = None if found is None else found.origin
    if place is None:
        place = interpreters.output(base, "import pip; print(pip.__file__, end='')")
    runner = None if place is None else Path(place).parent / "__pip-runner__.py"
    if runner is None or not runner.is_file():
        raise EnvironmentUnavailable(
            f"neither this Python nor {base} has pip 22.3 or newer; `pip install uv` into this one "
            "is another way"
        )
    return [str(python), str(runner)]


def choose(choice: Choice = "auto", base: Path | None = None) -> Installer:
    """Return the installer to use.

    ``auto`` takes uv if it is there, unless pip has been told where packages come from: uv would
    pass that over.

    Args:
        choice: of the user.
        base: Python that the environment is built with.

    Raises:
        EnvironmentProblem: uv was asked for and is not there.
    """
    uv = find_uv()
    if choice == "pip":
        return Installer("pip", None, "asked for")
    if choice == "uv":
        if uv is None:
            raise EnvironmentProblem(
                'uv is not installed; `pip install uv` brings it, or say "--installer pip".'
            )
        return Installer("uv", uv, "asked for")
    if uv is None:
        return Installer("pip", None, "uv is not installed")
    told = pip_settings(base or Path(sys.executable))
    if told:
        return Installer(
            "pip", None, f"pip is set up with {', '.join(told)}, which uv does not read"
        )
    return Installer("uv", uv, "it is the faster one")


def find_uv() -> Path | None:
    """Return uv's executable: from the package of that name, or from the PATH."""
    if importlib.util.find_spec("uv") is not None:
        with contextlib.suppress(Exception):
            return Path(importlib.import_module("uv").find_uv_bin())
    found = shutil.which("uv")
    return Path(found) if found else None


@functools.cache
def pip_settings(python: Path) -> tuple[str, ...]:
    """Return the names of pip's own settings that decide where packages come from."""
    try:
        command = [*pip_command(python, python), "config", "list"]
    except EnvironmentUnavailable:
        return ()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    names = re.findall(r"^[^=\s]*\.([a-z-]+)=", done.stdout, re.MULTILINE)
    return tuple(sorted(set(names) & set(_PIP_ONLY)))


def commands(
    installer: Installer,
    base: Path,
    venv: Path,
    declared: Declaration,
    requirements: Path,
    wheels: Sequence[Path],
    built_here: Sequence[str] = (),
) -> list[list[str]]:
    """Return the commands that build a virtual environment, in order.

    Args:
        requirements: file of the packages that need nothing but to be installed.
        wheels: own wheel files.
        built_here: NAME==VERSION of packages to build with what the environment has by then.
    """
    links = [f"--find-links={folder}" for folder in declared.find_links]
    python = str(venv / "bin" / "python")
    if installer.uv is not None:
        uv = str(installer.uv)
        make = [uv, "venv", "--quiet", "--no-project", "--python", str(base), str(venv)]
        add = [uv, "pip", "install", "--python", python]
    else:
        make = [str(base), "-I", "-m", "venv", "--without-pip", str(venv)]
        add = [*pip_command(Path(python), base), "install"]
        add += ["--disable-pip-version-check", "--no-input"]
    add += ["--no-deps", *links]
    steps = [make, [*add, "-r", str(requirements), *map(str, wheels)]]
    if built_here:
        steps.append([*add, "--no-build-isolation", *built_here])
    return steps


def run(
    command: Sequence[str],
    log: Path,
    *,
    lock_fd: int,
    variables: Mapping[str, str],
    said: Callable[[str], None] = lambda _: None,
) -> int:
    """Run a command of an installer; its output goes to ``log`` and, line by line, to ``said``.

    The child keeps the environment's lock as long as it lives, and on Linux dies with this process,
    so that an installer without a master never writes into what somebody else builds.

    Returns:
        Its exit status.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
    }
    environment |= variables
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock_fd,),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                said(line.decode(errors="replace").rstrip())
            return process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an installer and what it started; builders such as ninja take theirs along if asked."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLITE_S)
    process.wait()


_POLITE_S = 5.0

_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def explain(output: str, name: str, log: Path, source: str = "the lock") -> str:
    """Return what an installer's failure means, in a sentence that helps.

    Args:
        output: of the installer.
        name: of the environment.
        log: where all of the output is.
        source: what asked for the packages.
    """
    for pattern, sentence in _MEANINGS:
        match = re.search(pattern, output)
        if match:
            what = next((group for group in match.groups() if group), "named in the log")
            return sentence.format(what=what, name=name, log=log, source=source)
    errors = re.findall(r"^(?:ERROR|error|  × |  ╰─▶ )[: ]*(.+)$", output, re.MULTILINE)
    last = errors[-1] if errors else next(iter(reversed(output.strip().splitlines())), "no output")
    return f"installing failed: {last.strip()[:300]} (all of it: {log})"


_MEANINGS: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|os error 28|Disk quota exceeded",
        "the disk became full while it was installed; make room, then: bench env sync {name}",
    ),
    (
        (
            r"Failed to establish a new connection|Temporary failure in name resolution|"
            r"Name or service not known|ConnectTimeoutError|dns error|failed to lookup address|"
            r"Network is unreachable|Connection refused|ProxyError|error sending request|"
            r"Read timed out"
        ),
        (
            "the package registry cannot be reached; with a network, or a folder of wheels in "
            "'find_links', `bench env sync {name}` goes on"
        ),
    ),
    (
        r"satisfies the requirement (\S+) \(from versions: none\)",
        (
            "of {what}, which {source} asks for, no version at all is to be had here: there is no "
            "network, or neither the package registry nor 'find_links' has it for this platform "
            "and Python (all of it: {log})"
        ),
    ),
    (
        (
            r"No matching distribution found for ([^\s(]+)|there is no version of ([^\s,]+)|"
            r"Because (\S+) was not found in the|has no wheels? with a matching"
        ),
        (
            "the package {what}, which {source} asks for, is not to be had here: withdrawn, or not "
            "made for this platform and Python; `bench env lock {name}` makes a lock of what is "
            "there, and 'find_links' names folders with wheels (all of it: {log})"
        ),
    ),
    (
        r"ERROR: (\S+\.whl) is not a (?:valid wheel filename|supported wheel on this platform)",
        "the wheel {what} is not made for this Python or platform",
    ),
    (
        r"Wheel '?([^'\s]+)'? located at \S+ is invalid|BadZipFile|invalid [Zz]ip archive",
        (
            "a wheel is damaged ({what}); delete it where it comes from (`pip cache purge`, or "
            "'find_links'), then: bench env sync {name}"
        ),
    ),
    (
        r"No module named (?:venv|ensurepip|pip)|ensurepip is not available",
        "this Python lacks venv or pip; install them (python3-venv on Debian), or install uv",
    ),
)


def progress_of(line: str) -> str | None:
    """Return the package that a line of pip's output is about, or None."""
    match = re.match(r"Collecting ([^\s(]+)|Processing \S*?([^/\s]+)\.whl", line)
    if match:
        return match[1] or match[2]
    return "installing" if line.startswith("Installing collected packages") else None
