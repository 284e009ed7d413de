"""``synthetic:``: exact sizes on the meta device, finite pictures, and a tokenizer of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from bench.worker import sources
from bench.worker.inputs import prepare
from bench.worker.sources import SourceError, synthetic
from tests.worker import tiny

pytestmark = pytest.mark.thorough

FP16_MAX = 65504.0
CLIP_L, BIG_G, VAE = 123_060_480, 694_659_840, 83_653_863


@pytest.mark.parametrize(
    ("name", "unet", "second"),
    [
        ("sdxl", 2_567_463_684, BIG_G),
        ("sdxl-pix2pix", 2_567_475_204, BIG_G),
        ("sd15-pix2pix", 859_532_484, None),
    ],
)
def test_parameter_counts_are_the_published_ones(name, unet, second):
    counts = {
        part: None if module is None else sum(p.numel() for p in module.parameters())
        for part, module in synthetic.on_meta(name).items()
    }
    assert counts == {"unet": unet, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": second}


def test_names_need_no_torch():
    script = (
        "import sys; from bench.worker.sources import synthetic; print(*synthetic.names());"
        "assert not {'torch', 'diffusers', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    full = ["sdxl", "sdxl-pix2pix", "sd15-pix2pix"]
    assert done.stdout.split() == [*full, *(f"{name}-small" for name in full)]


def test_unknown_names_get_the_nearest():
    with pytest.raises(SourceError, match="nearest: sdxl"):
        sources.load(tiny.workload(model="synthetic:sdx"), "cpu", allow_remote_code=False)


def test_the_tokenizer_has_the_size_and_special_ids_of_clip():
    tokenizer = synthetic.clip_tokenizer(pad="!")
    assert len(tokenizer) == 49408
    ids = tokenizer(["a cat"], padding="max_length", max_length=77, truncation=True).input_ids[0]
    assert len(ids) == 77
    assert ids[0] == 49406
    assert ids[5:] == [49407] + [0] * 71
    long = tokenizer(["cat " * 99], padding="max_length", max_length=77, truncation=True)
    assert len(long.input_ids[0]) == 77
    assert long.input_ids[0][-1] == 49407


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same architectures with fewer channels and layers; depth of the network is kept."""
    narrow_clip = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    for name, plan in list(synthetic.ARCHITECTURES.items()):
        xl = plan["text_encoder_2"] is not None
        channels = (32, 64, 64) if xl else (32, 32, 64, 64)
        unet: dict[str, Any] = {
            **plan["unet"],
            "block_out_channels": channels,
            "cross_attention_dim": 64 if xl else 32,
            "attention_head_dim": 2,
        }
        if xl:
            unet["projection_class_embeddings_input_dim"] = 32 + 6 * 256
        vae = {**plan["vae"], "block_out_channels": (32, 32, 64, 64)}
        text = {**plan["text_encoder"], **narrow_clip, "projection_dim": 32}
        second = {**plan["text_encoder_2"], **narrow_clip, "projection_dim": 32} if xl else None
        changed = {"unet": unet, "vae": vae, "text_encoder": text, "text_encoder_2": second}
        monkeypatch.setitem(synthetic.ARCHITECTURES, name, {**plan, **changed})


def picture_of(pipeline: Any, given: dict[str, Any]) -> np.ndarray[Any, Any]:
    inputs = prepare(pipeline, given, "cpu")
    return np.asarray(pipeline(**inputs.call_kwargs()).images[0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("sdxl", "text-to-image"),
        ("sdxl", "image-to-image"),
        ("sdxl-pix2pix", "edit"),
        ("sd15-pix2pix", "edit"),
    ],
)
def test_pictures_are_finite_and_activations_far_from_the_limit_of_fp16(name, task):
    given = tiny.workload(
        model=f"synthetic:{name}",
        task=task,
        strength=0.7 if task == "image-to-image" else None,
        dtype="float16",
    )
    loaded = sources.load(given, "cpu", allow_remote_code=False)
    assert loaded.synthetic
    assert loaded.revision == synthetic.RECIPE
    assert any("synthetic weights" in note for note in loaded.notes)
    pipeline = loaded.pipeline
    assert pipeline.unet.dtype == torch.float16
    pipeline.to(torch.float32)  # the rounded weights, in arithmetic that a CPU is quick at
    largest = [0.0]

    def watch(_module: Any, _inputs: Any, output: Any) -> None:
        if torch.is_tensor(output):
            largest[0] = max(largest[0], float(output.abs().max()))

    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for module in getattr(getattr(pipeline, part, None), "modules", list)():
            module.register_forward_hook(watch)
    picture = picture_of(pipeline, given)
    assert 0.5 < largest[0] < FP16_MAX / 100
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 10


@pytest.mark.usefixtures("small")
def test_weights_are_the_same_every_time_and_have_no_holes():
    given = tiny.workload(model="synthetic:sdxl", dtype="bfloat16")
    first, second = (sources.load(given, "cpu", allow_remote_code=False).pipeline for _ in range(2))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        state = getattr(second, part).state_dict()
        for name, tensor in getattr(first, part).state_dict().items():
            assert torch.isfinite(tensor.float()).all(), name
            assert torch.equal(tensor, state[name]), name
    for encoder in (first.text_encoder, first.text_encoder_2):
        positions = [b for n, b in encoder.named_buffers() if n.endswith("position_ids")]
        assert all(torch.equal(each.flatten(), torch.arange(77)) for each in positions)
    assert first.vae.config.force_upcast


@pytest.mark.usefixtures("small")
def test_an_architecture_that_cannot_do_the_task():
    with pytest.raises(SourceError, match="this one has 4"):
        sources.load(
            tiny.workload(model="synthetic:sdxl", task="edit"), "cpu", allow_remote_code=False
        )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_sdxl_makes_a_picture():
    """About 7.2 GiB of memory and some minutes on two CPU cores."""
    given = tiny.workload(model="synthetic:sdxl", dtype="bfloat16", steps=1, height=256, width=256)
    pipeline = sources.load(given, "cpu", allow_remote_code=False).pipeline
    assert picture_of(pipeline, given).std() > 10


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("sdxl-small", "text-to-image"),
        ("sdxl-small", "image-to-image"),
        ("sdxl-pix2pix-small", "edit"),
        ("sd15-pix2pix-small", "edit"),
    ],
)
def test_a_narrowed_architecture_has_every_kind_of_block_and_says_what_it_is(name, task):
    given = tiny.workload(
        model=f"synthetic:{name}",
        task=task,
        steps=2,
        strength=1.0 if task == "image-to-image" else None,
    )
    loaded = sources.load(given, "cpu", allow_remote_code=False)
    assert any("no real model's" in note for note in loaded.notes)
    published = synthetic.on_meta(name.removesuffix("-small"))["unet"]
    kinds = [
        {type(m).__name__ for m in unet.modules()} for unet in (published, loaded.pipeline.unet)
    ]
    assert kinds[0] == kinds[1]
    assert sum(p.numel() for p in loaded.pipeline.unet.parameters()) < 5e6
    assert np.std(picture_of(loaded.pipeline, given)) > 5
