"""In which precision a pipeline computes, besides the type of its weights.

``fp32`` and ``tf32`` set torch's two switches for TF32, for matrix products and for convolutions,
of which torch allows the second by default. ``autocast`` puts ``torch.autocast`` around the whole
call, as its users do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.contract import Outcome

TF32_CAPABILITY = 8
"""Major compute capability of the first NVIDIA GPUs with TF32 (Ampere)."""


def refusal(workload: Mapping[str, Any], device: str) -> tuple[Outcome, str] | None:
    """Say how a cell ends whose precision this device does not have."""
    import torch

    word = workload.get("precision")
    if word == "tf32":
        what = "tf32 is a mode of NVIDIA's tensor cores, from compute capability 8.0 on"
        if not device.startswith("cuda"):
            return "unsupported", f"{what}; on {device} it would be fp32 under another name"
        found = torch.cuda.get_device_capability(device)
        if found[0] < TF32_CAPABILITY:
            return "unsupported", f"{what}; this GPU has {found[0]}.{found[1]}"
    if word == "autocast" and device.startswith("mps"):
        ask: Any = getattr(torch.amp.autocast_mode, "is_autocast_available", lambda _kind: False)
        if not ask("mps"):
            return "unsupported", f"torch {torch.__version__} has no autocast for mps"
    return None


def set_up(workload: Mapping[str, Any], device: str) -> None:
    """Set torch's switches for TF32 as the precision says; without one they stay torch's own."""
    import torch

    word = workload.get("precision")
    if word in ("fp32", "tf32") and device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = word == "tf32"
        torch.backends.cudnn.allow_tf32 = word == "tf32"


def half_type(device: str) -> Any:
    """Return the type that ``torch.autocast`` computes in on a device by default."""
    import torch

    return torch.bfloat16 if device.startswith("cpu") else torch.float16


def computes_in(workload: Mapping[str, Any], device: str) -> str:
    """Return the type of matrix products: that of the weights, but under autocast."""
    autocast = workload.get("precision") == "autocast"
    return _name(half_type(device)) if autocast else str(workload["dtype"])


def calling(
    workload: Mapping[str, Any], device: str
) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Return what to enter around each pipeline call."""
    if workload.get("precision") != "autocast":
        return contextlib.nullcontext
    import torch

    kind, dtype = device.partition(":")[0], half_type(device)
    return lambda: torch.autocast(kind, dtype=dtype)


def found(
    workload: Mapping[str, Any], device: str, denoiser_output: Iterable[str]
) -> dict[str, Any]:
    """Return what is really set, and the types in which the denoiser's output was seen."""
    import torch

    cuda = device.startswith("cuda")
    autocast = workload["precision"] == "autocast"
    return {
        "asked": workload["precision"],
        "weights": workload["dtype"],
        "autocast": computes_in(workload, device) if autocast else None,
        "matmul_tf32": bool(torch.backends.cuda.matmul.allow_tf32) if cuda else None,
        "cudnn_tf32": bool(torch.backends.cudnn.allow_tf32) if cuda else None,
        "denoiser_output": sorted(denoiser_output),
    }


def failure_of(seen: Mapping[str, Any]) -> str | None:
    """Say in what the precision is not the one that was asked for; None if nothing speaks so."""
    word, outputs = seen["asked"], seen["denoiser_output"]
    if word == "autocast":
        if outputs and seen["autocast"] not in outputs:
            return (
                f"under autocast the denoiser's output should be {seen['autocast']}, and it was "
                f"{', '.join(outputs)}"
            )
        return None
    for switch in ("matmul_tf32", "cudnn_tf32"):
        if seen[switch] is not None and seen[switch] != (word == "tf32"):
            return (
                f"precision {word} was set, and something switched {switch} "
                f"{'on' if seen[switch] else 'off'} afterwards"
            )
    return None


def _name(dtype: Any) -> str:
    return str(dtype).replace("torch.", "")
