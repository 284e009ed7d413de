"""``torch-compile``: whole parts of the pipeline through torch.compile with Inductor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compilers import inductor
from compilers.base import Evidence, Scope, Traits, Verdict
from compilers.scopes import replace_part, resolve_scope


@dataclass(frozen=True)
class TorchCompileOptions(inductor.InductorOptions):
    """Adds which parts to compile.

    Attributes:
        scope: ``unet`` names the denoiser, be it a UNet or a transformer; ``text_encoders`` names
            all text encoders.
    """

    scope: tuple[inductor.ScopeName, ...] = ("unet",)


class TorchCompile:
    """Compile each part of the scope as one region, lazily at its first call."""

    name = "torch-compile"
    options = TorchCompileOptions
    environment = "current"
    lossy = False
    traits = Traits(breaks_on_swaps=True)

    def probe(self, device: str) -> Verdict:
        """Return whether Inductor works on ``device``."""
        return inductor.probe(device)

    def prepare(self, pipeline: Any, options: TorchCompileOptions) -> Scope:
        """Wrap each part where the pipeline calls it."""
        import torch

        scope = resolve_scope(pipeline, options.scope)
        inductor.arrange_weights(pipeline, scope, options)
        arguments = inductor.compile_arguments(options)
        replayed = inductor.uses_cuda_graphs(pipeline, options.mode)

        def compiled(part: Any) -> Any:
            made = torch.compile(part, **arguments)
            return inductor.own_outputs(made) if replayed else made

        for name in scope:
            replace_part(pipeline, name, compiled)
        return Scope(scope)

    def evidence(self) -> Evidence:
        """Leave the proof to torch's own counters."""
        return Evidence(runtime="dynamo")
