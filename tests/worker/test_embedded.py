"""The embedded models draw what they are asked to draw, and the files are fit to ship.

A picture is judged by comparing it with drawings of every answer: first sky and ground, away from
the subject, then every subject in every colour. Nothing here trusts a number the model reports.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.worker import scenes
from bench.worker.scenes import Scene

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from bench.worker.sources import SourceError, embedded  # noqa: E402
from scripts.train_embedded import wording  # noqa: E402

pytestmark = pytest.mark.thorough

Picture = np.ndarray

# Most combinations turn up in the 8,000 training scenes too, with other jitter and wordings.
PROMPTS = (
    Scene("house", "red", "grass", "day", "middle", "medium"),
    Scene("tower", "blue", "snow", "day", "middle", "big"),
    Scene("balloon", "yellow", "water", "sunset", "middle", "big"),
    Scene("boat", "white", "water", "night", "left", "medium"),
    Scene("tree", "green", "sand", "day", "left", "medium"),
    Scene("star", "pink", "grass", "night", "right", "medium"),
    Scene("house", "purple", "sand", "cloudy", "right", "big"),
    Scene("tree", "orange", "snow", "cloudy", "right", "medium"),
    Scene("tower", "white", "grass", "sunset", "left", "medium"),
    Scene("boat", "red", "water", "day", "right", "big"),
    Scene("star", "yellow", "water", "cloudy", "middle", "big"),
    Scene("balloon", "blue", "sand", "sunset", "left", "medium"),
)


def _edits() -> tuple[wording.Edit, ...]:
    make = wording.make_edit
    return (
        make(Scene("balloon", "yellow", "grass", "cloudy", "right", "medium", 901), "sky", "night"),
        make(Scene("boat", "orange", "sand", "day", "left", "medium", 902), "subject", "star"),
        make(Scene("boat", "orange", "water", "night", "middle", "big", 903), "colour", "purple"),
        make(Scene("house", "blue", "water", "cloudy", "right", "medium", 904), "ground", "grass"),
        make(Scene("house", "purple", "grass", "sunset", "left", "medium", 905), "colour", "red"),
        make(Scene("tower", "pink", "grass", "cloudy", "middle", "big", 906), "ground", "snow"),
        make(Scene("tree", "red", "sand", "day", "right", "big", 907), "subject", "tower"),
        make(Scene("star", "white", "water", "sunset", "middle", "big", 908), "sky", "day"),
        make(Scene("house", "yellow", "grass", "day", "middle", "big", 909), "sky", "sunset"),
        make(Scene("balloon", "red", "water", "day", "right", "medium", 910), "ground", "snow"),
        make(Scene("tower", "green", "snow", "day", "left", "big", 911), "subject", "house"),
        make(Scene("tree", "pink", "snow", "night", "middle", "big", 912), "colour", "yellow"),
    )


EDITS = _edits()


# -- judging ---------------------------------------------------------------------------------------


def small(picture: Any) -> Picture:
    """Any picture as float32 (64, 64, 3) in 0..255."""
    return np.asarray(picture.convert("RGB").reduce(2), dtype=np.float32)


@functools.cache
def drawing(scene: Scene) -> Picture:
    return np.asarray(scenes.render(scene, 64, 64), dtype=np.float32)


@functools.cache
def seeds_of_both_lights() -> list[int]:
    """One jitter seed with the sun or moon on either side."""
    found: dict[bool, int] = {}
    for seed in range(50):
        found.setdefault(scenes._Painter(Scene(seed=seed), 8, 8).light_left, seed)
    return [found[True], found[False]]


def judge(picture: Picture, known: Scene | None = None) -> Scene:
    """What a picture shows: the drawing that comes closest to it.

    With `known`, position, size and jitter are taken from there (edits keep them); otherwise they
    are searched for as well. Sky and ground are settled first, by the half of the columns that
    fits best, which leaves the subject out; then subject and colour.
    """
    seeds = seeds_of_both_lights() if known is None else [known.seed]
    some = known or Scene()

    def misfit(scene: Scene) -> float:
        by_column = np.abs(picture - drawing(scene)).mean(axis=(0, 2))
        return float(np.sort(by_column)[:32].mean())

    place = min(
        (
            replace(some, sky=sky, ground=ground, seed=seed)
            for sky in scenes.SKIES
            for ground in scenes.GROUNDS
            for seed in seeds
        ),
        key=misfit,
    )
    free = known is None
    reach = 3 if free else 0
    shifts = (0, 2, 4, 6) if free else (0,)  # -3, -1, 1, 3 pixels
    best: tuple[float, Scene] | None = None
    for subject, colour, position, size in itertools.product(
        scenes.SUBJECTS,
        scenes.COLOURS,
        scenes.POSITIONS if free else (some.position,),
        scenes.SIZES if free else (some.size,),
    ):
        candidate = replace(place, subject=subject, colour=colour, position=position, size=size)
        drawn = np.pad(drawing(candidate), ((reach, reach), (reach, reach), (0, 0)), "edge")
        for dy in shifts:
            for dx in shifts:
                difference = (picture - drawn[dy : dy + 64, dx : dx + 64]).ravel()
                error = float(difference @ difference)
                if best is None or error < best[0]:
                    best = (error, candidate)
    assert best is not None
    return best[1]


def hits(seen: Sequence[Scene], wanted: Sequence[Scene]) -> dict[str, int]:
    """How many pictures show the subject, colour, sky and ground wanted, and `all` four.

    `side` counts left and right, where that was asked for.
    """
    count = dict.fromkeys(("subject", "colour", "sky", "ground", "all", "side"), 0)
    for shown, scene in zip(seen, wanted, strict=True):
        right = {k: getattr(shown, k) == getattr(scene, k) for k in list(count)[:4]}
        right["all"] = all(right.values())
        right["side"] = scene.position == shown.position != "middle"
        for key, value in right.items():
            count[key] += value
    return count


# -- pictures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on a busy machine with two cores spin at barriers: slower, and not repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generators(count: int) -> list[Any]:
    return [torch.Generator().manual_seed(100 + i) for i in range(count)]


def loaded(name: str, class_name: str, dtype: Any = None) -> Any:
    pipeline = embedded.load(name, getattr(diffusers, class_name), dtype or torch.float32, "cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return loaded("sdxl", "StableDiffusionXLPipeline")


@pytest.fixture(scope="module")
def pix2pix() -> Any:
    return loaded("pix2pix", "StableDiffusionInstructPix2PixPipeline")


def draw(pipeline: Any, wanted: Sequence[Scene], steps: int = 10) -> list[Any]:
    with torch.inference_mode():
        return pipeline(
            [wording.caption(scene) for scene in wanted],
            height=128,
            width=128,
            num_inference_steps=steps,
            guidance_scale=5.0,
            generator=generators(len(wanted)),
        ).images


def edit(pipeline: Any, edits: Sequence[wording.Edit], texts: Sequence[str]) -> list[Any]:
    with torch.inference_mode():
        return pipeline(
            list(texts),
            image=[scenes.render(e.source) for e in edits],
            num_inference_steps=12,
            guidance_scale=3.0,
            image_guidance_scale=1.5,
            generator=generators(len(edits)),
        ).images


@pytest.fixture(scope="module")
def drawn(sdxl: Any) -> list[Any]:
    return draw(sdxl, PROMPTS)


@pytest.fixture(scope="module")
def edited(pix2pix: Any) -> list[Any]:
    return edit(pix2pix, EDITS, [e.instruction for e in EDITS])


@pytest.fixture(scope="module")
def shown(drawn: list[Any]) -> list[Scene]:
    return [judge(small(picture)) for picture in drawn]


def test_the_judge_knows_the_drawings():
    """Drawings with jitter the judge has not seen are named correctly."""
    wanted = [replace(scene, seed=4000 + i) for i, scene in enumerate(PROMPTS)]
    count = hits([judge(small(scenes.render(s))) for s in wanted], wanted)
    assert count["all"] == 12, count
    assert count["side"] == 8, count


def test_prompts_are_followed(shown):
    count = hits(shown, PROMPTS)
    assert count["subject"] >= 10, count
    assert count["colour"] >= 11, count
    assert count["sky"] >= 11, count
    assert count["ground"] >= 11, count


def test_pictures_do_not_pass_for_those_of_other_prompts(shown):
    """The same pictures held against the neighbour's prompt are wrong."""
    count = hits(shown, (*PROMPTS[1:], PROMPTS[0]))
    assert count["subject"] <= 2, count
    assert count["colour"] <= 2, count
    assert count["all"] == 0, count


