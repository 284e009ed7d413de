"""NVML: finding its Python bindings, opening it, and what its throttle bits mean.

Both the parent and workers read NVML, the worker possibly under an old, pinned interpreter, so this
module uses the standard library alone and stays valid on Python 3.10. The bindings (nvidia-ml-py)
are imported when asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

THROTTLE: Mapping[int, str] = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x10: "clock held by another GPU (sync boost)",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}
"""Bits of NVML's clocksEventReasons that hold a clock below what the GPU could do.

Left out are those that hold nothing back: idle (0x01), clocks that an application set (0x02) and
display clocks (0x100). Source: nvml.h, nvmlClocksEventReasons.
"""

HEAT_OR_SUPPLY = 0x08 | 0x20 | 0x40 | 0x80
"""Those bits of `THROTTLE` that tell of heat or of a weak supply. The power limit is not among
them: many GPUs reach it in all heavy work, and it is the same in every run."""


class NvmlUnavailable(Exception):
    """NVML cannot be asked; ``str()`` is the reason, without a full stop."""


def bindings() -> Any:
    """Return the module ``pynvml``.

    Raises:
        NvmlUnavailable: nvidia-ml-py is not installed.
    """
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        raise NvmlUnavailable("nvidia-ml-py is not installed") from None


@contextmanager
def opened(library: Any = None) -> Iterator[Any]:
    """Open NVML for a ``with`` block, which gets the bindings.

    Args:
        library: what to use instead of ``pynvml``: a test's double.

    Raises:
        NvmlUnavailable: there are no bindings, or no driver that answers.
    """
    nvml = bindings() if library is None else library
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - a driver of another version may raise anything
        raise NvmlUnavailable(f"NVML failed: {type(error).__name__}: {error}") from None
    try:
        yield nvml
    finally:
        with suppress(Exception):
            nvml.nvmlShutdown()


def handle_of(nvml: Any, uuid: str) -> Any:
    """Return the device of a UUID, since NVML also counts devices that torch may not see.

    Raises:
        nvml.NVMLError: there is none.
    """
    full = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        return nvml.nvmlDeviceGetHandleByUUID(full)
    except TypeError:  # older bindings want bytes
        return nvml.nvmlDeviceGetHandleByUUID(full.encode())


def text(value: str | bytes) -> str:
    """Return a name as text; older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else value


def throttled(bits: int) -> list[str]:
    """Return the names of the `THROTTLE` bits that are set."""
    return [name for bit, name in THROTTLE.items() if bits & bit]
