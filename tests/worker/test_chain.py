"""Chains on real diffusers pipelines, tiny or embedded, and what happens when a round fails."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.tasks.base import Run
from bench.tasks.chain import work as chain
from bench.worker import families, pictures, sources
from bench.worker.memory import Meters
from bench.worker.sources import SourceError
from tests.worker import fakes, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.build(kind, root / kind) for kind in ("sdxl", "sd15", "sd15-pix2pix")}


def job(root: Path, model: Path | str, **changes: Any) -> Any:
    asked = {
        "task": "chain",
        "samples": 5,
        "max_batch": 2,
        "batch": 2,
        "start_from": "first",
        "strength": 0.75,
        "scheduler": "DDIMScheduler",
        "warmup": {"stable_pct": 1000.0, "max_calls": 2},
        "calls": {"min_calls": 2, "max_calls": 2},
        **changes,
    }
    name = model if isinstance(model, str) else f"path:{model}"
    return fakes.make_job(root, model=name, **asked)


def run(root: Path, model: Path | str, **changes: Any) -> fakes.Told:
    return fakes.run(job(root, model, **changes))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Any:
    root = tmp_path_factory.mktemp("chain")
    return root, run(root, models["sdxl"], start_from="previous", steps=8)


def test_a_chain_is_one_call_of_all_its_rounds(measured):
    _, told = measured
    assert (told.outcome, told.reason) == ("ok", None)
    assert [each["batch"] for each in told["chain_rounds"]] == [2, 2, 1]
    assert [each["denoiser_calls"] for each in told["chain_rounds"]] == [8, 6, 6]
    assert [each["steps_effective"] for each in told["chain_rounds"]] == [8, 6, 6]
    assert [each["denoiser_batch"] for each in told["chain_rounds"]] == [4, 4, 2]
    assert told["chain_rounds"][1]["pipeline_class"] == "StableDiffusionXLImg2ImgPipeline"
    assert (told["steps_requested"], told["steps_effective"], told["denoiser_calls"]) == (
        24,
        20,
        20,
    )
    assert len(told["e2e_s"]) == 2
    for e2e_s, first, gaps, mean, rate in zip(
        told["e2e_s"],
        told["ttfi_s"],
        told["gaps_s"],
        told["tbb_s"],
        told["images_per_s"],
        strict=True,
    ):
        assert len(gaps) == 2
        assert first + sum(gaps) == pytest.approx(e2e_s)
        assert mean == pytest.approx(sum(gaps) / 2)
        assert rate == pytest.approx(5 / e2e_s)
    for stages, e2e_s in zip(told["stages"], told["e2e_s"], strict=True):
        assert sum(stages.values()) == pytest.approx(e2e_s)
        assert stages["image_encode_s"] > 0
    assert [len(steps) for steps in told["step_s"]] == [7 + 5 + 5] * 2
    assert all(
        reading["phase"] == "warmup" and reading["bytes"]
        for each in told["chain_rounds"]
        for reading in each["memory"]
    )


def test_lineage_leads_to_the_pictures_on_the_disk(measured):
    root, told = measured
    saved = []
    for entry in told["images"]:
        with Image.open(root / entry["path"]) as picture:
            saved.append(pictures.digest(picture))
    lineage = told["lineage"]
    assert [each["sha256"] for each in lineage] == saved
    assert [each["seed"] for each in lineage] == [333, 334, 335, 336, 337]
    assert [each["round"] for each in lineage] == [0, 0, 1, 1, 2]
    assert [each["parent_index"] for each in lineage] == [None, None, 0, 1, 2]
    for each in lineage[2:]:
        assert each["parent_sha256"] == saved[each["parent_index"]]
    assert len(set(saved)) == 5


def test_a_picture_is_what_image_to_image_alone_makes_of_its_parent(measured, models, tmp_path):
    """Nothing leaks from round to round: not the scheduler's state, nor a generator's."""
    root, told = measured
    parent = root / told["images"][2]["path"]
    alone = run(
        tmp_path,
        models["sdxl"],
        task="image-to-image",
        batch=1,
        seed=337,
        steps=8,
        input_image=str(parent),
    )
    assert alone["images"][0]["sha256"] == told["images"][4]["sha256"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("scheduler", "steps", "counts"),
    [
        ("DDIMScheduler", 30, [30, 22]),
        # This model begins with 12 Runge-Kutta calls, 3 steps' worth; 5 of the 29 are cut.
        ("PNDMScheduler", 20, [29, 24]),
        ("HeunDiscreteScheduler", 10, [19, 13]),
    ],
)
def test_calls_are_counted_by_hooks_of_each_round(tmp_path, models, scheduler, steps, counts):
    told = run(
        tmp_path,
        models["sd15"],
        scheduler=scheduler,
        steps=steps,
        samples=2,
        max_batch=1,
        batch=1,
        calls={"min_calls": 1, "max_calls": 1},
    )
    assert told.outcome == "ok"
    assert [each["denoiser_calls"] for each in told["chain_rounds"]] == counts
    assert told["chain_rounds"][1]["pipeline_class"] == "StableDiffusionImg2ImgPipeline"


def test_one_round_has_no_gap(tmp_path, models):
    told = run(tmp_path, models["sdxl"], samples=2, steps=2)
    assert told["tbb_s"] == [None, None]
    assert "one round" in told["null_reasons"]["tbb_s"]
    assert told["gaps_s"] == [[], []]


def test_both_pipelines_call_what_the_backend_changed(models):
    workload = job(Path("."), models["sdxl"])["cell"]["workload"]
    pipeline = sources.load(workload, "cpu", allow_remote_code=False).pipeline
    relative = chain.make_relative(pipeline)
    assert relative.unet is pipeline.unet
    pipeline.unet = type(pipeline.unet).from_config(pipeline.unet.config)
    assert chain.unshared(pipeline, relative, ("unet", "vae.decode")) == ["unet"]
    chain.share(pipeline, relative)
    assert chain.unshared(pipeline, relative, ("unet", "vae.decode")) == []


def test_running_out_of_memory_keeps_the_rounds_before(tmp_path, models, monkeypatch):
    from diffusers import StableDiffusionXLImg2ImgPipeline as Later

    calls = []
    original = Later.__call__

    def runs_out(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return original(self, *args, **kwargs)

    runs_out.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(Later, "__call__", runs_out)
    told = run(tmp_path, models["sdxl"], steps=2)
    assert told.outcome == "oom"
    assert "round 2 of a chain" in str(told.reason)
    assert [each["outcome"] for each in told["chain_rounds"]] == ["ok", "ok", "oom"]
    assert told["chain_rounds"][1]["memory"]
    assert len(told["images"]) == len(told["lineage"]) == 4
    assert all((tmp_path / each["path"]).is_file() for each in told["images"])
    assert told["lineage"][3]["parent_index"] == 1


def test_a_round_is_told_as_it_begins_so_that_a_killed_worker_leaves_it():
    told: list[Any] = []

    class Said:
        phase = "warmup"

        def set(self, **fields: Any) -> None:
            told.append([dict(each) for each in fields["chain_rounds"]])

    class Laps:
        def lap(self, phase: Any) -> Any:
            return []

    made = job(Path("/tmp"), "embedded:sdxl")
    progress = chain.Progress(Run(made, Said(), None, Laps(), {}))  # type: ignore[arg-type]
    first, second, _ = chain.chains.of(made["cell"]["workload"])
    progress.begin_call()
    progress.begin_round(first)
    progress.end_round(first, 4, {4})
    progress.begin_round(second)
    assert [each.get("outcome") for each in told[-1]] == ["ok", None]


@pytest.mark.parametrize("class_name", ["StableDiffusionInstructPix2PixPipeline", "NoSuchPipeline"])
def test_a_class_that_cannot_is_refused(class_name):
    with pytest.raises(SourceError):
        chain.Chain.pipeline_class(class_name, 4)


def test_a_class_without_relative_is_refused_with_the_reason():
    with pytest.raises(SourceError) as error:
        chain.Chain.pipeline_class("PixArtAlphaPipeline", 4)
    assert "cannot do a chain, whose later rounds are image-to-image" in str(error.value)


def test_relatives_of_other_names_are_found_where_diffusers_files_them():
    found = families.pipeline_class("KandinskyV22CombinedPipeline", "image-to-image", 4)
    assert found.__name__ == "KandinskyV22Img2ImgCombinedPipeline"


def test_a_lap_ends_a_round_and_not_the_phase(monkeypatch):
    import torch

    peaks = iter([9, 4, 6])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 2))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", list)
    meters = Meters("cuda:0")

    def allocated(readings: Any) -> int:
        return next(r["bytes"] for r in readings if r["meter"] == "torch.max_memory_allocated")

    meters.start()
    assert [allocated(meters.lap("warmup")), allocated(meters.lap("warmup"))] == [9, 4]
    assert allocated(meters.read("warmup")) == 9


def test_ddim_does_not_clip_latents(models):
    workload = job(Path("."), "embedded:sdxl")["cell"]["workload"]
    pipeline = sources.load(workload, "cpu", allow_remote_code=False).pipeline
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    assert pipeline.scheduler.config.clip_sample is False
