"""Tiny wheels, declarations over them, and an installer that only pretends."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.environments import Declaration, declarations, install, lock

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


PRETEND = """
import pathlib, sys
venv, requirements, *wheels = sys.argv[1:]
site = pathlib.Path(venv, "lib", "python3", "site-packages")
site.mkdir(parents=True)
python = pathlib.Path(venv, "bin", "python")
python.parent.mkdir()
python.symlink_to(sys.executable)
for line in pathlib.Path(requirements).read_text().split():
    name, _, version = line.partition("==")
    print("Collecting", line, flush=True)
    (site / name).mkdir()
    (site / name / "__init__.py").touch()
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(f"{name}/__init__.py,,\\n{info.name}/RECORD,,\\n")
"""


def pretending(program: str = PRETEND) -> object:
    """Return a double of `install.commands`: makes what a sync leaves, without pip."""

    def commands(
        installer: install.Installer,
        base: Path,
        venv: Path,
        declared: Declaration,
        requirements: Path,
        wheels: Sequence[Path],
        built_here: Sequence[str] = (),
    ) -> list[list[str]]:
        return [[sys.executable, "-c", program, str(venv), str(requirements)]]

    return commands
