"""Weights of CLIP and LPIPS with random numbers, small enough to make and run in a test."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from bench.worker.perceptual import tensors_of
from tests.worker.tiny import MAX_TOKENS, clip_tokenizer

SIDE = 32
"""Of the pictures that the model sees; they are resized to more and cut."""
EDGE = 40
MEAN = (0.5, 0.4, 0.3)
DEVIATION = (0.3, 0.25, 0.2)


def clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIPModel with its tokenizer, as transformers saves them."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    towers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    towers["num_attention_heads"] = 4
    text = {"vocab_size": 514, "max_position_embeddings": MAX_TOKENS, "bos_token_id": 512}
    text |= {"eos_token_id": 513, "pad_token_id": 513}
    config = CLIPConfig(
        text_config={**towers, **text},
        vision_config={**towers, "image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(config)
    # By name, so that every transformers makes the same model; torch's own numbers are so small
    # that every picture would get the same score.
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} b {name}".encode()))
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(str(folder), safe_serialization=True)
    clip_tokenizer().save_pretrained(str(folder))
    recipe = {"size": {"shortest_edge": EDGE}, "crop_size": {"height": SIDE, "width": SIDE}}
    recipe |= {"image_mean": list(MEAN), "image_std": list(DEVIATION)}
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    return folder


def lpips(file: Path, net: str = "alex", *, seed: int = 0) -> Path:
    """Write random weights in the shapes of a trunk with its linear layers."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensors_of(net).items():
        fan = max(1, torch.Size(shape[1:]).numel())
        tensors[name] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        if name.startswith("lin"):
            tensors[name] = tensors[name].abs()
    save_file(tensors, str(file))
    return file
