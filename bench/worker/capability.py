"""What a GPU can do, told to imports without starting CUDA.

Packages look at a GPU's compute capability while they are imported (torchao, which transformers
imports by itself, from 0.15 on). torch answers by starting CUDA, and a process that has done so can
no longer be forked, and holds memory of the device for as long as it lives.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from bench import nvml

Capability = tuple[int, int]


def of_all_gpus(library: Any = None) -> Capability | None:
    """Return the compute capability that all GPUs here have; None if they differ or none is seen.

    Which of them torch calls the first is then of no account.
    """
    found: set[Capability] = set()
    try:
        with nvml.opened(library) as opened:
            for index in range(opened.nvmlDeviceGetCount()):
                handle = opened.nvmlDeviceGetHandleByIndex(index)
                major, minor = opened.nvmlDeviceGetCudaComputeCapability(handle)
                found.add((int(major), int(minor)))
    except Exception:  # noqa: BLE001 - whatever a driver raises: then torch is asked
        return None
    return found.pop() if len(found) == 1 else None


@contextlib.contextmanager
def told_by_nvml(cuda: Any, look: Callable[[], Capability | None] = of_all_gpus) -> Iterator[None]:
    """Let ``torch.cuda`` tell the capability of a GPU from NVML until CUDA is started.

    Whatever else is asked of a device's properties starts CUDA as ever. Modules may keep the
    functions that they find here, so these go on to torch's own once the block is left.

    Args:
        cuda: the module ``torch.cuda``.
        look: asked once, and only if a package asks.
    """
    names = ("current_device", "get_device_properties")
    current_device, get_device_properties = (getattr(cuda, name) for name in names)
    known: list[Capability | None] = []
    within = True

    def answer() -> Capability | None:
        if not within or cuda.is_initialized() or not cuda.is_available():
            return None
        if not known:
            known.append(look())
        return known[0]

    def current() -> Any:
        # Nobody can have chosen another device without starting CUDA.
        return current_device() if answer() is None else 0

    def properties(device: Any = None) -> Any:
        capability = answer()
        if capability is None:
            return get_device_properties(device)
        return _Properties(capability, lambda: get_device_properties(device))

    cuda.current_device, cuda.get_device_properties = current, properties
    try:
        yield
    finally:
        within = False
        cuda.current_device, cuda.get_device_properties = current_device, get_device_properties
        _forget_properties()


class _Properties:
    """A device's properties: two that are known, and torch's own for whatever else is asked."""

    def __init__(self, capability: Capability, ask: Callable[[], Any]) -> None:
        self.major, self.minor = capability
        self._ask = ask

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ask(), name)


def _forget_properties() -> None:
    """Let torch's compiler, which keeps properties that it was told, ask anew."""
    module = sys.modules.get("torch._dynamo.device_interface")
    getattr(module, "caching_worker_device_properties", {}).pop("cuda", None)
