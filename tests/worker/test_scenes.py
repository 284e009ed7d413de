"""The drawn world: deterministic, any size, and its words match its pictures."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import numpy as np
import pytest

from bench.worker import scenes
from bench.worker.scenes import Scene
from scripts.train_embedded import wording


def array(scene: Scene, width: int = 128, height: int = 128) -> np.ndarray:
    return np.asarray(scenes.render(scene, width, height), dtype=np.float32)


def test_same_record_same_picture():
    scene = Scene("tower", "blue", "snow", "night", "left", "big", seed=7)
    assert np.array_equal(array(scene), array(replace(scene)))


@pytest.mark.parametrize(("width", "height"), [(128, 128), (96, 64), (64, 96), (512, 512), (1, 1)])
def test_any_size(width, height):
    picture = scenes.render(Scene(), width, height)
    assert picture.size == (width, height)
    assert picture.mode == "RGB"


def test_sizes_show_the_same_scene():
    scene = Scene("star", "pink", "grass", "night", "right", "medium", seed=3)
    large = scenes.render(scene, 512, 512).resize((128, 128))
    error = np.asarray(large, dtype=np.float32) - array(scene)
    assert np.abs(error).mean() < 2.5


def test_no_picture_of_no_size():
    with pytest.raises(ValueError, match="0x128"):
        scenes.render(Scene(), 0, 128)


@pytest.mark.parametrize("field", ["subject", "colour", "ground", "sky", "position", "size"])
def test_unknown_words_are_refused(field):
    with pytest.raises(ValueError, match=field):
        Scene(**{field: "zebra"})


@pytest.mark.parametrize("field", [f.name for f in fields(Scene)])
def test_every_field_shows(field):
    scene = Scene("boat", "red", "water", "day", "middle", "medium", seed=1)
    other = {
        "subject": "tower",
        "colour": "orange",
        "ground": "sand",
        "sky": "cloudy",
        "position": "left",
        "size": "big",
        "seed": 2,
    }[field]
    assert np.abs(array(scene) - array(replace(scene, **{field: other}))).max() > 40


def test_silhouettes_differ_pairwise():
    masks = {s: scenes.subject_mask(Scene(subject=s)) > 0.5 for s in scenes.SUBJECTS}
    for a in scenes.SUBJECTS:
        for b in scenes.SUBJECTS:
            if a != b:
                union = (masks[a] | masks[b]).sum()
                assert (masks[a] & masks[b]).sum() / union < 0.72, (a, b)


def test_mask_covers_the_subject_and_only_it():
    scene = Scene("house", "red", "grass", "day", seed=4)
    recoloured = replace(scene, colour="blue")
    change = np.abs(array(scene) - array(recoloured)).max(axis=2) > 30
    mask = scenes.subject_mask(scene)
    assert mask.shape == (128, 128)
    assert change[mask < 0.01].sum() == 0
    assert mask[change].mean() > 0.95


def test_full_caption():
    scene = Scene("boat", "red", "water", "day", "right", "big")
    assert wording.caption(scene) == "a big red boat on water on the right under a blue sky"
    assert wording.caption(Scene("star", "orange", "grass", "night")) == (
        "an orange star above grass at night"
    )


def test_captions_name_subject_and_colour_in_known_words():
    rng = random.Random(0)
    known = set(wording.vocabulary())
    for _ in range(300):
        scene = scenes.sample(rng)
        text = wording.caption(scene, rng)
        assert f"{scene.colour} {scene.subject}" in text
        assert set(text.split()) <= known
        assert "  " not in text


def test_edits_change_one_field_in_known_words():
    rng = random.Random(1)
    known = set(wording.vocabulary())
    seen = set()
    for _ in range(300):
        edit = wording.sample_edit(rng)
        seen.add(edit.kind)
        value = getattr(edit.target, edit.kind)
        assert value != getattr(edit.source, edit.kind)
        assert replace(edit.source, **{edit.kind: value}) == edit.target
        assert edit.instruction.endswith(value)
        assert set(edit.instruction.split()) <= known
    assert seen == set(wording.EDIT_KINDS)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("sky", "night", "make it night"),
        ("colour", "red", "make the house red"),
        ("ground", "snow", "put it on snow"),
        ("subject", "star", "turn the house into a star"),
    ],
)
def test_wording_of_edits(kind, value, text):
    assert wording.make_edit(Scene(colour="blue"), kind, value).instruction == text


def test_unknown_kind_of_edit():
    with pytest.raises(ValueError, match="mood"):
        wording.make_edit(Scene(), "mood", "gloomy")


def test_samples_repeat_and_follow_weights():
    first = [scenes.sample(random.Random(5)) for _ in range(2)]
    assert first[0] == first[1]
    rng = random.Random(6)
    assert {scenes.sample(rng, (0, 0, 1, 0, 0, 0)).subject for _ in range(20)} == {"tower"}
