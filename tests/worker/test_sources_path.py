"""``path:`` on real, tiny diffusers folders: what loads, and what is said of what does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.worker import sources
from bench.worker.sources import Loaded, SourceError, path
from tests.worker import tiny

UNET = "diffusion_pytorch_model"


@pytest.fixture
def sd15(tmp_path: Path) -> Path:
    """A copy of the tiny SD 1.x folder that a test may damage."""
    return shutil.copytree(tiny.shared("sd15"), tmp_path / "sd15")


def load(folder: Any, *, allow_remote_code: bool = False, **changes: Any) -> Loaded:
    given = tiny.workload(model=f"path:{folder}", **changes)
    return sources.load(given, "cpu", allow_remote_code=allow_remote_code)


def refusal(folder: Any, **changes: Any) -> str:
    with pytest.raises(SourceError) as caught:
        load(folder, **changes)
    message = str(caught.value)
    assert "Traceback" not in message
    assert "\n" not in message
    return message


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("model", ["sdxl", "file:x", "hub:", "path: ", ""])
def test_a_model_without_a_source_is_refused(model):
    with pytest.raises(SourceError, match="names no source"):
        sources.load(tiny.workload(model=model), "cpu", allow_remote_code=False)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "task", "expected"),
    [
        ("sd15", "text-to-image", "StableDiffusionPipeline"),
        ("sd15", "image-to-image", "StableDiffusionImg2ImgPipeline"),
        ("sd15-pix2pix", "edit", "StableDiffusionInstructPix2PixPipeline"),
        ("sdxl", "text-to-image", "StableDiffusionXLPipeline"),
        ("sdxl", "image-to-image", "StableDiffusionXLImg2ImgPipeline"),
        ("sdxl-pix2pix", "edit", "StableDiffusionXLInstructPix2PixPipeline"),
        ("sd3", "text-to-image", "StableDiffusion3Pipeline"),
        ("sd3", "image-to-image", "StableDiffusion3Img2ImgPipeline"),
        ("flux", "text-to-image", "FluxPipeline"),
        ("flux", "image-to-image", "FluxImg2ImgPipeline"),
        ("pixart", "text-to-image", "PixArtAlphaPipeline"),
    ],
)
def test_the_task_chooses_the_class(kind, task, expected):
    loaded = load(tiny.shared(kind), task=task)
    assert type(loaded.pipeline).__name__ == expected
    assert not loaded.synthetic
    assert loaded.revision is not None
    assert loaded.revision.startswith("folder-")
    assert loaded.download_s == 0


@pytest.mark.parametrize(
    ("kind", "task", "reason"),
    [
        ("ddpm", "text-to-image", "takes no prompt"),
        ("sd15", "edit", "this one has 4"),
        ("sd3", "edit", "takes no input picture"),
        ("pixart", "image-to-image", "takes no input picture"),
        ("sd15-pix2pix", "text-to-image", "cannot do text-to-image"),
        ("sd15-pix2pix", "image-to-image", "task: edit"),
        ("sdxl-pix2pix", "text-to-image", "task: edit"),
    ],
)
def test_a_class_that_cannot_do_the_task_is_refused(kind, task, reason):
    assert reason in refusal(tiny.shared(kind), task=task)


def test_a_pix2pix_unet_under_a_text_to_image_class_edits(tmp_path):
    folder = shutil.copytree(tiny.shared("sd15-pix2pix"), tmp_path / "model")
    edit_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    loaded = load(folder, task="edit")
    assert type(loaded.pipeline).__name__ == "StableDiffusionInstructPix2PixPipeline"


@pytest.mark.parametrize(
    "class_name",
    [
        "TextToVideoSDPipeline",
        "StableVideoDiffusionPipeline",
        "AudioLDM2Pipeline",
        "KandinskyPipeline",
    ],
)
def test_other_kinds_of_pipeline_are_refused_by_name(sd15, class_name):
    edit_json(sd15 / "model_index.json", _class_name=class_name)
    assert f"{class_name} cannot do text-to-image: it" in refusal(sd15)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_module_has_the_asked_dtype(dtype, tmp_path):
    half = load(tiny.shared("sdxl"), dtype="float16").pipeline
    half.save_pretrained(str(tmp_path))
    pipeline = load(tmp_path, dtype=dtype).pipeline
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        assert {p.dtype for p in getattr(pipeline, name).parameters()} == {getattr(torch, dtype)}


def test_a_relative_folder_counts_from_here(monkeypatch, sd15):
    monkeypatch.chdir(sd15.parent)
    assert load("sd15").revision == load(sd15).revision
    assert str(sd15.parent / "sd16") in refusal("sd16")
    assert "(nearest: sd15)" in refusal("sd16")


def test_the_progress_bar_is_off(sd15, capsys):
    pipeline = load(sd15).pipeline
    capsys.readouterr()
    pipeline("a house", num_inference_steps=1, height=64, width=64)
    assert "it/s" not in capsys.readouterr().err


def test_a_folder_of_pipelines_names_the_one_inside(sd15):
    message = refusal(sd15.parent)
    assert "has no model_index.json; did you mean sd15 inside it?" in message


def test_one_component_is_no_pipeline(sd15):
    assert "one component" in refusal(sd15 / "unet")


def test_an_empty_folder(tmp_path):
    assert "has no model_index.json." in refusal(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "v1-5.ckpt"])
def test_a_single_file_is_told_how_to_become_a_folder(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert "from_single_file" in refusal(tmp_path / name)
    assert "from_single_file" in refusal(tmp_path)


def test_any_other_file(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    assert "is a file" in refusal(tmp_path / "notes.md")


def test_an_unreadable_folder(sd15, monkeypatch):
    def denied(self: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be read: Permission denied" in refusal(sd15)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_class_name": 3}', "\x00"])
def test_a_broken_index(sd15, text):
    (sd15 / "model_index.json").write_text(text)
    assert "model_index.json" in refusal(sd15)


def test_pickled_weights_are_never_read(sd15):
    safe = sd15 / "unet" / f"{UNET}.safetensors"
    torch.save(load_file(safe), sd15 / "unet" / f"{UNET}.bin")
    assert load(sd15).pipeline is not None
    safe.unlink()
    message = refusal(sd15)
    assert f"no safetensors for unet, only {UNET}.bin" in message


def test_missing_weights_and_missing_components(sd15):
    (sd15 / "unet" / f"{UNET}.safetensors").unlink()
    assert "no weights in unet/" in refusal(sd15)
    shutil.rmtree(sd15 / "unet")
    assert "unet/ is missing" in refusal(sd15)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_truncated_weights(sd15, keep):
    file = sd15 / "unet" / f"{UNET}.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    message = refusal(sd15)
    assert f"unet/{UNET}.safetensors is" in message
    assert "truncated" in message or "damaged" in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<html>not found</html>" * 10, "truncated or no safetensors"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "no safetensors file"),
        (b'\x0b\x00\x00\x00\x00\x00\x00\x00{"a": null}', "no safetensors file"),
    ],
)
def test_other_files_by_the_name_of_weights(sd15, content, reason):
    (sd15 / "vae" / f"{UNET}.safetensors").write_bytes(content)
    assert reason in refusal(sd15)


def test_weights_of_another_shape_are_one_sentence(sd15):
    edit_json(sd15 / "unet" / "config.json", block_out_channels=[16, 64])
    assert "cannot be loaded as StableDiffusionPipeline" in refusal(sd15)


def test_running_out_of_memory_is_not_a_broken_folder(sd15, monkeypatch):
    import diffusers

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        load(sd15)


def test_unknown_classes_get_the_nearest_known(sd15):
    edit_json(sd15 / "model_index.json", _class_name="StableDiffusionPipelin")
    assert "(nearest: StableDiffusionPipeline" in refusal(sd15)
    edit_json(
        sd15 / "model_index.json",
        _class_name="StableDiffusionPipeline",
        unet=["diffusers", "UNet2DConditionalModel"],
    )
    message = refusal(sd15)
    assert "unet is a UNet2DConditionalModel" in message
    assert "UNet2DConditionModel" in message


def test_code_in_the_folder_runs_only_if_allowed(sd15, tmp_path):
    witness = tmp_path / "ran"
    (sd15 / "my_pipeline.py").write_text(
        "from pathlib import Path\n"
        "from diffusers import StableDiffusionPipeline\n"
        f"Path({str(witness)!r}).touch()\n"
        "class MyPipeline(StableDiffusionPipeline):\n"
        "    pass\n"
    )
    edit_json(sd15 / "model_index.json", _class_name=["my_pipeline", "MyPipeline"])
    message = refusal(sd15)
    assert "my_pipeline.py" in message
    assert "allow_remote_code: true" in message
    assert not witness.exists()
    loaded = load(sd15, allow_remote_code=True)
    assert type(loaded.pipeline).__name__ == "MyPipeline"
    assert witness.exists()


def test_code_beside_a_component_counts_too(sd15):
    (sd15 / "unet" / "my_unet.py").write_text("class MyUNet: pass\n")
    edit_json(sd15 / "model_index.json", unet=["my_unet", "MyUNet"])
    assert "unet/my_unet.py" in refusal(sd15)


def test_variants(sd15):
    assert "has no variant 'fp16': it has none" in refusal(sd15, variant="fp16")
    half = load(sd15, dtype="float16").pipeline
    half.save_pretrained(str(sd15), variant="fp16")
    assert load(sd15, variant="fp16", dtype="float16").pipeline.unet.dtype == torch.float16
    assert "has no variant 'bf16': it has fp16" in refusal(sd15, variant="bf16")
    (sd15 / "unet" / f"{UNET}.safetensors").unlink()
    assert "has unet as variant fp16 only: set variant: fp16" in refusal(sd15)


def test_parts_of_weights_must_be_complete(sd15):
    file = sd15 / "unet" / f"{UNET}.safetensors"
    state = load_file(file)
    file.unlink()
    save_file(state, sd15 / "unet" / f"{UNET}-00001-of-00002.safetensors")
    assert "1 of 2 parts" in refusal(sd15)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("diffusion_pytorch_model.safetensors", None),
        ("model.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "fp16"),
        ("diffusion_pytorch_model-00001-of-00002.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model-00001-of-00002.safetensors", None),
        ("diffusion_pytorch_model.bin", ""),
        ("config.json", ""),
        ("sdxl_base.safetensors", ""),
    ],
)
def test_variant_of_a_file_name(name, variant):
    assert path.variant_of(name) == variant


def test_schedulers_are_swapped_by_name_and_keep_their_settings():
    pipeline = load(tiny.shared("sdxl"), scheduler="EulerAncestralDiscreteScheduler").pipeline
    assert type(pipeline.scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear"
    assert pipeline.scheduler.config.timestep_spacing == "trailing"


@pytest.mark.parametrize(
    ("kind", "scheduler", "reason"),
    [
        ("sdxl", "EulerAncestralScheduler", "EulerAncestralDiscreteScheduler"),
        ("sdxl", "StableDiffusionPipeline", "is no scheduler of diffusers"),
        ("sdxl", "FlowMatchEulerDiscreteScheduler", "without flow matching"),
        ("sd3", "EulerDiscreteScheduler", "with flow matching"),
    ],
)
def test_schedulers_that_do_not_fit(kind, scheduler, reason):
    assert reason in refusal(tiny.shared(kind), scheduler=scheduler)


def test_tokens_are_taken_out_of_messages():
    secret = "hf_" + "A1b2" * 8
    error = ValueError(f"GET https://me:pw@host/x?sig=abc failed, Bearer {secret}, token={secret}")
    shown = sources.one_line(error)
    for hidden in (secret, "me:pw", "sig=abc"):
        assert hidden not in shown
