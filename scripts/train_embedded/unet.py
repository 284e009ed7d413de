"""Joint training of the denoisers and their text encoders on encoded pictures."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench.worker import scenes

from . import tokenizer as tok
from . import wording
from .common import Checkpoint, Ema, log, make_optimizers, set_lr
from .vae import NATIVE, make_vae, picture, to_tensor

SEED = 20262
PAD_2 = "!"
TIME_ID_SIDES = (128, 128, 128, 256, 512, 1024)
SUBJECT_WEIGHTS = (1.0, 1.0, 1.6, 1.1, 1.1, 1.4)
EDIT_WEIGHTS = {"sky": 1.0, "colour": 1.0, "ground": 1.0, "subject": 2.0}


def make_scheduler() -> EulerDiscreteScheduler:
    """The noise schedule used in training and saved with both models."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=0,
    )


def text_config(ids: dict[str, int], pad: str) -> CLIPTextConfig:
    """CLIP text encoder: width 64, 3 layers. SDXL reads the last layer but one."""
    return CLIPTextConfig(
        vocab_size=len(ids),
        hidden_size=64,
        intermediate_size=128,
        projection_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tok.MAX_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=ids[tok.BOS],
        eos_token_id=ids[tok.EOS],
        pad_token_id=ids[pad],
    )


class Sdxl(nn.Module):
    """The trainable parts of the SDXL-shaped text-to-image model."""

    name = "sdxl"

    def __init__(self) -> None:
        super().__init__()
        ids, _ = tok.build(wording.vocabulary())
        self.text_encoder = CLIPTextModel(text_config(ids, tok.EOS))
        self.text_encoder_2 = CLIPTextModelWithProjection(text_config(ids, PAD_2))
        self.unet = UNet2DConditionModel(
            sample_size=NATIVE // 8,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(64, 96, 96),
            layers_per_block=1,
            transformer_layers_per_block=[1, 1, 1],
            attention_head_dim=[2, 3, 3],  # the number of heads, in spite of the name
            cross_attention_dim=128,
            norm_num_groups=16,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=64 + 6 * 16,
        )


class Pix2Pix(nn.Module):
    """The trainable parts of the SD1.5-shaped editing model; its UNet also sees the source."""

    name = "pix2pix"

    def __init__(self) -> None:
        super().__init__()
        ids, _ = tok.build(wording.vocabulary())
        self.text_encoder = CLIPTextModel(text_config(ids, tok.EOS))
        self.unet = UNet2DConditionModel(
            sample_size=NATIVE // 8,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(64, 96, 96),
            layers_per_block=1,
            attention_head_dim=[2, 3, 3],
            cross_attention_dim=64,
            norm_num_groups=16,
        )


@torch.no_grad()
def encode(vae: Any, pictures: list[np.ndarray], batch: int = 25) -> torch.Tensor:
    """Mean latents of uint8 pictures, float32 of shape (n, 4, 16, 16)."""
    parts = []
    for first in range(0, len(pictures), batch):
        x = to_tensor(np.stack(pictures[first : first + batch]))
        parts.append(vae.quant_conv(vae.encoder(x)).chunk(2, dim=1)[0])
    return torch.cat(parts)


def load_vae(out: Path) -> Any:
    """The trained autoencoder of an output folder."""
    vae = make_vae()
    vae.load_state_dict(torch.load(out / "vae.pt", weights_only=True))
    return vae.eval().requires_grad_(False)


def subject_weight(scene: scenes.Scene) -> np.ndarray:
    """Share of each latent cell that the subject covers, float32 of shape (16, 16)."""
    mask = scenes.subject_mask(scene, NATIVE, NATIVE)
    cells: np.ndarray = mask.reshape(16, 8, 16, 8).mean(axis=(1, 3))
    return cells


def scene_pool(vae: Any, count: int) -> dict[str, Any]:
    """`count` encoded scenes: records, latents (n, 4, 16, 16) and subject masks (n, 16, 16)."""
    rng = random.Random(SEED)
    records = [scenes.sample(rng, SUBJECT_WEIGHTS) for _ in range(count)]
    latents, masks = [], []
    for first in range(0, count, 500):
        part = records[first : first + 500]
        latents.append(encode(vae, [picture(s) for s in part]))
        masks.append(torch.from_numpy(np.stack([subject_weight(s) for s in part])))
    return {"records": records, "latents": torch.cat(latents), "masks": torch.cat(masks)}


