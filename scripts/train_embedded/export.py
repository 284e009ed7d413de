"""Writes the trained weights as the folders that the package ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from .common import log
from .unet import Pix2Pix, Sdxl, make_scheduler, make_tokenizers
from .vae import make_vae


def export(out: Path, assets: Path) -> None:
    """Save the models found in `out` to `assets` in fp16; a missing one gets random weights.

    The autoencoder is stored once, in `assets/vae`; files are readable by everybody.
    """
    torch.manual_seed(0)
    vae = _filled(make_vae(), out / "vae.pt")
    _save(vae, assets / "vae")
    for model in (Sdxl(), Pix2Pix()):
        _filled(model, out / f"{model.name}.pt")
        folder = assets / model.name
        tokenizers = out / f"{model.name}-tokenizers"
        make_tokenizers(tokenizers)
        for part in ("unet", "text_encoder", "text_encoder_2"):
            if hasattr(model, part):
                _save(getattr(model, part), folder / part)
        for part in ("tokenizer", "tokenizer_2"):
            if part == "tokenizer" or model.name == "sdxl":
                shutil.copytree(tokenizers / part, folder / part, dirs_exist_ok=True)
        make_scheduler().save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(
            json.dumps(_index(model.name), indent=2) + "\n", encoding="utf-8"
        )
    for path in assets.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.name == "config.json":
            _drop_paths(path)
    size = sum(p.stat().st_size for p in assets.rglob("*") if p.is_file())
    log(f"{assets}: {size / 1e6:.2f} MB")


def _filled(model: Any, weights: Path) -> Any:
    """`model` with the weights of a file, if there is one."""
    if weights.exists():
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    else:
        log(f"{weights} is missing: random weights")
    return model


def _save(model: Any, folder: Path) -> None:
    model.eval().half().save_pretrained(folder, safe_serialization=True)


def _drop_paths(config: Path) -> None:
    """Remove what says where a model was loaded from."""
    data = json.loads(config.read_text(encoding="utf-8"))
    if data.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _index(name: str) -> dict[str, Any]:
    """What `model_index.json` holds; the autoencoder is in the neighbouring folder."""
    common = {
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if name == "sdxl":
        return {
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": True,
            **common,
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
    return {
        "_class_name": "StableDiffusionInstructPix2PixPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        **common,
    }
