"""``synthetic:ARCH``: a published architecture with random weights, made straight on the device.

True in speed and memory, since kernels do not depend on the numbers; the pictures are coloured
noise. The sizes are facts from the ``config.json`` files of
stabilityai/stable-diffusion-xl-base-1.0 and timbrooks/instruct-pix2pix.
"""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from bench.worker import families
from bench.worker.errors import SourceError, nearest
from bench.worker.sources import Loaded

RECIPE = "synthetic-1"
"""Version of the random initialisation; recorded as the model's revision."""

_SEED = 0
_VOCABULARY = 49408
_MAX_TOKENS = 77
_BRANCH_GAIN = 0.25
_BRANCH_ENDS = ("conv2", "to_out.0", "ff.net.2", "proj_out", "fc2", "out_proj")
"""Last layers of residual branches; a small gain there keeps activations far from fp16's limit."""

_SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
_CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
_CLIP_BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_SDXL_VAE = {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}
_SDXL_SCHEDULER = ("EulerDiscreteScheduler", {**_NOISE, "timestep_spacing": "leading"})

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sdxl": {
        "pipeline": "StableDiffusionXLPipeline",
        "unet": _SDXL_UNET,
        "vae": _SDXL_VAE,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_BIG_G,
        "scheduler": _SDXL_SCHEDULER,
    },
    "sdxl-pix2pix": {
        "pipeline": "StableDiffusionXLInstructPix2PixPipeline",
        "unet": {**_SDXL_UNET, "in_channels": 8},
        "vae": _SDXL_VAE,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_BIG_G,
        "scheduler": _SDXL_SCHEDULER,
    },
    "sd15-pix2pix": {
        "pipeline": "StableDiffusionInstructPix2PixPipeline",
        "unet": _SD15_UNET,
        "vae": {**_VAE, "sample_size": 512, "scaling_factor": 0.18215},
        "text_encoder": _CLIP_L,
        "text_encoder_2": None,
        "scheduler": ("EulerAncestralDiscreteScheduler", _NOISE),
    },
}


def _narrowed(name: str) -> dict[str, Any]:
    """An architecture with few channels and layers: every kind of block, for a CPU in seconds.

    For trying out what will run at full size; its times say nothing about the real model.
    """
    plan = ARCHITECTURES[name]
    double = plan["text_encoder_2"] is not None
    text = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 64,
    }
    unet: dict[str, Any] = {
        **plan["unet"],
        "sample_size": 16,
        "down_block_types": tuple(dict.fromkeys(plan["unet"]["down_block_types"])),
        "up_block_types": tuple(dict.fromkeys(plan["unet"]["up_block_types"])),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 128 if double else 64,
    }
    if double:
        unet["transformer_layers_per_block"] = (1, 2)
        unet["projection_class_embeddings_input_dim"] = 64 + 6 * 256
    return {
        **plan,
        "unet": unet,
        "vae": {
            **plan["vae"],
            "block_out_channels": (32, 32, 32, 32),
            "layers_per_block": 1,
            "sample_size": 128,
        },
        "text_encoder": {**plan["text_encoder"], **text},
        "text_encoder_2": {**plan["text_encoder_2"], **text} if double else None,
    }


ARCHITECTURES.update({f"{name}-small": _narrowed(name) for name in tuple(ARCHITECTURES)})


def names() -> tuple[str, ...]:
    """The architectures that there are; needs no torch."""
    return tuple(ARCHITECTURES)


