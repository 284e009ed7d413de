"""LPIPS and CLIP score against formulas of the tests' own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.worker import perceptual
from bench.worker.perceptual import Answer, Clip, Lpips, Request
from tests.worker import tiny_clip

PROMPT = "a red house"


def picture(seed: int, height: int = 64, width: int = 48) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("weights")
    tiny_clip.clip(made / "clip")
    tiny_clip.lpips(made / "alex.safetensors")
    return made


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip(str(folder / "clip"))


def by_hand(clip: Clip, image: Image.Image, prompt: str) -> float:
    """The cosine from the towers and projections, without CLIPModel's own forward."""
    import torch

    short, (width, height) = tiny_clip.EDGE, image.size
    scale = short / min(width, height)
    size = (int(width * scale), int(height * scale))
    grown = np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / 255
    top, left = ((size[axis] - tiny_clip.SIDE) // 2 for axis in (1, 0))
    cut = grown[top : top + tiny_clip.SIDE, left : left + tiny_clip.SIDE]
    pixels = ((cut - tiny_clip.MEAN) / tiny_clip.DEVIATION).transpose(2, 0, 1)[None]
    ids = clip._tokenizer(prompt)["input_ids"]
    model = clip._model
    with torch.inference_mode():
        seen = model.vision_model(torch.tensor(pixels, dtype=torch.float32)).pooler_output
        read = model.text_model(torch.tensor([ids])).pooler_output
        one = model.visual_projection(seen)[0].double().numpy()
        other = model.text_projection(read)[0].double().numpy()
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("size", [(64, 48), (32, 90), (40, 40)])
def test_clip_score_is_a_hundred_times_the_cosine(clip, size):
    import torch

    scores = []
    with torch.inference_mode():
        for seed, prompt in ((1, PROMPT), (2, PROMPT), (1, "zebra")):
            score, cut = clip(picture(seed, *size), prompt)
            assert score == pytest.approx(100 * by_hand(clip, picture(seed, *size), prompt), 1e-4)
            assert cut is False
            scores.append(score)
    assert len(set(scores)) == 3
    assert min(scores) > 0


def test_a_picture_that_points_away_from_its_prompt_scores_zero(folder):
    import torch

    turned = Clip(str(folder / "clip"))
    with torch.inference_mode():
        turned._model.visual_projection.weight.neg_()
        assert turned(picture(1), PROMPT)[0] == 0.0


def test_pictures_are_prepared_as_transformers_does_with_pil(folder, clip):
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = module.CLIPImageProcessorPil.from_pretrained(str(folder / "clip"))
    for seed, size in enumerate([(64, 48), (33, 97), (128, 128)]):
        image = picture(seed, *size)
        wanted = processor(image, return_tensors="pt")["pixel_values"].numpy()
        assert np.abs(wanted - clip.prepared(image).numpy()).max() < 1e-6


def test_a_prompt_that_is_too_long_is_cut_and_said(clip):
    import torch

    with torch.inference_mode():
        long, cut = clip(picture(1), "ab " * 60)
        longer, _ = clip(picture(1), "ab " * 70)
    assert cut is True
    assert long == longer


def test_weights_that_lack_something_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tiny_clip.clip(tmp_path / "clip")
    tensors = load_file(broken / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, str(broken / "model.safetensors"), {"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors, such as visual_projection"):
        Clip(str(broken))


def convolved(x: Any, weight: Any, bias: Any, stride: int, padding: int) -> Any:
    """A convolution over (channels, height, width) in NumPy, with a ReLU behind it."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    kernel = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    made = np.einsum("chwij,ocij->ohw", windows, weight, optimize=True)
    return np.maximum(made + bias[:, None, None], 0)


def pooled(x: Any, kernel: int) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    return windows[:, ::2, ::2].max(axis=(3, 4))


def alexnet(image: Image.Image, w: dict[str, Any]) -> list[Any]:
    x = np.asarray(image, dtype=np.float64).transpose(2, 0, 1) / 127.5 - 1
    x = (x - np.reshape([-0.030, -0.088, -0.188], (3, 1, 1))) / np.reshape(
        [0.458, 0.448, 0.450], (3, 1, 1)
    )
    one = convolved(x, w["net.slice1.0.weight"], w["net.slice1.0.bias"], 4, 2)
    two = convolved(pooled(one, 3), w["net.slice2.3.weight"], w["net.slice2.3.bias"], 1, 2)
    three = convolved(pooled(two, 3), w["net.slice3.6.weight"], w["net.slice3.6.bias"], 1, 1)
    four = convolved(three, w["net.slice4.8.weight"], w["net.slice4.8.bias"], 1, 1)
    five = convolved(four, w["net.slice5.10.weight"], w["net.slice5.10.bias"], 1, 1)
    return [f / np.sqrt((f**2).sum(axis=0) + 1e-20) for f in (one, two, three, four, five)]


def test_lpips_is_its_formula(folder):
    from safetensors.numpy import load_file

    weights = load_file(folder / "alex.safetensors")
    one, other = picture(1), picture(2)
    wanted = sum(
        float(((a - b) ** 2 * weights[f"lin{n}.model.1.weight"].reshape(-1, 1, 1)).sum(0).mean())
        for n, (a, b) in enumerate(zip(alexnet(one, weights), alexnet(other, weights), strict=True))
    )
    own = Lpips(str(folder / "alex.safetensors"))
    assert own(one, other) == pytest.approx(wanted, rel=1e-4)
    assert own(one, other) == pytest.approx(own(other, one), rel=1e-6)
    assert own(one, one) == 0.0
    with pytest.raises(ValueError, match="differ in size"):
        own(one, picture(1, 64, 64))


def test_the_trunks_are_as_large_as_the_published_ones():
    """Parameters of the features of torchvision's alexnet and vgg16, with the linear layers."""
    sizes = {
        net: sum(int(np.prod(shape)) for shape in perceptual.tensors_of(net).values())
        for net in perceptual.NETS
    }
    linear = {"alex": 64 + 192 + 384 + 256 + 256, "vgg": 64 + 128 + 256 + 512 + 512}
    assert sizes["alex"] - linear["alex"] == 2_469_696
    assert sizes["vgg"] - linear["vgg"] == 14_714_688


def request(folder: Path, tmp_path: Path, **changes: Any) -> Request:
    files = []
    for seed in (1, 2):
        picture(seed).save(tmp_path / f"{seed}.png")
        sha = hashlib.sha256(picture(seed).tobytes()).hexdigest()
        files.append({"path": str(tmp_path / f"{seed}.png"), "sha256": sha})
    first, second = files
    made: Any = {
        "lpips": str(folder / "alex.safetensors"),
        "clip_score": str(folder / "clip"),
        "tasks": [
            {"metric": "clip_score", "picture": first, "reference": None, "prompt": PROMPT},
            {"metric": "lpips", "picture": first, "reference": second, "prompt": None},
        ],
    }
    return {**made, **changes}


def answers(asked: Request) -> list[Answer]:
    found: list[Answer] = []
    perceptual.answer(asked, found.append)
    return found


def test_each_task_is_answered_by_its_number(folder, tmp_path):
    found = {each["task"]: each for each in answers(request(folder, tmp_path))}
    assert found.keys() == {0, 1}
    assert 0 < found[0]["value"] < 100
    assert found[1]["value"] > 0


def test_a_picture_that_is_gone_or_another_costs_its_task_alone(folder, tmp_path):
    asked = request(folder, tmp_path)
    good = asked["tasks"][0]
    gone = {**good, "picture": {"path": str(tmp_path / "no.png"), "sha256": "0"}}
    other = {**good, "picture": {**good["picture"], "sha256": "0" * 64}}
    asked["tasks"] = [gone, other, good]  # type: ignore[list-item]
    first, second, third = answers(asked)
    assert "FileNotFoundError" in first["reason"]
    assert "not the picture that its record describes" in second["reason"]
    assert "value" in third


def test_numbers_that_are_none_are_never_a_score(folder, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "alex.safetensors")
    save_file({k: torch.full_like(v, float("nan")) for k, v in tensors.items()}, tmp_path / "nan")
    (told,) = (a for a in answers(request(folder, tmp_path, lpips=str(tmp_path / "nan")))
               if a["task"] == 1)  # fmt: skip
    assert told == {"task": 1, "reason": "the result is not a finite number"}


def test_weights_that_cannot_be_read_are_the_metrics_reason(folder, tmp_path):
    (tmp_path / "torn").write_bytes((folder / "alex.safetensors").read_bytes()[:1000])
    found = answers(request(folder, tmp_path, lpips=str(tmp_path / "torn")))
    (told,) = (each for each in found if "task" not in each)
    assert told["metric"] == "lpips"
    assert told["reason"]
    assert [each["task"] for each in found if "value" in each] == [0]
