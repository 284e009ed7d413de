"""Diffusers folders of real pipeline classes, small enough to build and run in a test.

``build(kind, folder)`` writes one with seeded random weights (about 1 MB, built in well under a
second once diffusers is imported); ``KINDS`` lists what there is. Every VAE shrinks by 8, as the
published ones do, so sizes behave as in real models; pictures are colourful noise that depends on
prompt, seed, steps and input picture.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MAX_TOKENS = 77


def build(kind: str, folder: str | Path, *, seed: int = 0) -> Path:
    """Write the tiny pipeline ``kind`` to ``folder`` in float32 safetensors and return the folder.

    Skips the test that asks for it where diffusers is older than the pipeline. Raises KeyError for
    a kind that is not in ``KINDS``.
    """
    import diffusers
    import torch

    since = _SINCE.get(kind, (0,))
    if tuple(int(part) for part in diffusers.__version__.split(".")[:2]) < since:
        pytest.skip(f"diffusers {diffusers.__version__} is older than {kind}")

    maker = _MAKERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = maker()
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                _liven(component)
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return Path(folder)


def _liven(model: Any) -> None:
    """Default initialisation leaves some outputs at zero and pictures grey: draw them wider."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.05)
        elif name in ("decoder.conv_out.weight", "conv_out.weight"):
            torch.nn.init.normal_(parameter, std=0.15)


def clip_tokenizer() -> Any:
    """A CLIPTokenizer of 514 tokens: each byte, each byte at a word's end, start and end."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{a}</w>" for a in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if "vocab" in inspect.signature(CLIPTokenizer.__init__).parameters:
        return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=MAX_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer(
            f"{folder}/vocab.json", f"{folder}/merges.txt", model_max_length=MAX_TOKENS
        )


def clip_text_encoder(hidden: int = 32, *, projection: int | None = None) -> Any:
    """A two-layer CLIP text encoder; with ``projection`` of the class that projects its pooling."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocabulary = 514
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=projection or hidden,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def t5_tokenizer() -> Any:
    """A T5 tokenizer whose words are single letters."""
    from transformers import T5TokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in letters]
    if "vocab" in inspect.signature(T5TokenizerFast.__init__).parameters:
        return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=MAX_TOKENS)


def t5_text_encoder(hidden: int = 32) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=98,
            d_model=hidden,
            d_kv=8,
            d_ff=2 * hidden,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def vae(latents: int = 4, *, shift: float | None = None) -> Any:
    from diffusers import AutoencoderKL

    extra: dict[str, Any] = {}
    if shift is not None:
        extra = {"shift_factor": shift, "use_quant_conv": False, "use_post_quant_conv": False}
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        in_channels=3,
        out_channels=3,
        latent_channels=latents,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
        **extra,
    )


def _scheduler() -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def _unet(in_channels: int, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        **more,
    )


def _sd_unet(in_channels: int = 4) -> Any:
    return _unet(
        in_channels,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )


def _sdxl_unet(in_channels: int = 4) -> Any:
    return _unet(
        in_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
    )


def _sd15(pipeline_class: str, in_channels: int = 4) -> Any:
    import diffusers

    return getattr(diffusers, pipeline_class)(
        vae=vae(),
        text_encoder=clip_text_encoder(),
        tokenizer=clip_tokenizer(),
        unet=_sd_unet(in_channels),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(pipeline_class: str, in_channels: int = 4) -> Any:
    import diffusers

    return getattr(diffusers, pipeline_class)(
        vae=vae(),
        text_encoder=clip_text_encoder(),
        text_encoder_2=clip_text_encoder(projection=32),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=_sdxl_unet(in_channels),
        scheduler=_scheduler(),
    )


def _sd3() -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=32,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(16, shift=0.0609),
        text_encoder=clip_text_encoder(projection=32),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text_encoder(projection=32),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text_encoder(64),
        tokenizer_3=t5_tokenizer(),
    )


def _flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4, shift=0.1159),
        text_encoder=clip_text_encoder(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def _pixart() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=32,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=32,
        caption_channels=32,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        use_additional_conditions=False,
    )
    return PixArtAlphaPipeline(
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
        vae=vae(),
        text_encoder=t5_text_encoder(),
        tokenizer=t5_tokenizer(),
    )


def _ddpm() -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return DDPMPipeline(unet=unet, scheduler=DDPMScheduler())


_MAKERS: dict[str, Callable[[], Any]] = {
    "sd15": functools.partial(_sd15, "StableDiffusionPipeline"),
    "sd15-pix2pix": functools.partial(_sd15, "StableDiffusionInstructPix2PixPipeline", 8),
    "sdxl": functools.partial(_sdxl, "StableDiffusionXLPipeline"),
    "sdxl-pix2pix": functools.partial(_sdxl, "StableDiffusionXLInstructPix2PixPipeline", 8),
    "sd3": _sd3,
    "flux": _flux,
    "pixart": _pixart,
    "ddpm": _ddpm,
}
# The diffusers that first had all its tasks.
_SINCE = {"flux": (0, 31)}
KINDS: tuple[str, ...] = tuple(_MAKERS)


def workload(**changes: Any) -> dict[str, Any]:
    """A small ``bench.contract.Workload``: text to a 64x64 picture in 3 steps on the CPU."""
    return {
        "name": "tiny",
        "task": "text-to-image",
        "model": "path:nowhere",
        "variant": None,
        "scheduler": None,
        "steps": 3,
        "guidance": None,
        "image_guidance": None,
        "strength": None,
        "height": 64,
        "width": 64,
        "batch": 1,
        "seed": 1,
        "prompt": "a red house",
        "negative_prompt": None,
        "input_image": None,
        "dtype": "float32",
        "generator": "cpu",
        "extra": {},
        **changes,
    }


@functools.cache
def shared(kind: str) -> Path:
    """The folder of ``build(kind)``, made once a process; read it, never change it."""
    folder = tempfile.mkdtemp(prefix=f"tiny-{kind}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build(kind, folder)