def test_untrained_weights_do_not_pass():
    pipeline = loaded("sdxl", "StableDiffusionXLPipeline")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
    pictures = draw(pipeline, PROMPTS[:4], steps=4)
    count = hits([judge(small(picture)) for picture in pictures], PROMPTS[:4])
    assert count["subject"] <= 2, count
    assert count["all"] == 0, count


def shown_edits(pictures: Sequence[Any], edits: Sequence[wording.Edit]) -> list[Scene]:
    return [judge(small(p), e.target) for p, e in zip(pictures, edits, strict=True)]


def test_instructions_are_followed_and_the_rest_is_kept(edited):
    """The picture shows everything of the source but what the instruction names."""
    count = hits(shown_edits(edited, EDITS), [e.target for e in EDITS])
    assert count["all"] >= 10, count


def test_edits_leave_the_rest_alone(edited):
    """Where source and target drawings agree, the edited picture stays close to them."""
    errors = []
    for picture, e in zip(edited, EDITS, strict=True):
        if e.kind in ("sky", "ground"):
            continue  # light changes the whole picture
        source, target = drawing(e.source), drawing(e.target)
        same = np.abs(source - target).max(axis=2) < 4
        errors.append(float(np.abs(small(picture) - target)[same].mean()))
    assert np.median(errors) < 6.0, errors  # of 255
    assert max(errors) < 14.0, errors


