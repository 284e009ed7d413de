"""Tiny wheels, declarations over them, and a stand-in for uv."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.environments import Declaration, declarations, lock

HERE = ".".join(map(str, sys.version_info[:2]))
NOWHERE = Path("/nowhere")


def wheel(folder: Path, name: str, version: str, source: str = "") -> Path:
    """Write a wheel of one module, as the wheel specification has it, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = [f"{info}/RECORD,,"]
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            record.append(f"{inside},sha256={digest.decode()},{len(text)}")
            archive.writestr(inside, text)
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return path


def declare(
    folder: Path, name: str = "tiny", packages: Mapping[str, str] | None = None, **keys: object
) -> Declaration:
    """Write a declaration with its lock, and return it as it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"python": [HERE], "installed_bytes": 1000, "requirements": f"{name}.in", **keys}
    lines = [f"{key} = {toml(value)}\n" for key, value in keys.items() if value is not None]
    (folder / f"{name}.toml").write_text("".join(lines))
    (folder / f"{name}.in").write_text("\n".join(packages or {}) + "\n")
    declared = read(folder)[name]
    for version in declared.pythons:
        text = lock.render(declared, version, packages or {"aaa": "1.0"})
        declared.lock_path(version).write_text(text)
    return declared


def read(shipped: Path, user: Path = NOWHERE) -> dict[str, Declaration]:
    return declarations(shipped, {"BENCH_ENVIRONMENT_FILES": str(user)})


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if isinstance(value, int) else '"' + str(value) + '"'


STAND_IN = """#!{python}
import os, pathlib, sys, time
arguments = [each for each in sys.argv[1:] if each != "--color=never"]
if arguments[0] == "python":
    print(sys.executable)
    sys.exit({here!r} not in arguments[-1])
if arguments[0] == "venv":
    python = pathlib.Path(arguments[-1], "bin", "python")
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    sys.exit()
site = pathlib.Path(arguments[arguments.index("--python") + 1]).parents[1].joinpath(
    "lib", "python3", "site-packages")
site.mkdir(parents=True)
for line in pathlib.Path(arguments[arguments.index("-r") + 1]).read_text().split():
    name, _, version = line.partition("==")
    print("Downloading", line, "(1.0MiB)", flush=True)
    (site / name).mkdir()
    (site / f"{{name}}-{{version}}.dist-info").mkdir()
{further}
"""


def stand_in(
    folder: Path, further: str = "", change: tuple[str, str] = ("", "")
) -> Callable[[], Path]:
    """Write a program that makes what uv makes, without packages; return a double of `uv.find`.

    Args:
        folder: for the program.
        further: lines that it ends with.
        change: a text in it, and what stands there instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "uv"
    text = STAND_IN.format(python=sys.executable, here=HERE, further=further)
    program.write_text(text.replace(*change) if change[0] else text)
    program.chmod(0o755)
    return lambda: program
