"""What a workload adds to its model: a ControlNet, a pipeline class of its own, a LoRA.

All work on the pipeline that a source has made, so each fits every kind of source. What was added
is reported as it was found in the pipeline, not as it was asked for: a LoRA whose names fit nothing
is refused, where diffusers would only warn.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import content
from bench.worker import families
from bench.worker.errors import SourceError, nearest, one_line
from bench.worker.sources import hub, path

ADAPTER = "bench"
PIPELINE_FILE = "pipeline.py"
EMBEDDED_LORAS = {"sepia": "lora-sepia.safetensors"}
EMBEDDED_CONTROLNETS = {"edges": "controlnet-edges"}
CONTROLNET_WEIGHTS = "diffusion_pytorch_model.safetensors"

_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(frozen=True)
class Added:
    """A pipeline with its additions.

    Attributes:
        pipeline: maybe of another class than before, on the CPU.
        fields: record fields ``lora``, ``controlnet`` and ``custom_pipeline``, each if asked for,
            and ``additions_content``.
        notes: sentences worth keeping with the record's warnings.
        download_s: seconds spent fetching files.
    """

    pipeline: Any
    fields: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    download_s: float = 0.0


def add(pipeline: Any, workload: Mapping[str, Any], *, allow_remote_code: bool) -> Added:
    """Give ``pipeline`` what ``workload`` asks for, the LoRA last."""
    fields: dict[str, Any] = {}
    notes: list[str] = []
    download_s = 0.0
    own: Any = None
    if workload.get("custom_pipeline") is not None:
        own, fields["custom_pipeline"] = _own_class(workload, allow_remote_code)
    if workload.get("controlnet") is not None:
        net, fields["controlnet"], took_s = _controlnet(workload["controlnet"], pipeline)
        download_s += took_s
        wanted = own or _controlled(type(pipeline).__name__, workload["task"])
        pipeline = _rebuilt(pipeline, wanted, controlnet=net)
    elif own is not None:
        pipeline = _rebuilt(pipeline, own)
    if workload.get("lora") is not None:
        fields["lora"], took_s = _add_lora(pipeline, workload)
        download_s += took_s
        unused = fields["lora"]["keys"] - fields["lora"]["keys_used"]
        if unused:
            notes.append(
                f"lora: {unused} of its {fields['lora']['keys']} tensors fit no layer of this "
                "model and were left out"
            )
    fields["additions_content"] = " ".join(
        f"{name}:{found['content'][:16]}" for name, found in fields.items()
    )
    return Added(pipeline, fields, tuple(notes), download_s)


# ------------------------------------------------------------------------------ another class


def _rebuilt(pipeline: Any, wanted: Any, **more: Any) -> Any:
    known = {**dict(pipeline.config), **pipeline.components, **more}
    # No part and no setting of the configuration, but what the watermark was made from.
    known["add_watermarker"] = getattr(pipeline, "watermark", None) is not None
    parameters = inspect.signature(wanted.__init__).parameters
    unused = sorted(set(more) - set(parameters))
    if unused:
        raise SourceError(f"{wanted.__name__} takes no {unused[0]}.")
    parts = {name: known[name] for name in parameters if name in known}
    try:
        return wanted(**parts)
    except (TypeError, ValueError) as error:
        raise SourceError(
            f"{wanted.__name__} cannot be made from the parts of {type(pipeline).__name__}: "
            f"{one_line(error)}"
        ) from error


def _controlled(class_name: str, task: str) -> Any:
    """The relative of a pipeline class that takes a ControlNet, by how diffusers names them."""
    import diffusers

    infix = families.work_of(task).controlnet_infix
    name = re.sub(r"(Img2Img)?Pipeline$", f"{infix}Pipeline", class_name)
    found = getattr(diffusers, name, None) if infix and name != class_name else None
    if found is None:
        raise SourceError(
            f"diffusers {diffusers.__version__} has no ControlNet for {task} with {class_name}."
        )
    return found


def _own_class(workload: Mapping[str, Any], allowed: bool) -> tuple[Any, dict[str, Any]]:
    """The pipeline class that a file of the user defines, and what to record of it."""
    given = Path(workload["custom_pipeline"]).expanduser()
    file = given / PIPELINE_FILE if given.is_dir() else given
    if not allowed:
        raise SourceError(
            f"custom_pipeline {given} is Python code, which is not run: read it, then set "
            "allow_remote_code: true, if you trust it."
        )
    if not file.is_file():
        raise SourceError(f"custom_pipeline {given}: there is no file {file}.")
    import diffusers

    name = f"bench_custom_pipeline_{content.of_file(file)[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SourceError(f"custom_pipeline {given}: {file.name} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SourceError(f"custom_pipeline {given} cannot be run: {one_line(error)}") from error
    classes = [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, diffusers.DiffusionPipeline)
        and each.__module__ == name
    ]
    if len(classes) != 1:
        names = ", ".join(each.__name__ for each in classes) or "none"
        raise SourceError(
            f"custom_pipeline {given} must define one class of diffusers' DiffusionPipeline, and "
            f"it defines {names}."
        )
    if workload.get("controlnet") is None:
        families.work_of(workload["task"]).check(classes[0])
    return classes[0], {"class": classes[0].__name__, "content": content.of_file(file)}


# --------------------------------------------------------------------------------- ControlNet


def _controlnet(text: str, pipeline: Any) -> tuple[Any, dict[str, Any], float]:
    """The ControlNet in the type of the pipeline's weights, what to record of it, seconds spent."""
    import torch
    from diffusers import ControlNetModel

    kind, _, name = text.partition(":")
    download_s = 0.0
    if kind == "embedded":
        folder = _embedded(name, EMBEDDED_CONTROLNETS, "ControlNet")
    elif kind == "hub":
        started = time.monotonic()
        folder = hub.fetch_files(name, ("config.json", CONTROLNET_WEIGHTS), text)
        download_s = time.monotonic() - started
    else:
        folder = Path(name.strip()).expanduser()
    weights = folder / CONTROLNET_WEIGHTS
    if not (folder / "config.json").is_file():
        raise SourceError(f"controlnet {text} is no ControlNet's folder: it has no config.json.")
    if not weights.is_file():
        pickles = [each.name for each in folder.glob("*.bin")]
        why = f"it has {pickles[0]}, a pickle, which can run code" if pickles else "it has none"
        raise SourceError(f"controlnet {text} needs {CONTROLNET_WEIGHTS}; {why}.")
    path.check_weights(folder, None, f"controlnet {text}")
    try:
        with path.no_pickles(f"controlnet {text}"):
            net: Any = ControlNetModel.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True
            )
    except Exception as error:
        if isinstance(error, (MemoryError, SourceError)):
            raise
        raise SourceError(f"controlnet {text} cannot be loaded: {one_line(error)}") from error
    unet = getattr(pipeline, "unet", None)
    skips = getattr(getattr(unet, "config", None), "block_out_channels", None)
    if skips is None or tuple(net.config.block_out_channels) != tuple(skips):
        raise SourceError(
            f"controlnet {text} is made for a UNet of widths "
            f"{list(net.config.block_out_channels)}, and this model's "
            f"{'are ' + str(list(skips)) if skips else 'denoiser is no UNet'}."
        )
    dtype = next(pipeline.unet.parameters()).dtype
    net = torch.nn.Module.to(net, dtype).eval().requires_grad_(False)
    fields = {
        "source": text,
        "content": content.of_folder(folder),
        "parameters": sum(each.numel() for each in net.parameters()),
    }
    return net, fields, download_s


