"""``torch-compile-regional``: the denoiser's repeated blocks, compiled once and reused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compilers import inductor, packages
from compilers.base import Evidence, Scope, Traits, UnsupportedPipelineError, Verdict
from compilers.scopes import resolve_scope

FIRST_DIFFUSERS = (0, 35)


@dataclass(frozen=True)
class TorchCompileRegionalOptions(inductor.InductorOptions):
    """The scope is fixed: the repeated blocks of the denoiser."""


class TorchCompileRegional:
    """Compile the blocks that a denoiser repeats; much less to compile for most of the gain."""

    name = "torch-compile-regional"
    options = TorchCompileRegionalOptions
    environment = "current"
    lossy = False
    traits = Traits(compiles="regions", breaks_on_swaps=True)

    def probe(self, device: str) -> Verdict:
        """Return whether Inductor works on ``device`` and diffusers knows repeated blocks."""
        version = packages.version_of("diffusers")
        if version is None:
            return Verdict(False, "diffusers is not installed")
        if packages.numbers(version) < FIRST_DIFFUSERS:
            return Verdict(
                False,
                "regional compilation needs diffusers 0.35 or newer "
                f"(compile_repeated_blocks); this is {version}",
            )
        return inductor.probe(device)

    def prepare(self, pipeline: Any, options: TorchCompileRegionalOptions) -> Scope:
        """Compile the denoiser's repeated blocks in place, lazily at their first call."""
        scope = resolve_scope(pipeline, ("unet",))
        denoiser = getattr(pipeline, scope[0])
        if not getattr(denoiser, "_repeated_blocks", None):
            raise UnsupportedPipelineError(
                f"{type(denoiser).__name__} names no repeated blocks, so there is no region to "
                "compile; use torch-compile"
            )
        inductor.arrange_weights(pipeline, scope, options)
        denoiser.compile_repeated_blocks(**inductor.compile_arguments(options))
        if inductor.uses_cuda_graphs(pipeline, options.mode):
            inductor.own_outputs(denoiser)
        return Scope(scope)

    def evidence(self) -> Evidence:
        """Leave the proof to torch's own counters."""
        return Evidence(runtime="dynamo")
