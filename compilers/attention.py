"""The fastest way to compute a denoiser's attention, by trying those that are present.

Shapes are taken from the denoiser's own first call, so that what is timed is what will run. A
candidate whose result is further from a float32 reference than the present way's, by more than
``TOLERANCE`` times, changes the image and is not taken.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

AttentionChoice = Literal["probe", "as-is", "cudnn", "flash", "efficient", "flash-3", "sage"]

TOLERANCE = 2.0
CALLS = 10
"""Timed calls of each candidate at each shape."""

MARGIN = 0.97
"""Share of the present way's time under which another is taken: less is noise, and a choice that
changes from run to run would find nothing of what was compiled for the other."""

AHEAD_CYCLES = 40_000_000
"""For how long the device idles while calls are queued: some 20 ms at 2 GHz. A kernel may take less
time than the host needs to launch it, and it is the kernel that is compared."""

SDPA = {
    "cudnn": "CUDNN_ATTENTION",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
}
"""Kernels that torch has: our name, and the name in ``torch.nn.attention.SDPBackend``."""

DISPATCHED = {"flash-3": ("_flash_3", "flash_attn_interface"), "sage": ("sage", "sageattention")}
"""Kernels of other packages: our name, diffusers' name for its dispatcher, and the package."""

Attention = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Shape:
    """One kind of attention call: (batch, heads, tokens, head size) of query and of key."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Tried:
    """What a candidate did over one whole denoiser call's attention.

    Attributes:
        seconds: None if it failed or was not present.
        error: largest relative distance to the float32 reference over all shapes.
        reason: why it is not to be taken.
    """

    seconds: float | None
    error: float | None
    reason: str | None = None


def watch_shapes(call: Callable[[], Any]) -> Counter[Shape]:
    """Run ``call`` eager and return the attention calls in it that have no mask."""
    import torch
    from torch.overrides import TorchFunctionMode

    shapes: Counter[Shape] = Counter()

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = kwargs or {}
            if function is torch.nn.functional.scaled_dot_product_attention:
                query = args[0] if args else given["query"]
                key = args[1] if len(args) > 1 else given["key"]
                mask = args[3] if len(args) > 3 else given.get("attn_mask")
                if mask is None:
                    shapes[Shape(tuple(query.shape), tuple(key.shape), query.dtype)] += 1
            return function(*args, **given)

    with Watch():
        call()
    return shapes


def probe(
    shapes: Mapping[Shape, int],
    candidates: Mapping[str, Attention],
    device: str,
    measure: Callable[[Callable[[], Any], str], float],
) -> tuple[str, dict[str, Tried]]:
    """Return the fastest candidate that keeps the image, and what each one did.

    Args:
        shapes: how often each kind of call occurs.
        candidates: by name; ``as-is`` must be among them.
        measure: seconds of one call of a function on a device.
    """
    import torch

    generator = torch.Generator(device).manual_seed(0)
    seconds = dict.fromkeys(candidates, 0.0)
    errors = dict.fromkeys(candidates, 0.0)
    failed: dict[str, str] = {}
    for shape, count in shapes.items():
        query, key, value = (
            torch.randn(size, generator=generator, device=device, dtype=shape.dtype)
            for size in (shape.query, shape.key, shape.key)
        )
        reference = _reference(query, key, value)
        for name, attention in candidates.items():
            if name in failed:
                continue
            try:
                result = attention(query, key, value)
                spent = measure(functools.partial(attention, query, key, value), device)
            except Exception as error:  # noqa: BLE001 - whatever a kernel raises at this shape
                lines = str(error).strip().splitlines() or [""]
                failed[name] = f"{type(error).__name__}: {lines[0]}"[:200]
                continue
            distance = torch.linalg.vector_norm(result.float() - reference)
            distance = float(distance / torch.linalg.vector_norm(reference))
            distance = float("inf") if math.isnan(distance) else distance
            errors[name] = max(errors[name], distance)
            seconds[name] += count * spent
    allowed = TOLERANCE * errors["as-is"]

    def outcome(name: str) -> Tried:
        if name in failed:
            return Tried(None, None, failed[name])
        why = f"its error is {errors[name]:.1e}, and {allowed:.1e} is allowed"
        return Tried(seconds[name], errors[name], why if errors[name] > allowed else None)

    tried = {name: outcome(name) for name in candidates}
    good = {name: seconds[name] for name in candidates if tried[name].reason is None}
    fastest = min(good, key=lambda name: good[name]) if good else "as-is"
    if "as-is" in good and good[fastest] > MARGIN * good["as-is"]:
        fastest = "as-is"
    return fastest, tried


def cuda_candidates() -> dict[str, Attention]:
    """Return what this machine's torch and packages have, and ``as-is``."""
    import torch.nn.functional as functional

    candidates: dict[str, Attention] = {"as-is": functional.scaled_dot_product_attention}
    for name in SDPA:
        if _sdp_backend(name) is not None:
            candidates[name] = _with_kernel(name)
    for name in DISPATCHED:
        if missing(name) is None:
            candidates[name] = _through_dispatcher(name)
    return candidates


