"""Whole cells on real diffusers pipelines, tiny and with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.worker import pictures
from tests import plugin_backend
from tests.plugin_backend.plugin_backend import limits
from tests.worker import fakes, tiny

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.build(kind, root / kind) for kind in ("sdxl", "sd15-pix2pix", "sd15")}


@pytest.fixture(autouse=True)
def _clean() -> Any:
    import torch
    import torch._dynamo

    threads = torch.get_num_threads()
    torch._dynamo.reset()
    config = torch._dynamo.config
    changed = (*limits(), "suppress_errors")
    with config.patch({name: getattr(config, name) for name in changed}):
        yield
    torch.set_num_threads(threads)


def run(root: Path, model: Path, **job: Any) -> fakes.Told:
    # Tiny calls jitter on a busy machine: what is tested here is not how stable they are.
    loose = {"warmup": {"stable_pct": 1000.0}} | job
    return fakes.run(fakes.make_job(root, model=f"path:{model}", **loose))


def numbers(told: fakes.Told) -> tuple[Any, ...]:
    return tuple(
        told[field]
        for field in ("steps_requested", "steps_effective", "denoiser_calls", "denoiser_batch")
    )


def test_text_to_image(tmp_path, models):
    told = run(tmp_path, models["sdxl"], steps=4)
    assert (told.outcome, told.reason) == ("ok", None)
    assert numbers(told) == (4, 4, 4, 2)
    assert [len(steps) for steps in told["step_s"]] == [3, 3, 3]
    assert told["pipeline_class"] == "StableDiffusionXLPipeline"
    assert "input_images" not in told
    for stages, e2e_s in zip(told["stages"], told["e2e_s"], strict=True):
        assert sum(stages.values()) == pytest.approx(e2e_s)
        for stage in ("text_encode_s", "denoise_s", "vae_decode_s", "post_s", "unaccounted_s"):
            assert 0 < stages[stage] < e2e_s, stage
        assert stages["image_encode_s"] == 0.0
        assert stages["denoise_s"] >= sum(told["step_s"][0][:1])
    (image,) = told["images"]
    assert (tmp_path / image["path"]).is_file()


def test_two_runs_give_the_same_picture(tmp_path, models):
    digests = {run(tmp_path / str(n), models["sdxl"])["images"][0]["sha256"] for n in range(2)}
    assert len(digests) == 1


def test_heun_at_ten_steps_makes_nineteen_calls(tmp_path, models):
    told = run(tmp_path, models["sdxl"], steps=10, scheduler="HeunDiscreteScheduler")
    assert numbers(told) == (10, 10, 19, 2)
    assert told.outcome == "ok"


def test_image_to_image_at_strength_0_3_takes_9_of_30_steps(tmp_path, models):
    told = run(tmp_path, models["sdxl"], task="image-to-image", steps=30, strength=0.3)
    assert numbers(told) == (30, 9, 9, 2)
    (path,) = told["input_images"]
    with Image.open(tmp_path / path) as drawn:
        assert pictures.digest(drawn) == told["input_sha256"]
    assert all(stages["image_encode_s"] > 0 for stages in told["stages"])


def test_guidance_of_one_halves_the_batch(tmp_path, models):
    assert numbers(run(tmp_path, models["sdxl"], guidance=1.0))[3] == 1
    assert numbers(run(tmp_path, models["sdxl"], batch=2, guidance=5.0))[3] == 4


def test_instruct_pix2pix_runs_the_unet_at_batch_three(tmp_path, models):
    told = run(tmp_path, models["sd15-pix2pix"], task="edit")
    assert told.outcome == "ok"
    assert numbers(told) == (4, 4, 4, 3)


def test_a_batch_has_a_picture_for_each_seed(tmp_path, models):
    told = run(tmp_path, models["sdxl"], batch=2)
    assert [image["seed"] for image in told["images"]] == [333, 334]
    assert len({image["sha256"] for image in told["images"]}) == 2


def test_a_transformer_pipeline(tmp_path):
    told = run(tmp_path, tiny.shared("flux"))
    assert told.outcome == "ok"
    assert numbers(told)[:3] == (4, 4, 4)


def test_nan_weights_are_invalid(tmp_path, models, monkeypatch):
    import torch

    from bench.worker import sources

    load = sources.load

    def broken(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        torch.nn.init.constant_(loaded.pipeline.unet.conv_out.weight, float("nan"))
        return loaded

    monkeypatch.setattr(sources, "load", broken)
    told = run(tmp_path, models["sdxl"])
    assert told.outcome == "invalid"
    assert "NaN" in (told.reason or "")


def test_a_folder_that_is_not_there(tmp_path):
    told = run(tmp_path, tmp_path / "nothing")
    assert told.outcome in ("failed", "unavailable")
    assert told.reason


class TestProof:
    @pytest.fixture(autouse=True)
    def _plugins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(plugin_backend.install(tmp_path / "plugins")))

    def test_each_scope_is_proved_by_its_own_graphs(self, tmp_path, models):
        scope = ["vae.decode", "text_encoder_2"]
        told = run(tmp_path, models["sdxl"], backend="plugin-good", options={"scope": scope})
        assert (told.outcome, told.reason) == ("ok", None)
        assert told["backend"]["scope"] == scope
        by_scope = told["backend"]["evidence"]["by_scope"]
        assert all(by_scope[part]["graphs"] >= 1 for part in scope)
        assert "text_encoder" not in by_scope
        assert numbers(told) == (4, 4, 4, 2)

    def test_counting_calls_breaks_no_graph(self, tmp_path, models):
        told = run(tmp_path, models["sd15"], backend="plugin-good", options={"fullgraph": True})
        assert (told.outcome, told.reason) == ("ok", None)
        assert told["backend"]["evidence"]["graphs"] == 1
        assert told["backend"]["evidence"]["graph_breaks"] == 0

    def test_a_scope_that_the_task_does_not_use_is_a_warning(self, tmp_path, models):
        scope = ["text_encoder", "vae.encode"]
        told = run(tmp_path, models["sd15"], backend="plugin-good", options={"scope": scope})
        assert told.outcome == "ok"
        assert told["backend"]["scope"] == ["text_encoder"]
        assert any("vae.encode" in text for text in told["warnings"])

    def test_wrapping_the_vae_is_a_fallback_that_names_decode(self, tmp_path, models):
        told = run(tmp_path, models["sd15"], backend="plugin-wrong-vae")
        assert told.outcome == "fallback"
        assert "vae.decode" in (told.reason or "")
        assert told["backend"]["scope"] == ["text_encoder"]

    def test_recompiling_while_measured_is_invalid(self, tmp_path, models):
        told = run(tmp_path, models["sd15"], backend="plugin-restless")
        assert told.outcome == "invalid"
        assert "compiled 12 more time(s) during the measured calls" in (told.reason or "")
        assert len(told["e2e_s"]) == 3

    def test_graph_breaks_are_counted_with_their_reason(self, tmp_path, models):
        told = run(tmp_path, models["sd15"], backend="plugin-breaks")
        evidence = told["backend"]["evidence"]
        assert told.outcome == "ok"
        assert evidence["graph_breaks"] == 1
        assert evidence["graphs"] == 2
        assert sum(entry["count"] for entry in evidence["graph_break_reasons"]) == 1

    def test_a_swallowed_compile_error_is_a_fallback(self, tmp_path, models):
        told = run(tmp_path, models["sd15"], backend="plugin-suppresses")
        assert told.outcome == "fallback"
        assert "BackendCompilerFailed" in (told.reason or "")

    @pytest.mark.parametrize("name", ["plugin-silent", "plugin-liar"])
    def test_a_backend_that_stays_eager_is_a_fallback(self, tmp_path, models, name):
        told = run(tmp_path, models["sd15"], backend=name)
        assert told.outcome == "fallback"
        assert told["backend"]["active"] is False

    def test_torch_compile_switched_off_is_a_fallback(self, tmp_path, models):
        import torch

        with torch._dynamo.config.patch(disable=True):
            told = run(tmp_path, models["sd15"], backend="plugin-good")
        assert told.outcome == "fallback"


def test_regional_compilation_and_a_warm_cache(tmp_path, models, monkeypatch):
    import diffusers
    import torch
    import torch._inductor.config

    # In this process: starting helpers that import torch takes longer than these few kernels.
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    first = run(tmp_path, models["sdxl"], backend="torch-compile-regional")
    if not hasattr(diffusers.ModelMixin, "compile_repeated_blocks"):
        assert first.outcome == "unsupported"
        assert "needs diffusers 0.35 or newer" in (first.reason or "")
        return
    assert (first.outcome, first.reason) == ("ok", None)
    assert first["cache"] == "fresh"
    assert first["backend"]["scope"] == ["unet"]
    evidence = first["backend"]["evidence"]
    assert evidence["by_scope"]["unet"]["graphs"] >= 1
    assert "modules compiled in place" in evidence["modules"]["unet"]
    assert numbers(first) == (4, 4, 4, 2)

    torch._dynamo.reset()
    warm = run(tmp_path, models["sdxl"], backend="torch-compile-regional", cache="warm")
    assert warm.outcome == "ok"
    assert warm["cache"] == "warm"
    assert warm["backend"]["evidence"]["compile_cache"]["hits"] >= 1
    assert warm["compile_s"] < first["compile_s"]
    assert warm["images"][0]["sha256"] == first["images"][0]["sha256"]
