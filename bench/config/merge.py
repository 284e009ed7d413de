"""What was written for a workload, merged with its places, completed and validated once.

A field is the nearest one of built-in defaults, the preset of ``defaults``, ``defaults``, the
preset of the workload, the workload, axes and ``include``. It keeps the place where it was written,
for messages and for the folder in which a relative path starts.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from bench import folder
from bench.config import catalogue, inputs
from bench.config import values as v
from bench.config.cells import Base, Group
from bench.config.errors import ConfigError, shown
from bench.config.keys import Around, Workload, defaults_of
from bench.config.load import Config
from bench.config.matrix import Choice, Combination
from bench.config.tree import KeyPath
from bench.contract import GivenFile

RANDOM_SEEDS = 2**31
"""A seed that is drawn is below this, which leaves room above it for every image's own."""

_NO_FIELDS = ("name", "preset")

canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def fields_of(given: Mapping[str, Any], path: KeyPath) -> dict[str, Choice]:
    """Return the fields of a workload that were written at a place, over those of its preset there.

    A size is two fields, so that one of them can be changed by what is nearer.
    """
    preset = catalogue.WORKLOAD_PRESETS.get(given.get("preset", ""), {})
    fields = {key: Choice(value, (*path, "preset")) for key, value in preset.items()}
    own = {k: Choice(value, (*path, k)) for k, value in given.items() if k not in _NO_FIELDS}
    return fields | sides_apart(own)


def sides_apart(choices: Mapping[str, Choice]) -> dict[str, Choice]:
    fields: dict[str, Choice] = {}
    for key, choice in choices.items():
        if isinstance(choice.value, v.Sides):
            fields |= {side: Choice(each, choice.path) for side, each in choice.value.items()}
        else:
            fields[key] = choice
    return fields


@dataclass(frozen=True)
class _Merged:
    """A workload as it was written: the nearest of each field, with its place."""

    config: Config
    combination: Combination
    base: Base | None
    name: str
    fields: dict[str, Choice]
    where: KeyPath

    def place(self, key: str | int) -> KeyPath:
        return self.fields[str(key)].path if key in self.fields else self.where

    def start_of(self, key: str) -> Path:
        return self.config.start_of(self.place(key))

    def error(self, message: str, path: KeyPath) -> ConfigError:
        return self.config.error(f"workload '{self.name}': {message}", path)


