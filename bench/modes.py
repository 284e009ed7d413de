"""Words for how a pipeline saves memory and in which precision it computes, and what contradicts.

Parent and worker share them: the parent refuses what no machine could run, the worker what this
machine, pipeline or backend cannot. Standard library only, valid on Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NONE = "none"

KEYS = ("memory", "precision", "between")
"""What of a workload says a mode."""

MEMORY = (
    "attention-slicing",
    "xformers",
    "vae-slicing",
    "vae-tiling",
    "model-offload",
    "sequential-offload",
    "group-offload",
)
"""Memory modes, in the order in which they are applied: an offload takes the place of the move to
the device, so it is last."""

OFFLOADS = ("model-offload", "sequential-offload", "group-offload")

BETWEEN = ("gc", "empty-cache")
"""What a loop may do between images, in the order in which it is done."""

PRECISIONS = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "autocast": "float32",
    "tf32": "float32",
}
"""The type of the weights under each precision."""

OF_ITS_OWN = ("fp32", "autocast", "tf32")
"""Precisions that say more than a type of weights does; the others are that type and no more."""


def parts(text: str | None) -> tuple[str, ...]:
    """Return the single modes of ``a+b``; none of None or ``none``."""
    return () if text in (None, "", NONE) else tuple(str(text).split("+"))


def joined(given: Sequence[str], known: Sequence[str]) -> str:
    """Return modes as the text that a workload holds: in the order of ``known``, joined by ``+``.

    Raises:
        ValueError: with a sentence, for ``none`` beside others, a mode twice or an unknown one.
    """
    if NONE in given and len(given) > 1:
        raise ValueError("'none' stands alone")
    for name in given:
        if name not in (*known, NONE):
            raise ValueError(f"unknown mode '{name}'; one of none, {', '.join(known)}")
        if given.count(name) > 1:
            raise ValueError(f"'{name}' is there twice")
    return "+".join(name for name in known if name in given) or NONE


def contradiction(memory: str | None) -> str | None:
    """Return why memory modes exclude each other and what to write instead; None if they do not."""
    asked = parts(memory)
    offloads = [name for name in asked if name in OFFLOADS]
    if len(offloads) > 1:
        return (
            f"{' and '.join(offloads)} are two answers to where the weights wait, and diffusers "
            "takes one; keep one of them"
        )
    if "xformers" in asked and "attention-slicing" in asked:
        return (
            "xformers and attention-slicing both replace the attention processors, and diffusers "
            "lets xformers win, so slicing would do nothing; keep one of them"
        )
    return None


def offload(memory: str | None) -> str | None:
    """Return the offload among memory modes, if there is one."""
    return next((name for name in parts(memory) if name in OFFLOADS), None)


def with_backend(memory: str | None, traits: Any, options: Mapping[str, Any]) -> str | None:
    """Return why a backend cannot work under memory modes; None if nothing is known against it.

    Args:
        traits: the backend's `compilers.base.Traits`.
    """
    moved = offload(memory)
    if moved is None:
        if traits.replaces_attention and "attention-slicing" in parts(memory):
            return "attention-slicing would be replaced by the backend's xformers processors"
        return None
    if traits.holds_weights:
        return f"{moved} moves weights away between calls, and {traits.holds_weights}"
    if traits.replays_graphs(options):
        return (
            f"{moved} moves weights to new addresses, and a CUDA graph replays the old ones; "
            "switch CUDA graphs off, or take 'memory: none'"
        )
    if moved == "sequential-offload" and traits.breaks_on_swaps:
        return (
            "sequential-offload swaps weights in and out before every single layer, so every "
            "compiled graph would break there; take model-offload or group-offload"
        )
    return None


def precision_of(workload: Mapping[str, Any]) -> str:
    """Return the precision's word for a workload: its own, or that of its type of weights.

    ``float32`` stands for weights in float32 with torch's own settings, which allow TF32 in
    convolutions on GPUs that have it; ``fp32`` forbids it.
    """
    word = workload.get("precision")
    if word:
        return str(word)
    dtype = str(workload.get("dtype"))
    return {"float16": "fp16", "bfloat16": "bf16"}.get(dtype, dtype)


def word_of(workload: Mapping[str, Any], key: str) -> str:
    """Return the value of ``memory``, ``between`` or ``precision``, its default if it is absent."""
    return precision_of(workload) if key == "precision" else str(workload.get(key) or NONE)


def facts(workload: Mapping[str, Any]) -> list[str]:
    """Return what a workload has of the three, each as ``key value``."""
    return [f"{key} {workload[key]}" for key in KEYS if workload.get(key)]
