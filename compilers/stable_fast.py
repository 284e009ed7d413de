"""``stable-fast``: TorchScript traces with fused kernels, by the package of that name."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

from compilers import packages
from compilers.base import Evidence, Scope, Traits, UnsupportedPipelineError, Verdict, lacking
from compilers.scopes import text_encoder_names

GPU_ONLY = ("enable_cuda_graph", "enable_triton", "enable_xformers")


@dataclass(frozen=True)
class StableFastOptions:
    """The fields of stable-fast's ``CompilationConfig``; None keeps its default for the device.

    Attributes:
        memory_format: layout of the weights.
        enable_jit_freeze: freeze the traces.
        preserve_parameters: keep weights exchangeable in frozen traces, at some cost.
        enable_cnn_optimization: fuse convolutions with what follows.
        enable_fused_linear_geglu: fuse GEGLU; accumulates in half precision.
        prefer_lowp_gemm: multiply matrices in low precision, which can change the image.
        enable_xformers: attention by xformers; needs a GPU.
        enable_cuda_graph: replay CUDA graphs; needs a GPU.
        enable_triton: generated Triton kernels; needs a GPU.
    """

    memory_format: Literal["channels_last", "contiguous_format"] | None = None
    enable_jit_freeze: bool | None = None
    preserve_parameters: bool | None = None
    enable_cnn_optimization: bool | None = None
    enable_fused_linear_geglu: bool | None = None
    prefer_lowp_gemm: bool | None = None
    enable_xformers: bool = False
    enable_cuda_graph: bool = False
    enable_triton: bool = False


class StableFast:
    """Trace denoiser, text encoders and VAE lazily, at their first call with each kind of input."""

    name = "stable-fast"
    options = StableFastOptions
    environment = "stable-fast"
    lossy = False
    traits = Traits(holds_weights="it traces and freezes the weights that are on the device")

    def __init__(self) -> None:
        self._traced: dict[str, Any] = {}
        self._vae: Any = None

    def probe(self, device: str) -> Verdict:
        """Return whether the extension loads, by loading it: it fits one build of torch only."""
        kind = device.split(":")[0]
        if kind not in ("cpu", "cuda"):
            return Verdict(False, f"stable-fast runs on cpu and cuda, not on {device}")
        if importlib.util.find_spec("sfast") is None:
            return lacking("stable-fast is not installed")
        loads = packages.attempt(
            lambda: importlib.import_module("sfast.compilers.diffusion_pipeline_compiler"),
            packages.beside_torch("stable-fast").format("load"),
        )
        if not loads.supported:
            return loads
        if kind == "cuda" and not _built_with_cuda():
            return lacking(
                "this stable-fast was built without CUDA (WITH_CUDA=0): it runs on cpu only"
            )
        return Verdict(True)

    def prepare(self, pipeline: Any, options: StableFastOptions) -> Scope:
        """Hand the pipeline to ``sfast``'s ``compile``."""
        unet = getattr(pipeline, "unet", None)
        if unet is None:
            raise UnsupportedPipelineError(
                f"{type(pipeline).__name__} has no UNet, and stable-fast compiles no other denoiser"
            )
        if str(getattr(pipeline, "device", "cpu")).startswith("cpu"):
            wrong = [name for name in GPU_ONLY if getattr(options, name)]
            if wrong:
                raise UnsupportedPipelineError(f"{wrong[0]} needs a GPU, and this is a CPU")
        import torch
        from sfast.compilers import diffusion_pipeline_compiler as compiler

        config = compiler.CompilationConfig.Default()
        for name, value in vars(options).items():
            if value is not None:
                setattr(config, name, value)
        if options.memory_format is not None:
            config.memory_format = getattr(torch, options.memory_format)
        encoders = text_encoder_names(pipeline)
        scope = ["unet", *encoders]
        self._vae = getattr(pipeline, "vae", None)
        if self._vae is None:
            pipeline.unet = compiler.compile_unet(unet, config)
        else:
            compiler.compile(pipeline, config)
            scope += ["vae.decode", "vae.encode"]
        self._traced = {name: getattr(pipeline, name).forward for name in ("unet", *encoders)}
        return Scope(tuple(name for name in scope if name != "text_encoder_3"))

    def evidence(self) -> Evidence:
        """Show how many traces each part holds; parts that were called and hold none ran eager."""
        traces = {
            name: len(getattr(forward, "_cached", ())) for name, forward in self._traced.items()
        }
        if self._vae is not None:
            traces["vae"] = sum(_traces(module) for module in self._vae.modules())
        return Evidence(
            runtime="modules",
            details={"versions": packages.versions("stable-fast"), "traces": traces},
            fallback=None if traces.get("unet") else "the UNet was never traced",
        )


def _built_with_cuda() -> bool:
    import torch

    return hasattr(torch.ops.sfast, "cublas_lowp_linear")


def _traces(module: Any) -> int:
    """Count the traces behind a module whose call ``sfast`` has replaced by a hook of its own."""
    call = vars(module).get("_call_impl")
    for cell in getattr(call, "__closure__", None) or ():
        kept = getattr(cell.cell_contents, "compiled_cache", None)
        if kept is not None:
            return sum(getattr(value, "__name__", "") == "_call_impl" for value in kept.values())
    return 0
