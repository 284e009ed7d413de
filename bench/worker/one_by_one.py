"""Models that take the pictures of a batch one at a time.

Matrix products and convolutions of another batch size are cut into other blocks and summed in
another order, so a picture differs in its last bits between a batch and a call of its own. If
every model sees one picture at a time, the shapes, and with them the order of every sum, are the
same in any batch; all that lies between the models is elementwise.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any


def apply(pipeline: Any) -> list[str]:
    """Let every model of a pipeline run once for each picture; return their names.

    Of an autoencoder the parts do, whose input and output are plain tensors.
    """
    import torch

    done = []
    for name, module in sorted(pipeline.components.items()):
        if not isinstance(module, torch.nn.Module):
            continue
        parts = [
            part
            for part in ("encoder", "decoder", "quant_conv", "post_quant_conv")
            if isinstance(getattr(module, part, None), torch.nn.Module)
        ]
        owners = [getattr(module, part) for part in parts] if hasattr(module, "decode") else []
        for each in owners or [module]:
            each.forward = _in_turn(each.forward)
        done.append(name)
    return done


def _in_turn(forward: Any) -> Any:
    @functools.wraps(forward)
    def in_turn(*args: Any, **kwargs: Any) -> Any:
        count = _batch_of((*args, *kwargs.values()))
        if count <= 1:
            return forward(*args, **kwargs)
        made = [
            forward(
                *(_one(value, at, count) for value in args),
                **{key: _one(value, at, count) for key, value in kwargs.items()},
            )
            for at in range(count)
        ]
        return _together(made)

    return in_turn


def _batch_of(values: tuple[Any, ...]) -> int:
    """Return the first dimension of the first tensor that has more than one."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor) and value.dim() > 1:
            return int(value.shape[0])
    return 1


def _one(value: Any, at: int, count: int) -> Any:
    """Return the part of an argument that belongs to picture ``at`` of ``count``."""
    import torch

    if isinstance(value, torch.Tensor):
        return value[at : at + 1] if value.dim() > 0 and value.shape[0] == count else value
    if isinstance(value, Mapping):
        return {key: _one(item, at, count) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and all(isinstance(i, torch.Tensor) for i in value):
        return type(value)(_one(item, at, count) for item in value)
    return value


def _together(made: list[Any]) -> Any:
    """Join what the calls returned: tensors, and tuples and outputs of them."""
    import torch

    first = made[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(made)
    if isinstance(first, Mapping):  # diffusers' and transformers' outputs are mappings too
        joined = {key: _together([each[key] for each in made]) for key in first}
        return type(first)(**joined)
    if isinstance(first, (list, tuple)):
        return type(first)(_together(list(parts)) for parts in zip(*made, strict=True))
    return first
