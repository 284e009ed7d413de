"""The small trained models that ship with the package.

`load` builds real diffusers pipelines from `bench/assets/embedded`: an SDXL-shaped
text-to-image model and an SD1.5-shaped InstructPix2Pix model that share one autoencoder. Their
native size is 128x128 pixels. See the model card in that folder for what they can draw.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from bench.worker.errors import SourceError

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "embedded"
NAMES = ("sdxl", "pix2pix")
NATIVE_SIZE = 128  # pixels, both sides

_ENCODERS = {
    "sdxl": (("text_encoder", "CLIPTextModel"), ("text_encoder_2", "CLIPTextModelWithProjection")),
    "pix2pix": (("text_encoder", "CLIPTextModel"),),
}


def load(name: str, pipeline_class: type[Any], dtype: Any = None, device: Any = "cpu") -> Any:
    """Build a pipeline from the embedded parts."""
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise SourceError(f"there is no embedded model {name!r}; the embedded models are: {known}")
    if not ASSETS.is_dir():
        raise SourceError(f"the embedded models are missing from this installation: {ASSETS}")
    import torch

    dtype = torch.float32 if dtype is None else dtype
    try:
        parts = _parts(name, dtype)
    except OSError as error:
        raise SourceError(f"embedded model {name!r} cannot be read: {error}") from error
    try:
        pipeline = pipeline_class(**parts)
    except TypeError as error:
        raise SourceError(
            f"{pipeline_class.__name__} cannot be built from embedded model {name!r}: {error}"
        ) from error
    return pipeline.to(device)


def _parts(name: str, dtype: Any) -> dict[str, Any]:
    """Every component of the pipeline by name, modules in eval mode and `dtype`, on the CPU."""
    import transformers
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

    folder = ASSETS / name
    parts: dict[str, Any] = {
        "vae": _model(AutoencoderKL, ASSETS / "vae", dtype),
        "unet": _model(UNet2DConditionModel, folder / "unet", dtype),
        "scheduler": EulerDiscreteScheduler.from_pretrained(str(folder / "scheduler")),
    }
    for part, class_name in _ENCODERS[name]:
        parts[part] = _model(getattr(transformers, class_name), folder / part, dtype)
        key = part.replace("text_encoder", "tokenizer")
        parts[key] = _tokenizer(folder / key)
    if name == "sdxl":
        # Without this the pipeline would add a watermark wherever that package is installed.
        parts["add_watermarker"] = False
        parts["force_zeros_for_empty_prompt"] = True
    else:
        parts["safety_checker"] = None
        parts["feature_extractor"] = None
        parts["requires_safety_checker"] = False
    return parts


def _model(model_class: Any, folder: Path, dtype: Any) -> Any:
    """One module from its config and safetensors file.

    Built by hand because the name of the dtype argument of `from_pretrained`, and which of its
    loading paths need accelerate, differ between the versions supported.
    """
    import torch
    from safetensors.torch import load_file

    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config_class = getattr(model_class, "config_class", None)
    if config_class is not None:  # transformers
        model = model_class(config_class.from_dict(config))
        state = load_file(str(folder / "model.safetensors"))
    else:  # diffusers
        model = _from_config(model_class, config)
        state = load_file(str(folder / "diffusion_pytorch_model.safetensors"))
    expected = model.state_dict().keys()
    if expected and not (expected & state.keys()):
        # transformers 5 dropped a level of CLIPTextModel that transformers 4 has.
        state = _renamed(state, set(expected))
    missing, unexpected = model.load_state_dict(state, strict=False)
    # Older transformers keep position_ids, a constant, among the weights.
    missing = [key for key in missing if not key.endswith("position_ids")]
    unexpected = [key for key in unexpected if not key.endswith("position_ids")]
    if missing or unexpected:
        raise OSError(f"{folder}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    # Module.to, not the model's own: diffusers warns about every cast, even with nothing to keep.
    return torch.nn.Module.to(model, dtype).eval()


def _from_config(model_class: Any, config: dict[str, Any]) -> Any:
    """A diffusers module with fresh weights.

    Before diffusers 0.30 the autoencoder could not be told to leave out the attention in its
    middle; there it is taken out afterwards.
    """
    option = "mid_block_add_attention"
    if option not in config or option in inspect.signature(model_class.__init__).parameters:
        return model_class.from_config(config)
    import torch

    model = model_class.from_config({k: v for k, v in config.items() if k != option})
    if not config[option]:
        for half in (model.encoder, model.decoder):
            # The block skips whatever is None here.
            half.mid_block.attentions = torch.nn.ModuleList([None] * len(half.mid_block.attentions))
    return model


def _renamed(state: dict[str, Any], expected: set[str]) -> dict[str, Any]:
    """The same tensors with the prefix "text_model." added or removed, whichever is expected."""
    prefix = "text_model."
    if any(key.startswith(prefix) for key in expected):
        return {key if key in expected else prefix + key: value for key, value in state.items()}
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer of a folder; its class takes files in transformers 4, objects in 5."""
    import transformers

    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {
        key: config[key]
        for key in ("bos_token", "eos_token", "unk_token", "pad_token", "model_max_length")
    }
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    if int(transformers.__version__.split(".")[0]) < 5:
        return transformers.CLIPTokenizer(
            vocab_file=str(vocab_file), merges_file=str(merges_file), **special
        )
    vocab = json.loads(vocab_file.read_text(encoding="utf-8"))
    lines = merges_file.read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, **special)
