"""What both trainings share: optimisers, averaged weights, checkpoints, a log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn


def log(text: str) -> None:
    """Print a line at once, so that a log file can be followed."""
    print(text, flush=True)


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates for weights of two or more dimensions.

    The update of a weight, seen as a matrix (out, everything else), is its Nesterov momentum
    brought near the closest orthogonal matrix by a Newton-Schulz iteration. `torch.optim.Muon`
    takes matrices only; convolutions are most of these models.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"]
                m.lerp_(p.grad, 1 - group["momentum"])
                update = torch.lerp(p.grad, m, group["momentum"]).reshape(p.shape[0], -1)
                update = orthogonalised(update)
                rows, columns = update.shape
                scale = max(1.0, rows / columns) ** 0.5
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)


def orthogonalised(matrix: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """Near-orthogonal matrix of the same shape and row or column space (singular values ~1)."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(iterations):
        gram = x @ x.T
        # Odd quintic with slope 3.4445 at 0: lifts small singular values fast, keeps ~1 near 1.
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x.T if tall else x


def make_optimizers(
    named: Iterable[tuple[str, nn.Parameter]], muon_lr: float, adam_lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices, Adam for first and last layers, embeddings and vectors."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in named:
        outer = "conv_in" in name or "conv_out" in name or "embedding" in name
        (matrices if p.ndim >= 2 and not outer and "quant" not in name else others).append(p)
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=muon_lr),
        torch.optim.Adam(others, lr=adam_lr, betas=(0.9, 0.98)),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_lr(
    optimizers: list[torch.optim.Optimizer],
    step: int,
    steps: int,
    warmup: int = 40,
    decay: float = 0.4,
) -> None:
    """Warm up, hold, then fall linearly to 2 % over the last part `decay` of the steps."""
    left = (steps - step) / (decay * steps)
    factor = min(1.0, (step + 1) / warmup, max(left, 0.02))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


class Ema:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.values = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.values, list(module.parameters()), 1 - decay)

    @contextlib.contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """The module holds the average inside the block."""
        kept = [p.detach().clone() for p in module.parameters()]
        try:
            self._put(module, self.values)
            yield
        finally:
            self._put(module, kept)

    @staticmethod
    @torch.no_grad()
    def _put(module: nn.Module, values: list[torch.Tensor]) -> None:
        for p, value in zip(module.parameters(), values, strict=True):
            p.copy_(value)


class Checkpoint:
    """Everything a training needs to go on where it was interrupted."""

    def __init__(
        self, path: Path, module: nn.Module, ema: Ema, optimizers: list[torch.optim.Optimizer]
    ) -> None:
        self.path, self.module, self.ema, self.optimizers = path, module, ema, optimizers

    def save(self, step: int) -> None:
        """Write the state after `step` steps; a crash while writing loses nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(
            {
                "step": step,
                "module": self.module.state_dict(),
                "ema": self.ema.values,
                "ema_count": self.ema.count,
                "optimizers": [o.state_dict() for o in self.optimizers],
            },
            part,
        )
        os.replace(part, self.path)

    def load(self) -> int:
        """Restore the state and return the number of steps done (0 without a checkpoint)."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["module"])
        self.ema.values = state["ema"]
        self.ema.count = state["ema_count"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        return int(state["step"])
