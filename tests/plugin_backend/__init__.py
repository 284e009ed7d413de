"""A package of a third party, and ``install``, which puts it on a path as pip would."""

from __future__ import annotations

import shutil
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

HERE = Path(__file__).parent


def install(folder: Path, package: Path = HERE) -> Path:
    """Put a package's files into ``folder``, which then belongs on sys.path, and return it."""
    with (package / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder, ignore=skipped, dirs_exist_ok=True)
    (folder / "__init__.py").unlink()
    write_metadata(folder, project["name"], project["version"], project["entry-points"])
    return folder


def write_metadata(
    folder: Path, name: str, version: str, entry_points: dict[str, dict[str, str]]
) -> None:
    """Write the ``.dist-info`` by which Python finds a distribution and its entry points."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