def load(name: str, task: str, dtype: Any, device: str) -> Loaded:
    """Build the pipeline for ``task`` with weights drawn on ``device`` in ``dtype``."""
    if name not in ARCHITECTURES:
        raise SourceError(
            f"there is no synthetic:{name}{nearest(name, ARCHITECTURES)}: "
            f"the architectures are {', '.join(ARCHITECTURES)}."
        )
    import diffusers

    plan = ARCHITECTURES[name]
    pipeline_class = families.pipeline_class(plan["pipeline"], task, plan["unet"]["in_channels"])
    parts = {part: module for part, module in on_meta(name).items() if module is not None}
    for index, module in enumerate(parts.values()):
        _materialise(module, dtype, device, _SEED + index)
    scheduler_name, scheduler_config = plan["scheduler"]
    parts["scheduler"] = getattr(diffusers, scheduler_name)(**scheduler_config)
    parts["tokenizer"] = clip_tokenizer(pad="<|endoftext|>")
    if "text_encoder_2" in parts:
        parts["tokenizer_2"] = clip_tokenizer(pad="!")
        # Otherwise pictures would depend on whether the watermarking package is installed.
        optional: dict[str, Any] = {"add_watermarker": False}
    else:
        optional = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    accepted = inspect.signature(pipeline_class.__init__).parameters
    optional = {key: value for key, value in optional.items() if key in accepted}
    sizes, truth = "in its published sizes", "times and memory are true"
    if name.endswith("-small"):
        sizes, truth = "narrowed to a few channels", "times and memory are no real model's"
    note = (
        f"synthetic weights: {name} {sizes} with random weights and a tokenizer of single bytes; "
        f"{truth}, pictures are noise"
    )
    return Loaded(pipeline_class(**parts, **optional), RECIPE, True, (note,))


def on_meta(name: str) -> dict[str, Any]:
    """The modules of an architecture on torch's meta device: shapes without memory.

    Returns "unet", "vae", "text_encoder" and "text_encoder_2", the last None for SD 1.5.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    plan = ARCHITECTURES[name]

    def text_config(sizes: dict[str, Any]) -> Any:
        # Pooling looks for the end token, so the ids must be the tokenizer's.
        return CLIPTextConfig(
            vocab_size=_VOCABULARY,
            max_position_embeddings=_MAX_TOKENS,
            bos_token_id=_VOCABULARY - 2,
            eos_token_id=_VOCABULARY - 1,
            pad_token_id=1,
            **sizes,
        )

    second = plan["text_encoder_2"]
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(**plan["unet"]),
            "vae": AutoencoderKL(**plan["vae"]),
            "text_encoder": CLIPTextModel(text_config(plan["text_encoder"])),
            "text_encoder_2": (
                None if second is None else CLIPTextModelWithProjection(text_config(second))
            ),
        }


def clip_tokenizer(*, pad: str) -> Any:
    """A CLIPTokenizer with CLIP's 49,408 entries and special ids, whose words are single bytes.

    Every prompt is padded or cut to 77 tokens anyway, and with random weights no token means
    anything, so the real vocabulary would change no figure and need a download.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    tokens += [f"<|unused{index}|>" for index in range(_VOCABULARY - 2 - len(tokens))]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    options = {"pad_token": pad, "model_max_length": _MAX_TOKENS}
    if "vocab" in inspect.signature(CLIPTokenizer.__init__).parameters:  # transformers 5
        return CLIPTokenizer(vocab=vocabulary, merges=[], **options)
    with tempfile.TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab_file.write_text(json.dumps(vocabulary), encoding="utf-8")
        merges_file.write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer(str(vocab_file), str(merges_file), **options)


def _materialise(module: Any, dtype: Any, device: str, seed: int) -> None:
    """Give a meta module memory on ``device`` and seeded values; nothing is copied there."""
    import torch

    module.to(dtype).to_empty(device=device)
    module.requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(seed)
    filled = set()
    for name, child in module.named_modules():
        weight, bias = getattr(child, "weight", None), getattr(child, "bias", None)
        if not isinstance(weight, torch.nn.Parameter):
            continue
        if isinstance(child, torch.nn.Embedding):
            weight.normal_(0.0, 0.02, generator=generator)
        elif isinstance(child, (torch.nn.Linear, torch.nn.Conv2d)):
            gain = _BRANCH_GAIN if name.endswith(_BRANCH_ENDS) else 1.0
            bound = gain * math.sqrt(3.0 / weight[0].numel())
            weight.uniform_(-bound, bound, generator=generator)
        else:
            weight.fill_(1.0)
        filled.add(id(weight))
        if bias is not None:
            bias.zero_()
            filled.add(id(bias))
    for name, buffer in module.named_buffers():
        if not name.endswith("position_ids"):
            raise RuntimeError(f"{type(module).__name__}.{name} has no value in this recipe")
        buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand_as(buffer))
    for name, parameter in module.named_parameters():
        if id(parameter) not in filled:
            raise RuntimeError(f"{type(module).__name__}.{name} has no value in this recipe")
