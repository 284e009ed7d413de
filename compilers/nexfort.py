"""``nexfort``: OneDiff's compiler on top of torch.compile, through ``onediffx.compile_pipe``."""

from __future__ import annotations

import copy
import importlib.util
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from compilers import inductor, onediff, packages
from compilers.base import Evidence, Scope, Traits, UnsupportedPipelineError, Verdict, lacking

MODES = (
    "O2",
    "O3",
    "max-autotune",
    "max-optimize",
    "low-precision",
    "fast-accum",
    "cache-all",
    "benchmark",
    "cudagraphs",
    "inductor-cudagraphs",
    "cpp-wrapper",
    "freezing",
    "inductor-freezing",
    "jit",
    "disable-inductor",
    "quant",
    "disable-runtime-fusion",
)
MISPACKAGED = ("0.1.dev299", "0.1.dev300", "0.1.dev301", "0.1.dev329", "0.1.dev330")
WORKING = "0.1.dev291"
TORCH = (2, 4)


@dataclass(frozen=True)
class NexfortOptions:
    """What OneDiff's users write as compiler options, and the arguments of ``compile_pipe``.

    Attributes:
        mode: nexfort's presets, joined by colons.
        memory_format: layout that denoiser and VAE are converted to first.
        dynamic: one graph for all shapes. None leaves it to nexfort on a GPU and is false on a
            CPU, where nexfort cannot generate code for it.
        fullgraph: fail on a graph break instead of running around it.
        options: nexfort's fine settings by dotted name; they win over the mode.
        ignores: parts that stay as they are, such as ``vae`` or ``text_encoder_2``.
        fuse_qkv: fuse the attention projections first.
        quantize: arguments of ``onediffx.quantize_pipe``, called first; nexfort asks for a licence
            key there.
    """

    mode: str = "O2"
    memory_format: Literal["channels_last", "contiguous_format", "preserve_format"] | None = None
    dynamic: bool | None = None
    fullgraph: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()
    fuse_qkv: bool = False
    quantize: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse unknown modes and parts, which nexfort would only after the model is loaded."""
        for name in self.mode.split(":"):
            if name not in MODES:
                whose = "torch.compile's" if name in inductor.MODES else "no"
                raise ValueError(
                    f"mode: {name!r} is {whose} mode{' of nexfort' if whose == 'no' else ''}; "
                    f"nexfort has, joined by ':', {', '.join(MODES)}"
                )
        onediff.check_ignores(self.ignores)


class Nexfort:
    """Compile denoiser, VAE and text encoders lazily at their first call."""

    name = "nexfort"
    options = NexfortOptions
    environment = "nexfort"
    lossy = False
    traits = Traits(holds_weights="it compiles for weights that stay on the device")

    def __init__(self) -> None:
        self._quantized = False
        self._details: dict[str, Any] = {}

    def probe(self, device: str) -> Verdict:
        """Return whether the installed wheels can work together on ``device``.

        Looks for what the mis-packaged wheels lack. Whether code really comes out is for
        ``python -m bench.worker.check nexfort``, which compiles.
        """
        if device.split(":")[0] not in ("cpu", "cuda"):
            return Verdict(False, f"nexfort runs on cpu and cuda, not on {device}")
        there = packages.installed("nexfort", "onediff", "onediffx", "torch", "setuptools")
        if not there.supported:
            return there
        version = packages.version_of("nexfort") or ""
        packaged = _packaged(version)
        if not packaged.supported:
            return packaged
        torch_version = packages.version_of("torch") or ""
        if packages.numbers(torch_version) != TORCH:
            return lacking(f"nexfort {version} needs torch 2.4; this is {torch_version}")
        return inductor.probe(device)

    def prepare(self, pipeline: Any, options: NexfortOptions) -> Scope:
        """Hand the pipeline to ``onediffx.compile_pipe``; dynamic shapes fail on a CPU."""
        on_cpu = str(getattr(pipeline, "device", "cpu")).split(":")[0] == "cpu"
        if on_cpu and options.dynamic:
            raise UnsupportedPipelineError(
                '"dynamic": true fails on a CPU, where nexfort generates C++ without symbolic '
                "sizes; write false"
            )
        parts = onediff.parts_of(pipeline, options.ignores)
        # nexfort reads it when it is imported; the folder is that of TORCHINDUCTOR_CACHE_DIR.
        os.environ["NEXFORT_GRAPH_CACHE"] = "1"
        import onediffx

        if options.quantize is not None:
            onediffx.quantize_pipe(
                pipeline, ignores=options.ignores, **copy.deepcopy(options.quantize)
            )
            self._quantized = True
        onediffx.compile_pipe(
            pipeline,
            backend="nexfort",
            options=self._compiler_options(options, on_cpu),
            ignores=options.ignores,
            fuse_qkv_projections=options.fuse_qkv,
        )
        self._details = {
            "versions": packages.versions("nexfort", "onediff", "onediffx"),
            "mode": options.mode,
            "modules": onediff.module_types(pipeline, parts),
        }
        return Scope(onediff.scopes_of(parts))

    @staticmethod
    def _compiler_options(options: NexfortOptions, on_cpu: bool) -> dict[str, Any]:
        """Return a mapping of its own for ``compile_pipe``, which takes entries out of it."""
        given = {
            "mode": options.mode,
            "fullgraph": options.fullgraph,
            "dynamic": False if on_cpu else options.dynamic,
            "memory_format": options.memory_format,
            "options": copy.deepcopy(options.options) or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def evidence(self) -> Evidence:
        """Leave the proof to torch's own counters: nexfort compiles through torch.compile."""
        return Evidence(runtime="dynamo", details=self._details, lossy=self._quantized)


def _packaged(version: str) -> Verdict:
    """Return whether the nexfort on the path has the module that compiling needs."""
    known = " This wheel is known to be mis-packaged." if version in MISPACKAGED else ""
    try:
        complete = importlib.util.find_spec("nexfort.inductor.codegen") is not None
    except Exception as error:  # noqa: BLE001 - finding a submodule imports the package
        return lacking(f"nexfort {version} does not import: {type(error).__name__}: {error}")
    if complete:
        return Verdict(True)
    return lacking(
        f"nexfort {version} imports, and cannot compile: No module named "
        f"'nexfort.inductor.codegen'.{known} {WORKING} is the newest that is whole",
    )
