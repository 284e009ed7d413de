"""What is known without looking at any machine: models, presets, schedulers, costs.

Figures here feed defaults and estimates only. No measured value is ever taken from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bench.contract import Protocol

PROTOCOLS: dict[str, Protocol] = {
    # enough to see whether a matrix works and who is roughly faster
    "quick": {
        "warmup": {"min_calls": 2, "max_calls": 4, "stable_calls": 2, "stable_pct": 10.0},
        "calls": {"min_calls": 3, "max_calls": 5, "noise_target_pct": 5.0, "time_cap_s": 60.0},
        "rounds": 1,
    },
    # two processes for each cell, interleaved, so that the spread between processes is seen
    "standard": {
        "warmup": {"min_calls": 3, "max_calls": 10, "stable_calls": 3, "stable_pct": 5.0},
        "calls": {"min_calls": 5, "max_calls": 30, "noise_target_pct": 2.0, "time_cap_s": 180.0},
        "rounds": 2,
    },
    # for figures that will be published
    "thorough": {
        "warmup": {"min_calls": 3, "max_calls": 20, "stable_calls": 3, "stable_pct": 2.0},
        "calls": {"min_calls": 10, "max_calls": 100, "noise_target_pct": 1.0, "time_cap_s": 600.0},
        "rounds": 5,
    },
}

WORKLOAD_PRESETS: dict[str, dict[str, Any]] = {
    # defaults of OneDiff's benchmark script, so that a workload lines up with its figures
    "onediff": {
        "scheduler": "EulerAncestralDiscreteScheduler",
        "steps": 30,
        "seed": 333,
        "batch": 1,
        "prompt": "best quality, realistic, unreal engine, 4K,a cat sitting on human lap",
    }
}

Family = Literal["embedded", "sd15", "sdxl"]


@dataclass(frozen=True)
class Cost:
    """Rough times of one worker on a reference machine, at the family's native size, batch 1."""

    load_s: float
    fixed_s: float  # text encoders and VAE of one call
    step_s: float
    compile_s: float  # torch.compile of the whole denoiser, cold cache
    regional_s: float  # torch.compile of its repeated blocks, cold cache


@dataclass(frozen=True)
class FamilyInfo:
    """A class of models that cost alike."""

    size: int  # native height and width, pixels
    weights: int  # parameters of the whole pipeline
    cpu: Cost  # one desktop core
    gpu: Cost  # a data-centre GPU in float16; steps and fixed part follow the OneDiff report


FAMILIES: dict[Family, FamilyInfo] = {
    "embedded": FamilyInfo(
        size=128,
        weights=6_000_000,
        cpu=Cost(load_s=0.5, fixed_s=0.05, step_s=0.03, compile_s=70.0, regional_s=20.0),
        gpu=Cost(load_s=1.0, fixed_s=0.03, step_s=0.012, compile_s=45.0, regional_s=15.0),
    ),
    "sd15": FamilyInfo(
        size=512,
        weights=1_066_000_000,
        cpu=Cost(load_s=10.0, fixed_s=5.0, step_s=8.0, compile_s=150.0, regional_s=60.0),
        gpu=Cost(load_s=5.0, fixed_s=0.08, step_s=0.032, compile_s=60.0, regional_s=25.0),
    ),
    "sdxl": FamilyInfo(
        size=1024,
        weights=3_469_000_000,
        cpu=Cost(load_s=60.0, fixed_s=40.0, step_s=100.0, compile_s=300.0, regional_s=120.0),
        gpu=Cost(load_s=12.0, fixed_s=0.32, step_s=0.12, compile_s=90.0, regional_s=35.0),
    ),
}


@dataclass(frozen=True)
class ModelInfo:
    """A model that is known by name, the family it costs like, and the tasks it can do."""

    family: Family
    tasks: tuple[str, ...]


EMBEDDED: dict[str, ModelInfo] = {
    "sdxl": ModelInfo("embedded", ("text-to-image", "image-to-image", "chain")),
    "pix2pix": ModelInfo("embedded", ("edit",)),
}
SYNTHETIC: dict[str, ModelInfo] = {
    "sdxl": ModelInfo("sdxl", ("text-to-image", "image-to-image", "chain")),
    "sdxl-pix2pix": ModelInfo("sdxl", ("edit",)),
    "sd15-pix2pix": ModelInfo("sd15", ("edit",)),
    "sdxl-small": ModelInfo("embedded", ("text-to-image", "image-to-image", "chain")),
    "sdxl-pix2pix-small": ModelInfo("embedded", ("edit",)),
    "sd15-pix2pix-small": ModelInfo("embedded", ("edit",)),
}
LORAS = ("sepia",)
CONTROLNETS = ("edges",)
"""Embedded additions to embedded:sdxl."""
SOURCES = ("hub", "path", "embedded", "synthetic")
BUILT_IN_MODELS = {"embedded": EMBEDDED, "synthetic": SYNTHETIC}


def tasks_of(model: str) -> tuple[str, ...] | None:
    """Return what a built-in model can do; None of another."""
    source, _, name = model.partition(":")
    known = BUILT_IN_MODELS.get(source)
    return known[name].tasks if known else None


def family_of(model: str) -> Family:
    """Return the family that ``model`` is sized and costed like.

    Embedded and synthetic models are known; of a Hub name or a folder, ``xl`` in its last part
    means SDXL, anything else Stable Diffusion 1.x.
    """
    source, _, name = model.partition(":")
    if source in BUILT_IN_MODELS:
        return BUILT_IN_MODELS[source][name].family
    last = name.split("@")[0].rstrip("/").rsplit("/", 1)[-1]
    return "sdxl" if "xl" in last.lower() else "sd15"


# Schedulers of diffusers 0.29 to 0.42 that image pipelines take; used to catch misspellings only.
SCHEDULERS = tuple(
    f"{name}Scheduler"
    for name in (
        "CMStochasticIterative", "DDIMInverse", "DDIMParallel", "DDIM", "DDPMParallel", "DDPM",
        "DDPMWuerstchen", "DEISMultistep", "DPMSolverMultistepInverse", "DPMSolverMultistep",
        "DPMSolverSDE", "DPMSolverSinglestep", "EDMDPMSolverMultistep", "EDMEuler",
        "EulerAncestralDiscrete", "EulerDiscrete", "FlowMatchEulerDiscrete",
        "FlowMatchHeunDiscrete", "FlowMatchLCM", "HeunDiscrete", "IPNDM", "KDPM2AncestralDiscrete",
        "KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "SASolver", "SCM", "TCD", "UniPCMultistep",
    )
)  # fmt: skip

# Arguments of a pipeline call that have a field of their own, or that the worker sets itself.
RESERVED_CALL_ARGUMENTS: dict[str, str | None] = {
    **{key: key for key in ("prompt", "negative_prompt", "strength", "height", "width",
                            "control_image")},
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "image_guidance_scale": "image_guidance",
    "num_images_per_prompt": "batch",
    "generator": "seed",
    "image": "input_image",
    "controlnet_conditioning_scale": "control_scale",
    **dict.fromkeys(("latents", "output_type", "return_dict", "callback", "callback_steps",
                     "callback_on_step_end", "callback_on_step_end_tensor_inputs")),
}  # fmt: skip
