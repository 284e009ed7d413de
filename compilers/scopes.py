"""Where a diffusers pipeline keeps the parts that can be compiled, by the names of ``SCOPES``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def denoiser_of(pipeline: Any) -> Any:
    """Return the denoiser, or None where there is none."""
    return getattr(pipeline, denoiser_name(pipeline) or "", None)


def replace_part(pipeline: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Put what ``change`` returns for a part where the pipeline calls it.

    The VAE is replaced by method: pipelines call ``vae.decode``, which a wrapped VAE would look up
    on the module inside, unchanged.
    """
    owner, _, method = name.partition(".")
    holder, attribute = (getattr(pipeline, owner), method) if method else (pipeline, owner)
    setattr(holder, attribute, change(getattr(holder, attribute)))


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
    names: list[str] = []
    for name in asked:
        owner, _, method = name.partition(".")
        if name == "text_encoders":
            parts = text_encoder_names(pipeline)
        elif name == "unet":
            parts = tuple(filter(None, [denoiser_name(pipeline)]))
        else:
            holder = getattr(pipeline, owner, None)
            known = holder is not None and (not method or hasattr(holder, method))
            known = known and (name != "transformer" or denoiser_name(pipeline) == name)
            parts = (name,) if known else ()
        if not parts:
            what = "text encoder" if name == "text_encoders" else name
            raise UnsupportedPipelineError(f"{type(pipeline).__name__} has no {what} to compile")
        names.extend(parts)
    return tuple(dict.fromkeys(names))
