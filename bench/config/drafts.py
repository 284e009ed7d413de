"""Cells in the making: what a combination resolves to, in which order, and under which name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from bench import modes
from bench.config import additions, models
from bench.config.matrix import Combination
from bench.config.tree import KeyPath
from bench.contract import BackendChoice, CellMore, GivenFile, Sweep, Workload

FREE_TEXT = ("pictures", "prompts", "models")


@dataclass(frozen=True, eq=False)
class Backend:
    """A backend as a cell asks for it."""

    choice: BackendChoice
    cache: str | None
    label: str
    canonical: str


@dataclass(frozen=True, eq=False)
class WorkloadBase:
    """A workload before axes: its fields over presets and defaults, and where they were written."""

    name: str
    fields: dict[str, Any]
    written: frozenset[str]  # fields written in the entry itself
    preset: frozenset[str]  # fields of the preset that the entry names
    path: KeyPath
    sweep: Any = None  # as written in the entry; None if nothing or null was
    sweep_written: bool = False


@dataclass(frozen=True, eq=False)
class Group:
    """What cells share that differ in nothing but backend and cache."""

    workload: Workload
    canonical: str
    device: str
    threads: int
    sweep: Sweep | None
    passes: CellMore  # that are asked for
    passes_canonical: str  # what these and the sweep add to a cell's canonical JSON; "" for none
    inputs: dict[str, GivenFile]


@dataclass(frozen=True, eq=False)
class Draft:
    combination: Combination
    group: Group
    backend: Backend
    cache: str


def adjacent(drafts: list[Draft]) -> list[Draft]:
    """Put the cells of each group side by side, groups in the order of their first cell."""
    by_group: dict[tuple[str, str, int, str], list[Draft]] = {}
    for draft in drafts:
        group = draft.group
        key = (group.workload["name"], group.device, group.threads, group.canonical)
        by_group.setdefault(key, []).append(draft)
    return list(itertools.chain.from_iterable(by_group.values()))


def cell_names(drafts: Sequence[Draft]) -> list[str]:
    """Return ``workload/what varies/backend`` for each draft; nearly always unique."""
    keys: dict[str, list[str]] = {}
    caches: dict[str, set[str]] = {}
    for draft in drafts:
        known = keys.setdefault(draft.group.workload["name"], [])
        for key in draft.combination:
            if key not in ("workload", "backend", "cache", "sweep") and key not in known:
                known.append(key)
        caches.setdefault(draft.backend.label, set()).add(draft.cache)
    texts = [
        {key: _part(key, draft) for key in keys[draft.group.workload["name"]]} for draft in drafts
    ]
    varying: dict[str, dict[str, set[str]]] = {}
    for draft, text in zip(drafts, texts, strict=True):
        seen = varying.setdefault(draft.group.workload["name"], {})
        for key, part in text.items():
            seen.setdefault(key, set()).add(part)
    names = []
    for draft, text in zip(drafts, texts, strict=True):
        seen = varying[draft.group.workload["name"]]
        parts = [draft.group.workload["name"]]
        parts += [text[key] for key in models.AXES if key in seen and len(seen[key]) > 1]
        parts.append(draft.backend.label)
        if len(caches[draft.backend.label]) > 1:
            parts.append(f"cache={draft.cache}")
        names.append("/".join(parts))
    return names


def _part(key: str, draft: Draft) -> str:
    """Return how a cell name says one value."""
    workload = cast("dict[str, Any]", draft.group.workload)
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
    if key in additions.DEFAULTS:
        return additions.part(workload, key)
    if key == "telemetry":
        return "telemetry" if "telemetry" in draft.group.passes else "telemetry=off"
    value: Any = {
        "device": draft.group.device,
        "threads": draft.group.threads,
        "repeat": draft.group.passes.get("repeat", "none"),
        "deterministic": workload.get("deterministic", False),
    }.get(key)
    if value is None and key in modes.KEYS:
        value = modes.word_of(workload, key)
    elif value is None:
        value = workload.get(key)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if key in ("prompt", "negative_prompt", "input_image", "model", "extra", *FREE_TEXT):
        text = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-")
        text = text if len(text) <= 32 else text[:32].rstrip("-")
    return f"{key}={text}"


def size_text(workload: Mapping[str, Any]) -> str:
    """Return ``512``, or ``768x1024`` as width x height."""
    height, width = workload["height"], workload["width"]
    return str(height) if height == width else f"{width}x{height}"
