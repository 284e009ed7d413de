"""``tensorrt``: engines of TensorRT, through torch.compile and the package torch-tensorrt."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from compilers import inductor, packages
from compilers.base import Evidence, Scope, Traits, Verdict
from compilers.scopes import replace_part, resolve_scope


@dataclass(frozen=True)
class TensorrtOptions:
    """Settings of torch-tensorrt; the names are its own.

    Attributes:
        scope: which parts to compile, as for ``torch-compile``.
        dynamic: one engine for all shapes.
        min_block_size: operators in a row that are worth an engine; fewer stay in torch.
        optimization_level: how long TensorRT searches, 0 to 5; None keeps its default.
        workspace_size: bytes that TensorRT may use while it runs; 0 leaves it to TensorRT.
        pass_through_build_failures: fail where an engine cannot be built, rather than running the
            part in torch.
    """

    scope: tuple[inductor.ScopeName, ...] = ("unet",)
    dynamic: bool = False
    min_block_size: int = 5
    optimization_level: int | None = None
    workspace_size: int = 0
    pass_through_build_failures: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers out of range, with a ValueError that names the range."""
        if self.min_block_size < 1:
            raise ValueError("min_block_size: at least one operator makes a block")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise ValueError(f"optimization_level: {self.optimization_level} is not 0 to 5")
        if self.workspace_size < 0:
            raise ValueError("workspace_size: bytes cannot be negative")


class Tensorrt:
    """Compile each part of the scope into engines, lazily at its first call."""

    name = "tensorrt"
    options = TensorrtOptions
    environment = "current"
    lossy = False
    traits = Traits(holds_weights="its engine holds the weights on the device")

    def probe(self, device: str) -> Verdict:
        """Return whether torch-tensorrt fits this torch, and ``device`` is an NVIDIA GPU."""
        if not device.startswith("cuda"):
            return Verdict(False, f"TensorRT runs on NVIDIA GPUs only, and this is {device}")
        there = packages.installed("torch-tensorrt", "tensorrt")
        if not there.supported:
            return there
        return packages.attempt(
            lambda: importlib.import_module("torch_tensorrt"),
            packages.beside_torch("torch-tensorrt").format("import"),
        )

    def prepare(self, pipeline: Any, options: TensorrtOptions) -> Scope:
        """Wrap each part where the pipeline calls it."""
        import torch

        importlib.import_module("torch_tensorrt")
        scope = resolve_scope(pipeline, options.scope)
        how = {"backend": "torch_tensorrt", "dynamic": options.dynamic}
        for name in scope:
            replace_part(
                pipeline, name, lambda part: torch.compile(part, **how, options=settings(options))
            )
        return Scope(scope)

    def evidence(self) -> Evidence:
        """Leave the proof to torch's own counters."""
        return Evidence(
            runtime="dynamo",
            details={"versions": packages.versions("torch-tensorrt", "tensorrt")},
        )


def settings(options: TensorrtOptions) -> dict[str, Any]:
    """Return what ``torch.compile`` hands to torch-tensorrt."""
    own = {k: v for k, v in vars(options).items() if k not in ("scope", "dynamic")}
    return {key: value for key, value in own.items() if value is not None}
