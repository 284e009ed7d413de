"""The probe tells the truth, and the wrapping is where pipelines call."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compilers import inductor, registry
from compilers.base import UnsupportedPipelineError


def refuse(device: str = "cpu") -> str:
    verdict = inductor.probe(device)
    assert not verdict.supported
    assert verdict.reason
    return verdict.reason


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_cpu_is_supported_with_a_compiler_that_works() -> None:
    assert inductor.probe("cpu").supported


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no C++ compiler is installed" in refuse()


def test_a_compiler_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert "/nowhere/g++" in refuse()


def test_a_compiler_that_fails_is_said_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'cannot find crtbeginS.o' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert "cannot find crtbeginS.o" in refuse()


def test_missing_headers_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert "Python.h" in refuse()


def test_a_torch_that_does_not_support_this_python_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo.eval_frame

    def check() -> None:
        raise RuntimeError("Python 3.99+ not yet supported for torch.compile")

    monkeypatch.setattr(torch._dynamo.eval_frame, "check_if_dynamo_supported", check)
    assert "Python 3.99+" in refuse()


def test_a_torch_without_compile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delattr(torch, "compile")
    assert "2.0 or newer" in refuse()


def test_mps_is_refused() -> None:
    assert "mps" in refuse("mps")


def test_cuda_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in refuse("cuda:0")


@pytest.mark.parametrize(
    ("triton", "capability", "words"),
    [(None, (9, 0), "Triton, which is not installed"), (object(), (6, 1), "has 6.1")],
)
def test_cuda_needs_triton_and_a_device_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, triton: Any, capability: tuple[int, int], words: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: triton)
    assert words in refuse("cuda:0")


def test_regional_needs_a_diffusers_with_repeated_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = registry.get("torch-compile-regional")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.34.2")
    verdict = backend.probe("cpu")
    assert not verdict.supported
    assert "0.35" in (verdict.reason or "")
    assert "0.34.2" in (verdict.reason or "")


class TestPrepare:
    """What is handed to torch.compile, and where the result is put."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
        import torch

        made: list[tuple[Any, dict[str, Any]]] = []

        def compile_(target: Any, **arguments: Any) -> Any:
            made.append((target, arguments))
            return SimpleNamespace(of=target, register_forward_hook=None)

        monkeypatch.setattr(torch, "compile", compile_)
        return made

    def pipeline(self) -> Any:
        vae = SimpleNamespace(decode=lambda z: z, encode=lambda x: x)
        return SimpleNamespace(unet=object(), vae=vae, device="cpu", text_encoder=object())

    def prepare(self, pipeline: Any, **options: Any) -> Any:
        backend = registry.get("torch-compile")
        return backend.prepare(pipeline, registry.make_options(backend, options))

    def test_the_default_is_the_denoiser(self, calls: list[Any]) -> None:
        pipeline = self.pipeline()
        unet = pipeline.unet
        assert self.prepare(pipeline).compiled == ("unet",)
        assert pipeline.unet.of is unet
        assert calls[0][1] == {"mode": "default", "dynamic": None, "fullgraph": False}

    def test_the_vae_is_compiled_by_method(self, calls: list[Any]) -> None:
        pipeline = self.pipeline()
        vae, decode, encode = pipeline.vae, pipeline.vae.decode, pipeline.vae.encode
        scope = self.prepare(pipeline, scope=["vae.decode"], fullgraph=True, dynamic=False)
        assert scope.compiled == ("vae.decode",)
        assert pipeline.vae is vae
        assert pipeline.vae.decode.of is decode
        assert pipeline.vae.encode is encode
        assert calls == [(decode, {"mode": "default", "dynamic": False, "fullgraph": True})]

    def test_a_part_that_is_missing_is_refused_before_anything_is_compiled(
        self, calls: list[Any]
    ) -> None:
        with pytest.raises(UnsupportedPipelineError, match="text_encoder_2"):
            self.prepare(self.pipeline(), scope=["unet", "text_encoder_2"])
        assert calls == []

    def test_projections_that_cannot_be_fused_are_refused(self, calls: list[Any]) -> None:
        with pytest.raises(UnsupportedPipelineError, match="fuse_qkv"):
            self.prepare(self.pipeline(), fuse_qkv=True)

    def test_weights_are_arranged_before_compiling(self, calls: list[Any]) -> None:
        import torch

        class Unet(torch.nn.Module):
            fused = False

            def __init__(self) -> None:
                super().__init__()
                self.conv = torch.nn.Conv2d(3, 3, 3)

            def fuse_qkv_projections(self) -> None:
                self.fused = True

        pipeline = self.pipeline()
        unet = pipeline.unet = Unet()
        self.prepare(pipeline, channels_last=True, fuse_qkv=True)
        assert unet.fused
        assert unet.conv.weight.is_contiguous(memory_format=torch.channels_last)

    def test_regional_refuses_a_denoiser_without_repeated_blocks(self) -> None:
        backend = registry.get("torch-compile-regional")
        with pytest.raises(UnsupportedPipelineError, match="no repeated blocks"):
            backend.prepare(self.pipeline(), backend.options())


class TestCudaGraphs:
    """Replays overwrite what they returned before: results are copied, generations are marked."""

    def test_only_modes_that_replay_graphs_on_cuda_are_guarded(self) -> None:
        cuda, cpu = SimpleNamespace(device="cuda:0"), SimpleNamespace(device="cpu")
        assert inductor.uses_cuda_graphs(cuda, "reduce-overhead")
        assert inductor.uses_cuda_graphs(cuda, "max-autotune")
        assert not inductor.uses_cuda_graphs(cuda, "max-autotune-no-cudagraphs")
        assert not inductor.uses_cuda_graphs(cuda, "default")
        assert not inductor.uses_cuda_graphs(cpu, "reduce-overhead")

    @pytest.fixture
    def marks(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        import torch

        made: list[str] = []
        monkeypatch.setattr(
            torch.compiler, "cudagraph_mark_step_begin", lambda: made.append("mark")
        )
        return made

    def test_results_outlive_the_next_replay(self, marks: list[str]) -> None:
        import torch

        static = torch.zeros(2)

        class Distribution:
            def __init__(self) -> None:
                self.mean = static
                self.deterministic = False

        def replay(value: float) -> Any:
            static.fill_(value)
            return static, [static], {"sample": static}, Distribution(), "text", None

        owned = inductor.own_outputs(replay)
        first = owned(1.0)
        owned(2.0)
        tensors = (first[0], first[1][0], first[2]["sample"], first[3].mean)
        assert [tensor.tolist() for tensor in tensors] == [[1.0, 1.0]] * 4
        assert first[4:] == ("text", None)
        assert marks == ["mark"] * 2

    def test_the_same_for_a_module(self, marks: list[str]) -> None:
        import torch

        class Replay(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.static = torch.zeros(2)

            def forward(self, value: float) -> Any:
                self.static.fill_(value)
                return (self.static,)

        module = Replay()
        inductor.own_outputs(module)
        first = module(1.0)
        module(2.0)
        assert first[0].tolist() == [1.0, 1.0]
        assert marks == ["mark"] * 2