class Merger:
    """From combinations to what their cells share.

    Args:
        top: the keys of the top level.
        defaults: the fields of ``defaults``.
        seeds_known: by the place where ``random`` is written, what was drawn before.
    """

    def __init__(
        self,
        config: Config,
        top: Mapping[str, Choice],
        defaults: dict[str, Choice],
        seeds_known: Mapping[str, int],
    ) -> None:
        self.config = config
        self.shapes = config.shapes
        self.top = top
        self.defaults = defaults
        self.remote: bool = config.document.allow_remote_code
        self.seeds_drawn: dict[str, int] = {}
        self._seeds_known = seeds_known
        self._names: dict[str, list[str]] = {}
        self._groups: dict[tuple[int, ...], list[tuple[dict[str, Choice], Group]]] = {}
        self._read: dict[tuple[str, str, Path], GivenFile] = {}

    def groups(self, combination: Combination) -> list[tuple[dict[str, Choice], Group]]:
        """Return what a combination becomes, each with the choices that this adds to it.

        It is one group, or one for each model that images are drawn.

        Raises:
            ConfigError: the workload is not complete, or no machine could run it.
        """
        # choices are shared between combinations, so identity tells groups apart cheaply
        identity = tuple(
            id(choice) for key, choice in combination.items() if key not in ("backend", "cache")
        )
        if identity not in self._groups:
            self._groups[identity] = list(self._new_groups(self._merged(combination)))
        return self._groups[identity]

    def at_top(self, key: str) -> Any:
        """Return the value of a cell's key at the top level."""
        return self.top[key].value if key in self.top else self.shapes.cell_keys[key]

    def _new_groups(self, merged: _Merged) -> Iterator[tuple[dict[str, Choice], Group]]:
        fields = merged.fields
        if "task" not in fields:
            raise self.config.error(f"workload '{merged.name}' needs the key 'task'", merged.where)
        task = self.shapes.tasks[fields["task"].value]
        for many, one in task.traits.either.items():
            if many in fields and one in fields:
                both = f"'{many}' and '{one}' are both given; keep one of them"
                raise self.config.error(
                    f"workload '{merged.name}': {both}", fields[many].path, key=True
                )
        spread = fields.get(task.traits.spread or "")
        if spread is None:
            yield {}, self._group(merged, task)
            return
        for model in spread.value:
            added = {"model": Choice(model, spread.path)}
            yield added, self._group(replace(merged, fields={**fields, **added}), task)

    def _merged(self, combination: Combination) -> _Merged:
        choice = combination.get("workload")
        base: Base | None = None if choice is None else choice.value
        chosen = {key: each for key, each in combination.items() if key in self.shapes.fields}
        fields = (self.defaults if base is None else base.fields) | sides_apart(chosen)
        written = next((each.path for each in combination.values()), ("matrix",))
        where = written if base is None else base.path
        name = _model_name(fields) if base is None else base.name
        return _Merged(self.config, combination, base, name, fields, where)

    def _group(self, merged: _Merged, task: type[Workload]) -> Group:
        device, threads = (
            merged.combination[key].value if key in merged.combination else self.at_top(key)
            for key in ("device", "threads")
        )
        device = "cuda" if isinstance(device, tuple) else device
        around = Around(device, self.remote, merged.fields.keys(), merged.start_of, self.images_in)
        complete = self._complete(merged, task, around)
        workload = complete.cell(merged.name)
        files = self._inputs(workload, merged)
        count = complete.images(files, around)
        last = workload["seed"] + count - 1
        if last > v.MAX_SEED:
            raise merged.error(
                f"the last of {count} images would have the seed {last}, and {v.MAX_SEED} is the "
                "largest",
                merged.place("seed"),
            )
        located = {"model": f"path:{files['model']['path']}"} if "model" in files else {}
        passes = self._passes(merged, workload | located, task)
        # What a file holds makes the cell, wherever it lies.
        held = {key: inputs.identity(key, file) for key, file in files.items()}
        named = {key: value for key, value in workload.items() if key != "name"}
        identity = {
            "device": f'"{device}"',
            "threads": str(threads),
            "workload": canonical(named | held),
            # a cell without a pass is the cell that it was before there was such a pass
            **{
                key: canonical(value)
                for key, value in passes.items()
                if value != self.shapes.passes[key].off
            },
        }
        calls = complete.calls(files, around)
        return Group(merged.fields, task, workload, device, threads, passes, identity, files, calls)

    def _complete(self, merged: _Merged, task: type[Workload], around: Around) -> Workload:
        given = {key: each.value for key, each in self._meant(merged, task)}
        if given.get("seed") == v.RANDOM:
            given["seed"] = self._seed(merged.fields["seed"].path)
        try:
            return self.shapes.workload.validate_python(given, context=around)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False)[0]
        key = first["loc"][-1]
        if first["type"] == "missing":
            raise self.config.error(f"workload '{merged.name}' needs the key '{key}'", merged.where)
        about = first.get("ctx", {}).get("key") or key
        raise merged.error(first["msg"], merged.place(about))

    def _meant(self, merged: _Merged, task: type[Workload]) -> Iterator[tuple[str, Choice]]:
        """Yield the fields that mean something to a task; refuse others, but for null and presets.

        Raises:
            ConfigError: naming the tasks that such a key belongs to.
        """
        traits, known = task.traits, defaults_of(task)
        for key, choice in merged.fields.items():
            if key in known and key not in traits.leaves_out:
                yield key, choice
            elif choice.value is not None and choice.path[-1] != "preset":
                nothing = f"means nothing for {merged.fields['task'].value}"
                if traits.leaves_out.get(key):
                    raise merged.error(f"'{key}' {nothing}: {traits.leaves_out[key]}", choice.path)
                owners = [
                    name
                    for name, other in self.shapes.tasks.items()
                    if key in other.model_fields
                    and key not in (*other.traits.leaves_out, *other.traits.conditional)
                ]
                raise merged.error(
                    f"'{key}' {shown(choice.value)} {nothing}; it belongs to "
                    f"{' and '.join(owners)}",
                    choice.path,
                )

    def _passes(
        self, merged: _Merged, workload: Mapping[str, Any], task: type[Workload]
    ) -> dict[str, Any]:
        """Return every pass of a cell, off or on; nearer wins, of a nested one key by key."""
        own = merged.base.passes if merged.base else {}
        made = {}
        for name, each in self.shapes.passes.items():
            levels = [at[name] for at in (self.top, own, merged.combination) if name in at]
            written: Any = None
            for level in levels:
                inner = each.nested and written is not None and level.value is not None
                written = written.model_copy(update=level.value.given()) if inner else level.value
            try:
                made[name] = each.value(written, workload, task) if levels else each.off
            except PydanticCustomError as wrong:
                context = cast("dict[str, Any]", wrong.context)
                path = _level_of(levels, context["key"])
                raise merged.error(context["message"], path) from None
            if each.equal_calls and made[name] != each.off and not task.traits.equal_calls:
                raise merged.error(
                    f"'{name}' needs equal calls, and a {workload['task']}'s are not; leave it out",
                    levels[-1].path,
                )
        return made

    def _seed(self, path: KeyPath) -> int:
        """Return a random seed, which is drawn once for each place where it is written."""
        place = ".".join(map(str, path))
        if place not in self.seeds_drawn:
            known = self._seeds_known.get(place)
            self.seeds_drawn[place] = secrets.randbelow(RANDOM_SEEDS) if known is None else known
        return self.seeds_drawn[place]

    def images_in(self, place: str) -> list[str]:
        """Return the names of a folder's images, listed once for all cells."""
        if place not in self._names:
            self._names[place] = folder.names(Path(place))
        return self._names[place]

    def _inputs(self, workload: Mapping[str, Any], merged: _Merged) -> dict[str, GivenFile]:
        """Return the files that a workload names; refuse what is not there."""
        files: dict[str, GivenFile] = {}
        for key, text in inputs.named(workload):
            start = merged.start_of(key)
            if (key, text, start) not in self._read:
                try:
                    self._read[key, text, start] = inputs.read(key, text, start)
                except inputs.InputError as problem:
                    raise merged.error(str(problem), merged.place(key)) from None
            files[key] = self._read[key, text, start]
        return files


def _level_of(levels: Sequence[Choice], key: str | None) -> KeyPath:
    """Return where a key of a nested pass was written, or the pass itself."""
    for level in reversed(levels):
        if key is not None and level.value is not None and key in level.value.given():
            return (*level.path, key)
    return levels[-1].path


def _model_name(fields: Mapping[str, Choice]) -> str:
    """Return a workload name for a matrix without a workload axis."""
    model = str(fields["model"].value) if "model" in fields else ""
    last = model.partition(":")[2].rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "workload"
