"""Each technique alone and all together keep the picture, say so, and can be proved."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.worker import evidence, sources, structure
from bench.worker.inputs import prepare as inputs_of
from compilers import attention, inductor, quantise, registry, tuned
from compilers.base import UnsupportedPipelineError, Verdict
from compilers.cuda_graphs import CaptureError
from tests.worker import tiny

pytestmark = pytest.mark.thorough

OFF = {**tuned.OFF, "ship_cache": False}
TASKS = {"sdxl": "text-to-image", "sdxl-pix2pix": "edit", "sd15": "image-to-image"}


@functools.cache
def original(kind: str, dtype: str) -> Any:
    workload = tiny.workload(
        model=f"path:{tiny.shared(kind)}",
        task=TASKS.get(kind, "text-to-image"),
        scheduler=None if kind == "sd3" else "EulerAncestralDiscreteScheduler",
        dtype=dtype,
    )
    return sources.load(workload, "cpu", allow_remote_code=False).pipeline


def load(kind: str, dtype: str = "float32", **changes: Any) -> tuple[Any, Any]:
    pipeline = copy.deepcopy(original(kind, dtype))
    workload = tiny.workload(
        task=TASKS.get(kind, "text-to-image"),
        strength=0.7 if TASKS.get(kind) == "image-to-image" else None,
        dtype=dtype,
        **changes,
    )
    return pipeline, inputs_of(pipeline, workload, "cpu")


def draw(pipeline: Any, inputs: Any) -> Any:
    return np.asarray(pipeline(**inputs.call_kwargs()).images[0]).astype(int)


def prepare(pipeline: Any, name: str = "tuned", **options: Any) -> tuple[Any, Any, Any]:
    backend = registry.get(name)
    before = structure.of(pipeline)
    scope = backend.prepare(pipeline, registry.make_options(backend, options))
    return backend, scope, structure.changed_scopes(before, structure.of(pipeline))


@pytest.fixture(params=list(TASKS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ALONE: list[tuple[dict[str, Any], int, str]] = [
    ({"scheduler": "no-sync"}, 0, "scheduler"),
    ({"scheduler": "fused"}, 1, "scheduler"),
    ({"fuse_qkv": True}, 1, "unet"),
    ({"channels_last": True}, 1, "unet"),
]


@pytest.mark.parametrize(("technique", "allowed", "seen"), ALONE)
def test_a_technique_alone_keeps_the_picture_and_is_seen(
    kind: str, technique: dict[str, Any], allowed: int, seen: str
) -> None:
    expected = draw(*load(kind))
    pipeline, inputs = load(kind)
    backend, scope, changed = prepare(pipeline, **{**OFF, **technique})
    for _ in range(2):
        assert abs(draw(pipeline, inputs) - expected).max() <= allowed
    assert seen in changed
    said = backend.evidence().details["techniques"]
    assert list(said.values()) == ["on"] * len(said)
    judged = evidence.judge(
        "tuned",
        wanted=scope.compiled,
        runtime=backend.evidence().runtime,
        changed=changed,
        counts={},
        entered=("unet", "vae.decode", "text_encoder"),
    )
    assert judged.active, judged.reason


@pytest.mark.parametrize(
    ("alone", "said"),
    [
        ("scheduler", {"scheduler_no_sync", "scheduler_fused"}),
        ("channels_last", {"channels_last"}),
        ("cuda_graphs", {"cuda_graphs"}),
    ],
)
def test_alone_switches_all_others_off(alone: str, said: set[str]) -> None:
    backend, _, _ = prepare(load("sdxl")[0], alone=alone)
    assert set(backend.evidence().details["techniques"]) == said


def test_every_technique_can_be_alone() -> None:
    assert set(typing.get_args(tuned.Technique)) == set(tuned.OFF)
    fields = {field.name: field.default for field in dataclasses.fields(tuned.TunedOptions)}
    for name, off in tuned.OFF.items():
        assert fields[name] != off, "what is off by default would be no technique of tuned"


def test_nothing_asked_for_changes_nothing_and_cannot_be_proved() -> None:
    pipeline, _ = load("sdxl")
    _, scope, changed = prepare(pipeline, **OFF)
    assert (scope.compiled, changed) == ((), ())


def test_what_needs_cuda_is_left_out_on_a_cpu_and_said() -> None:
    pipeline, inputs = load("sdxl")
    expected = draw(pipeline, inputs)
    backend, _, changed = prepare(
        pipeline,
        **{**OFF, "cuda_graphs": True, "cudnn_benchmark": True, "attention": "probe"},
    )
    assert changed == ()
    said = backend.evidence().details["techniques"]
    assert set(said) == {"cuda_graphs", "cudnn_benchmark", "attention probe"}
    assert set(said.values()) == {"left out: it needs CUDA"}
    assert abs(draw(pipeline, inputs) - expected).max() == 0


@pytest.mark.parametrize(("dtype", "kept"), [("float16", "float32"), ("bfloat16", "bfloat16")])
def test_a_held_vae_decodes_as_before_and_is_converted_no_more(dtype: str, kept: str) -> None:
    found = []
    for hold in (False, True):
        pipeline, inputs = load("sdxl", dtype=dtype, steps=2)
        pipeline.vae.register_to_config(force_upcast=True)
        prepare(pipeline, **{**OFF, "hold_vae": hold})
        weight = pipeline.vae.decoder.conv_in.weight
        found.append(draw(pipeline, inputs))
        address = weight.data_ptr()
        assert abs(draw(pipeline, inputs) - found[-1]).max() == 0
        if hold:
            assert weight.data_ptr() == address
            assert weight.dtype == getattr(torch, kept)
            assert pipeline.vae.dtype == getattr(torch, dtype)
    assert abs(found[0] - found[1]).max() == 0


def test_a_vae_that_its_pipeline_decodes_in_half_precision_stays_in_it() -> None:
    found = []
    for hold in (False, True):
        pipeline, inputs = load("sd15", dtype="float16")
        pipeline.vae.register_to_config(force_upcast=True)
        backend, _, _ = prepare(pipeline, **{**OFF, "hold_vae": hold})
        found.append(draw(pipeline, inputs))
    assert abs(found[0] - found[1]).max() == 0
    assert pipeline.vae.decoder.conv_in.weight.dtype == torch.float16
    said = backend.evidence().details["techniques"]["hold_vae"]
    assert said == "left out: this pipeline converts no VAE"


@pytest.mark.parametrize(("dtype", "kept"), [("float16", "float32"), ("bfloat16", "bfloat16")])
def test_encoding_in_full_precision_leaves_the_decoder_as_it_decodes(dtype: str, kept: str) -> None:
    pipeline, _ = load("sdxl", dtype=dtype)
    pipeline.vae.register_to_config(force_upcast=True)
    backend, _, _ = prepare(pipeline, **{**OFF, "hold_vae": True})
    for asked in (torch.float32, getattr(torch, dtype)):  # as image-to-image does to encode
        assert pipeline.vae.to(asked) is pipeline.vae
        assert pipeline.vae.dtype == pipeline.vae.encoder.conv_in.weight.dtype == asked
        assert pipeline.vae.decoder.conv_in.weight.dtype == getattr(torch, kept)
    pipeline.vae.to("meta", dtype=torch.float32)
    assert pipeline.vae.decoder.conv_in.weight.device.type == "meta"
    assert pipeline.vae.decoder.conv_in.weight.dtype == getattr(torch, kept)
    assert backend.evidence().details["techniques"]["hold_vae"] == "on"


def test_a_vae_that_nothing_converts_is_not_held() -> None:
    pipeline, _ = load("sd15")
    backend, _, changed = prepare(pipeline, **{**OFF, "hold_vae": True})
    assert "left out" in backend.evidence().details["techniques"]["hold_vae"]
    assert changed == ()


class Regions:
    """Stands in for torch's compiling: notes what was compiled, and runs it as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compiled: list[tuple[str, dict[str, Any]]] = []

        def compile_module(module: Any, **arguments: Any) -> None:
            self.compiled.append((type(module).__name__, arguments))

        def compile_function(function: Any, **arguments: Any) -> Any:
            self.compiled.append((function.__self__.__class__.__name__, arguments))
            return lambda *args, **kwargs: function(*args, **kwargs)

        monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
        monkeypatch.setattr(torch, "compile", compile_function)


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Regions]:
    import torch._dynamo

    with torch._dynamo.config.patch(recompile_limit=8):
        yield Regions(monkeypatch)


