"""``torchao``: the denoiser's linear layers in eight bits, by torch's own quantisation package."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from compilers import inductor, packages
from compilers.base import Evidence, Scope, Traits, UnsupportedPipelineError, Verdict, lacking
from compilers.quantise import fp8_missing
from compilers.scopes import resolve_scope

Kind = Literal["int8", "int8-weights", "fp8", "fp8-weights"]
CONFIGS = {
    "int8-weights": "Int8WeightOnlyConfig",
    "int8": "Int8DynamicActivationInt8WeightConfig",
    "fp8-weights": "Float8WeightOnlyConfig",
    "fp8": "Float8DynamicActivationFloat8WeightConfig",
}


@dataclass(frozen=True)
class TorchaoOptions:
    """How to quantise.

    Attributes:
        kind: ``int8`` and ``fp8`` quantise weights ahead and activations as they come; with
            ``-weights``, only weights. fp8 needs a GPU of compute capability 8.9 or newer.
        compile: compile the denoiser with torch.compile afterwards, without which quantising saves
            memory and seldom time.
        mode: preset of torch.compile.
        modules: which layers become what, by their name in the denoiser, the start of it or a
            pattern (``*``, ``?``): a kind, or null for layers that stay. The longest that fits
            counts. Where any are named, layers that none fits stay as they are; if empty, all
            become ``kind``.
        ignores: names, starts or patterns of layers that stay whatever ``modules`` says.
    """

    kind: Kind = "int8"
    compile: bool = False
    mode: inductor.Mode = "default"
    modules: dict[str, Kind | None] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()


class Torchao:
    """Replace the weights of the denoiser's linear layers."""

    name = "torchao"
    options = TorchaoOptions
    environment = "current"
    lossy = True
    traits = Traits(breaks_on_swaps=True)

    def __init__(self) -> None:
        self._compiled = False
        self._details: dict[str, Any] = {}

    def probe(self, device: str) -> Verdict:
        """Return whether torchao quantises a small layer on ``device``, by doing it."""
        if packages.version_of("torchao") is None:
            return lacking("torchao is not installed")

        def compute() -> None:
            import torch

            layer = torch.nn.Sequential(torch.nn.Linear(32, 32)).to(device)
            quantise(layer, "int8")
            with torch.no_grad():
                layer(torch.ones(2, 32, device=device))

        begins = packages.beside_torch("torchao").format("work")
        return packages.attempt(compute, f"{begins} on {device}")

    def prepare(self, pipeline: Any, options: TorchaoOptions) -> Scope:
        """Quantise the denoiser in place, and compile it if asked to."""
        import torch

        (name,) = resolve_scope(pipeline, ("unet",))
        denoiser = getattr(pipeline, name)
        layers = [
            layer for layer, part in denoiser.named_modules() if isinstance(part, torch.nn.Linear)
        ]
        wanted = kinds_of(layers, options)
        if any(kind.startswith("fp8") for kind in wanted.values()):
            why = fp8_missing(str(getattr(pipeline, "device", "cpu")))
            if why is not None:
                raise UnsupportedPipelineError(why)
        by_kind = {
            kind: quantise(denoiser, kind, {name for name, own in wanted.items() if own == kind})
            for kind in dict.fromkeys(wanted.values())
        }
        if not any(by_kind.values()):
            raise UnsupportedPipelineError(
                f"{type(denoiser).__name__} has no linear layer that torchao quantises"
            )
        if options.compile:
            setattr(pipeline, name, torch.compile(denoiser, mode=options.mode))
        self._compiled = options.compile
        self._details = {
            "versions": packages.versions("torchao"),
            "kind": options.kind,
            "layers_quantised": sum(by_kind.values()),
            "layers_by_kind": by_kind,
        }
        return Scope((name,))

    def evidence(self) -> Evidence:
        """Show how many layers were quantised; compiled graphs are counted by the worker."""
        runtime = "dynamo" if self._compiled else "modules"
        return Evidence(runtime=runtime, details=self._details)


def kinds_of(layers: Sequence[str], options: TorchaoOptions) -> Mapping[str, str]:
    """Return the kind of each layer that is to be quantised, by its name.

    Raises:
        UnsupportedPipelineError: a name or pattern fits no layer.
    """
    for pattern in (*options.modules, *options.ignores):
        if not any(_fits(name, pattern) for name in layers):
            raise UnsupportedPipelineError(
                f"{pattern!r} fits none of the {len(layers)} linear layers, such as "
                f"{', '.join(layers[:2]) or 'none'}"
            )
    kinds: dict[str, str] = {}
    for name in layers:
        fitting = [pattern for pattern in options.modules if _fits(name, pattern)]
        kind = options.kind if not options.modules else None
        if fitting:
            kind = options.modules[max(fitting, key=len)]
        if kind is not None and not any(_fits(name, pattern) for pattern in options.ignores):
            kinds[name] = kind
    return kinds


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def quantise(module: Any, kind: str, names: Collection[str] | None = None) -> int:
    """Quantise the linear layers in ``module`` and return how many have another weight now.

    Args:
        names: of the layers that are meant; all if None.
    """
    import torch

    quantization = importlib.import_module("torchao.quantization")
    config = getattr(quantization, CONFIGS[kind])
    linear = [
        part
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear) and (names is None or name in names)
    ]
    meant = {id(part) for part in linear}
    before = [type(part.weight.data) for part in linear]
    quantization.quantize_(module, config(), filter_fn=lambda part, _name: id(part) in meant)
    return sum(
        type(part.weight.data) is not kind_before
        for part, kind_before in zip(linear, before, strict=True)
    )
