"""LoRA, ControlNet and custom pipelines on the embedded model: what is found in the pipeline."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.worker import control, scenes
from bench.worker.sources import SourceError, additions
from tests.worker import fakes

pytestmark = pytest.mark.thorough

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed"
)


def run(root: Path, *, allow_remote_code: bool = False, **changes: Any) -> fakes.Told:
    asked = {
        "model": "embedded:sdxl",
        "height": 128,
        "width": 128,
        "steps": 4,
        "guidance": 5.0,
        "warmup": {"min_calls": 2, "max_calls": 2, "stable_pct": 1000.0},
        "calls": {"min_calls": 1, "max_calls": 1},
    }
    job = fakes.make_job(root, **asked | changes)
    job["cell"]["allow_remote_code"] = allow_remote_code
    return fakes.run(job)


def pixels(root: Path, told: fakes.Told) -> Any:
    return np.asarray(Image.open(root / told["images"][0]["path"]), dtype=float)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, fakes.Told]]:
    """One cell of each kind."""
    found = {}
    for name, changes in {
        "plain": {},
        "fused": {"lora": "embedded:sepia"},
        "unfused": {"lora": "embedded:sepia", "lora_fused": False},
        "control": {"controlnet": "embedded:edges"},
        "control-i2i": {
            "controlnet": "embedded:edges",
            "task": "image-to-image",
            "strength": 0.8,
            "control_scale": 0.5,
            "batch": 2,
        },
    }.items():
        if "lora" in changes and importlib.util.find_spec("peft") is None:
            continue
        root = tmp_path_factory.mktemp(name)
        found[name] = root, run(root, **changes)
    return found


def test_without_additions_nothing_is_said_of_them(ran):
    _, told = ran["plain"]
    assert told.outcome == "ok"
    assert not {"lora", "controlnet", "control_images", "custom_pipeline"} & set(told)


@needs_peft
@pytest.mark.parametrize("kind", ["fused", "unfused"])
def test_a_lora_changes_the_layers_it_says(ran, kind):
    root, told = ran[kind]
    assert (told.outcome, told.reason) == ("ok", None)
    lora = told["lora"]
    assert lora["fused"] is (kind == "fused")
    assert lora["layers"] == lora["layers_changed"] == lora["layers_changed_by_part"]["unet"]
    assert lora["keys"] == lora["keys_used"] == 2 * lora["layers"]
    file = additions.embedded_file("sepia")
    assert lora["content"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["additions_content"] == f"lora:{lora['content'][:16]}"
    plain_root, plain = ran["plain"]
    assert np.abs(pixels(root, told) - pixels(plain_root, plain)).mean() > 5


@needs_peft
def test_fused_and_unfused_draw_the_same_picture(ran):
    one, other = (pixels(*ran[kind]) for kind in ("fused", "unfused"))
    assert np.abs(one - other).max() <= 2


def test_a_control_net_steers_and_its_picture_is_kept(ran):
    root, told = ran["control"]
    assert (told.outcome, told.reason) == ("ok", None)
    assert told["pipeline_class"] == "StableDiffusionXLControlNetPipeline"
    (kept,) = told["control_images"]
    steering = Image.open(root / kept).convert("RGB")
    assert told["control_sha256"] == hashlib.sha256(steering.tobytes()).hexdigest()
    assert "input_sha256" not in told
    assert told["stages"][0]["denoise_s"] > 0

    def hit(of: Any) -> float:
        """Share of the outlines of the control picture that a picture has, within 2 pixels."""
        wanted = np.asarray(steering)[..., 0] > 0
        has = np.asarray(control.edges(Image.fromarray(of.astype(np.uint8))))[..., 0] > 0
        near = np.zeros_like(has)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                near |= np.roll(has, (dy, dx), (0, 1))
        return float((wanted & near).sum() / wanted.sum())

    assert hit(pixels(root, told)) > 0.6
    assert hit(pixels(root, told)) > hit(pixels(*ran["plain"])) + 0.15


def test_image_to_image_has_both_pictures_for_each_of_a_batch(ran):
    root, told = ran["control-i2i"]
    assert (told.outcome, told.reason) == ("ok", None)
    assert told["pipeline_class"] == "StableDiffusionXLControlNetImg2ImgPipeline"
    assert len(told["input_images"]) == len(told["control_images"]) == 2
    for given, steering in zip(told["input_images"], told["control_images"], strict=True):
        drawn = control.edges(Image.open(root / given))
        assert drawn.tobytes() == Image.open(root / steering).convert("RGB").tobytes()


def test_a_control_picture_of_the_user_is_fitted(tmp_path):
    file = tmp_path / "wide.png"
    control.edges(scenes.render(scenes.Scene(), 192, 128)).save(file)
    told = run(tmp_path, controlnet="embedded:edges", control_image=str(file), steps=1)
    assert told.outcome == "ok"
    assert any("the control picture is 192x128" in text for text in told["warnings"])


OWN = """
from diffusers import StableDiffusionXLPipeline