def edit_pool(vae: Any, groups: int) -> dict[str, Any]:
    """Encoded groups of scenes that share their seed, and the edits that lead between them.

    A group is a scene with three other subjects and one other colour, sky and ground, so that
    one picture serves many pairs. `pairs` lists (source row, target row, kind) for each kind.
    """
    rng = random.Random(SEED + 7)
    records: list[scenes.Scene] = []
    pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in wording.EDIT_KINDS}
    values = {
        "sky": scenes.SKIES,
        "colour": scenes.COLOURS,
        "ground": scenes.GROUNDS,
    }
    for _ in range(groups):
        base = scenes.sample(rng)
        first = len(records)
        records.append(base)
        others = [s for s in scenes.SUBJECTS if s != base.subject]
        for subject in rng.sample(others, 3):
            records.append(wording.make_edit(base, "subject", subject).target)
        rows = range(first, first + 4)
        pairs["subject"] += [(a, b) for a in rows for b in rows if a != b]
        for kind, words in values.items():
            host = rng.choice(rows)
            old = records[host]
            word = rng.choice([w for w in words if w != getattr(old, kind)])
            pairs[kind] += [(host, len(records)), (len(records), host)]
            records.append(wording.make_edit(old, kind, word).target)
    latents, masks = [], []
    for start in range(0, len(records), 500):
        part = records[start : start + 500]
        latents.append(encode(vae, [picture(s) for s in part]))
        masks.append(torch.from_numpy(np.stack([subject_weight(s) for s in part])))
    return {
        "records": records,
        "latents": torch.cat(latents),
        "masks": torch.cat(masks),
        "pairs": pairs,
    }