# --------------------------------------------------------------------------------------- LoRA


def lora_file(text: str) -> tuple[Path, float]:
    """The safetensors file that ``text`` names, and the seconds that fetching it took.

    Args:
        text: ``embedded:NAME``, ``hub:ORG/NAME[@REV]/FILE.safetensors`` or a path.
    """
    kind, _, name = text.partition(":")
    download_s = 0.0
    if kind == "embedded":
        file = embedded_file(name)
    elif kind == "hub":
        org, repo, *inside = name.split("/")
        started = time.monotonic()
        wanted = "/".join(inside) or "pytorch_lora_weights.safetensors"
        file = hub.fetch_files(f"{org}/{repo}", (wanted,), text) / wanted
        download_s = time.monotonic() - started
    else:
        file = Path(text).expanduser()
    if file.suffix != ".safetensors":
        raise SourceError(
            f"lora {text}: only .safetensors files are read; {file.suffix or 'this'} can hold code "
            "that runs when it is opened."
        )
    if not file.is_file():
        raise SourceError(f"lora {text}: there is no file {file}.")
    return file, download_s


def embedded_file(name: str) -> Path:
    """The file of a LoRA that ships with the package. Raises SourceError: there is none."""
    return _embedded(name, EMBEDDED_LORAS, "LoRA")