class Brighter(StableDiffusionXLPipeline):
    pass
"""


def test_a_custom_pipeline_is_made_from_the_models_parts(tmp_path):
    (tmp_path / "pipeline.py").write_text(OWN)
    told = run(tmp_path, custom_pipeline=str(tmp_path), steps=1, allow_remote_code=True)
    assert (told.outcome, told.reason) == ("ok", None)
    assert told["pipeline_class"] == told["custom_pipeline"]["class"] == "Brighter"


def test_own_code_is_not_run_unasked(tmp_path):
    (tmp_path / "pipeline.py").write_text("import os; os._exit(3)")
    told = run(tmp_path, custom_pipeline=str(tmp_path))
    assert told.outcome == "failed"
    assert "is Python code, which is not run" in str(told.reason)


@pytest.mark.parametrize(
    "text", ["x = 1", "import none_such_package", OWN + OWN.replace("Br", "D")]
)
def test_what_is_no_single_pipeline_says_so(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    told = run(tmp_path, custom_pipeline=str(tmp_path / "own.py"), allow_remote_code=True)
    assert told.outcome == "failed"
    assert "must define one class" in str(told.reason) or "cannot be run" in str(told.reason)


def lora(file: Path, prefix: str, value: float) -> Path:
    import torch
    from safetensors.torch import save_file

    name = f"{prefix}.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file(
        {
            f"{name}.lora_A.weight": torch.full((2, 96), value),
            f"{name}.lora_B.weight": torch.full((96, 2), value),
        },
        str(file),
    )
    return file


@needs_peft
def test_a_lora_of_another_model_is_an_error(tmp_path):
    file = lora(tmp_path / "other.safetensors", "unet.none_such", 0.1)
    told = run(tmp_path, lora=str(file))
    assert told.outcome == "failed"
    assert "changes nothing" in str(told.reason) or "does not fit" in str(told.reason)


@needs_peft
def test_a_lora_of_zeros_is_an_error(tmp_path):
    told = run(tmp_path, lora=str(lora(tmp_path / "zero.safetensors", "unet", 0.0)))
    assert told.outcome == "failed"
    assert "changes nothing" in str(told.reason)


@needs_peft
def test_the_alphas_of_a_lora_are_no_tensors_without_a_layer(tmp_path):
    import torch
    from safetensors.torch import save_file

    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    file = tmp_path / "kohya.safetensors"
    down, up = torch.full((2, 96), 0.1), torch.full((96, 2), 0.1)
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    save_file({**tensors, f"{name}.alpha": torch.tensor(1.0)}, str(file))
    told = run(tmp_path, lora=str(file), steps=1)
    assert (told.outcome, told.reason) == ("ok", None)
    assert (told["lora"]["keys"], told["lora"]["keys_used"]) == (3, 3)
    assert not any("fit no layer" in text for text in told.get("warnings", ()))


@needs_peft
def test_a_small_lora_says_how_little_it_changes(tmp_path):
    told = run(tmp_path, lora=str(lora(tmp_path / "one.safetensors", "unet", 0.1)), steps=1)
    assert told.outcome == "ok"
    assert (told["lora"]["layers_changed"], told["lora"]["keys"]) == (1, 2)


def test_without_peft_the_cell_is_unavailable(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        additions.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "peft" else found(name, *more),
    )
    told = run(tmp_path, lora="embedded:sepia")
    assert told.outcome == "unavailable"
    assert "pip install peft" in str(told.reason)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x.bin", "only .safetensors files are read"),
        ("x.safetensors", "there is no file"),
        ("embedded:none", "no embedded LoRA 'none'"),
    ],
)
def test_files_that_are_no_lora(text, said):
    with pytest.raises(SourceError, match=said):
        additions.lora_file(text)


def test_a_control_net_of_another_width_is_refused(tmp_path):
    from diffusers import ControlNetModel

    ControlNetModel(
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
    ).save_pretrained(tmp_path / "net")
    told = run(tmp_path, controlnet=f"path:{tmp_path / 'net'}")
    assert told.outcome == "failed"
    assert "is made for a UNet of widths [8, 8]" in str(told.reason)


def test_a_pickled_control_net_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    told = run(tmp_path, controlnet=f"path:{tmp_path}")
    assert told.outcome == "failed"
    assert "a pickle, which can run code" in str(told.reason)