class Noise:
    """Draws timesteps and noise, and weighs the loss."""

    def __init__(self) -> None:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.alphas = torch.cumprod(1 - betas, dim=0)

    def __call__(
        self, clean: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(noisy latents, timesteps (n,), v targets, loss weights (n, 1, 1, 1))."""
        n = clean.shape[0]
        # One timestep per stratum: less noise in the gradient than independent draws.
        place = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        t = (place * 1000).long().clamp(max=999)
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        snr = alpha / (1 - alpha)
        return noisy, t, target, snr.clamp(max=5.0) / (snr + 1)


Step = Callable[[Any, int], torch.Tensor]


def tokens_of(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Padded token ids, int64 of shape (n, 77)."""
    out = tokenizer(
        texts,
        padding="max_length",
        max_length=tok.MAX_LENGTH,
        truncation=True,
        return_tensors="pt",
    )
    return out.input_ids


def make_tokenizers(out: Path) -> tuple[Any, Any]:
    """Write both tokenizer folders and return the tokenizers (end-padded, "!"-padded)."""
    words = wording.vocabulary()
    tok.save(out / "tokenizer", words, tok.EOS)
    tok.save(out / "tokenizer_2", words, PAD_2)
    return tok.load(out / "tokenizer", tok.EOS), tok.load(out / "tokenizer_2", PAD_2)


def sdxl_text(model: Any, ids: torch.Tensor, ids_2: torch.Tensor) -> tuple[Any, Any]:
    """Embeddings as the SDXL pipeline makes them: (n, 77, 128) and pooled (n, 64)."""
    one = model.text_encoder(ids, output_hidden_states=True)
    two = model.text_encoder_2(ids_2, output_hidden_states=True)
    return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds


def sdxl_step(out: Path, pool: dict[str, Any], batch: int) -> Step:
    """One SDXL training step as a function of model and step number, returning the loss."""
    tokenizer, tokenizer_2 = make_tokenizers(out / "sdxl-tokenizers")
    noise = Noise()

    def step(model: Any, number: int) -> torch.Tensor:
        rng = random.Random(SEED * 100003 + number)
        generator = torch.Generator().manual_seed(SEED * 1009 + number)
        rows = [rng.randrange(len(pool["records"])) for _ in range(batch)]
        texts, keep, ids = [], [], []
        for row in rows:
            draw = rng.random()
            texts.append("" if draw < 0.06 else wording.caption(pool["records"][row], rng))
            keep.append(0.0 if draw > 0.92 else 1.0)
            side = rng.choice(TIME_ID_SIDES)
            ids.append([side, side, 0, 0, side, side])
        embeds, pooled = sdxl_text(
            model, tokens_of(tokenizer, texts), tokens_of(tokenizer_2, texts)
        )
        gate = torch.tensor(keep)[:, None]
        noisy, t, target, weight = noise(pool["latents"][rows], generator)
        predicted = model.unet(
            noisy,
            t,
            encoder_hidden_states=embeds * gate[:, :, None],
            added_cond_kwargs={
                "text_embeds": pooled * gate,
                "time_ids": torch.tensor(ids, dtype=torch.float32),
            },
        ).sample
        weight = weight * (1.0 + 2.0 * pool["masks"][rows][:, None])
        return ((predicted - target).square() * weight).mean()

    return step


def pix2pix_step(out: Path, pool: dict[str, Any], batch: int) -> Step:
    """One editing training step as a function of model and step number, returning the loss."""
    tokenizer, _ = make_tokenizers(out / "pix2pix-tokenizers")
    noise = Noise()
    kinds = list(EDIT_WEIGHTS)
    records = pool["records"]

    def step(model: Any, number: int) -> torch.Tensor:
        rng = random.Random(SEED * 100019 + number)
        generator = torch.Generator().manual_seed(SEED * 1013 + number)
        sources, targets, texts, keep = [], [], [], []
        for kind in rng.choices(kinds, weights=list(EDIT_WEIGHTS.values()), k=batch):
            a, b = rng.choice(pool["pairs"][kind])
            text = wording.make_edit(records[a], kind, getattr(records[b], kind), rng).instruction
            draw = rng.random()
            sources.append(a)
            targets.append(b)
            texts.append("" if draw < 0.12 else text)
            keep.append(0.0 if 0.06 < draw < 0.17 else 1.0)
        embeds = model.text_encoder(tokens_of(tokenizer, texts)).last_hidden_state
        noisy, t, target, weight = noise(pool["latents"][targets], generator)
        source = pool["latents"][sources] * torch.tensor(keep).view(-1, 1, 1, 1)
        predicted = model.unet(
            torch.cat([noisy, source], dim=1), t, encoder_hidden_states=embeds
        ).sample
        masks = torch.maximum(pool["masks"][sources], pool["masks"][targets])
        weight = weight * (1.0 + 2.0 * masks[:, None])
        return ((predicted - target).square() * weight).mean()

    return step


def train(out: Path, model: Any, steps: int, pool: int, batch: int = 20) -> None:
    """Train `model` (an `Sdxl` or a `Pix2Pix`) for `steps`; leave `<name>.pt`, EMA weights.

    `pool` is the number of encoded scenes (text to image) or groups of seven (edits). A
    checkpoint in `out` is resumed and gives the same result as an uninterrupted run.
    """
    vae = load_vae(out)
    cache = out / f"{model.name}-pool.pt"
    make_pool = scene_pool if model.name == "sdxl" else edit_pool
    if cache.exists():
        data = torch.load(cache, weights_only=False)
    else:
        data = make_pool(vae, pool)
        torch.save(data, cache)
    step_fn = (sdxl_step if model.name == "sdxl" else pix2pix_step)(out, data, batch)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizers = make_optimizers(named, muon_lr=0.015, adam_lr=1.5e-3)
    ema = Ema(model, 0.997)
    checkpoint = Checkpoint(out / f"{model.name}.ckpt", model, ema, optimizers)
    start = checkpoint.load()
    count = sum(p.numel() for p in model.parameters())
    log(f"{model.name}: {count} parameters, {len(data['records'])} pictures, from step {start}")
    total = 0.0
    for number in range(start, steps):
        loss = step_fn(model, number)
        loss.backward()
        set_lr(optimizers, number, steps, warmup=100, decay=0.33)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        ema.update(model)
        total += float(loss.detach())
        if (number + 1) % 50 == 0:
            log(f"{model.name} step {number + 1} loss {total / 50:.4f}")
            total = 0.0
        if (number + 1) % 250 == 0 or number + 1 == steps:
            checkpoint.save(number + 1)
            with ema.swapped(model):
                torch.save(model.state_dict(), out / f"{model.name}.pt")