def test_regions_of_every_part_are_compiled_for_each_shape(regions: Regions) -> None:
    import torch._dynamo

    pipeline, inputs = load("sdxl")
    expected = draw(pipeline, inputs)
    backend, scope, _ = prepare(pipeline, autotune=True)
    assert scope.compiled == ("unet", "vae.decode", "text_encoder", "text_encoder_2")
    kinds = {name for name, _ in regions.compiled}
    assert kinds == {"BasicTransformerBlock", "ResnetBlock2D", "CLIPEncoderLayer"}
    assert all(arguments == {"dynamic": False} for _, arguments in regions.compiled)
    inside = [id(module) for module in pipeline.vae.encoder.modules()]
    counted = backend.evidence().details["regions"]
    assert counted["vae.decode"] == sum(
        type(module).__name__ == "ResnetBlock2D" and id(module) not in inside
        for module in pipeline.vae.modules()
    )
    assert torch._dynamo.config.recompile_limit == tuned.RECOMPILES
    assert backend.evidence().runtime == "dynamo"
    assert backend.evidence().details["techniques"]["autotune"] == "left out: it needs CUDA"
    assert abs(draw(pipeline, inputs) - expected).max() <= 1


def test_whole_parts_are_compiled_where_they_are_called(regions: Regions) -> None:
    pipeline, inputs = load("sdxl")
    prepare(pipeline, **{**OFF, "compile": "whole"})
    draw(pipeline, inputs)
    names = [name for name, _ in regions.compiled]
    assert names == [
        "UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel", "CLIPTextModelWithProjection",
    ]  # fmt: skip


