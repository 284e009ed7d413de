"""What the backends of OneDiff share: its parts of a pipeline.

``onediffx`` 1.2.0 compiles the parts below that a pipeline has, less those that are ignored.
"""

from __future__ import annotations

from typing import Any

from compilers.base import UnsupportedPipelineError

PARTS = {
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
    "image_encoder": None,
    "unet": "unet",
    "controlnet": None,
    "fast_unet": None,
    "prior": None,
    "decoder": None,
    "transformer": "transformer",
    "vqgan.down_blocks": None,
    "vqgan.up_blocks": None,
    "vae.decoder": "vae.decode",
    "vae.encoder": "vae.encode",
}
"""By part: the scope of ``bench.contract.SCOPES`` that calls it, if there is one."""

IGNORABLE = tuple(dict.fromkeys((*PARTS, "vae", "vqgan", "image_processor")))


def check_ignores(ignores: tuple[str, ...]) -> None:
    """Refuse names that ``onediffx`` would silently not find.

    Raises:
        ValueError: a name is no part.
    """
    for name in ignores:
        if name not in IGNORABLE:
            raise ValueError(f"ignores: {name!r} is no part; there are: {', '.join(IGNORABLE)}")


def parts_of(pipeline: Any, ignores: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts of ``pipeline`` that ``onediffx.compile_pipe`` replaces.

    Raises:
        UnsupportedPipelineError: nothing is left.
    """
    parts = tuple(
        part
        for part in PARTS
        if not any(part == ignored or part.startswith(f"{ignored}.") for ignored in ignores)
        and attribute(pipeline, part) is not None
    )
    if not parts:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} has no part left to compile after ignores"
        )
    return parts


def scopes_of(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scopes that these parts are called in."""
    return tuple(scope for part in parts if (scope := PARTS[part]) is not None)


def module_types(pipeline: Any, parts: tuple[str, ...]) -> dict[str, str]:
    """Return the class of each part as it is now."""
    return {part: type(attribute(pipeline, part)).__name__ for part in parts}


def attribute(owner: Any, path: str) -> Any:
    """Follow a dotted path; None where it ends early."""
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner
