"""Memory modes: asked of diffusers in the order that it wants, and proved after warm-up.

Switches of attention and autoencoder come first. An offload is last and takes the place of the move
to the device: a pipeline that was moved before has had its peak already, and diffusers refuses or
warns. A part is never moved once it is offloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bench import modes
from bench.contract import Outcome
from bench.worker.errors import Sentence, one_line
from compilers import registry

Refusal = tuple[Outcome, str]

FUSED = "2_0"
"""In the name of diffusers' attention processors that call torch's fused attention."""


class ModeError(Sentence):
    """A mode that this pipeline cannot have here; ``str()`` is the sentence for the user.

    Attributes:
        outcome: how the cell ends.
    """

    def __init__(self, message: str, *, outcome: Outcome = "unsupported") -> None:
        super().__init__(message)
        self.outcome = outcome


def refusal(
    workload: Mapping[str, Any], device: str, backend: str, options: Mapping[str, Any]
) -> Refusal | None:
    """Say how a cell ends whose memory modes cannot work here, before anything is loaded."""
    memory = workload.get("memory")
    asked = modes.parts(memory)
    # A record may come from another planner: what a plan refuses is refused here too.
    against = modes.contradiction(memory) or modes.with_backend(
        memory, registry.traits(backend), options
    )
    if against:
        return "unsupported", f"memory {memory}: {against}"
    moved = modes.offload(memory)
    if moved and not device.startswith("cuda"):
        shared = (
            "its GPU works in the host's own memory"
            if device.startswith("mps")
            else "the CPU works in the host's memory, where offloaded weights wait"
        )
        return "unsupported", f"{moved} needs a device with memory of its own: {shared}"
    if moved and importlib.util.find_spec("accelerate") is None:
        return "unavailable", (
            f"{moved} needs the package accelerate, which this interpreter does not have: "
            "pip install 'accelerate>=0.30'"
        )
    if moved == "group-offload" and not _has_group_offload():
        import diffusers

        return "unsupported", (
            "group-offload needs diffusers.hooks.apply_group_offloading, which came with 0.33; "
            f"this is diffusers {diffusers.__version__}"
        )
    if "xformers" in asked and not device.startswith("cuda"):
        return (
            "unsupported",
            f"diffusers uses xformers' attention on CUDA only, and this is {device}",
        )
    if "xformers" in asked and importlib.util.find_spec("xformers") is None:
        return "unavailable", (
            "xformers is not installed: install the version that is built for this torch"
        )
    return None


def place(pipeline: Any, workload: Mapping[str, Any], device: str) -> list[str]:
    """Switch a pipeline's memory modes on and bring it to ``device``; return what to know of it."""
    notes: list[str] = []
    for mode in modes.parts(workload.get("memory")):
        if mode == "attention-slicing":
            notes += _slice_attention(pipeline)
        elif mode == "xformers":
            _use_xformers(pipeline)
        elif mode in ("vae-slicing", "vae-tiling"):
            _switch_autoencoder(pipeline, mode)
    moved = modes.offload(workload.get("memory"))
    if moved is None:
        pipeline.to(device)
    else:
        _offload(pipeline, moved, device)
    return notes


def found(
    pipeline: Any, workload: Mapping[str, Any], device: str, decoder_calls: int | None
) -> dict[str, Any]:
    """Return which modes are in place after a call, which change nothing here, and how it is seen.

    Args:
        decoder_calls: of the autoencoder's decoder in one pipeline call; None if not counted.
    """
    asked = modes.parts(workload.get("memory"))
    processors = attention_processors(pipeline)
    resident = {name: _where(part) for name, part in _modules(pipeline)}
    idle = {
        mode: why for mode in asked for why in [_idle(pipeline, workload, mode)] if why is not None
    }
    return {
        "asked": list(asked),
        "active": [
            mode
            for mode in asked
            if _in_place(pipeline, mode, processors, resident, device)
            and not (mode.startswith("vae-") and mode not in idle and decoder_calls == 1)
        ],
        "idle": idle,
        "details": {
            "attention_processors": processors,
            "decoder_calls": decoder_calls,
            "resident": resident,
        },
    }


