"""Scenes in words: captions, and edits worded as instructions. What the models are trained with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.worker.scenes import (
    COLOURS,
    FLOATING,
    GROUNDS,
    POSITIONS,
    SIZES,
    SKIES,
    SUBJECTS,
    Scene,
    sample,
)

EDIT_KINDS = ("sky", "colour", "ground", "subject")

_SKY_WORDS = {
    "day": "under a blue sky",
    "sunset": "at sunset",
    "night": "at night",
    "cloudy": "under a cloudy sky",
}
_POSITION_WORDS = {"left": "on the left", "middle": "in the middle", "right": "on the right"}


@dataclass(frozen=True)
class Edit:
    """One editing example: `instruction` turns `source` into `target`."""

    kind: str
    source: Scene
    target: Scene
    instruction: str


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """Describe `scene` in words.

    Without `rng` the caption is complete but for words that go without saying (medium, middle).
    With `rng` details are left out or worded differently at random, as people would.
    """
    size = "" if scene.size == "medium" else scene.size
    position = "" if scene.position == "middle" else _POSITION_WORDS[scene.position]
    ground = scene.ground
    sky = _SKY_WORDS[scene.sky]
    if rng is not None:
        if rng.random() < 0.2:
            size = ""
        if scene.position == "middle":
            position = _POSITION_WORDS["middle"] if rng.random() < 0.25 else ""
        elif rng.random() < 0.15:
            position = ""
        if ground == "grass" and rng.random() < 0.4:
            ground = "green grass"
        if rng.random() < 0.08:
            ground = ""
        if rng.random() < 0.08:
            sky = ""
    above = "above" if scene.subject in FLOATING else "on"
    words = [w for w in (size, scene.colour, scene.subject) if w]
    article = "an" if words[0][0] in "aeiou" else "a"
    place = [f"{above} {ground}" if ground else "", position]
    if rng is not None and rng.random() < 0.4:
        place.reverse()
    return " ".join(w for w in (article, *words, *place, sky) if w)


def make_edit(scene: Scene, kind: str, value: str, rng: random.Random | None = None) -> Edit:
    """Change one field of `scene` to `value` and word it as an instruction.

    Raises:
        ValueError: unknown `kind` (see `EDIT_KINDS`) or `value`.
    """
    second = rng is not None and rng.random() < 0.3
    if kind == "sky":
        target = replace(scene, sky=value)
        instruction = f"make it {value}"
    elif kind == "colour":
        target = replace(scene, colour=value)
        instruction = f"make the {scene.subject} {value}"
    elif kind == "ground":
        target = replace(scene, ground=value)
        above = "above" if scene.subject in FLOATING and second else "on"
        instruction = f"put it {above} {value}"
        if rng is not None and rng.random() < 0.5:
            instruction = f"turn the ground into {value}"
    elif kind == "subject":
        target = replace(scene, subject=value)
        article = "an" if value[0] in "aeiou" else "a"
        verb = "replace the {} with" if second else "turn the {} into"
        instruction = f"{verb.format(scene.subject)} {article} {value}"
    else:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(EDIT_KINDS)}")
    return Edit(kind, scene, target, instruction)


def sample_edit(rng: random.Random, kind_weights: Sequence[float] | None = None) -> Edit:
    """Draw an editing example; `kind_weights` has one weight per entry of `EDIT_KINDS`."""
    scene = sample(rng)
    kind = rng.choices(EDIT_KINDS, weights=kind_weights)[0]
    values = {"sky": SKIES, "colour": COLOURS, "ground": GROUNDS, "subject": SUBJECTS}[kind]
    value = rng.choice([v for v in values if v != getattr(scene, kind)])
    return make_edit(scene, kind, value, rng)


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption or an instruction can hold, sorted, plus a few common others."""
    words = {*SUBJECTS, *COLOURS, *GROUNDS, *SKIES, *POSITIONS, *SIZES}
    sentences = (
        *_SKY_WORDS.values(),
        *_POSITION_WORDS.values(),
        "a an above make it put turn ground replace with and of photo picture drawing",
        "into blurry low quality",
    )
    for sentence in sentences:
        words.update(sentence.split())
    return tuple(sorted(words))
