"""Run uv, which makes, resolves, locks and installs, and explain its failures."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.environments import pip_settings
from bench.environments.declare import EnvironmentUnavailable

_PR_SET_PDEATHSIG = 1
_POLITE_S = 5.0
_LIBC = ctypes.CDLL(None)
_LEFT_OUT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
_NO_DOWNLOADS = {"UV_PYTHON_DOWNLOADS": "never"}
_PROGRESS = re.compile(r" *(Resolved|Downloading|Building|Built|Prepared|Installed|Bytecode) ")


def find() -> Path:
    """Return uv's executable: from the package of that name, or from the PATH."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        return Path(importlib.import_module("uv").find_uv_bin())
    if found := shutil.which("uv"):
        return Path(found)
    raise EnvironmentUnavailable(
        "uv, which builds environments, is not installed; "
        '`pip install "diffusion-compiler-bench[environments]"` brings it'
    )


def cache_folder() -> Path:
    """Return the folder that uv unpacks packages into."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("UV_CACHE_DIR") or Path(base, "uv")).absolute()


def find_python(version: str) -> Path | None:
    """Return a CPython of a version such as 3.11: this one, on the PATH, pyenv's or uv's."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [os.path.dirname(base), os.environ.get("PATH", os.defpath)]
    places += map(str, sorted(pyenv.glob(f"{version}.*/bin"), reverse=True))
    command = [str(find()), "python", "find", "--no-project", "--system", f"cpython{version}"]
    search = {"PATH": os.pathsep.join(places)}
    environment = {"UV_PYTHON_PREFERENCE": "system", **_NO_DOWNLOADS, **os.environ, **search}
    # In no project's folder, whose settings of uv would count.
    process = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    return Path(process.stdout.strip()) if process.returncode == 0 else None


def run(
    command: Sequence[str],
    log: Path,
    *,
    find_links: Sequence[Path] = (),
    variables: Mapping[str, str] | None = None,
    lock_fd: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Run a command of uv in the log's folder, with the user's pip settings.

    uv keeps the environment's lock as long as it lives, and on Linux dies with this process, so
    that an orphan never writes into what somebody else builds. Log and result hold no passwords.

    Args:
        command: arguments of uv.
        log: file that the output is appended to.
        find_links: folders of wheels besides the user's.
        variables: further environment variables.
        lock_fd: descriptor of the environment's lock.
        progress: called with each line that shows how far uv is.

    Returns:
        None, or all that uv wrote if it failed.
    """
    settings, options = pip_settings.translated()
    environment = {
        **_NO_DOWNLOADS,
        **{name: text for name, text in os.environ.items() if name not in _LEFT_OUT},
        **settings,
        **(variables or {}),
    }
    links = [folder.as_uri().replace(",", "%2C") for folder in find_links]
    if environment.get("UV_FIND_LINKS"):
        links.append(environment["UV_FIND_LINKS"])
    environment["UV_FIND_LINKS"] = ",".join(links)
    if command[0] == "pip":
        command = [*command, *options]
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ uv {' '.join(command)}\n")
        file.flush()
        process = subprocess.Popen(
            [str(find()), "--color=never", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=log.parent,
            env=environment,
            pass_fds=() if lock_fd is None else (lock_fd,),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(without_passwords(line.rstrip()))
                file.write(lines[-1] + "\n")
                file.flush()
                if _PROGRESS.match(lines[-1]):
                    progress(lines[-1].strip())
            status = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            process.stdout.close()
    return None if status == 0 else "\n".join(lines)


def without_passwords(text: str) -> str:
    """Return a text in which no address holds a user or a password."""
    return re.sub(r"://[^/\s]*@", "://****@", text)


def _end(process: subprocess.Popen[str]) -> None:
    """End uv and what it started; builders such as ninja take theirs along if asked."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLITE_S)
    process.wait()


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def unreachable(output: str) -> bool:
    """Return whether uv failed because it could not reach a package registry."""
    return bool(re.search(_UNREACHABLE, output))


def explain(output: str, name: str, log: Path, source: str = "the lock") -> str:
    """Return what uv's failure means, in a sentence that helps; ``source`` asked for packages."""
    text = " ".join(output.split())
    for pattern, sentence in _MEANINGS.items():
        match = re.search(pattern, text)
        if match:
            package = next((group for group in match.groups() if group), "named in the log")
            meaning = sentence.format(package=package, name=name, source=source)
            return f"{meaning} (all of it: {log})"
    error = re.search(r"^(?:error:|  ×) *(.*)", output, re.MULTILINE | re.DOTALL)
    words = re.sub("[╰─▶├│]", " ", error[1] if error else output[-300:]).split()
    return f"uv failed: {' '.join(words)[:300] or 'no output'} (all of it: {log})"


_UNREACHABLE = (
    r"error sending request|dns error|failed to lookup address|Network is unreachable|"
    r"Connection refused|tunnel error|operation timed out"
)

_MEANINGS = {
    r"No space left on device|Disk quota exceeded": (
        "the disk became full while it was installed; make room, then: bench env sync {name}"
    ),
    _UNREACHABLE: (
        "the package registry cannot be reached; with a network, or a folder of wheels in "
        "'find_links', `bench env sync {name}` goes on"
    ),
    r"incompatible with the current platform: (\S+\.whl)": (
        "the wheel {package} is not made for this Python or platform"
    ),
    r"(?:Because|Failed to \w+) `?([^\s`]+)`? .*?(?:[Ii]nvalid (?:zip|package format)|"
    r"central directory|Bad CRC)": (
        "a wheel is damaged ({package}); delete it where it comes from (`uv cache clean`, or "
        "'find_links'), then: bench env sync {name}"
    ),
    r"there is no version of ([^\s,]+)|Because (\S+) was not found in the|"
    r"(\S+) has no (?:usable |compatible )?(?:wheels?|source distribution)": (
        "the package {package}, which {source} asks for, is not to be had here: withdrawn, or not "
        "made for this platform and Python; `bench env lock {name}` makes a lock of what is "
        "there, and 'find_links' names folders with wheels"
    ),
}