def test_a_part_without_known_blocks_is_refused_by_name(regions: Regions) -> None:
    pipeline, _ = load("sdxl")
    pipeline.text_encoder_2 = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedPipelineError, match="text_encoder_2: Linear has none"):
        prepare(pipeline)


def test_parts_that_a_pipeline_lacks_are_left_out() -> None:
    pipeline, _ = load("sd15")
    assert tuned._parts_of(pipeline, ("unet", "vae.decode", "text_encoders")) == (
        "unet", "vae.decode", "text_encoder",
    )  # fmt: skip
    with pytest.raises(UnsupportedPipelineError, match="none of the parts"):
        tuned._parts_of(object(), ("unet", "text_encoders"))


class FakeCuda:
    """A CPU that passes for CUDA: captures are function calls, kernels take what we say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tests.compilers.test_cuda_graphs import Recorder

        self.used: list[str] = []
        monkeypatch.setattr(tuned, "CudaRecorder", lambda device: Recorder())
        monkeypatch.setattr(attention, "use", lambda name, denoiser: self.used.append(name))
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        self.measured = iter(float(10 - i) for i in range(1000))
        monkeypatch.setattr(
            attention, "seconds_of", lambda call, device: next(self.measured)
        )  # fmt: skip

        def two(query: Any, key: Any, value: Any) -> Any:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

        plain = torch.nn.functional.scaled_dot_product_attention
        monkeypatch.setattr(attention, "cuda_candidates", lambda: {"as-is": plain, "flash": two})
        original = attention.probe
        monkeypatch.setattr(
            attention, "probe", lambda shapes, found, device, m: original(shapes, found, "cpu", m)
        )


def as_cuda(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``prepare`` asks for the device once; the calls need the true one again."""
    real = type(pipeline).device
    answers = iter(["cuda:0"])
    monkeypatch.setattr(
        type(pipeline),
        "device",
        property(lambda self: next(answers, None) or real.fget(self)),
    )


def test_on_cuda_parts_are_captured_and_attention_is_chosen_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda(monkeypatch)
    expected = draw(*load(kind))
    pipeline, inputs = load(kind)
    as_cuda(pipeline, monkeypatch)
    backend, scope, changed = prepare(
        pipeline,
        **{**OFF, "cuda_graphs": True, "attention": "probe", "scheduler": "no-sync",
           "cudnn_benchmark": True},
    )  # fmt: skip
    assert set(scope.compiled) <= set(changed)
    for _ in range(2):
        assert abs(draw(pipeline, inputs) - expected).max() <= 1
    assert cuda.used == ["flash"]
    details = backend.evidence().details
    assert details["techniques"]["attention probe"] == "on: flash"
    assert details["attention"]["tried"]["flash"]["error"] < 1e-3
    assert details["cuda_graphs"]["unet"]["captures"] == 1
    steps = 3 if kind != "sd15" else 2
    assert details["cuda_graphs"]["unet"]["replays"] == 2 * steps
    assert [graphs["uncaptured"] for graphs in details["cuda_graphs"].values()] == (
        [{}] * len(scope.compiled)
    )
    assert set(details["cuda_graphs"]) == set(scope.compiled)


