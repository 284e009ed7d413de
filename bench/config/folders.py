"""Task folder in a plan: what is done to the pictures, what makes no sense, what each is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from bench import folder
from bench.config import catalogue
from bench.config.errors import shown
from bench.contract import Cell, Workload, WorkloadMore

_SINGLE = {"prompts": "prompt", "models": "model"}


def is_edit(model: str, start: Path) -> bool:
    """Say whether a model edits by instruction, as far as can be told before it is loaded.

    Built-in models are known; of a folder the class that its ``model_index.json`` names decides,
    of a Hub model its name.

    Args:
        start: absolute, where a relative ``path:`` starts.
    """
    source, _, name = model.partition(":")
    if source in catalogue.BUILT_IN_MODELS:
        return "edit" in catalogue.BUILT_IN_MODELS[source][name].tasks
    kind = name
    if source == "path":
        place = (start / Path(name.strip()).expanduser()).resolve()
        try:
            kind = str(json.loads((place / "model_index.json").read_bytes())["_class_name"])
        except (OSError, ValueError, KeyError, TypeError):
            kind = place.name  # the worker says what is wrong with the folder
    return "pix2pix" in kind.lower()


def keys(fields: Mapping[str, Any], model: str, start: Path) -> WorkloadMore:
    """Return the keys that a folder's workload has beyond any other's."""
    given = {key: fields[key] for key in catalogue.FOLDER_KEYS if key in fields}
    for key, default in (("resize", "fit"), ("enlarge", False), ("draw_seed", 0)):
        if given.get(key) == default:
            del given[key]
    how = given.get("how") or ("edit" if is_edit(model, start) else "image-to-image")
    return cast("WorkloadMore", {**given, "how": how})


def both(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the key, and what is wrong, if a list and a single choice are both given."""
    for many, one in _SINGLE.items():
        if many in fields and one in fields:
            return many, f"'{many}' and '{one}' are both given; keep one of them"
    return None


def problem(workload: Workload, passes: Sequence[str]) -> tuple[str, str] | None:
    """Return the key, and what is wrong with it, of a folder's workload that cannot run."""
    how = workload["how"]
    found = cast("Mapping[str, Any]", workload)
    for key, why in (
        ("input_image", "the pictures of 'pictures' are the input"),
        ("strength", "strength belongs to how: image-to-image" if how == "edit" else None),
        ("image_guidance", "image guidance belongs to how: edit" if how != "edit" else None),
    ):
        if why is not None and found[key] is not None:
            return key, f"'{key}' {shown(found[key])} means nothing here: {why}"
    for key in ("batch", "iterations"):
        if found.get(key, 1) != 1:
            return key, f"'{key}' must be 1 in task folder, whose calls take one picture each"
    if passes:
        return "pictures", f"'{passes[0]}' needs equal calls, and a folder's are not; leave it out"
    source, _, name = workload["model"].partition(":")
    if source in catalogue.BUILT_IN_MODELS:
        tasks = catalogue.BUILT_IN_MODELS[source][name].tasks
        if how not in tasks:
            return "how", f"model '{workload['model']}' does {' and '.join(tasks)}, not {how}"
    return None


def count_of(workload: Workload, found: Sequence[str]) -> int:
    """Return how many of a folder's pictures fall to a workload's own model."""
    return sum(each["model"] == workload["model"] for each in folder.drawn(workload, found))


def draws(cells: Sequence[Cell], names: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return what each picture is drawn, once for all cells that agree on it.

    Args:
        names: the pictures by the absolute path of their folder.
    """
    by_draw: dict[str, dict[str, Any]] = {}
    for cell in cells:
        workload = cell["workload"]
        if workload["task"] != "folder":
            continue
        given = cell["inputs"]["pictures"]
        choices = workload.get("prompts"), workload.get("models")
        single = workload["prompt"], None if choices[1] else workload["model"]
        key = json.dumps([given, *choices, *single, workload["seed"], workload.get("draw_seed", 0)])
        if key not in by_draw:
            rows = list(folder.drawn(workload, names[given["path"]]))
            by_draw[key] = {"cells": [], "pictures": rows}
        by_draw[key]["cells"].append(cell["cell_id"])
    return list(by_draw.values())
