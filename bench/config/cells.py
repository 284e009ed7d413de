"""Cells in the making: what a combination becomes, in which order, and under which name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bench import modes
from bench.config.keys import IN_EVERY_CELL, Workload, defaults_of
from bench.config.matrix import Choice, Combination
from bench.config.models import Shapes
from bench.config.tree import KeyPath
from bench.contract import BackendChoice, GivenFile

_FREE_TEXT = frozenset(
    ("prompt", "prompts", "negative_prompt", "input_image", "pictures", "model", "models", "extra",
     "lora", "controlnet", "control_image", "custom_pipeline")
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Backend:
    """A backend as a cell asks for it."""

    choice: BackendChoice
    cache: str | None
    label: str
    canonical: str


@dataclass(frozen=True, eq=False)
class Base:
    """A workload before axes: its fields over presets and defaults, and its keys of passes."""

    name: str
    fields: dict[str, Choice]
    passes: dict[str, Choice]
    path: KeyPath


@dataclass(frozen=True, eq=False)
class Group:
    """What cells share that differ in nothing but backend and cache."""

    fields: Mapping[str, Choice]  # as written, the nearest of each
    task: type[Workload]
    workload: dict[str, Any]
    device: str
    threads: int
    passes: Mapping[str, Any]  # by name, off or on
    identity: Mapping[str, str]  # what it adds to the parts of a cell's canonical JSON
    inputs: dict[str, GivenFile]
    calls: int | None  # measured calls that are planned, of a task that says so

    @property
    def key(self) -> tuple[str, ...]:
        """What is equal for all cells of the group, and different for any other."""
        return (self.workload["name"], *self.identity.values())


@dataclass(frozen=True, eq=False)
class Draft:
    combination: Combination
    group: Group
    backend: Backend
    cache: str


def adjacent(drafts: list[Draft]) -> list[Draft]:
    """Put the cells of each group side by side, groups in the order of their first cell."""
    groups: dict[tuple[str, ...], list[Draft]] = {}
    for draft in drafts:
        parts = draft.group.identity
        key = (draft.group.workload["name"], *(parts[k] for k in ("device", "threads", "workload")))
        groups.setdefault(key, []).append(draft)
    return [draft for group in groups.values() for draft in group]


def cell_names(drafts: Sequence[Draft], shapes: Shapes) -> list[str]:
    """Return ``workload/what varies/backend`` for each draft; nearly always unique."""
    keys: dict[str, dict[str, None]] = {}
    caches: dict[str, set[str]] = {}
    for draft in drafts:
        keys.setdefault(draft.group.workload["name"], {}).update(dict.fromkeys(draft.combination))
        caches.setdefault(draft.backend.label, set()).add(draft.cache)
    ordered = [key for key in shapes.axes if key not in ("workload", "backend", "cache")]
    named = {name: [key for key in ordered if key in used] for name, used in keys.items()}
    texts = [
        {key: _part(key, draft.group, shapes) for key in named[draft.group.workload["name"]]}
        for draft in drafts
    ]
    varying: dict[tuple[str, str], set[str]] = {}
    for draft, text in zip(drafts, texts, strict=True):
        for key, part in text.items():
            varying.setdefault((draft.group.workload["name"], key), set()).add(part)
    names = []
    for draft, text in zip(drafts, texts, strict=True):
        name = draft.group.workload["name"]
        parts = [part for key, part in text.items() if len(varying[name, key]) > 1]
        cache = [f"cache={draft.cache}"] if len(caches[draft.backend.label]) > 1 else []
        names.append("/".join([name, *parts, draft.backend.label, *cache]))
    return names


def _part(key: str, group: Group, shapes: Shapes) -> str:
    """Return how a cell name says one value."""
    workload = group.workload
    if key == "size":
        return size_text(workload)
    if key == "asked_size":
        asked = {
            side: workload.get(f"asked_{side}", workload[side]) for side in ("height", "width")
        }
        made = size_text(workload)
        return made if size_text(asked) == made else f"{size_text(asked)}->{made}"
    if key == "task":
        return str(workload["task"])
    if key in shapes.passes:
        return shapes.passes[key].name(key, group.passes[key])
    if key in shapes.cell_keys:
        return f"{key}={getattr(group, key)}"
    value = value_of(workload, key, group.task)
    if value is None and key not in IN_EVERY_CELL:
        value = "none"
    elif key == "lora":
        how = "fused" if workload.get("lora_fused", True) else "unfused"
        scale = workload.get("lora_scale", 1.0)
        value = f"{PurePath(value).stem}-{how}" + ("" if scale == 1 else f"-x{scale:g}")
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if key in _FREE_TEXT:
        text = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-")
        text = text if len(text) <= 32 else text[:32].rstrip("-")
    return f"{key}={text}"


def value_of(workload: Mapping[str, Any], key: str, task: type[Workload]) -> Any:
    """Return a cell's value of a workload key, which is its default where the cell has none."""
    if key in modes.KEYS:
        return modes.word_of(workload, key)
    return workload.get(key, defaults_of(task).get(key))


def size_text(workload: Mapping[str, Any]) -> str:
    """Return ``512``, or ``768x1024`` as width x height."""
    height, width = workload["height"], workload["width"]
    return str(height) if height == width else f"{width}x{height}"
