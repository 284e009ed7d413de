"""``oneflow``: OneDiff's compiler on OneFlow, a second runtime, through ``onediffx``."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compilers import onediff, packages
from compilers.base import CACHE_VARIABLE, Evidence, Scope, Traits, Verdict, lacking

PLACEHOLDER = "0.7.0"
METER = "oneflow.device_used"
MIB = 2**20
PUBLISHED = "OneFlow publishes wheels that OneDiff works with outside PyPI; bring one of those"


@dataclass(frozen=True)
class OneflowOptions:
    """Fields of OneDiff's ``OneflowCompileOptions``, and the arguments of ``compile_pipe``.

    Attributes:
        dynamic: one graph for all shapes.
        use_graph: compile to ``oneflow.nn.Graph``; without, only OneFlow's eager kernels run.
        max_cached_graph_size: graphs kept, one for each shape.
        run_graph_by_vm: run graphs by OneFlow's virtual machine; None keeps OneDiff's default, as
            in each of the following.
        conv_allow_half_precision_accumulation: accumulate convolutions in half precision.
        matmul_allow_half_precision_accumulation: accumulate matrix products in half precision.
        attention_allow_half_precision_accumulation: accumulate attention in half precision.
        mlir_prefer_nhwc: channels-last convolutions.
        mlir_fuse_kernel_launch: launch kernels in groups.
        kernel_enable_cuda_graph: replay CUDA graphs.
        ignores: parts that stay as they are, such as ``vae`` or ``text_encoder_2``.
        fuse_qkv: fuse the attention projections first.
    """

    dynamic: bool = True
    use_graph: bool = True
    max_cached_graph_size: int = 9
    run_graph_by_vm: bool | None = None
    conv_allow_half_precision_accumulation: bool | None = None
    matmul_allow_half_precision_accumulation: bool | None = None
    attention_allow_half_precision_accumulation: bool | None = None
    mlir_prefer_nhwc: bool | None = None
    mlir_fuse_kernel_launch: bool | None = None
    kernel_enable_cuda_graph: bool | None = None
    ignores: tuple[str, ...] = ()
    fuse_qkv: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown parts and sizes, with a ValueError."""
        onediff.check_ignores(self.ignores)
        if self.max_cached_graph_size < 1:
            raise ValueError("max_cached_graph_size: at least one graph must be kept")


NOT_ONEDIFFS = ("ignores", "fuse_qkv")


class Oneflow:
    """Turn the parts into OneFlow graphs, compiled at their first call or loaded from the cache."""

    name = "oneflow"
    options = OneflowOptions
    environment = "oneflow"
    lossy = False
    traits = Traits(holds_weights="it keeps weights of its own on the device")

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._options = OneflowOptions()
        self._parts: tuple[str, ...] = ()
        self._on_cuda = False
        self._loaded: list[str] = []

    def probe(self, device: str) -> Verdict:
        """Return whether OneFlow and OneDiff import together here and see ``device``."""
        kind = device.split(":")[0]
        if kind not in ("cpu", "cuda"):
            return Verdict(False, f"OneFlow runs on cpu and cuda, not on {device}")
        version = packages.version_of("oneflow")
        if version == PLACEHOLDER:
            return lacking(
                f"oneflow {PLACEHOLDER} is a placeholder on PyPI that raises when it is imported: "
                "installers choose it on Python 3.11 and newer, for which PyPI has nothing later. "
                + PUBLISHED,
            )
        there = packages.installed("oneflow", "onediff", "onediffx", "torch")
        if not there.supported:
            return there
        try:
            flow = importlib.import_module("oneflow")
            complete = importlib.util.find_spec("oneflow.framework.args_tree") is not None
        except Exception as error:  # noqa: BLE001 - whatever a broken package raises
            return lacking(f"oneflow {version} does not import: {type(error).__name__}: {error}")
        if not complete:
            return lacking(
                f"oneflow {version} imports, and OneDiff {packages.version_of('onediff')} cannot "
                f"compile with it: No module named 'oneflow.framework.args_tree'. {PUBLISHED}",
            )
        if kind == "cuda" and not flow.cuda.is_available():
            return Verdict(False, f"oneflow {version} sees no CUDA device")
        module = "onediff.infer_compiler.backends.oneflow.deployable_module"
        return packages.attempt(
            lambda: importlib.import_module(module), "OneDiff's part for OneFlow does not import"
        )

    def prepare(self, pipeline: Any, options: OneflowOptions) -> Scope:
        """Hand the pipeline to ``onediffx.compile_pipe`` and load graphs that the cache holds."""
        parts = onediff.parts_of(pipeline, options.ignores)
        onediffx = importlib.import_module("onediffx")
        self._pipeline, self._options, self._parts = pipeline, options, parts
        self._on_cuda = str(getattr(pipeline, "device", "cpu")).startswith("cuda")
        onediffx.compile_pipe(
            pipeline,
            backend="oneflow",
            options=compile_options(options),
            ignores=options.ignores,
            fuse_qkv_projections=options.fuse_qkv,
        )
        folder = graph_folder()
        self._loaded = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if self._loaded and options.use_graph:
            onediffx.load_pipe(pipeline, dir=str(folder), ignores=options.ignores)
        return Scope(onediff.scopes_of(parts))

    def keep(self, pipeline: Any) -> None:
        """Save the graphs with ``onediffx.save_pipe``, unless they came from the cache."""
        if self._options.use_graph and not self._loaded:
            importlib.import_module("onediffx").save_pipe(
                pipeline, dir=str(graph_folder()), ignores=self._options.ignores, overwrite=False
            )

    def synchronize(self) -> None:
        """Wait for OneFlow's own queues."""
        _internal().eager.Sync()

    def memory_used(self) -> tuple[str, int | None, str | None]:
        """Return what OneFlow says the whole device holds now; it keeps no peak."""
        if not self._on_cuda:
            return METER, None, "OneFlow weighs GPU memory only, and this is a CPU"
        return METER, int(_internal().GetCUDAMemoryUsed()) * MIB, None

    def evidence(self) -> Evidence:
        """Show each part's class and whether OneFlow holds a compiled graph for it."""
        compiled = {
            part: _is_compiled(onediff.attribute(self._pipeline, part)) for part in self._parts
        }
        denoiser = next((part for part in ("unet", "transformer") if part in compiled), None)
        eager = self._options.use_graph and denoiser is not None and not compiled[denoiser]
        return Evidence(
            runtime="modules",
            details={
                "versions": packages.versions("oneflow", "onediff", "onediffx"),
                "modules": onediff.module_types(self._pipeline, self._parts),
                "graph_compiled": compiled,
                "graphs_loaded": self._loaded,
            },
            fallback=f"OneFlow holds no compiled graph for {denoiser}" if eager else None,
        )


def compile_options(options: OneflowOptions) -> Any:
    """Return OneDiff's own options object; what is None stays as OneDiff has it."""
    backends = importlib.import_module("onediff.infer_compiler.backends.env_var")
    chosen = {
        name: value
        for name, value in vars(options).items()
        if value is not None and name not in NOT_ONEDIFFS
    }
    return backends.OneflowCompileOptions(**chosen)


def graph_folder() -> Path:
    """Return where compiled graphs are kept: in the cell's own compile cache."""
    return Path(os.environ[CACHE_VARIABLE]) / "oneflow"


def _internal() -> Any:
    return importlib.import_module("oneflow")._oneflow_internal


def _is_compiled(part: Any) -> bool:
    if getattr(part, "_deployable_module_dpl_graph", None) is None:
        return False
    return bool(part.get_graph().is_compiled)
