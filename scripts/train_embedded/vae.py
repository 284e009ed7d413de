"""Training of the shared autoencoder: 128x128 pictures to 4x16x16 latents."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from bench.worker import scenes

from .common import Checkpoint, Ema, log, make_optimizers, set_lr

SEED = 20261
NATIVE = 128


def make_vae() -> AutoencoderKL:
    """The untrained autoencoder, float32: 8x down, 4 latent channels, about 1 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 64],
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=NATIVE,
        scaling_factor=1.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )


def picture(scene: scenes.Scene) -> np.ndarray:
    """One scene at the native size, uint8 of shape (128, 128, 3)."""
    return np.asarray(scenes.render(scene, NATIVE, NATIVE))


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures of the PSNR in dB, for tensors in [-1, 1]."""
    mse = ((a.clamp(-1, 1) - b) ** 2).mean(dim=(1, 2, 3)) / 4.0
    return float((-10 * torch.log10(mse)).mean())


def reconstruction_loss(out: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """Mean absolute and squared error, plus the same for edges: blur is what a plain loss buys."""
    diff = out - ref
    edges_y = diff[:, :, 1:] - diff[:, :, :-1]
    edges_x = diff[:, :, :, 1:] - diff[:, :, :, :-1]
    return (
        diff.abs().mean()
        + 2.0 * diff.square().mean()
        + 0.5 * (edges_x.abs().mean() + edges_y.abs().mean())
    )


def train(out: Path, steps: int, pool: int, crop_part: float = 0.6, batch: int = 8) -> None:
    """Train for `steps` and leave `vae.pt` in `out`; a checkpoint there is resumed.

    The first `crop_part` of the steps sees 64x64 crops (four times as many), the rest full
    pictures, so that the far ends of gradients and large shapes are seen whole as well.
    """
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    weights = (1.2, 1.0, 1.4, 1.2, 1.2, 1.2)
    data = np.stack([picture(scenes.sample(rng, weights)) for _ in range(pool)])
    test_rng = random.Random(SEED + 1)
    test = to_tensor(np.stack([picture(scenes.sample(test_rng)) for _ in range(24)]))
    model: Any = make_vae().to(memory_format=torch.channels_last)
    optimizers = make_optimizers(model.named_parameters(), muon_lr=0.02, adam_lr=2e-3)
    ema = Ema(model, 0.995)
    checkpoint = Checkpoint(out / "vae.ckpt", model, ema, optimizers)
    start = checkpoint.load()
    log(f"vae: {pool} pictures, steps {start}..{steps}")
    total = 0.0
    for step in range(start, steps):
        draw = np.random.default_rng((SEED, step))
        generator = torch.Generator().manual_seed(SEED * 1000 + step)
        if step < crop_part * steps:
            rows = draw.integers(0, pool, size=4 * batch)
            corner = draw.integers(0, NATIVE - 64 + 1, size=(4 * batch, 2))
            part = np.stack(
                [data[r, y : y + 64, x : x + 64] for r, (y, x) in zip(rows, corner, strict=True)]
            )
        else:
            part = data[draw.integers(0, pool, size=batch)]
        x = to_tensor(part).contiguous(memory_format=torch.channels_last)
        moments = model.quant_conv(model.encoder(x))
        mean, logvar = moments.chunk(2, dim=1)
        logvar = logvar.clamp(-12, 4)
        noise = torch.randn(mean.shape, generator=generator)
        z = mean + torch.exp(0.5 * logvar) * noise
        y = model.decoder(model.post_quant_conv(z))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = reconstruction_loss(y, x) + 2e-3 * kl
        loss.backward()
        set_lr(optimizers, step, steps)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        ema.update(model)
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            text = f"vae step {step + 1} loss {total / 50:.4f}"
            total = 0.0
            if (step + 1) % 200 == 0 or step + 1 == steps:
                with torch.no_grad(), ema.swapped(model):
                    back = model.decoder(
                        model.post_quant_conv(
                            model.quant_conv(model.encoder(test)).chunk(2, dim=1)[0]
                        )
                    )
                text += f" psnr {psnr(back, test):.2f} dB"
                checkpoint.save(step + 1)
            log(text)
    with ema.swapped(model):
        fold_statistics(model, data)
        torch.save(model.state_dict(), out / "vae.pt")


@torch.no_grad()
def fold_statistics(model: Any, data: np.ndarray, count: int = 512) -> None:
    """Fold the latents' mean and deviation per channel into the two 1x1 convolutions.

    Afterwards latents have mean 0 and deviation 1 over `data` (uint8, n x 128 x 128 x 3), so the
    scaling factor is 1, which suits pipelines that forget to apply it.
    """
    means = []
    for first in range(0, count, 32):
        x = to_tensor(data[first : first + 32])
        means.append(model.quant_conv(model.encoder(x)).chunk(2, dim=1)[0])
    latents = torch.cat(means)
    mean = latents.mean(dim=(0, 2, 3))
    std = latents.std(dim=(0, 2, 3))
    quant, post = model.quant_conv, model.post_quant_conv
    # z' = (z - mean) / std on the way in; z = std z' + mean on the way out.
    quant.weight[:4] /= std[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) / std
    quant.bias[4:] -= 2 * std.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]
