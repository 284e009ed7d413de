"""What every backend built on torch.compile shares: options, probe, scope names, graph hygiene."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from compilers.base import UnsupportedPipelineError, Verdict
from compilers.scopes import denoiser_name

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
ScopeName = Literal[
    "unet",
    "transformer",
    "vae.decode",
    "vae.encode",
    "text_encoders",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
]

MODES: tuple[str, ...] = get_args(Mode)
CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")
COMPILER_CHECK_S = 30.0


@dataclass(frozen=True)
class InductorOptions:
    """Options that torch.compile takes whole or by region.

    Attributes:
        mode: preset of torch.compile.
        dynamic: None lets torch decide after the first new shape, False specialises each shape,
            True asks for one graph for all shapes.
        fullgraph: fail on a graph break instead of running around it.
        channels_last: put convolution weights in channels-last memory format first.
        fuse_qkv: fuse the attention projections first.
    """

    mode: Mode = "default"
    dynamic: bool | None = None
    fullgraph: bool = False
    channels_last: bool = False
    fuse_qkv: bool = False


def compile_arguments(options: InductorOptions) -> dict[str, Any]:
    """Return the keyword arguments of ``torch.compile`` for ``options``."""
    return {"mode": options.mode, "dynamic": options.dynamic, "fullgraph": options.fullgraph}


def arrange_weights(pipeline: Any, scope: tuple[str, ...], options: InductorOptions) -> None:
    """Apply ``channels_last`` and ``fuse_qkv`` to the modules that ``scope`` touches.

    Raises:
        UnsupportedPipelineError: a denoiser without fused projections was asked to fuse them.
    """
    if not (options.channels_last or options.fuse_qkv):
        return
    import torch

    for owner in dict.fromkeys(name.split(".")[0] for name in scope):
        module = getattr(pipeline, owner)
        if options.fuse_qkv:
            if hasattr(module, "fuse_qkv_projections"):
                module.fuse_qkv_projections()
            elif owner == denoiser_name(pipeline):
                raise UnsupportedPipelineError(
                    f"fuse_qkv: {type(module).__name__} has no fused attention projections"
                )
        if options.channels_last:
            module.to(memory_format=torch.channels_last)


def uses_cuda_graphs(pipeline: Any, mode: str) -> bool:
    """Return whether ``mode`` replays CUDA graphs for a pipeline where this one is."""
    return mode in CUDA_GRAPH_MODES and str(getattr(pipeline, "device", "cpu")).startswith("cuda")


def _own_memory(value: Any) -> Any:
    """Copy the tensors in ``value`` out of the memory that the next replay of a graph overwrites.

    Reaches into tuples, lists, mappings and the attributes of result objects, such as the latent
    distribution of ``vae.encode``.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(_own_memory(item) for item in value)
    if isinstance(value, dict):
        for key, item in list(value.items()):
            value[key] = _own_memory(item)
        return value
    if hasattr(value, "__dict__") and not isinstance(value, (torch.nn.Module, type)):
        for key, item in list(vars(value).items()):
            if isinstance(item, (torch.Tensor, tuple, list, dict)) or hasattr(item, "__dict__"):
                setattr(value, key, _own_memory(item))
    return value


def _begin_graph_generation() -> None:
    import torch

    compiler: Any = getattr(torch, "compiler", None)
    if compiler is not None:  # torch 2.0 has neither the mark nor generations
        compiler.cudagraph_mark_step_begin()


def own_outputs(call: Any) -> Any:
    """Let the results of a function or module that replays CUDA graphs outlive the next replay.

    Each call starts a new graph generation: without the mark, torch guesses where one ends, and a
    region that runs several times in one step overwrites results which are still needed. A
    module's hooks run outside its compiled region.
    """
    import torch

    if isinstance(call, torch.nn.Module):
        call.register_forward_pre_hook(lambda _module, _args: _begin_graph_generation())
        call.register_forward_hook(lambda _module, _args, output: _own_memory(output))
        return call

    @functools.wraps(call)
    def owned(*args: Any, **kwargs: Any) -> Any:
        _begin_graph_generation()
        return _own_memory(call(*args, **kwargs))

    return owned


def probe(device: str) -> Verdict:
    """Return whether torch.compile with Inductor can work on ``device``, by trying what it needs.

    ``device`` is ``cpu``, ``cuda:N`` or ``mps``.
    """
    import torch

    if not hasattr(torch, "compile"):
        return Verdict(
            False, f"torch.compile needs torch 2.0 or newer; this is {torch.__version__}"
        )
    try:
        from torch._dynamo.eval_frame import check_if_dynamo_supported

        check_if_dynamo_supported()
    except (ImportError, RuntimeError) as error:
        return Verdict(
            False,
            f"torch.compile of torch {torch.__version__} does not work here "
            f"(Python {platform.python_version()}): {error}",
        )
    kind = device.split(":")[0]
    if kind == "cpu":
        return _probe_cpp()
    if kind == "cuda":
        return _probe_cuda(device)
    return Verdict(
        False, f"torch.compile on {kind} is a prototype in torch; this backend runs on cpu and cuda"
    )


def _probe_cpp() -> Verdict:
    need = "torch.compile on the CPU generates C++"
    command = os.environ.get("CXX") or next(
        (name for name in ("g++", "clang++", "c++") if shutil.which(name)), None
    )
    if command is None:
        return Verdict(
            False, f"{need}, and no C++ compiler is installed (g++ or clang++, or name one in CXX)"
        )
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return Verdict(
            False, f"{need} that includes Python.h, which is not installed (python3-dev)"
        )
    openmp = ["-fopenmp"] if platform.system() == "Linux" else []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text("#include <cmath>\nextern 'C' { }\n".replace("'", '"'))
        arguments = [*shlex.split(command), "-std=c++17", "-shared", "-fPIC", *openmp]
        try:
            done = subprocess.run(
                [*arguments, str(source), "-o", str(Path(folder) / "probe.so")],
                stdin=subprocess.DEVNULL,
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMPILER_CHECK_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Verdict(False, f"{need}, and the compiler {command!r} does not run: {error}")
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if line.strip()), "no message")
        return Verdict(False, f"{need}, and {command!r} cannot build a shared library: {first}")
    return Verdict(True)


def _probe_cuda(device: str) -> Verdict:
    import torch

    if not torch.cuda.is_available():
        return Verdict(False, "torch sees no CUDA device")
    if importlib.util.find_spec("triton") is None:
        return Verdict(False, "torch.compile on CUDA generates Triton, which is not installed")
    major, minor = torch.cuda.get_device_capability(device)
    if major < 7:
        return Verdict(
            False, f"Triton needs compute capability 7.0 or newer; {device} has {major}.{minor}"
        )
    if not (os.environ.get("CC") or any(shutil.which(name) for name in ("gcc", "clang", "cc"))):
        return Verdict(
            False,
            "Triton builds its launchers with a C compiler, and none is installed "
            "(gcc or clang, or name one in CC)",
        )
    try:
        importlib.import_module("triton")
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises
        return Verdict(False, f"Triton is installed but does not import: {error}")
    return Verdict(True)
