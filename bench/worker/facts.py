"""What torch can say about this machine, as one JSON object on standard output.

``python -m bench.worker.facts cpu cuda:0 …`` is a short-lived process that ``bench doctor`` starts:
the parent itself never imports torch. Devices are those that a run could use.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from bench.worker.memory import Meters
from compilers import registry

CURRENT = "current"


def collect(devices: list[str]) -> dict[str, Any]:
    """Return torch's view: builds, devices, memory meters and each backend's verdict by device."""
    import torch

    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "devices": {device: {} for device in devices},
    }
    for device in devices:
        about = found["devices"][device]
        try:
            # First of all what starts CUDA: peaks cannot be reset before.
            if device.startswith("cuda"):
                about["name"] = torch.cuda.get_device_name(device)
                about["bfloat16"] = torch.cuda.is_bf16_supported()
            about["meters"] = _meters(device)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            about["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        about["backends"] = {name: _verdict(name, device) for name in registry.names()}
    return found


def _meters(device: str) -> dict[str, str | None]:
    """Return each meter that works on ``device`` with None, or with why it does not."""
    meters = Meters(device)
    meters.start()
    readings = meters.read("steady")
    return {
        reading["meter"]: None
        if reading["bytes"] is not None
        else meters.null_reasons.get(f"memory.{reading['meter']}", "no reading")
        for reading in readings
    }


def _verdict(name: str, device: str) -> dict[str, Any]:
    try:
        backend = registry.get(name)
        if backend.environment != CURRENT:
            return {"environment": backend.environment}
        verdict = backend.probe(device)
    except Exception as error:  # noqa: BLE001 - a third party's probe may raise anything
        return {"supported": False, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"supported": verdict.supported, "reason": verdict.reason}


if __name__ == "__main__":
    # Libraries may print while they are imported; the answer goes out alone.
    answer = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(collect(sys.argv[1:]))
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        out.write(text)