def missing(name: str) -> str | None:
    """Return why attention ``name`` is not to be had here, or None."""
    if name in SDPA:
        return None if _sdp_backend(name) is not None else "this torch has no such kernel to choose"
    _dispatched, package = DISPATCHED[name]
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if importlib.util.find_spec("diffusers.models.attention_dispatch") is None:
        return "diffusers has a dispatcher from 0.35 on"
    return None


def use(name: str, denoiser: Any) -> None:
    """Let ``denoiser`` compute its attention by ``name`` from now on.

    torch's own kernels are chosen for the whole process by taking their rivals away and putting the
    chosen one first; ``efficient`` stays, since it alone takes every shape. Without a place of its
    own, cuDNN's would never be taken: on most GPUs torch asks it last. A compiled graph holds the
    kernel that was chosen when it was compiled, which torch's compile cache does not look at:
    graphs of each choice get a name of their own there.
    """
    import torch

    if hasattr(torch, "compiler") and hasattr(torch.compiler, "config"):  # torch 2.6 and newer
        config: Any = torch.compiler.config
        config.cache_key_tag = f"attention={name}"
    if name in SDPA:
        place: Any = getattr(torch._C, "_set_sdp_priority_order", None)
        if place is not None:
            first = int(_sdp_backend(name))
            asked: Any = torch._C._get_sdp_priority_order()
            place([first, *(int(each) for each in asked if int(each) != first)])
        torch.backends.cuda.enable_flash_sdp(name == "flash")
        if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
            torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
    elif name in DISPATCHED:
        denoiser.set_attn_processor(DispatchedProcessor(DISPATCHED[name][0]))


class DispatchedProcessor:
    """diffusers' standard attention, fused projections or not, through its dispatcher."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        temb: Any = None,
        *_args: Any,
        **_kwargs: Any,
    ) -> Any:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        shape = hidden_states.shape
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        other = encoder_hidden_states
        if other is not None and attn.norm_cross:
            other = attn.norm_encoder_hidden_states(other)
        mask = None
        if attention_mask is not None:
            source = hidden_states if other is None else other
            batch, tokens = source.shape[:2]
            mask = attn.prepare_attention_mask(attention_mask, tokens, batch)
            mask = mask.view(batch, attn.heads, -1, mask.shape[-1])
        query, key, value = _project(attn, hidden_states, other)
        # The dispatcher wants (batch, tokens, heads, head size).
        query, key, value = (part.unflatten(-1, (attn.heads, -1)) for part in (query, key, value))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        # A kernel of a package takes no mask; diffusers' native one takes every mask.
        backend = self.backend if mask is None else "native"
        hidden_states = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend)
        hidden_states = hidden_states.flatten(2).to(query.dtype)
        hidden_states = attn.to_out[1](attn.to_out[0](hidden_states))
        if len(shape) == 4:
            hidden_states = hidden_states.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        return hidden_states / attn.rescale_output_factor


def _project(attn: Any, hidden_states: Any, other: Any) -> tuple[Any, Any, Any]:
    if getattr(attn, "fused_projections", False):
        if other is None:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query = attn.to_q(hidden_states)
            key, value = attn.to_kv(other).chunk(2, dim=-1)
        return query, key, value
    source = hidden_states if other is None else other
    return attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)


def seconds_of(call: Callable[[], Any], device: str) -> float:
    """Return seconds of one call on CUDA ``device``: the least of ``CALLS``, by device events."""
    import torch

    for _ in range(2):
        call()
    torch.cuda.synchronize(device)
    torch.cuda._sleep(AHEAD_CYCLES)
    pairs = []
    for _ in range(CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize(device)
    return float(min(begin.elapsed_time(end) for begin, end in pairs)) / 1000


def _reference(query: Any, key: Any, value: Any) -> Any:
    """Attention in float32, one head at a time: the whole score matrix may not fit."""
    import torch

    query, key, value = query.float(), key.float(), value.float()
    scale = query.shape[-1] ** -0.5
    result = torch.empty_like(query)
    for image in range(query.shape[0]):
        for head in range(query.shape[1]):
            scores = query[image, head] @ key[image, head].T * scale
            result[image, head] = scores.softmax(-1) @ value[image, head]
    return result


def _sdp_backend(name: str) -> Any:
    import torch

    try:
        from torch.nn.attention import SDPBackend
    except ImportError:  # torch before 2.3
        return None
    if name == "cudnn" and not hasattr(torch._C, "_set_sdp_priority_order"):
        return None  # torch 2.5 has it and asks it last
    return getattr(SDPBackend, SDPA[name], None)


def _with_kernel(name: str) -> Attention:
    import torch.nn.functional as functional
    from torch.nn.attention import sdpa_kernel

    def attention(query: Any, key: Any, value: Any) -> Any:
        with sdpa_kernel(_sdp_backend(name)):
            return functional.scaled_dot_product_attention(query, key, value)

    return attention


def _through_dispatcher(name: str) -> Attention:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    def attention(query: Any, key: Any, value: Any) -> Any:
        parts = (part.transpose(1, 2) for part in (query, key, value))
        return dispatch_attention_fn(*parts, backend=DISPATCHED[name][0]).transpose(1, 2)

    return attention


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Run compiled regions as they were written; no-op before torch 2.6, which lacks the switch."""
    import torch

    stance: Any = getattr(torch.compiler, "set_stance", None)
    with stance("force_eager") if stance is not None else contextlib.nullcontext():
        yield
