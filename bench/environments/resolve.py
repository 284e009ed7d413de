"""Make a lock: ask pip or uv what an environment's requirements come to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.environments import install, interpreters, lock
from bench.environments.declare import Declaration, EnvironmentProblem

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", re.MULTILINE)


def make_lock(
    declared: Declaration,
    version: str,
    *,
    choice: install.Choice = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, dict[str, tuple[str | None, str | None]]]:
    """Resolve the requirements for a Python version, and write the lock if all went well.

    Returns:
        The lock's path, and what changed: package → (version before, version now).

    Raises:
        EnvironmentProblem: no such Python, nothing that satisfies the requirements, or the lock
            cannot be written.
    """
    lock.requirements_sha256(declared)
    python = interpreters.find(version)
    if python is None:
        raise EnvironmentProblem(
            f"Python {version} was not found here, and a lock is made with the Python it is for."
        )
    installer = install.choose(choice, python.path)
    say(f"Resolving {declared.name} for Python {python.version} with {installer.name}.")
    with tempfile.TemporaryDirectory(prefix="bench-lock-") as folder:
        if installer.uv is None:
            packages = _with_pip(declared, python, Path(folder))
        else:
            packages = _with_uv(declared, python, installer.uv, Path(folder))
    local = sorted(name for name, exact in packages.items() if "+" in exact)
    if local:
        say(
            f"Locked by their public version, but found here as another build: {', '.join(local)}. "
            "What the public build needs besides may be missing from the lock."
        )
    packages = {name: exact.partition("+")[0] for name, exact in packages.items()}
    path = declared.lock_path(version)
    before: dict[str, str] = {}
    if path.exists():
        before = dict(_PINNED.findall(path.read_text(encoding="utf-8", errors="replace")))
    text = lock.render(declared, version, packages)
    try:
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise EnvironmentProblem(
            f"{path} cannot be written: {error.strerror or error}. Copy the declaration and its "
            "requirements to a folder of your own, and lock it there."
        ) from error
    changed = {
        name: (before.get(name), packages.get(name))
        for name in sorted({*before, *packages})
        if before.get(name) != packages.get(name)
    }
    return path, changed


def _with_pip(declared: Declaration, python: interpreters.Python, folder: Path) -> dict[str, str]:
    report = folder / "report.json"
    command = [
        *install.pip_command(python.path, python.path), "install", "--dry-run",
        "--ignore-installed", "--disable-pip-version-check", "--no-input", "--quiet",
        "--report", str(report),
        *(f"--find-links={links}" for links in declared.find_links),
        "-r", str(declared.requirements),
    ]  # fmt: skip
    _run(command, declared, folder)
    found = json.loads(report.read_bytes())["install"]
    return {
        lock.normalised(item["metadata"]["name"]): item["metadata"]["version"] for item in found
    }


def _with_uv(
    declared: Declaration, python: interpreters.Python, uv: Path, folder: Path
) -> dict[str, str]:
    result = folder / "lock.txt"
    command = [
        str(uv), "pip", "compile", "--no-header", "--no-annotate", "--quiet",
        "--python", str(python.path), "--output-file", str(result),
        *(f"--find-links={links}" for links in declared.find_links),
        str(declared.requirements),
    ]  # fmt: skip
    _run(command, declared, folder)
    pins = _PINNED.findall(result.read_text(encoding="utf-8"))
    return {lock.normalised(name): exact for name, exact in pins}


def _run(command: list[str], declared: Declaration, folder: Path) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=folder,
        check=False,
    )
    if done.returncode != 0:
        output = done.stdout + done.stderr
        log = Path(tempfile.gettempdir()) / f"bench-lock-{declared.name}.log"
        log.write_text(output, encoding="utf-8")
        raise EnvironmentProblem(
            f"{declared.requirements} could not be resolved, and the lock stays as it is: "
            + install.explain(output, declared.name, log, source=str(declared.requirements))
        )
