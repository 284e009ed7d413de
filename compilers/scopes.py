"""Where a diffusers pipeline keeps the parts that can be compiled, by the names of ``SCOPES``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compilers.base import UnsupportedPipelineError

DENOISERS = ("unet", "transformer")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def denoiser_name(pipeline: Any) -> str | None:
    """Return the attribute that holds the denoiser, or None where there is none."""
    for name in DENOISERS:
        if getattr(pipeline, name, None) is not None:
            return name
    return None


def text_encoder_names(pipeline: Any) -> tuple[str, ...]:
    """Return the attributes that hold a text encoder, in the order in which they are numbered."""
    return tuple(name for name in TEXT_ENCODERS if getattr(pipeline, name, None) is not None)


def resolve_scope(pipeline: Any, asked: Iterable[str]) -> tuple[str, ...]:
    """Translate the names of a configuration into parts that this pipeline has, without repeats.

    ``unet`` names the denoiser whatever its class, so that one configuration serves UNet and
    transformer pipelines; ``text_encoders`` names every text encoder.

    Raises:
        UnsupportedPipelineError: the pipeline lacks a part that was asked for.
    """
    found: list[str] = []
    for name in asked:
        if name in ("unet", "transformer"):
            denoiser = denoiser_name(pipeline)
            if denoiser is None or (name == "transformer" and denoiser != "transformer"):
                raise UnsupportedPipelineError(
                    f"{type(pipeline).__name__} has no {name} to compile"
                )
            found.append(denoiser)
        elif name == "text_encoders":
            encoders = text_encoder_names(pipeline)
            if not encoders:
                raise UnsupportedPipelineError(
                    f"{type(pipeline).__name__} has no text encoder to compile"
                )
            found.extend(encoders)
        else:
            owner = getattr(pipeline, name.split(".")[0], None)
            if owner is None or (name.startswith("vae.") and not hasattr(owner, name[4:])):
                raise UnsupportedPipelineError(
                    f"{type(pipeline).__name__} has no {name} to compile"
                )
            found.append(name)
    return tuple(dict.fromkeys(found))
