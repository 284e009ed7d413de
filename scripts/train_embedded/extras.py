"""Training of what can be added to the embedded SDXL-shaped model: a ControlNet and a LoRA.

Both learn against the model as it ships, whose own weights stay as they are.

* `controlnet`: three plain down blocks and a middle without attention (0.9 M parameters), that see
  the outlines of a scene (`bench.worker.control.edges`). A third of the captions are emptied, so
  that the outlines have to say what the words no longer do.
* `lora`: rank 4 on attention, feed-forward and convolution weights; the same scenes and captions
  with every picture in sepia. One text in seven is replaced by zeros, which is what the pipeline
  guides away from: were they left out, guidance would bring the colours back.

Timesteps are stratified and the loss is that of v-prediction without weights: the place of things
is settled where noise is high, which the weights of the model's own training make little of.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from PIL import Image

from bench.worker import control, scenes
from bench.worker.sources import embedded

from . import wording
from .common import log, make_optimizers, set_lr
from .unet import Noise, sdxl_text, tokens_of
from .vae import NATIVE, picture, to_tensor

SEED = 20263
RANK = 4
LORA_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_out",
]  # fmt: skip
SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
"""Rows of the usual sepia matrix, from RGB to R, G and B."""

Loss = Callable[[random.Random, list[int], torch.Generator], torch.Tensor]


def make_controlnet() -> ControlNetModel:
    """The untrained ControlNet: the skips of the embedded UNet, nothing of its attention."""
    return ControlNetModel(
        in_channels=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=(64, 96, 96),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=8,
        cross_attention_dim=128,
        conditioning_embedding_out_channels=(8, 16, 24, 32),
    )


def sepia(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB of any shape (..., 3), in sepia."""
    toned = pixels.astype(np.float32) @ np.asarray(SEPIA, np.float32).T
    shown: np.ndarray = np.clip(np.rint(toned), 0, 255).astype(np.uint8)
    return shown


class Pool:
    """Encoded scenes: captions, latents (n, 4, 16, 16) and control pictures (n, 3, 128, 128)."""

    def __init__(self, pipeline: Any, count: int, tone: Callable[[np.ndarray], np.ndarray]) -> None:
        rng = random.Random(SEED)
        drawn = [scenes.sample(rng) for _ in range(count)]
        self.captions = [wording.caption(scene, rng) for scene in drawn]
        latents, outlines = [], []
        for first in range(0, count, 25):
            pictures = [picture(scene) for scene in drawn[first : first + 25]]
            x = to_tensor(tone(np.stack(pictures)))
            with torch.no_grad():
                latents.append(pipeline.vae.encode(x).latent_dist.mean)
            outlines += [np.asarray(control.edges(Image.fromarray(p))) for p in pictures]
        self.latents = torch.cat(latents)
        self.outlines = torch.from_numpy(np.stack(outlines)).permute(0, 3, 1, 2)


def train(assets: Path, kind: str, steps: int, pool: int, batch: int) -> None:
    """Train "controlnet" or "lora" for `steps` and write it to `assets`, in fp16 safetensors."""
    torch.manual_seed(SEED)
    pipeline = embedded.load("sdxl", StableDiffusionXLPipeline)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False)
    if kind == "controlnet":
        data = Pool(pipeline, pool, lambda pixels: pixels)
        net: Any = make_controlnet()
        named = list(net.named_parameters())
    else:
        from peft import LoraConfig

        data = Pool(pipeline, pool, sepia)
        net = None
        pipeline.unet.add_adapter(
            LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LORA_TARGETS), "sepia"
        )
        named = [(n, p) for n, p in pipeline.unet.named_parameters() if p.requires_grad]
    log(f"{kind}: {sum(p.numel() for _, p in named)} parameters, {pool} pictures")
    loss_of = _loss(pipeline, data, net)
    if kind == "controlnet":
        optimizers = make_optimizers(named, muon_lr=0.01, adam_lr=2e-3)
    else:
        optimizers = [torch.optim.Adam([p for _, p in named], lr=4e-3, betas=(0.9, 0.98))]
        for group in optimizers[0].param_groups:
            group["peak"] = group["lr"]
    total = 0.0
    for number in range(steps):
        rng = random.Random(SEED * 100003 + number)
        generator = torch.Generator().manual_seed(SEED * 1009 + number)
        loss = loss_of(rng, [rng.randrange(pool) for _ in range(batch)], generator)
        loss.backward()
        set_lr(optimizers, number, steps, warmup=30)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        total += float(loss.detach())
        if (number + 1) % 25 == 0:
            log(f"{kind} step {number + 1} loss {total / 25:.4f}")
            total = 0.0
    if kind == "controlnet":
        folder = assets / "controlnet-edges"
        net.eval().half().save_pretrained(folder, safe_serialization=True)
        for file in folder.iterdir():
            file.chmod(0o644)
    else:
        _save_lora(pipeline.unet, assets / "lora-sepia.safetensors")


def _loss(pipeline: Any, data: Pool, net: Any) -> Loss:
    noise = Noise()
    side = float(NATIVE)

    def loss(rng: random.Random, rows: list[int], generator: torch.Generator) -> torch.Tensor:
        empty = 0.35 if net is not None else 0.0
        texts = ["" if rng.random() < empty else data.captions[row] for row in rows]
        zero = 0.15 if net is None else 0.0
        keep = torch.tensor([0.0 if rng.random() < zero else 1.0 for _ in rows])[:, None]
        with torch.no_grad():
            embeds, pooled = sdxl_text(
                pipeline,
                tokens_of(pipeline.tokenizer, texts),
                tokens_of(pipeline.tokenizer_2, texts),
            )
            embeds, pooled = embeds * keep[:, :, None], pooled * keep
        noisy, t, target, _ = noise(data.latents[rows], generator)
        added = {
            "text_embeds": pooled,
            "time_ids": torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(len(rows), 1),
        }
        steered: dict[str, Any] = {}
        if net is not None:
            down, middle = net(
                noisy,
                t,
                encoder_hidden_states=embeds,
                controlnet_cond=data.outlines[rows].float() / 255.0,
                return_dict=False,
            )
            steered["down_block_additional_residuals"] = down
            steered["mid_block_additional_residual"] = middle
        predicted = pipeline.unet(
            noisy, t, encoder_hidden_states=embeds, added_cond_kwargs=added, **steered
        ).sample
        return (predicted - target).square().mean()

    return loss


def _save_lora(unet: Any, file: Path) -> None:
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(unet, adapter_name="sepia")
    halves = {f"unet.{key}": value.detach().half().contiguous() for key, value in state.items()}
    save_file(halves, str(file), metadata={"format": "pt"})
    file.chmod(0o644)
    log(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
