"""DeepCache, stable-fast, torchao, xformers and TensorRT, as far as they go without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.config import backends
from bench.worker import check
from compilers import deepcache, packages, stable_fast, tensorrt, torchao, xformers
from compilers.base import NoOptions, UnsupportedPipelineError


@pytest.fixture
def tiny() -> check.TinyPipeline:
    return check.TinyPipeline("cpu")


def needs(distribution: str) -> None:
    if packages.version_of(distribution) is None:
        pytest.skip(f"{distribution} is not installed")


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("deepcache", {"cache_interval": 1}, "cache_interval: 1 caches nothing"),
        ("deepcache", {"cache_layer_id": 3}, "cache_layer_id: 3 is not 0, 1 or 2"),
        ("deepcache", {"cache_block_id": -1}, "cache_block_id: -1 is negative"),
        ("tensorrt", {"optimization_level": 6}, "optimization_level: 6 is not 0 to 5"),
        ("tensorrt", {"min_block_size": 0}, "min_block_size"),
        ("tensorrt", {"workspace_size": -1}, "workspace_size"),
        ("torchao", {"kind": "int4"}, "kind"),
        ("stable-fast", {"memory_format": "nhwc"}, "memory_format"),
        ("xformers", {"op": "flash"}, "op"),
        ("oneflow", {"max_cached_graph_size": 0}, "max_cached_graph_size"),
    ],
)
def test_options_are_refused_before_anything_loads(
    name: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(backends.OptionError, match=words):
        backends.resolve_options(name, given)


def test_which_backends_change_the_picture_on_purpose() -> None:
    lossy = {name for name in backends.names() if backends.get(name).lossy}
    assert {"deepcache", "torchao"} <= lossy
    assert not {"none", "nexfort", "oneflow", "stable-fast", "xformers", "tensorrt"} & lossy


# -- deepcache -----------------------------------------------------------------------------------


def calls(backend: deepcache.DeepCache) -> tuple[int, int]:
    details = backend.evidence().details
    return details["full_steps"], details["shallow_steps"]


def test_deepcache_tells_full_from_shallow_steps(tiny: check.TinyPipeline) -> None:
    needs("DeepCache")
    backend = deepcache.DeepCache()
    assert backend.probe("cpu").supported
    backend.prepare(tiny, deepcache.DeepCacheOptions(cache_interval=3))
    for steps, expected in ((7, (3, 4)), (3, (1, 2)), (4, (2, 2))):
        tiny(steps)
        assert calls(backend) == expected
        assert backend.evidence().fallback is None
    tiny(1)
    assert calls(backend) == (1, 0)
    assert backend.evidence().fallback == (
        "all 1 steps ran the whole UNet, so that nothing was reused"
    )


def test_a_generation_reuses_nothing_of_the_one_before(tiny: check.TinyPipeline) -> None:
    needs("DeepCache")
    import torch

    deepcache.DeepCache().prepare(tiny, deepcache.DeepCacheOptions(cache_interval=2))
    alone = tiny(3)
    tiny(5)
    assert torch.equal(tiny(3), alone)


def test_deepcache_refuses_what_it_would_get_wrong(tiny: check.TinyPipeline) -> None:
    needs("DeepCache")
    backend = deepcache.DeepCache()
    with pytest.raises(UnsupportedPipelineError, match="beyond the 2 blocks"):
        backend.prepare(tiny, deepcache.DeepCacheOptions(cache_block_id=2))
    with pytest.raises(UnsupportedPipelineError, match="no UNet"):
        backend.prepare(SimpleNamespace(transformer=1), deepcache.DeepCacheOptions())
    tiny.scheduler = SimpleNamespace(order=2)
    with pytest.raises(UnsupportedPipelineError, match="twice"):
        backend.prepare(tiny, deepcache.DeepCacheOptions())


# -- torchao -------------------------------------------------------------------------------------


def test_torchao_quantises_linear_layers(tiny: check.TinyPipeline) -> None:
    needs("torchao")
    expected = tiny(2)
    backend = torchao.Torchao()
    assert backend.prepare(tiny, torchao.TorchaoOptions(kind="int8-weights")).compiled == ("unet",)
    layers = backend.evidence().details["layers_quantised"]
    assert layers > 10
    difference = float((tiny(2) - expected).abs().max())
    assert 0 < difference < check.TOLERANCE_LOSSY * float(expected.abs().max())


@pytest.mark.parametrize("kind", ["fp8", "fp8-weights"])
def test_fp8_needs_hardware_that_has_it(kind: Any, tiny: check.TinyPipeline) -> None:
    with pytest.raises(
        UnsupportedPipelineError, match=r"capability 8\.9 or newer, and this is cpu"
    ):
        torchao.Torchao().prepare(tiny, torchao.TorchaoOptions(kind=kind))


def test_fp8_on_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert "cuda:0 has 8.6" in (torchao.fp8_missing("cuda:0") or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert torchao.fp8_missing("cuda:0") is None


# -- the others ----------------------------------------------------------------------------------


def test_probes_say_why_not_on_a_cpu() -> None:
    reason = tensorrt.Tensorrt().probe("cpu").reason
    assert reason == "TensorRT runs on NVIDIA GPUs only, and this is cpu"
    found = xformers.Xformers().probe("cpu")
    assert not found.supported
    if packages.version_of("stable-fast") is None:
        assert stable_fast.StableFast().probe("cpu").reason == "stable-fast is not installed"
    assert not stable_fast.StableFast().probe("mps").supported


def test_tensorrt_passes_its_settings_on() -> None:
    options = tensorrt.TensorrtOptions(min_block_size=3, optimization_level=4)
    assert tensorrt.settings(options) == {
        "min_block_size": 3,
        "workspace_size": 0,
        "pass_through_build_failures": True,
        "optimization_level": 4,
    }


def test_xformers_that_stays_out_is_a_fallback() -> None:
    class Part:
        def __init__(self) -> None:
            self.attn_processors = {"a": SimpleNamespace()}

        def enable_xformers_memory_efficient_attention(self) -> None:
            pass

    backend = xformers.Xformers()
    backend.prepare(SimpleNamespace(unet=Part(), vae=None), NoOptions())
    assert backend.evidence().fallback == "no attention processor of xformers is in place"
    with pytest.raises(UnsupportedPipelineError, match="no switch for xformers"):
        backend.prepare(SimpleNamespace(unet=object()), NoOptions())


def test_stable_fast_refuses_gpu_options_on_a_cpu(tiny: check.TinyPipeline) -> None:
    with pytest.raises(UnsupportedPipelineError, match="enable_cuda_graph needs a GPU"):
        stable_fast.StableFast().prepare(
            tiny, stable_fast.StableFastOptions(enable_cuda_graph=True)
        )