def _add_lora(pipeline: Any, workload: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """Load the LoRA, fuse it if asked to, and count the layers that it changed."""
    from safetensors.torch import load_file

    text, scale = workload["lora"], float(workload.get("lora_scale", 1.0))
    fused = bool(workload.get("lora_fused", True))
    if importlib.util.find_spec("peft") is None:
        raise SourceError(
            "a LoRA is applied by the package peft, which is not installed (pip install peft).",
            outcome="unavailable",
        )
    if not hasattr(pipeline, "load_lora_weights"):
        raise SourceError(f"{type(pipeline).__name__} takes no LoRA.")
    file, download_s = lora_file(text)
    path.check_safetensors(file, f"lora {text}")
    state = load_file(str(file))
    keys = len(state)
    try:
        pipeline.load_lora_weights(state, adapter_name=ADAPTER)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise SourceError(
            f"lora {text} does not fit {type(pipeline).__name__}: {one_line(error)}"
        ) from error
    layers = _lora_layers(pipeline)
    if not layers:
        raise SourceError(
            f"lora {text} changes nothing in this {type(pipeline).__name__}: none of its {keys} "
            f"tensors ({min(state, default='it is empty')}, …) has the name of a layer here."
        )
    # An alpha is no tensor of a layer any more: loading has made a scale of it.
    alphas = sum(key.endswith(".alpha") for key in state)
    used = sum(_tensors_of(layer) for _, layer in layers) + min(alphas, len(layers))
    moved = [part for part, layer in layers if _moves(layer, scale)]
    if not moved:
        raise SourceError(
            f"lora {text} changes nothing: its weights times scale {scale:g} are zero in all "
            f"{len(layers)} layers."
        )
    if fused:
        before = [_print(layer) for _, layer in layers]
        pipeline.fuse_lora(lora_scale=scale)
        after = [_print(layer) for _, layer in layers]
        moved = [
            part
            for (part, _), one, other in zip(layers, before, after, strict=True)
            if one != other
        ]
        # What is fused needs no adapters: without them a step costs what it did before.
        pipeline.unload_lora_weights()
        if not moved:
            raise SourceError(f"lora {text} changes nothing: rounded to these weights, all is 0.")
    else:
        pipeline.set_adapters([ADAPTER], adapter_weights=[scale])
    changed = {part: moved.count(part) for part in dict.fromkeys(moved)}
    fields = {
        "source": text,
        "content": content.of_file(file),
        "scale": scale,
        "fused": fused,
        "keys": keys,
        "keys_used": min(used, keys),
        "layers": len(layers),
        "layers_changed": len(moved),
        "layers_changed_by_part": changed,
    }
    return fields, download_s


def _lora_layers(pipeline: Any) -> list[tuple[str, Any]]:
    """(part, layer) of every layer that carries the adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = []
    for part in _PARTS:
        module = getattr(pipeline, part, None)
        if module is None or not hasattr(module, "named_modules"):
            continue
        found += [
            (part, layer)
            for _, layer in module.named_modules()
            if isinstance(layer, BaseTunerLayer) and ADAPTER in getattr(layer, "lora_A", {})
        ]
    return found


def _tensors_of(layer: Any) -> int:
    """Tensors of a file that one layer holds: two matrices, maybe with biases, and DoRA's sizes."""
    held = (layer.lora_A, layer.lora_B, getattr(layer, "lora_magnitude_vector", None) or {})
    return sum(len(list(each[ADAPTER].parameters())) for each in held if ADAPTER in each)


def _moves(layer: Any, scale: float) -> bool:
    return bool(layer.get_delta_weight(ADAPTER).abs().max() * abs(scale) > 0)


def _print(layer: Any) -> str:
    import torch

    weight = layer.get_base_layer().weight.detach().contiguous().cpu()
    return hashlib.sha256(weight.view(torch.uint8).numpy().tobytes()).hexdigest()


def _embedded(name: str, known: Mapping[str, str], what: str) -> Path:
    from bench.worker.sources import embedded

    if name not in known:
        raise SourceError(
            f"there is no embedded {what} {name!r}{nearest(name, known)}; there is: "
            f"{', '.join(known)}."
        )
    return embedded.ASSETS / known[name]
