"""``torchao``: the denoiser's linear layers in eight bits, by torch's own quantisation package."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from compilers import inductor, packages
from compilers.base import Evidence, Scope, UnsupportedPipelineError, Verdict, lacking
from compilers.scopes import resolve_scope

CONFIGS = {
    "int8-weights": "Int8WeightOnlyConfig",
    "int8": "Int8DynamicActivationInt8WeightConfig",
    "fp8-weights": "Float8WeightOnlyConfig",
    "fp8": "Float8DynamicActivationFloat8WeightConfig",
}
FP8_CAPABILITY = (8, 9)


@dataclass(frozen=True)
class TorchaoOptions:
    """How to quantise.

    Attributes:
        kind: ``int8`` and ``fp8`` quantise weights ahead and activations as they come; with
            ``-weights``, only weights. fp8 needs a GPU of compute capability 8.9 or newer.
        compile: compile the denoiser with torch.compile afterwards, without which quantising saves
            memory and seldom time.
        mode: preset of torch.compile.
    """

    kind: Literal["int8", "int8-weights", "fp8", "fp8-weights"] = "int8"
    compile: bool = False
    mode: inductor.Mode = "default"


class Torchao:
    """Replace the weights of the denoiser's linear layers."""

    name = "torchao"
    options = TorchaoOptions
    environment = "current"
    lossy = True

    def __init__(self) -> None:
        self._compiled = False
        self._details: dict[str, Any] = {}

    def probe(self, device: str) -> Verdict:
        """Say whether torchao quantises a small layer on ``device``, by doing it."""
        if packages.version_of("torchao") is None:
            return lacking("torchao is not installed")
        try:
            import torch

            layer = torch.nn.Sequential(torch.nn.Linear(32, 32)).to(device)
            quantise(layer, "int8")
            with torch.no_grad():
                layer(torch.ones(2, 32, device=device))
        except Exception as error:  # noqa: BLE001 - whatever a package that does not fit raises
            return lacking(
                f"torchao {packages.version_of('torchao')} does not work with torch "
                f"{packages.version_of('torch')} on {device}: {type(error).__name__}: {error}",
            )
        return Verdict(True)

    def prepare(self, pipeline: Any, options: TorchaoOptions) -> Scope:
        """Quantise the denoiser in place, and compile it if asked to.

        Raises:
            UnsupportedPipelineError: there is no denoiser, nothing in it to quantise, or fp8 was
                asked for where the hardware has none.
        """
        import torch

        (name,) = resolve_scope(pipeline, ("unet",))
        denoiser = getattr(pipeline, name)
        if options.kind.startswith("fp8"):
            check_fp8(str(getattr(pipeline, "device", "cpu")))
        layers = quantise(denoiser, options.kind)
        if not layers:
            raise UnsupportedPipelineError(
                f"{type(denoiser).__name__} has no linear layer that torchao quantises"
            )
        if options.compile:
            setattr(pipeline, name, torch.compile(denoiser, mode=options.mode))
        self._compiled = options.compile
        self._details = {
            "versions": packages.versions("torchao"),
            "kind": options.kind,
            "layers_quantised": layers,
        }
        return Scope((name,))

    def evidence(self) -> Evidence:
        """Show how many layers were quantised; compiled graphs are counted by the worker."""
        return Evidence(
            runtime="dynamo" if self._compiled else "modules",
            details=self._details,
        )


def quantise(module: Any, kind: str) -> int:
    """Quantise the linear layers in ``module`` and return how many have another weight now."""
    import torch

    quantization = importlib.import_module("torchao.quantization")
    config = getattr(quantization, CONFIGS[kind])
    linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    before = [type(part.weight.data) for part in linear]
    quantization.quantize_(module, config())
    return sum(
        type(part.weight.data) is not kind_before
        for part, kind_before in zip(linear, before, strict=True)
    )


def check_fp8(device: str) -> None:
    """Refuse fp8 where the hardware cannot multiply it.

    Raises:
        UnsupportedPipelineError: with what the device has.
    """
    import torch

    if not device.startswith("cuda"):
        raise UnsupportedPipelineError(
            f"fp8 needs a GPU of compute capability 8.9 or newer, and this is {device}"
        )
    found = torch.cuda.get_device_capability(device)
    if tuple(found) < FP8_CAPABILITY:
        raise UnsupportedPipelineError(
            f"fp8 needs compute capability 8.9 or newer; {device} has {found[0]}.{found[1]}"
        )
