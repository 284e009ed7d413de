from __future__ import annotations

from typing import Any

import pytest

from bench.worker import structure


@pytest.fixture
def pipeline() -> Any:
    """Real modules in the places where a diffusers pipeline has them."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, sample: Any) -> Any:
            return self.linear(sample)

    class Unet(Block):
        pass

    class Vae(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Block()
            self.decoder = Block()

        def encode(self, image: Any) -> Any:
            return self.encoder(image)

        def decode(self, latents: Any) -> Any:
            return self.decoder(latents)

    class Pipeline:
        def __init__(self) -> None:
            self.unet = Unet()
            self.vae = Vae()
            self.text_encoder = Block()

        @property
        def components(self) -> dict[str, Any]:
            return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}

    return Pipeline()


def changed(pipeline: Any, change: Any) -> tuple[str, ...]:
    before = structure.of(pipeline)
    change(pipeline)
    return structure.changed_scopes(before, structure.of(pipeline))


def test_nothing_changed(pipeline):
    assert changed(pipeline, lambda p: None) == ()


def test_an_equal_copy_is_no_change(pipeline):
    assert changed(pipeline, lambda p: setattr(p, "unet", type(p.unet)())) == ()


def _compile_in_place(pipeline: Any) -> None:
    import torch

    if not hasattr(torch.nn.Module, "compile"):
        pytest.skip("torch 2.0 and 2.1 cannot compile a module in place")
    pipeline.unet.linear.compile(backend="eager")


def _wrap(pipeline: Any) -> None:
    import torch

    pipeline.unet = torch.compile(pipeline.unet, backend="eager")


def _patch_forward(pipeline: Any) -> None:
    pipeline.unet.forward = lambda sample: sample


def _hook(pipeline: Any) -> None:
    pipeline.unet.linear.register_forward_hook(lambda *_: None)


def _precision(pipeline: Any) -> None:
    import torch

    pipeline.unet.to(torch.bfloat16)


def _swap_layer(pipeline: Any) -> None:
    import torch

    pipeline.unet.linear = torch.nn.Identity()


def _processor(pipeline: Any) -> None:
    class Processor:
        def __call__(self) -> None: ...

    pipeline.unet.linear.processor = Processor()


@pytest.mark.parametrize(
    "change", [_compile_in_place, _patch_forward, _hook, _precision, _swap_layer, _processor]
)
def test_what_a_backend_can_do_to_a_module_is_seen_there_alone(pipeline, change):
    assert changed(pipeline, change) == ("unet",)


def test_a_wrapped_module_is_seen(pipeline):
    assert set(changed(pipeline, _wrap)) == {"pipeline", "unet"}
    names = structure.module_names(pipeline, ("unet", "vae.decode"))
    assert names == {"unet": "OptimizedModule of Unet", "vae.decode": "Vae"}


def test_a_patched_class_is_seen(pipeline):
    def change(p: Any) -> None:
        type(p.unet).forward = lambda self, sample: sample

    assert changed(pipeline, change) == ("unet",)


def test_the_vae_is_judged_by_method(pipeline):
    import torch

    def method(p: Any) -> None:
        p.vae.decode = torch.compile(p.vae.decode, backend="eager")

    assert changed(pipeline, method) == ("vae.decode",)
    assert changed(pipeline, lambda p: p.vae.encoder.to(torch.bfloat16)) == ("vae.encode",)


def test_wrapping_the_vae_changes_neither_of_its_methods(pipeline):
    import torch

    def wrap(p: Any) -> None:
        p.vae = torch.compile(p.vae, backend="eager")

    assert changed(pipeline, wrap) == ("pipeline",)