def test_without_the_right_instruction_the_target_does_not_appear(pix2pix):
    """Sources as they are, and edits by someone else's instruction, miss the target."""
    sources = [scenes.render(e.source) for e in EDITS]
    assert hits(shown_edits(sources, EDITS), [e.target for e in EDITS])["all"] == 0
    some = [EDITS[0], EDITS[4], EDITS[5], EDITS[8]]
    texts = ["", "make it day", "make the tower blue", "put it on sand"]
    wrong = shown_edits(edit(pix2pix, some, texts), some)
    assert hits(wrong, [e.target for e in some])["all"] == 0


def test_same_seed_same_picture_and_another_seed_another(sdxl, drawn):
    again = draw(sdxl, PROMPTS[:1])[0]
    assert np.abs(small(again) - small(drawn[0])).max() < 3.0
    with torch.inference_mode():
        other = sdxl(
            wording.caption(PROMPTS[0]),
            height=128,
            width=128,
            num_inference_steps=10,
            generator=torch.Generator().manual_seed(7),
        ).images[0]
    assert np.abs(small(other) - small(again)).mean() > 0.3


def test_image_to_image_follows_picture_and_prompt():
    pipeline = loaded("sdxl", "StableDiffusionXLImg2ImgPipeline")
    source = Scene("house", "red", "grass", "day", "left", "big", seed=11)
    wanted = replace(source, colour="blue")
    with torch.inference_mode():
        picture = pipeline(
            wording.caption(wanted),
            image=scenes.render(source),
            strength=0.8,
            num_inference_steps=12,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(1),
        ).images[0]
    assert picture.size == (128, 128)
    seen = judge(small(picture))
    assert (seen.subject, seen.colour, seen.ground, seen.sky) == ("house", "blue", "grass", "day")


def test_bfloat16_stays_close(drawn):
    pipeline = loaded("sdxl", "StableDiffusionXLPipeline", torch.bfloat16)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        part = getattr(pipeline, name)
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}, name
        assert not part.training


# -- text ------------------------------------------------------------------------------------------


def tokenizers() -> list[tuple[str, Any, Any]]:
    both = loaded("sdxl", "StableDiffusionXLPipeline")
    one = loaded("pix2pix", "StableDiffusionInstructPix2PixPipeline")
    return [
        ("sdxl 1", both.tokenizer, both.text_encoder),
        ("sdxl 2", both.tokenizer_2, both.text_encoder_2),
        ("pix2pix", one.tokenizer, one.text_encoder),
    ]


def test_each_word_is_one_token_and_unknown_words_are_spelt():
    for label, tokenizer, encoder in tokenizers():
        for word in wording.vocabulary():
            assert len(tokenizer(word).input_ids) == 3, (label, word)
        ids = tokenizer("A ZEBRA, ünder the 日本 🦓!").input_ids
        assert 20 < len(ids) < 60
        assert max(ids) < encoder.config.vocab_size
        assert len(tokenizer("red " * 200, truncation=True).input_ids) == 77


def test_special_tokens_agree_with_the_text_encoder():
    for label, tokenizer, encoder in tokenizers():
        config = encoder.config
        assert config.bos_token_id == tokenizer.bos_token_id, label
        assert config.eos_token_id == tokenizer.eos_token_id, label
        assert config.pad_token_id == tokenizer.pad_token_id, label
        assert tokenizer.pad_token == ("!" if label == "sdxl 2" else "<|endoftext|>")
        assert tokenizer.model_max_length == config.max_position_embeddings == 77
        ids = tokenizer("a red boat").input_ids
        assert (ids[0], ids[-1]) == (config.bos_token_id, config.eos_token_id)