def failure_of(seen: Mapping[str, Any]) -> str | None:
    """Say which modes are not in place although they were asked for; None if all are."""
    missing = [mode for mode in seen["asked"] if mode not in seen["active"]]
    if not missing:
        return None
    return f"memory mode {' and '.join(missing)} was switched on, and nothing of it is in place"


def warnings_of(seen: Mapping[str, Any]) -> list[str]:
    return [f"{mode} changes nothing here: {why}" for mode, why in seen["idle"].items()]


def attention_processors(pipeline: Any) -> dict[str, int]:
    """Count attention processors by the name of their class, over all parts of a pipeline."""
    kinds = Counter(type(processor).__name__ for processor in _processors(pipeline))
    return dict(sorted(kinds.items()))


@contextlib.contextmanager
def decoder_watch(pipeline: Any, *, eager: bool) -> Iterator[Counter[str]]:
    """Count calls of the autoencoder's decoder, under "calls"; nothing of a compiled one.

    A hook inside a compiled region would be compiled along, and its removal a recompilation.
    """
    seen: Counter[str] = Counter()
    decoder: Any = getattr(getattr(pipeline, "vae", None), "decoder", None)
    if not eager or not hasattr(decoder, "register_forward_pre_hook"):
        yield seen
        return
    handle = decoder.register_forward_pre_hook(lambda *_: seen.update(calls=1))
    try:
        yield seen
    finally:
        handle.remove()


def _modules(pipeline: Any) -> list[tuple[str, Any]]:
    parts = getattr(pipeline, "components", {})
    return [(name, part) for name, part in parts.items() if hasattr(part, "named_modules")]


def _where(part: Any) -> str:
    """Name the kinds of device that a part's weights are on, such as ``cpu`` or ``cpu+cuda``."""
    return "+".join(sorted({weight.device.type for weight in part.parameters()})) or "none"


def _slice_attention(pipeline: Any) -> list[str]:
    sliceable = [n for n, part in _modules(pipeline) if hasattr(part, "set_attention_slice")]
    if not sliceable or not hasattr(pipeline, "enable_attention_slicing"):
        raise ModeError(
            f"attention-slicing: no part of {type(pipeline).__name__} can slice its attention "
            "(diffusers has it for UNets; transformers compute fused attention)"
        )
    before = attention_processors(pipeline)
    pipeline.enable_attention_slicing()
    if any(getattr(p, "slice_size", 1) == 0 for p in _processors(pipeline)):
        # "auto" halves the number of heads, which leaves nothing of a single one.
        pipeline.enable_attention_slicing("max")
    after = attention_processors(pipeline)
    fused = sum(
        count - after.get(kind, 0) for kind, count in before.items() if kind.endswith(FUSED)
    )
    if fused <= 0:
        return []
    told = (
        f"attention-slicing replaced {fused} attention processors that used torch's fused "
        "attention, which builds no attention matrix: diffusers advises against it, since it may "
        "cost time and save nothing"
    )
    return [told]


def _processors(pipeline: Any) -> list[Any]:
    return [
        module.processor
        for _, part in _modules(pipeline)
        for module in part.modules()
        if getattr(module, "processor", None) is not None
    ]


def _use_xformers(pipeline: Any) -> None:
    if not hasattr(pipeline, "enable_xformers_memory_efficient_attention"):
        raise ModeError(f"{type(pipeline).__name__} has no switch for xformers")
    try:
        pipeline.enable_xformers_memory_efficient_attention()
    except Exception as error:
        raise ModeError(
            f"xformers is installed and does not work here: {one_line(error)}",
            outcome="unavailable",
        ) from error


