"""What a run's figures depend on outside its configuration, as far as the parent can see it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from typing import Any

from bench.runner.devices import Machine
from bench.worker.fingerprint import cpu_model

SOFTWARE = ("torch", "diffusers", "transformers")


def describe(machine: Machine) -> dict[str, Any]:
    """The host, as JSON. Equal dictionaries mean that figures may be put side by side.

    Names and addresses of the machine are left out; of a GPU's UUID only a hash is kept.
    """
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "gpus": [
            {"name": gpu.name, "uuid_sha256": hashlib.sha256(gpu.uuid.encode()).hexdigest()[:16]}
            for gpu in machine.gpus
        ],
        "driver": next((gpu.driver for gpu in machine.gpus), None),
        "python": platform.python_version(),
        **{name: _version(name) for name in SOFTWARE},
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two descriptions, as ``name: before → now``."""
    names = [*now, *(name for name in before if name not in now)]
    return [
        f"{name}: {before.get(name)} → {now.get(name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def load_average_1m() -> float | None:
    """Processes that ran or waited to, on the average of the last minute; None if unknown here."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
