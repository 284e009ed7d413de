"""Say in one line what `scripts/gpu_proof.sh` would lack here, and what to do: before it starts.

Uses the standard library alone, since what it looks for may be missing.

    python scripts/ready.py cuda

Exit: 0 ready, 2 something is missing.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

USED_IF_THERE = {"torchao": "the eight-bit backends have no figures without it"}


def required(pyproject: str) -> list[str]:
    """Return the names of the packages that the project and its workers need, on Linux."""
    found = []
    for block in ("dependencies", "worker"):
        match = re.search(rf"^{block} = \[\n(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
        lines = match.group(1).splitlines() if match else []
        for line in lines:
            name = re.match(r'\s*"([\w.-]+)', line)
            if name and "python_version < " not in line:
                found.append(name.group(1))
    return list(dict.fromkeys(found))


def installed(name: str) -> bool:
    """Say whether a package is, by its metadata: nothing is imported."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def no_device(device: str) -> str | None:
    """Say why ``device`` cannot be used, or None; asks the project itself."""
    sys.path.insert(0, str(ROOT))
    try:
        from bench.runner.devices import Machine, Unsupported
    except ImportError as error:
        return f"a package is broken: {error}"
    found = Machine(os.environ).resolve(device)
    return found.reason if isinstance(found, Unsupported) else None


def lacking(
    device: str,
    names: list[str],
    there: Callable[[str], bool] = installed,
    why_not: Callable[[str], str | None] = no_device,
) -> str | None:
    """Return what is missing and what to do, in one line; None if nothing is."""
    missing = [name for name in names if not there(name)]
    if missing:
        return (
            f"{sys.executable} lacks {', '.join(missing)}: install them "
            f"(pip install {' '.join(missing)}), put a folder that has them into PYTHONPATH, or "
            "name another Python in PYTHON"
        )
    reason = why_not(device)
    if reason is None:
        return None
    return (
        f"{reason}: run it where `nvidia-smi` lists a GPU and torch is a CUDA build, or run the "
        "small proof with --device cpu --small"
    )


def main() -> int:
    """Look, and say what is missing."""
    (device,) = sys.argv[1:]
    why_not = lacking(device, required((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    if why_not is not None:
        print(f"gpu_proof: {why_not}", file=sys.stderr)
        return 2
    for name, without in USED_IF_THERE.items():
        if not installed(name):
            print(f"gpu_proof: {name} is not installed; {without}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