def _switch_autoencoder(pipeline: Any, mode: str) -> None:
    # The pipeline's own switches are deprecated; the autoencoder's are in all versions.
    switch = {"vae-slicing": "enable_slicing", "vae-tiling": "enable_tiling"}[mode]
    autoencoder = getattr(pipeline, "vae", None)
    if autoencoder is None:
        raise ModeError(f"{mode}: {type(pipeline).__name__} has no autoencoder 'vae'")
    try:
        getattr(autoencoder, switch)()
    except (AttributeError, NotImplementedError) as error:
        raise ModeError(f"{mode}: {type(autoencoder).__name__} has no {switch}()") from error


def _offload(pipeline: Any, mode: str, device: str) -> None:
    try:
        if mode == "group-offload":
            _offload_groups(pipeline, device)
            return
        switch = f"enable_{mode.replace('-', '_cpu_')}"
        if not hasattr(pipeline, switch):
            raise ModeError(f"{mode}: {type(pipeline).__name__} has no {switch}()")
        getattr(pipeline, switch)(device=device)
    except (ValueError, NotImplementedError, ImportError) as error:
        raise ModeError(
            f"{mode} does not work with {type(pipeline).__name__}: {one_line(error)}"
        ) from error


def _has_group_offload() -> bool:
    try:
        from diffusers.hooks import apply_group_offloading  # noqa: F401
    except ImportError:
        return False
    return True


def _offload_groups(pipeline: Any, device: str) -> None:
    """Offload every layer, fetched ahead on a stream of its own where the device has streams."""
    import torch
    from diffusers.hooks import apply_group_offloading

    for name, part in _modules(pipeline):
        if not getattr(part, "_supports_group_offloading", True):
            raise ModeError(f"group-offload: {name} ({type(part).__name__}) does not support it")
        apply_group_offloading(
            part,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.startswith("cuda"),
        )


def _in_place(
    pipeline: Any,
    mode: str,
    processors: Mapping[str, int],
    resident: Mapping[str, str],
    device: str,
) -> bool:
    if mode == "attention-slicing":
        return any(kind.startswith("Sliced") for kind in processors)
    if mode == "xformers":
        return any("XFormers" in kind for kind in processors)
    if mode in ("vae-slicing", "vae-tiling"):
        flag = mode.replace("vae-", "use_")
        return bool(getattr(getattr(pipeline, "vae", None), flag, False))
    kept = set(getattr(pipeline, "_exclude_from_cpu_offload", ()))
    moved = [(name, part) for name, part in _modules(pipeline) if name not in kept]
    if mode == "sequential-offload":
        # Its weights are on no device between calls of their layer.
        return bool(moved) and all("meta" in resident[name] for name, _ in moved)
    hooked = all(_has_hook(part, mode) for _, part in moved)
    kind = device.partition(":")[0]
    # The part that ran last may stay until the next call, and a layer of it that was fetched ahead.
    left = [name for name, _ in moved if kind != "cpu" and resident[name] == kind]
    return bool(moved) and hooked and len(left) <= 1


def _has_hook(part: Any, mode: str) -> bool:
    if mode == "model-offload":
        return hasattr(part, "_hf_hook")
    return any(
        "group_offloading" in getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
        for module in part.modules()
    )


def _idle(pipeline: Any, workload: Mapping[str, Any], mode: str) -> str | None:
    """Say why a mode changes nothing for this batch and size."""
    if mode == "vae-slicing" and workload["batch"] == 1:
        return "a batch of 1 is one slice; raise 'batch'"
    if mode != "vae-tiling":
        return None
    tile = _tile(getattr(pipeline, "vae", None))
    if tile is None or workload["height"] > tile[0] or workload["width"] > tile[1]:
        return None
    return (
        f"a picture of {workload['width']}x{workload['height']} fits into one tile of "
        f"{tile[1]}x{tile[0]}; raise 'size'"
    )


def _tile(autoencoder: Any) -> tuple[int, int] | None:
    """Return the (height, width) in pixels up to which an autoencoder makes one tile."""
    side = getattr(autoencoder, "tile_sample_min_size", None)
    height = getattr(autoencoder, "tile_sample_min_height", side)
    width = getattr(autoencoder, "tile_sample_min_width", side)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