def test_pooling_reads_the_end_token(sdxl):
    ids = sdxl.tokenizer_2(
        ["a red boat"], padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        out = sdxl.text_encoder_2(ids)
        end = int((ids[0] == sdxl.tokenizer_2.eos_token_id).nonzero()[0])
        expected = sdxl.text_encoder_2.text_projection(out.last_hidden_state[:, end])
    assert end == 4
    assert torch.allclose(out.text_embeds, expected, atol=1e-5)


def test_unknown_words_do_not_crash(sdxl):
    with torch.inference_mode():
        picture = sdxl(
            "a photo of an astronaut riding a horse, 日本 🦓",
            negative_prompt="blurry, low quality",
            height=128,
            width=128,
            num_inference_steps=2,
        ).images[0]
    assert picture.size == (128, 128)


# -- files -----------------------------------------------------------------------------------------


def files() -> list[Path]:
    return [p for p in embedded.ASSETS.rglob("*") if p.is_file()]


ADDITIONS = ("controlnet-edges", "lora-sepia.safetensors")
"""What may be added to a pipeline; everything else is the pipelines."""


def test_sizes_of_the_pipelines_and_of_what_may_be_added():
    size = {False: 0, True: 0}
    for path in files():
        size[path.relative_to(embedded.ASSETS).parts[0] in ADDITIONS] += path.stat().st_size
    assert size[False] <= 20_000_000
    assert 0 < size[True] <= 2_500_000


def test_weights_are_safetensors_that_everybody_can_read():
    kinds = {p.suffix for p in files()}
    assert kinds <= {".safetensors", ".json", ".txt", ".md"}
    for path in files():
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444, path
    assert len([p for p in files() if p.suffix == ".safetensors"]) == 8
    assert (embedded.ASSETS / "MODEL_CARD.md").is_file()


def test_weights_are_half_precision_and_finite():
    from safetensors.torch import load_file

    for path in files():
        if path.suffix == ".safetensors":
            for name, tensor in load_file(str(path)).items():
                assert tensor.dtype == torch.float16, (path, name)
                assert torch.isfinite(tensor).all(), (path, name)


def test_configs_name_no_path_of_another_machine():
    for path in files():
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8")
            assert "_name_or_path" not in text
            assert not re.search(r"/(work|tmp|home|root)/", text), path
            json.loads(text)


def test_number_of_parameters(sdxl, pix2pix):
    def count(module: Any) -> float:
        return sum(p.numel() for p in module.parameters()) / 1e6

    assert 4.0 < count(sdxl.unet) < 4.5
    assert 3.5 < count(pix2pix.unet) < 4.0
    assert 0.9 < count(sdxl.vae) < 1.0
    assert count(sdxl.text_encoder) < 0.2
    assert count(sdxl.text_encoder_2) < 0.2
    assert pix2pix.unet.config.in_channels == 8


def test_autoencoder_gives_pictures_back(sdxl):
    rng = random.Random(77)
    pictures = np.stack([np.asarray(scenes.render(scenes.sample(rng))) for _ in range(8)])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.inference_mode():
        latents = sdxl.vae.encode(x).latent_dist.mode()
        back = sdxl.vae.decode(latents).sample.clamp(-1, 1)
    mse = ((back - x) ** 2).mean(dim=(1, 2, 3)) / 4
    assert float((-10 * torch.log10(mse)).mean()) > 32.0  # dB
    assert sdxl.vae.config.scaling_factor == 1.0
    assert 0.8 < float(latents.std()) < 1.25


# -- errors ----------------------------------------------------------------------------------------


def test_unknown_name():
    with pytest.raises(SourceError, match="sdxl, pix2pix"):
        embedded.load("flux", diffusers.StableDiffusionXLPipeline)


def test_class_that_cannot_be_built_from_the_parts():
    with pytest.raises(SourceError, match="StableDiffusionPipeline"):
        embedded.load("sdxl", diffusers.StableDiffusionPipeline)


def test_missing_files(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "ASSETS", tmp_path / "nowhere")
    with pytest.raises(SourceError, match="missing"):
        embedded.load("sdxl", diffusers.StableDiffusionXLPipeline)
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    with pytest.raises(SourceError, match="cannot be read"):
        embedded.load("sdxl", diffusers.StableDiffusionXLPipeline)
