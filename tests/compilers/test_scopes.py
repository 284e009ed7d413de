from __future__ import annotations

from types import SimpleNamespace

import pytest

from compilers.base import UnsupportedPipelineError
from compilers.scopes import resolve_scope

UNET = SimpleNamespace(
    unet=object(),
    vae=SimpleNamespace(encode=print, decode=print),
    text_encoder=object(),
    text_encoder_2=object(),
)
TRANSFORMER = SimpleNamespace(transformer=object(), vae=SimpleNamespace(decode=print), unet=None)


def test_unet_names_the_denoiser_of_any_pipeline() -> None:
    assert resolve_scope(UNET, ("unet",)) == ("unet",)
    assert resolve_scope(TRANSFORMER, ("unet",)) == ("transformer",)
    assert resolve_scope(TRANSFORMER, ("transformer", "unet")) == ("transformer",)


def test_text_encoders_names_all_of_them() -> None:
    asked = ("text_encoder", "text_encoders", "vae.decode")
    assert resolve_scope(UNET, asked) == ("text_encoder", "text_encoder_2", "vae.decode")


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        (UNET, "transformer"),
        (UNET, "text_encoder_3"),
        (TRANSFORMER, "vae.encode"),
        (TRANSFORMER, "text_encoders"),
        (SimpleNamespace(), "unet"),
        (SimpleNamespace(), "vae.decode"),
    ],
)
def test_a_part_that_is_not_there_is_refused_by_name(pipeline: SimpleNamespace, name: str) -> None:
    what = "text encoder" if name == "text_encoders" else name
    with pytest.raises(UnsupportedPipelineError, match=what):
        resolve_scope(pipeline, (name,))
