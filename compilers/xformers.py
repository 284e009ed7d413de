"""``xformers``: memory-efficient attention kernels, in place of torch's own."""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from typing import Any

from compilers import packages
from compilers.base import (
    Evidence,
    NoOptions,
    Scope,
    Traits,
    UnsupportedPipelineError,
    Verdict,
    lacking,
)
from compilers.scopes import denoiser_name, denoiser_of


class Xformers:
    """Give the denoiser and the VAE diffusers' attention processors for xformers."""

    name = "xformers"
    options = NoOptions
    environment = "current"
    lossy = False
    traits = Traits(replaces_attention=True)

    def __init__(self) -> None:
        self._processors: Counter[str] = Counter()

    def probe(self, device: str) -> Verdict:
        """Return whether xformers' kernels work on ``device``, by running one."""
        if importlib.util.find_spec("xformers") is None:
            return lacking("xformers is not installed")
        if not device.startswith("cuda"):
            return Verdict(
                False, f"diffusers uses xformers' attention on CUDA only, and this is {device}"
            )

        def attend() -> None:
            import torch

            ones = torch.ones(1, 16, 2, 32, dtype=torch.float16, device=device)
            importlib.import_module("xformers.ops").memory_efficient_attention(ones, ones, ones)

        begins = packages.beside_torch("xformers").format("work")
        return packages.attempt(attend, f"{begins} on {device}")

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        """Turn it on in every part that knows it."""
        name, denoiser = denoiser_name(pipeline), denoiser_of(pipeline)
        if name is None or not hasattr(denoiser, "enable_xformers_memory_efficient_attention"):
            raise UnsupportedPipelineError(
                f"the denoiser of {type(pipeline).__name__} has no switch for xformers"
            )
        denoiser.enable_xformers_memory_efficient_attention()
        vae: Any = getattr(pipeline, "vae", None)
        if hasattr(vae, "enable_xformers_memory_efficient_attention"):
            vae.enable_xformers_memory_efficient_attention()
        for part in (denoiser, vae):
            self._processors.update(
                type(processor).__name__
                for processor in getattr(part, "attn_processors", {}).values()
            )
        return Scope((name,))

    def evidence(self) -> Evidence:
        """Show which attention processors are in place."""
        taken = any("XFormers" in kind for kind in self._processors)
        return Evidence(
            runtime="modules",
            details={
                "versions": packages.versions("xformers"),
                "attention_processors": dict(self._processors),
            },
            fallback=None if taken else "no attention processor of xformers is in place",
        )
