"""Keys of task folder: what is done to its images, and what each is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bench import files, folder
from bench.config import catalogue
from bench.config import values as v
from bench.config.errors import shown
from bench.config.keys import REQUIRED, Around, Traits, Workload, key
from bench.contract import Cell, GivenFile
from bench.tasks.image_to_image.keys import STRENGTH

_TWICE = ", which would be drawn twice as often"


class Keys(Workload):
    """Every image of a folder through one model, each one call."""

    traits = Traits(
        after="input_image",
        leaves_out={"input_image": "the images of 'pictures' are the input"},
        conditional={"strength": "image-to-image", "image_guidance": "edit"},
        either={"prompts": "prompt", "models": "model"},
        spread="models",
        equal_calls=False,
    )
    task: Literal["folder"]
    pictures: v.Text = key(
        REQUIRED,
        "`folder` only, as the next six: with its subfolders; see [Paths](#paths) and "
        "[Folders](folder.md)",
        "a folder or a file",
    )
    how: Literal["image-to-image", "edit"] = key(
        None,
        "what is done to each image: `edit` if the model is an instruct-pix2pix",
        absent="by model",
    )
    resize: Literal["fit", "pad"] = key(
        "fit", "make images fit into `size` with their own aspect, or fill it up to one shape"
    )
    enlarge: bool = key(False, "also enlarge images smaller than `size`")
    prompts: Annotated[
        list[v.Text], AfterValidator(v.different("prompts", _TWICE)), Field(min_length=1)
    ] = key(None, "instead of `prompt`: each image is drawn one", "a list of texts")
    models: Annotated[
        list[v.Model], AfterValidator(v.different("models", _TWICE)), Field(min_length=1)
    ] = key(
        None,
        "instead of `model`: each image is drawn one; a cell for each model",
        "a list of models",
    )
    draw_seed: int = key(
        0,
        "seed of these draws; that of an image depends on it and on the image's name alone",
        ge=0,
        le=v.MAX_SEED,
    )

    @classmethod
    def complete(cls, given: dict[str, Any], around: Around) -> None:
        """Fill in what is done; of several models, each takes the keys that it knows."""
        super().complete(given, around)
        if "prompts" in given:
            given["prompt"] = ""
        how = "edit" if is_edit(given["model"], around.start_of("model")) else "image-to-image"
        how = given.setdefault("how", how)
        if "models" in given:
            for name, needs in cls.traits.conditional.items():
                if needs != how:
                    given.pop(name, None)
        if how == "image-to-image":
            given.setdefault("strength", STRENGTH)

    def problems(self, around: Around) -> Iterator[tuple[str, str]]:
        """Refuse what has no meaning for what is done."""
        for name, needs in self.traits.conditional.items():
            value = getattr(self, name)
            if value is not None and self.how != needs:
                what = name.replace("_", " ")
                yield (
                    name,
                    f"'{name}' {shown(value)} means nothing here: {what} belongs to how: {needs}",
                )
        for name in ("batch", "iterations"):
            if getattr(self, name) != 1:
                yield name, f"'{name}' must be 1 in task folder, whose calls take one image each"
        able = catalogue.tasks_of(self.model)
        if able is not None and self.how not in able:
            yield "how", f"model '{self.model}' does {' and '.join(able)}, not {self.how}"
        if self.controlnet is not None:
            yield "controlnet", "a ControlNet steers one call's image, and folder makes many"
        for name, wrong in super().problems(around):
            if name != "model":
                yield name, wrong

    def images(self, inputs: Mapping[str, GivenFile], around: Around) -> int:
        """Return the number of images in the folder, whichever model they fall to."""
        return len(around.images_in(inputs["pictures"]["path"]))

    def calls(self, inputs: Mapping[str, GivenFile], around: Around) -> int:
        """Return how many images fall to the workload's own model."""
        drawn = folder.drawn(self.cell(""), around.images_in(inputs["pictures"]["path"]))
        return sum(each["model"] == self.model for each in drawn)

    @classmethod
    def draws(
        cls, cells: Sequence[Cell], images_in: Callable[[str], Sequence[str]]
    ) -> list[dict[str, Any]]:
        """Return what each image is drawn, once for all cells that agree on it."""
        by_draw: dict[str, dict[str, Any]] = {}
        for cell in cells:
            workload, given = cell["workload"], cell["inputs"]["pictures"]
            choices = workload.get("prompts"), workload.get("models")
            single = workload["prompt"], None if choices[1] else workload["model"]
            seeds = workload["seed"], workload.get("draw_seed", 0)
            draw = json.dumps([given, *choices, *single, *seeds])
            if draw not in by_draw:
                rows = list(folder.drawn(workload, images_in(given["path"])))
                by_draw[draw] = {"cells": [], "pictures": rows}
            by_draw[draw]["cells"].append(cell["cell_id"])
        return list(by_draw.values())


def is_edit(model: str, start: Path) -> bool:
    """Return whether a model edits by instruction, as far as is known before it is loaded.

    Built-in models are known; of a folder the class that its ``model_index.json`` names decides,
    of a Hub model its name.

    Args:
        start: absolute, where a relative ``path:`` starts.
    """
    able = catalogue.tasks_of(model)
    if able is not None:
        return "edit" in able
    source, _, kind = model.partition(":")
    if source == "path":
        place = (start / Path(kind.strip()).expanduser()).resolve()
        try:
            index = files.read(place / "model_index.json", files.CONFIG_BYTES)
            kind = str(json.loads(index)["_class_name"])
        except (OSError, ValueError, KeyError, TypeError):
            kind = place.name  # the worker says what is wrong with the folder
    return "pix2pix" in kind.lower()