def test_a_part_that_cannot_be_captured_runs_as_it_is_and_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.compilers.test_cuda_graphs import Recorder

    FakeCuda(monkeypatch)

    class NoPictures(Recorder):
        def record(self, function: Any) -> Any:
            replay, result = super().record(function)
            if isinstance(result, tuple) and result[0].shape[1:] == (3, 64, 64):
                raise CaptureError("RuntimeError: it waits")
            return replay, result

    monkeypatch.setattr(tuned, "CudaRecorder", lambda device: NoPictures())
    expected = draw(*load("sdxl"))
    pipeline, inputs = load("sdxl")
    as_cuda(pipeline, monkeypatch)
    backend, _, _ = prepare(pipeline, **{**OFF, "cuda_graphs": True})
    for _ in range(2):
        assert abs(draw(pipeline, inputs) - expected).max() <= 1
    assert backend.evidence().details["techniques"]["cuda_graphs"] == (
        "on, but it cannot be captured: RuntimeError: it waits (vae.decode, 2 calls)"
    )


def test_projections_that_cannot_be_fused_are_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise UnsupportedPipelineError("this denoiser has no fused attention projections")

    monkeypatch.setattr(inductor, "arrange_weights", refuse)
    pipeline, _ = load("sdxl")
    backend, scope, _ = prepare(pipeline, **{**OFF, "fuse_qkv": True})
    assert scope.compiled == ()
    assert backend.evidence().details["techniques"]["fuse_qkv"].startswith("left out")


def test_attention_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch)
    pipeline, _ = load("sdxl")
    as_cuda(pipeline, monkeypatch)
    backend, _, _ = prepare(pipeline, **{**OFF, "attention": "flash-3"})
    said = backend.evidence().details["techniques"]["attention flash-3"]
    assert said == "left out: flash_attn_interface is not installed"


def test_step_caching_works_within_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch)
    expected = draw(*load("sdxl", steps=4))
    plain, plain_inputs = load("sdxl", steps=4)
    backend, _, changed = prepare(plain, "tuned-cache", **OFF, interval=2)
    without_graphs = draw(plain, plain_inputs)
    assert backend.lossy
    assert "unet" in changed

    pipeline, inputs = load("sdxl", steps=4)
    as_cuda(pipeline, monkeypatch)
    backend, _, _ = prepare(pipeline, "tuned-cache", **{**OFF, "cuda_graphs": True}, interval=2)
    for _ in range(2):
        assert abs(draw(pipeline, inputs) - without_graphs).max() <= 1
    assert backend.evidence().details["cuda_graphs"]["unet"]["captures"] == 2
    assert backend.evidence().details["techniques"]["step_cache"] == "on"
    assert abs(without_graphs - expected).max() > 1, "the picture changes: it is lossy"


def test_step_caching_begins_anew_with_each_picture_whatever_the_scheduler_keeps() -> None:
    pipeline, inputs = load("sdxl", steps=4)
    prepare(pipeline, "tuned-cache", **{**OFF, "scheduler": "fused"}, interval=3)
    first, *others = (draw(pipeline, inputs) for _ in range(3))
    assert all((other == first).all() for other in others)


def test_step_caching_refuses_what_it_cannot_do() -> None:
    pipeline, _ = load("sd3")
    with pytest.raises(UnsupportedPipelineError, match="step caching"):
        prepare(pipeline, "tuned-cache", **OFF)
    backend = registry.get("tuned-cache")
    with pytest.raises(registry.BackendError, match="interval must be 2 or more"):
        registry.make_options(backend, {"interval": 1})


