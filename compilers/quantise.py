"""Weights and activations of a denoiser's linear layers in eight bits, by torchao."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from typing import Any, Literal

from compilers.base import UnsupportedPipelineError, Verdict, lacking

Precision = Literal["fp8", "int8"]

MULTIPLE = 16
"""Eight-bit matrix products want both sides of a weight to be a multiple of this."""

ONE_ROW = ("emb", "norm", "adaln", "modulation")
"""In names of layers that see one row for each image (what is made of the timestep): nothing to
gain there, and torch's int8 product on CUDA takes no fewer than 17 rows."""


def probe(precision: Precision, device: str) -> Verdict:
    """Return whether torchao can compute in ``precision`` on ``device``."""
    if importlib.util.find_spec("torchao") is None:
        return lacking(f"{precision} is done by torchao, which is not installed")
    try:
        importlib.import_module("torchao.quantization")
    except Exception as error:  # noqa: BLE001 - whatever a build for another torch raises
        return lacking(f"torchao is installed but does not import: {error}")
    kind = device.split(":")[0]
    if kind == "cuda" and precision == "fp8":
        why = fp8_missing(device)
        return Verdict(why is None, why)
    if kind != "cuda" and not (kind == "cpu" and precision == "int8"):
        return Verdict(False, f"{precision} on {kind} has no matrix product to gain from")
    return Verdict(True)


def fp8_missing(device: str) -> str | None:
    """Return why the hardware cannot multiply fp8, or None."""
    import torch

    needs = "fp8 needs a GPU of compute capability 8.9 or newer"
    if not device.startswith("cuda"):
        return f"{needs}, and this is {device}"
    major, minor = torch.cuda.get_device_capability(device)
    return None if (major, minor) >= (8, 9) else f"{needs}; {device} has {major}.{minor}"


def quantise(
    module: Any, precision: Precision, min_features: int, within: Collection[str] | None = None
) -> int:
    """Quantise the linear layers of ``module`` in place and return how many.

    Activations are quantised as they come, so nothing is calibrated. Layers with fewer than
    ``min_features`` on a side keep their precision, and so do those that see few rows: they would
    lose more than they gain.

    Args:
        within: names of the modules inside of which layers are quantised; None for everywhere.
            What is not compiled gains nothing: the activations' scales take kernels of their own,
            and torchao's int8 layers make the host wait for the device besides.

    Raises:
        UnsupportedPipelineError: no layer is large enough.
    """
    import torch

    quantization: Any = importlib.import_module("torchao.quantization")

    def large(layer: Any, name: str) -> bool:
        if not isinstance(layer, torch.nn.Linear):
            return False
        path = name.split(".")
        if any(word in part for word in ONE_ROW for part in path):
            return False
        if within is not None and not any(
            ".".join(path[:length]) in within for length in range(1, len(path))
        ):
            return False
        sides = (layer.in_features, layer.out_features)
        return min(sides) >= min_features and not any(side % MULTIPLE for side in sides)

    count = sum(large(layer, name) for name, layer in module.named_modules())
    if count == 0:
        raise UnsupportedPipelineError(
            f"{type(module).__name__} has no linear layer of {min_features} features to quantise"
        )
    # torchao would switch on torch's tuning of every kernel besides, which is another technique and
    # takes minutes; of what it sets, int8 needs that a product is not written out as int32.
    if precision == "int8":
        inductor: Any = importlib.import_module("torch._inductor.config")
        inductor.force_fuse_int_mm_with_mul = True
        config: Any = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    else:
        # Scales by row are the finer ones, and torchao has them for bfloat16 alone.
        dtype = next(module.parameters()).dtype
        by = quantization.PerRow() if dtype == torch.bfloat16 else quantization.PerTensor()
        config = quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=by, set_inductor_config=False
        )
    quantization.quantize_(module, config, filter_fn=large)
    return count
