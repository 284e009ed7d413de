"""Workloads against real, tiny pipelines: arguments, sizes, steps, batches, warnings."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import chains
from bench.worker import families, inputs, sources
from bench.worker.inputs import Inputs, denoiser, input_pictures, prepare
from bench.worker.sources import SourceError
from tests.worker import tiny

CASES = [
    ("sd15", "text-to-image"),
    ("sd15", "image-to-image"),
    ("sd15-pix2pix", "edit"),
    ("sdxl", "text-to-image"),
    ("sdxl", "image-to-image"),
    ("sdxl-pix2pix", "edit"),
    ("sd3", "text-to-image"),
    ("sd3", "image-to-image"),
    ("flux", "text-to-image"),
    ("flux", "image-to-image"),
    ("pixart", "text-to-image"),
]


@functools.cache
def pipeline_of(kind: str, task: str) -> Any:
    given = tiny.workload(model=f"path:{tiny.shared(kind)}", task=task)
    return sources.load(given, "cpu", allow_remote_code=False).pipeline


def asked(task: str, **changes: Any) -> dict[str, Any]:
    strength = 0.75 if task == "image-to-image" else None
    return tiny.workload(**{"task": task, "steps": 4, "strength": strength, **changes})


def pictures(pipeline: Any, inputs: Inputs) -> list[Any]:
    return [np.asarray(image).astype(int) for image in pipeline(**inputs.call_kwargs()).images]


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_size_steps_and_repetition(kind, task):
    pipeline = pipeline_of(kind, task)
    inputs = prepare(pipeline, asked(task, width=96), "cpu")
    steps: list[int] = []
    first = pipeline(**inputs.call_kwargs(steps.append)).images[0]
    assert steps == list(range(3 if task == "image-to-image" else 4))
    assert first.size == inputs.expected_size == (96, 64)
    again = pipeline(**inputs.call_kwargs()).images[0]
    assert first.tobytes() == again.tobytes()
    assert np.asarray(first).std() > 5


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_a_seed_gives_the_same_picture_alone_and_in_a_batch(kind, task):
    pipeline = pipeline_of(kind, task)
    together = pictures(pipeline, prepare(pipeline, asked(task, batch=3), "cpu"))
    assert len(together) == 3
    for index, picture in enumerate(together):
        alone = prepare(pipeline, asked(task, seed=1 + index), "cpu")
        assert np.abs(pictures(pipeline, alone)[0] - picture).max() <= 2
    assert np.abs(together[0] - together[1]).mean() > 1


def test_ancestral_noise_belongs_to_a_picture_too():
    given = tiny.workload(
        model=f"path:{tiny.shared('sdxl')}", scheduler="EulerAncestralDiscreteScheduler"
    )
    pipeline = sources.load(given, "cpu", allow_remote_code=False).pipeline
    pair = pictures(pipeline, prepare(pipeline, {**given, "batch": 2}, "cpu"))
    second = prepare(pipeline, {**given, "seed": 2}, "cpu")
    assert np.abs(pictures(pipeline, second)[0] - pair[1]).max() <= 2


@pytest.mark.parametrize(("kind", "task"), [("sd15-pix2pix", "edit"), ("sd15", "image-to-image")])
def test_a_size_that_the_pipeline_ignores_is_a_warning(kind, task):
    inputs = prepare(pipeline_of(kind, task), asked(task, width=128), "cpu")
    assert not {"height", "width"} & inputs.arguments.keys()
    assert inputs.arguments["image"].size == (128, 64)
    assert any("takes no height and width" in warning for warning in inputs.warnings)


def test_step_callbacks_by_what_the_pipeline_takes():
    new = prepare(pipeline_of("sdxl", "text-to-image"), asked("text-to-image"), "cpu")
    assert new.step_callback == "callback_on_step_end"
    assert new.call_kwargs(print)["callback_on_step_end_tensor_inputs"] == []
    assert "callback_on_step_end" not in new.call_kwargs()
    old = prepare(pipeline_of("sdxl-pix2pix", "edit"), asked("edit"), "cpu")
    assert old.step_callback == "callback"
    assert old.call_kwargs(print)["callback_steps"] == 1


def test_generators_are_fresh_for_every_call_and_follow_the_seed():
    inputs = prepare(
        pipeline_of("sd15", "text-to-image"), asked("text-to-image", batch=2, seed=333), "cpu"
    )
    first, second = inputs.call_kwargs()["generator"], inputs.call_kwargs()["generator"]
    assert [each.initial_seed() for each in first] == [333, 334]
    assert first[0] is not second[0]
    torch.randn(3, generator=first[0])
    assert torch.equal(
        torch.randn(3, generator=second[0]), torch.randn(3, generator=torch.manual_seed(333))
    )


@pytest.mark.parametrize(
    ("kind", "size", "multiple"), [("sd15", 60, 8), ("sd3", 72, 16), ("flux", 72, 16)]
)
def test_a_size_that_would_crash_is_refused(kind, size, multiple):
    with pytest.raises(SourceError, match=f"width {size} is no multiple of {multiple}"):
        prepare(pipeline_of(kind, "text-to-image"), asked("text-to-image", width=size), "cpu")


@pytest.mark.parametrize(("steps", "strength"), [(1, 0.5), (3, 0.3), (3, None)])
def test_less_than_one_step_is_refused(steps, strength):
    given = asked("image-to-image", steps=steps, strength=strength)
    with pytest.raises(SourceError, match="less than one step"):
        prepare(pipeline_of("sdxl", "image-to-image"), given, "cpu")


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"guidance_rescal": 0.5}, "nearest: guidance_rescale"),
        ({"num_images_per_prompt": 2}, "own field batch"),
        ({"output_type": "latent"}, "set by the harness"),
        ({"kwargs": 1}, "is no parameter"),
    ],
)
def test_extra_arguments_are_checked(extra, reason):
    with pytest.raises(SourceError, match=reason):
        prepare(pipeline_of("sdxl", "text-to-image"), asked("text-to-image", extra=extra), "cpu")


def test_extra_arguments_reach_the_call():
    inputs = prepare(
        pipeline_of("sdxl", "text-to-image"),
        asked("text-to-image", extra={"guidance_rescale": 0.7}, negative_prompt="", guidance=6.5),
        "cpu",
    )
    kwargs = inputs.call_kwargs()
    assert kwargs["guidance_rescale"] == 0.7
    assert kwargs["negative_prompt"] == ""
    assert kwargs["guidance_scale"] == 6.5
    assert kwargs["output_type"] == "pil"


def test_what_a_workload_leaves_open_stays_the_pipelines_own():
    inputs = prepare(pipeline_of("sdxl", "text-to-image"), asked("text-to-image"), "cpu")
    assert not {"guidance_scale", "negative_prompt", "strength"} & inputs.arguments.keys()
    assert inputs.warnings == ()


@pytest.mark.parametrize(
    ("kind", "task", "changes", "warning"),
    [
        ("sdxl", "text-to-image", {"guidance": 1.0}, "half of the batch"),
        ("sd15-pix2pix", "edit", {"guidance": 1.0}, "a third of the batch"),
        ("sd15-pix2pix", "edit", {"image_guidance": 0.5}, "below 1"),
        ("sdxl", "text-to-image", {"model": "hub:a/b_Lightning", "guidance": 5.0}, "distilled"),
        ("sdxl", "image-to-image", {"steps": 30, "strength": 0.3}, "0.3 × 30 = 9"),
        ("pixart", "text-to-image", {}, "use_resolution_binning"),
        ("sdxl", "text-to-image", {"image_guidance": 2.0}, "image_guidance was ignored"),
    ],
)
def test_warnings(kind, task, changes, warning):
    inputs = prepare(pipeline_of(kind, task), asked(task, **changes), "cpu")
    assert any(warning in each for each in inputs.warnings), inputs.warnings


def test_each_picture_of_a_batch_has_the_scene_of_its_seed():
    (first, second), told = input_pictures(asked("edit", batch=2, width=96))
    assert first.mode == "RGB"
    assert first.size == (96, 64)
    assert first.tobytes() != second.tobytes()
    assert told == []
    [alone], _ = input_pictures(asked("edit", seed=2, width=96))
    assert alone.tobytes() == second.tobytes()


def test_a_wide_picture_is_cut_at_the_centre(tmp_path):
    picture = Image.new("RGB", (300, 100), "red")
    picture.paste("blue", (100, 0, 200, 100))
    picture.save(tmp_path / "wide.png")
    [fitted], _ = input_pictures(asked("edit", input_image=str(tmp_path / "wide.png")))
    assert fitted.size == (64, 64)
    assert fitted.getpixel((32, 32)) == (0, 0, 255)
    assert fitted.getpixel((3, 60)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((300, 100), "300x100, and 64x64 was asked for: 67 % of it, at its left and right,"),
        ((90, 100), "90x100, and 64x64 was asked for: 10 % of it, at its top and bottom,"),
        ((1001, 1000), None),
        ((640, 640), None),
    ],
)
def test_what_is_cut_off_is_told(tmp_path, given, told):
    Image.new("RGB", given).save(tmp_path / "a.png")
    workload = asked("image-to-image", input_image=str(tmp_path / "a.png"))
    warnings = prepare(pipeline_of("sdxl", "image-to-image"), workload, "cpu").warnings
    found = [each for each in warnings if "the input picture is" in each]
    assert (len(found) == 0) if told is None else (told in found[0])


def test_exif_orientation_is_obeyed(tmp_path):
    picture = Image.new("RGB", (64, 64), "red")
    picture.paste("blue", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    [fitted], _ = input_pictures(asked("edit", input_image=str(tmp_path / "turned.png")))
    assert fitted.getpixel((32, 60)) == (0, 0, 255)


def test_transparent_pictures_are_put_on_white(tmp_path):
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    [fitted], _ = input_pictures(asked("edit", input_image=str(tmp_path / "clear.png")))
    assert fitted.getpixel((0, 0)) == (255, 255, 255)


def test_pictures_that_cannot_be_read(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        input_pictures(asked("edit", input_image=str(tmp_path / "none.png")))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(SourceError, match="no picture that can be read"):
        input_pictures(asked("edit", input_image=str(tmp_path / "text.png")))
    with pytest.raises(SourceError, match="cannot be read"):
        input_pictures(asked("edit", input_image=str(tmp_path)))
    Image.new("RGB", (64, 64)).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="cannot be read"):
        input_pictures(asked("edit", input_image=str(tmp_path / "cut.png")))


@pytest.mark.parametrize(
    ("kind", "name"), [("sdxl", "unet"), ("sd3", "transformer"), ("flux", "transformer")]
)
def test_the_denoiser_is_found(kind, name):
    pipeline = pipeline_of(kind, "text-to-image")
    assert denoiser(pipeline) == (name, getattr(pipeline, name))


class _Toy:
    """A pipeline with habits of its own."""

    def __call__(self, text: list[str], size: int, generator: Any = None) -> Any:
        raise NotImplementedError


class _ToyFamily:
    name = "toy"

    def claims(self, class_name: str, task: str) -> bool:
        return class_name == "_Toy" and task == "text-to-image"

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        return _Toy

    def arguments(self, pipeline: Any, workload: Any, picture: Any) -> dict[str, Any]:
        return {"text": [workload["prompt"]] * workload["batch"], "size": workload["width"]}


class _Entry:
    name = "toy"
    value = "toy_package:ToyFamily"

    def __init__(self, found: Any) -> None:
        self.found = found

    def load(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    families._families.cache_clear()

    def register(found: Any) -> None:
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [_Entry(found)])

    yield register
    families._families.cache_clear()


def test_a_family_of_another_package_is_asked_first(registered):
    registered(_ToyFamily)
    assert families.pipeline_class("_Toy", "text-to-image", None) is _Toy
    made = prepare(_Toy(), asked("text-to-image", batch=2), "cpu")
    assert made.arguments == {"text": ["a red house"] * 2, "size": 64}
    assert len(made.call_kwargs()["generator"]) == 2
    assert made.step_callback is None
    assert families.claiming("FluxPipeline", "text-to-image") is None


def test_a_family_that_cannot_be_loaded_is_named(registered):
    registered(ImportError("no toy_package"))
    with pytest.raises(SourceError, match=r"'toy' .* cannot be loaded: ImportError"):
        families.claiming("FluxPipeline", "text-to-image")


def test_the_example_keeps_the_protocol():
    assert isinstance(_ToyFamily(), families.Family)


@pytest.mark.parametrize(
    ("steps", "strength", "up", "down"),
    [(4, 0.2, 1, 0), (10, 0.05, 1, 0), (4, 0.3, 2, 1), (7, 0.3, 3, 2), (10, 0.75, 8, 7)],
)
def test_what_strength_leaves_is_the_classes_own(steps, strength, up, down):
    import diffusers

    for name, expected in (("Flux", up), ("StableDiffusion3", up), ("StableDiffusionXL", down)):
        made = getattr(diffusers, f"{name}Img2ImgPipeline")
        assert inputs.steps_left(made, steps, strength) == expected
        assert chains.class_steps(f"{name}Pipeline", steps, strength) == expected
    made = diffusers.LatentConsistencyModelImg2ImgPipeline
    assert inputs.steps_left(made, steps, strength) is None
    assert chains.class_steps(made.__name__, steps, strength) == steps
    assert chains.class_steps("StrangePipeline", steps, strength) is None


def deep(kind: str, place: Path) -> tuple[Path, np.ndarray]:
    ramp = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    made = {
        "gray16.png": Image.fromarray(ramp.astype(np.uint16) * 257),
        "gray16.tif": Image.fromarray(ramp.astype(np.uint16) * 257),
        "float01.tif": Image.fromarray((ramp / 255).astype(np.float32)),
        "int32.tif": Image.fromarray(ramp.astype(np.int32) * 257),
        "float255.tif": Image.fromarray(ramp.astype(np.float32)),
        "nan.tif": Image.fromarray((ramp / np.nan).astype(np.float32)),
    }[kind]
    made.save(place / kind)
    return place / kind, ramp


@pytest.mark.parametrize("kind", ["gray16.png", "gray16.tif", "float01.tif"])
def test_an_image_of_more_than_eight_bits_is_scaled_and_not_clipped(kind, tmp_path):
    file, ramp = deep(kind, tmp_path)
    read = np.asarray(inputs.open_picture(file))
    assert read.shape == (64, 96, 3)
    assert (read == ramp[..., None]).all()


@pytest.mark.parametrize("kind", ["int32.tif", "float255.tif", "nan.tif"])
def test_an_image_of_which_nothing_says_what_is_white_is_refused(kind, tmp_path):
    with pytest.raises(SourceError, match=r"nothing says which is white.* 8 or 16 bits"):
        inputs.open_picture(deep(kind, tmp_path)[0])


def test_a_prompt_that_a_text_encoder_cuts_is_warned_of_with_its_first_token():
    words = " ".join(["red house"] * 60)
    made = pipeline_of("sdxl", "text-to-image")
    given = {**asked("text-to-image"), "prompt": words, "negative_prompt": words}
    told = [text for text in prepare(made, given, "cpu").warnings if "was cut" in text]
    assert any(text.startswith("the prompt was cut: tokenizer takes") for text in told)
    assert any(text.startswith("the negative_prompt was cut: tokenizer_2 takes") for text in told)
    short = prepare(made, asked("text-to-image"), "cpu").warnings
    assert not [text for text in short if "was cut" in text]