class TestEightBits:
    def test_without_torchao_the_probe_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "torchao" else find(name)
        )
        for name in ("tuned-fp8", "tuned-int8"):
            verdict = registry.get(name).probe("cpu")
            assert not verdict.supported
            assert "torchao, which is not installed" in (verdict.reason or "")

    def test_devices_without_such_products_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setitem(sys.modules, "torchao.quantization", ModuleType("torchao.quantization"))
        assert "fp8 on cpu" in (quantise.probe("fp8", "cpu").reason or "")
        assert "int8 on mps" in (quantise.probe("int8", "mps").reason or "")
        assert quantise.probe("int8", "cpu") == Verdict(True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        assert "has 8.0" in (quantise.probe("fp8", "cuda:0").reason or "")
        assert quantise.probe("int8", "cuda:0").supported

    def block(self) -> Any:
        class Block(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.large = torch.nn.Linear(64, 64)
                self.narrow = torch.nn.Linear(64, 8)
                self.odd = torch.nn.Linear(64, 72)
                self.norm1 = torch.nn.Sequential(torch.nn.Linear(64, 64))

        return torch.nn.ModuleDict({"block": Block(), "time_embedding": torch.nn.Linear(64, 64)})

    def test_only_large_layers_in_blocks_are_quantised(self) -> None:
        """Each other kind would fail or wait on CUDA, or lose more than it gains."""
        pytest.importorskip("torchao")
        model = self.block()
        value = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
        expected = model["block"].large(value)
        assert quantise.quantise(model, "int8", 32, within={"block"}) == 1
        error = (model["block"].large(value) - expected).abs().max() / expected.abs().max()
        assert 0 < error < 0.05
        linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        changed = [n for n, m in linear.items() if type(m.weight) is not torch.nn.Parameter]
        assert changed == ["block.large"]
        with pytest.raises(UnsupportedPipelineError, match="512 features"):
            quantise.quantise(self.block(), "int8", 512)

    def test_quantising_switches_no_other_tuning_on(self) -> None:
        pytest.importorskip("torchao")
        import torch._inductor.config as config

        with config.patch(coordinate_descent_tuning=False, force_fuse_int_mm_with_mul=False):
            quantise.quantise(self.block(), "int8", 32)
            assert not config.coordinate_descent_tuning
            assert config.force_fuse_int_mm_with_mul

    def test_fp8_asks_for_no_other_tuning_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        quantization = pytest.importorskip("torchao.quantization")
        asked: list[Any] = []
        monkeypatch.setattr(
            quantization, "quantize_", lambda module, config, filter_fn: asked.append(config)
        )
        for dtype, by in ((torch.float16, "PerTensor"), (torch.bfloat16, "PerRow")):
            quantise.quantise(self.block().to(dtype), "fp8", 32)
            assert asked[-1].set_inductor_config is False
            assert by in str(asked[-1].granularity)

    def test_layers_that_see_a_row_a_picture_and_those_outside_of_blocks_are_spared(self) -> None:
        pytest.importorskip("torchao")

        def model() -> Any:
            block = torch.nn.ModuleDict(
                {"time_emb_proj": torch.nn.Linear(64, 64), "ff": torch.nn.Linear(64, 64)}
            )
            return torch.nn.ModuleDict({"block": block, "proj_in": torch.nn.Linear(64, 64)})

        assert quantise.quantise(model(), "int8", 32) == 2
        inside = model()
        assert quantise.quantise(inside, "int8", 32, within={"block"}) == 1
        assert type(inside["block"]["ff"].weight) is not torch.nn.Parameter

    def test_only_what_is_compiled_is_quantised(self, regions: Regions) -> None:
        pytest.importorskip("torchao")
        pipeline, _ = load("sdxl")
        settings = {**OFF, "compile": "regional", "min_features": 16}
        prepare(pipeline, "tuned-int8", **settings)
        for name, part in pipeline.unet.named_modules():
            if isinstance(part, torch.nn.Linear) and type(part.weight) is not torch.nn.Parameter:
                assert "transformer_blocks" in name

    def test_a_pipeline_draws_with_quantised_layers(self) -> None:
        pytest.importorskip("torchao")
        pipeline, inputs = load("sdxl")
        expected = draw(pipeline, inputs)
        backend, _scope, changed = prepare(pipeline, "tuned-int8", **OFF, min_features=16)
        assert backend.lossy
        assert "unet" in changed
        found = draw(pipeline, inputs)
        assert abs(found - expected).max() > 0
        assert abs(found - expected).mean() < 20
        assert backend.evidence().details["quantised_layers"] > 4


class TestShippedCache:
    @pytest.fixture
    def torch_cache(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, regions: Regions
    ) -> list[bytes]:
        loaded: list[bytes] = []
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cell" / "inductor"))
        (tmp_path / "cell" / "inductor").mkdir(parents=True)
        monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"code", None))

        def load(code: bytes) -> object:
            loaded.append(code)
            return None if code == b"garbage" else object()

        monkeypatch.setattr(torch.compiler, "load_cache_artifacts", load)
        # No part of the pipeline is on a GPU: only what is said of the cache is looked at.
        kept = tuned.Tuned._load_cache
        monkeypatch.setattr(
            tuned.Tuned, "_load_cache", lambda self, options, _on_cuda: kept(self, options, True)
        )
        monkeypatch.setattr(tuned, "atexit", SimpleNamespace(register=lambda call: None))
        return loaded

    def test_it_is_kept_beside_the_compile_cache_and_found_again(
        self, torch_cache: list[bytes], tmp_path: Path
    ) -> None:
        first, _, _ = prepare(load("sdxl")[0])
        assert first.evidence().brought_bytes == 0
        kept = tmp_path / "cell" / tuned.ARTIFACTS
        assert kept.read_bytes() == b"code"
        second, _, _ = prepare(load("sdxl")[0])
        assert torch_cache == [b"code"]
        assert second.evidence().brought_bytes == 4

    def test_a_filled_compile_cache_needs_no_shipping(
        self, torch_cache: list[bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "cell" / tuned.ARTIFACTS).write_bytes(b"code")
        (tmp_path / "cell" / "inductor" / "fxgraph").mkdir()
        (tmp_path / "cell" / "inductor" / "fxgraph" / "ab").write_bytes(b"")
        prepare(load("sdxl")[0])
        assert torch_cache == []

    def test_another_machines_file_is_loaded(
        self, torch_cache: list[bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "from-there.bin").write_bytes(b"theirs")
        prepare(load("sdxl")[0], cache_file=str(tmp_path / "from-there.bin"))
        assert torch_cache == [b"theirs"]
        with pytest.raises(FileNotFoundError, match="nowhere"):
            prepare(load("sdxl")[0], cache_file="nowhere.bin")

    def test_a_file_that_is_no_cache_is_refused(
        self, torch_cache: list[bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "cut.bin").write_bytes(b"garbage")
        with pytest.raises(ValueError, match="no compile cache that torch"):
            prepare(load("sdxl")[0], cache_file=str(tmp_path / "cut.bin"))

    def test_what_is_kept_and_unreadable_brings_nothing(
        self, torch_cache: list[bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "cell" / tuned.ARTIFACTS).write_bytes(b"garbage")
        backend, _, _ = prepare(load("sdxl")[0])
        assert backend.evidence().brought_bytes == 0
        assert backend.evidence().details["techniques"]["cache_loaded"].startswith("nothing")

    def test_on_a_cpu_it_does_not_count_as_warm(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "a.bin").write_bytes(b"code")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cell" / "inductor"))
        monkeypatch.setattr(torch.compiler, "load_cache_artifacts", lambda code: object())
        backend = tuned.Tuned()
        options = tuned.TunedOptions(cache_file=str(tmp_path / "a.bin"), ship_cache=False)
        backend._load_cache(options, on_cuda=False)
        assert backend.evidence().brought_bytes == 0
        assert "C++" in backend.evidence().details["techniques"]["cache_loaded"]


def test_the_probe_is_inductors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "probe", lambda device: Verdict(False, f"no {device}"))
    assert registry.get("tuned").probe("cpu") == Verdict(False, "no cpu")


def test_a_region_compiles_for_real_and_torch_counts_it() -> None:
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.reset()
    pipeline, inputs = load("sd15", steps=2)
    expected = draw(pipeline, inputs)
    with (
        torch._dynamo.config.patch(recompile_limit=8),
        torch._inductor.config.patch(compile_threads=1),
    ):
        backend = registry.get("tuned")
        options = registry.make_options(
            backend, {**OFF, "compile": "regional", "parts": ["text_encoders"]}
        )
        proof = evidence.Proof(backend, options, pipeline)
        before = structure.of(pipeline)
        scope = backend.prepare(pipeline, options)
        proof.prepared(scope, structure.changed_scopes(before, structure.of(pipeline)))
        pipeline.text_encoder.register_forward_pre_hook(
            lambda *_: proof.watch.enter("text_encoder")
        )
        pipeline.text_encoder.register_forward_hook(lambda *_: proof.watch.leave("text_encoder"))
        assert abs(draw(pipeline, inputs) - expected).max() <= 1
    proof.watch.settle()
    judged = proof.judge()
    assert (judged.active, judged.scope) == (True, ("text_encoder",))
    torch._dynamo.reset()
