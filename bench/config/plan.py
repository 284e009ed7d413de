"""From a validated configuration to cells: the same on every machine that has its files."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as kept
from pathlib import Path
from typing import Any, cast

from bench import chains, folder, modes
from bench.config import (
    additions,
    backends,
    catalogue,
    estimate,
    folders,
    inputs,
    matrix,
    models,
    sizes,
    tree,
)
from bench.config.drafts import Backend, Draft, Group, WorkloadBase, adjacent, cell_names
from bench.config.errors import ConfigError, did_you_mean, shown
from bench.config.load import Config, explain
from bench.config.matrix import Choice, Combination
from bench.config.select import select
from bench.config.tree import KeyPath, collector_paused
from bench.contract import (
    SCHEMA_VERSION,
    BackendChoice,
    Cell,
    CellMore,
    GivenFile,
    Limits,
    Protocol,
    RepeatRule,
    Sweep,
    Telemetry,
    WarmupRule,
    Workload,
    WorkloadMore,
)
from compilers import registry


@dataclass(frozen=True)
class Plan:
    """The resolved form of a configuration.

    Cells of one workload are neighbours, in the order of the backends. Cells share their parts
    (workload, protocol, …) and must not be changed.

    Attributes:
        name: name of the run.
        cells: what to run, in order.
        devices: GPUs that the cells whose device is ``cuda`` are shared out between, one cell on
            each at a time; empty if the configuration named no list.
        estimated_seconds: rough time on a reference machine; see `bench.config.estimate`.
        estimated_disk_bytes: rough size of the run folder.
        estimated_download_bytes: rough size of the Hub models, if none is there yet.
        notes: what a user may not have meant, a sentence each.
        seeds_drawn: by the place where ``seed: random`` was written, what was drawn for it.
        draws: of task folder, what each picture gets, with the cells that share it.
        search: of a search for what fits, the ``multiple`` of the sizes tried, in pixels, and their
            ``aspect``, width over height; None for the shape that it began with.
    """

    name: str
    cells: list[Cell]
    devices: tuple[str, ...]
    estimated_seconds: float
    estimated_disk_bytes: int
    estimated_download_bytes: int
    notes: tuple[str, ...] = ()
    seeds_drawn: Mapping[str, int] = kept(default_factory=dict)
    draws: Sequence[Mapping[str, Any]] = ()
    search: Mapping[str, Any] = kept(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of cells; each runs once for every round of its protocol."""
        return len(self.cells)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data that `from_json` reads back."""
        return {
            "schema": SCHEMA_VERSION,
            "name": self.name,
            "count": self.count,
            "devices": list(self.devices),
            "estimated_seconds": self.estimated_seconds,
            "estimated_disk_bytes": self.estimated_disk_bytes,
            "estimated_download_bytes": self.estimated_download_bytes,
            "notes": list(self.notes),
            **({"seeds_drawn": dict(self.seeds_drawn)} if self.seeds_drawn else {}),
            **({"draws": list(self.draws)} if self.draws else {}),
            **({"search": dict(self.search)} if self.search else {}),
            "cells": self.cells,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            ValueError: written by a newer version, or no plan.
        """
        try:
            if data["schema"] > SCHEMA_VERSION:
                raise ValueError(
                    f"the plan has schema {data['schema']}; this version reads {SCHEMA_VERSION}"
                )
            return cls(
                name=data["name"],
                cells=list(data["cells"]),
                devices=tuple(data["devices"]),
                estimated_seconds=data["estimated_seconds"],
                estimated_disk_bytes=data["estimated_disk_bytes"],
                estimated_download_bytes=data["estimated_download_bytes"],
                notes=tuple(data.get("notes", ())),
                seeds_drawn=dict(data.get("seeds_drawn", {})),
                draws=tuple(data.get("draws", ())),
                search=dict(data.get("search", {})),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a plan: {error}") from error


RANDOM_SEEDS = 2**31
"""A seed that is drawn is below this, which leaves room above it for every picture's own."""


def make_plan(config: Config, seeds_drawn: Mapping[str, int] | None = None) -> Plan:
    """Expand a configuration to its cells.

    Args:
        seeds_drawn: of the plan of the run that is resumed, so that ``seed: random`` stays what it
            was; what is not in it is drawn.

    Raises:
        ConfigError: an unknown backend or option, an impossible or duplicate cell, no cell, more
            than ``matrix.MAX_CELLS``, or an ``only`` that fits nothing.
    """
    with collector_paused():
        return _Planner(config, seeds_drawn or {}).plan()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


_WHOLE_SIZES = ("size", "asked_size")


def _flat(given: dict[str, Any]) -> dict[str, Any]:
    """Return fields with ``size`` split into ``height`` and ``width``."""
    fields = dict(given)
    for key in _WHOLE_SIZES:
        size = fields.pop(key, None)
        if size is not None:
            fields["height"], fields["width"] = size
    fields.pop("preset", None)
    fields.pop("name", None)
    fields.pop("sweep", None)
    return additions.flat(fields)


CHAIN_ONLY = ("samples", "max_batch", "start_from")
_BOUNDS = ("device_bytes", "rss_bytes")
_SIZE_KEYS = (*_WHOLE_SIZES, "height", "width")


class _Planner:
    def __init__(self, config: Config, seeds_drawn: Mapping[str, int]) -> None:
        self.config = config
        self._seeds_known = seeds_drawn
        self._seeds_drawn: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        self.top = config.document.given()
        given = config.document.matrix.given()
        self.exclude: list[dict[str, Any]] = [entry.given() for entry in given.pop("exclude", [])]
        self.include: list[dict[str, Any]] = [entry.given() for entry in given.pop("include", [])]
        # the order in which axes were written decides which one varies slowest
        written = cast("dict[str, Any]", config.root.value)["matrix"].node.value
        self.axes: dict[str, list[Any]] = {key: given[key] for key in written if key in given}
        self.protocol = self._protocol()
        limits = config.document.given().get("limits")
        limited = limits.given() if limits is not None else {}
        self.limits: Limits = {
            "timeout_s": limited.get("timeout", catalogue.DEFAULT_TIMEOUT_S),
            "memory_bytes": limited.get("memory"),
        }
        # They decide who runs out of memory; a cell without them is the cell that it always was.
        if limited.get("rss") is not None:
            self.limits["rss_bytes"] = limited["rss"]
        if limited.get("device_memory") is not None:
            self.limits["device_bytes"] = limited["device_memory"]
        defaults = self.top["defaults"].given() if "defaults" in self.top else {}
        self._check_size_keys(defaults, ("defaults",))
        self.defaults: dict[str, Any] = {
            **_flat(catalogue.WORKLOAD_PRESETS.get(defaults.get("preset", ""), {})),
            **_flat(defaults),
        }
        self.defaults_written = frozenset(_flat(defaults))
        self._groups: dict[tuple[Any, ...], Group] = {}
        self._read: dict[tuple[str, str, Path], GivenFile] = {}
        self._none: Backend | None = None

    # ---------------------------------------------------------------- the road

    def plan(self) -> Plan:
        self._check_axes()
        self.axes = {
            key: [
                self._base(value, ("matrix", key, at))
                if key == "workload"
                else self._backend(value, ("matrix", key, at))
                if key == "backend"
                else value
                for at, value in enumerate(values)
            ]
            for key, values in self.axes.items()
        }
        self._check_repeats()
        self._check_patterns()
        try:
            combinations = matrix.expand(
                self.axes, self.exclude, self.include, matches=self._matches
            )
        except matrix.TooManyError as error:
            raise self._error(str(error), ("matrix",), key=True) from None
        if not combinations:
            reason = "every combination is excluded" if self.axes else "it has no axis"
            raise self._error(f"the matrix gives no cells: {reason}", ("matrix",), key=True)
        self._own_combinations(combinations)
        combinations = self._one_for_each_model(combinations)
        drafts = adjacent([self._draft(combination) for combination in combinations])
        idle = [draft for draft in drafts if draft.group.passes.get("calls_planned") == 0]
        drafts = [draft for draft in drafts if draft.group.passes.get("calls_planned") != 0]
        drafts = self._with_baselines(drafts)
        cells = self._cells(drafts)
        kept = select(cells, [draft.backend.label for draft in drafts], self.config.only)
        cells = [cells[at] for at in kept]
        drafts = [drafts[at] for at in kept]
        seconds, disk = self._estimate(drafts)
        device = self.top.get("device")
        pool = device if isinstance(device, tuple) else ()
        downloads = {(c["workload"]["model"], c["workload"]["variant"]) for c in cells}
        return Plan(
            name=self.config.name,
            cells=cells,
            devices=pool,
            estimated_seconds=round(seconds / max(1, len(pool)), 1),
            estimated_disk_bytes=disk,
            estimated_download_bytes=sum(estimate.download_bytes(*item) for item in downloads),
            notes=tuple(
                dict.fromkeys(
                    (
                        *self._overridden_in_vain(drafts),
                        *_in_vain_together(drafts),
                        *(
                            f"workload '{each.group.workload['name']}': no picture was drawn for "
                            f"{each.group.workload['model']}, so it has no cell"
                            for each in idle
                        ),
                        *self._too_long(drafts),
                        *(
                            f"{place}: drew {seed}; 'seed: {seed}' makes the same pictures again"
                            for place, seed in self._seeds_drawn.items()
                        ),
                    )
                )
            ),
            seeds_drawn=self._seeds_drawn,
            draws=tuple(folders.draws(cells, self._names)),
        )

    def _too_long(self, drafts: Sequence[Draft]) -> Iterator[str]:
        """Say which folders may take longer than a worker is given."""
        for draft in drafts:
            planned, workload = draft.group.passes.get("calls_planned"), draft.group.workload
            if planned is None:
                continue
            rounds = self.protocol["rounds"]
            seconds = self._worker_seconds(draft) / rounds
            if seconds > self.limits["timeout_s"]:
                yield (
                    f"workload '{workload['name']}': {planned} pictures may take {seconds:.0f} s, "
                    f"and 'limits.timeout' ends a worker after {self.limits['timeout_s']:.0f} s"
                )

    def _overridden_in_vain(self, drafts: Sequence[Draft]) -> Iterator[str]:
        """Refuse a ``--set`` that no cell takes, and say which workloads do not take one."""
        defaults = self.top["defaults"].given() if "defaults" in self.top else {}
        paths: list[tuple[str, ...]] = [("defaults", key) for key in defaults if key != "preset"]
        paths += [(key,) for key in models.CELL_KEYS if key in self.top]
        for path in paths:
            place = tree.place_of(self.config.root, path, key=True)
            if place.source == self.config.source:
                continue
            reasons = [(draft, self._nearer(path[-1], draft)) for draft in drafts]
            deaf = {draft.group.workload["name"]: why for draft, why in reasons if why}
            if all(why for _, why in reasons):
                why = next(iter(deaf.values()))
                raise self._error(f"has no effect: {why}", path, key=True)
            for why in dict.fromkeys(deaf.values()):
                yield f"{place} has no effect on some cells: {why}"

    def _nearer(self, key: str, draft: Draft) -> str | None:
        """Return what takes precedence over ``key`` of the defaults or of the top level, if any."""
        workload = draft.group.workload["name"]
        base = _base_of(draft.combination)
        told: dict[str, str] = {}
        for field in ("height", "width") if key in _WHOLE_SIZES else (key,):
            names = (field, *_WHOLE_SIZES) if field in _SIZE_KEYS else (field,)
            chosen = next((name for name in names if name in draft.combination), None)
            if chosen is not None and draft.combination[chosen].path[1] == "include":
                told[field] = f"an include entry sets '{chosen}'"
            elif chosen is not None:
                told[field] = f"'{chosen}' is an axis; change it by --set 'matrix.{chosen}=[…]'"
            elif base is not None and field in base.written:
                told[field] = (
                    f"workload '{workload}' has its own '{key}'; change it by "
                    f"--set matrix.workload.{workload}.{key}=…"
                )
            elif base is not None and field in base.preset:
                told[field] = f"workload '{workload}' takes '{key}' from its preset"
            elif field == "cache" and draft.backend.cache is not None:
                told[field] = f"backend '{draft.backend.choice['name']}' has its own 'cache'"
            else:
                return None
        return next(iter(told.values()))

    def _error(self, message: str, path: KeyPath, *, key: bool = False) -> ConfigError:
        return self.config.error(message, path, key=key)

    # ------------------------------------------------------- protocol and axes

    def _protocol(self) -> Protocol:
        settings = self.top.get("protocol")
        given = settings.given() if settings is not None else {}
        preset = catalogue.PROTOCOLS[given.get("preset", catalogue.DEFAULT_PROTOCOL)]
        warmup: dict[str, Any] = dict(preset["warmup"])
        if "warmup" in given:
            warmup.update(given["warmup"].given())
        calls: dict[str, Any] = dict(preset["calls"])
        if "calls" in given:
            changed = given["calls"].given()
            if "time_cap" in changed:
                changed["time_cap_s"] = changed.pop("time_cap")
            calls.update(changed)
        self._order("protocol", "warmup", warmup, "min_calls", "max_calls")
        self._order("protocol", "warmup", warmup, "stable_calls", "max_calls")
        self._order("protocol", "calls", calls, "min_calls", "max_calls")
        return {
            "warmup": cast(WarmupRule, warmup),
            "calls": cast(RepeatRule, calls),
            "rounds": given.get("rounds", preset["rounds"]),
        }

    def _order(self, section: str, part: str, rule: dict[str, Any], lower: str, upper: str) -> None:
        if rule[lower] <= rule[upper]:
            return
        settings = self.top[section].given()[part].given()
        wrong = lower if lower in settings else upper
        raise self._error(
            f"{section}.{part}: {lower} {rule[lower]} is more than {upper} {rule[upper]}",
            (section, part, wrong),
        )

    def _check_size_keys(self, given: dict[str, Any], path: KeyPath) -> None:
        """Refuse ``size`` beside ``height`` or ``width``: one of them would be ignored."""
        whole = next((key for key in _WHOLE_SIZES if key in given), None)
        twice = [key for key in _SIZE_KEYS if key in given and key != whole]
        if whole is not None and twice:
            raise self._error(
                f"'{twice[0]}' says again what '{whole}' says; keep one of them",
                (*path, twice[0]),
                key=True,
            )

    def _check_axes(self) -> None:
        """Refuse values that an axis would silently replace."""
        self._check_size_keys(self.axes, ("matrix",))
        sized = [key for key in _SIZE_KEYS if key in self.axes]
        for at, entry in enumerate(self.axes.get("workload", [])):
            given = entry.given()
            self._check_size_keys(given, ("matrix", "workload", at))
            for key in given:
                axis = key if key in self.axes else None
                if key in _SIZE_KEYS and sized:
                    whole = {key, *sized} & set(_WHOLE_SIZES)
                    clash = bool(whole) or key in sized
                    axis = sized[0] if clash else None
                if axis is not None and key not in ("workload", "backend"):
                    raise self._error(
                        f"workload '{entry.name}' sets '{key}', and '{axis}' is an axis; "
                        "keep one of them",
                        ("matrix", "workload", at, key),
                        key=True,
                    )
        if "cache" in self.axes:
            for at, entry in enumerate(self.axes.get("backend", [])):
                if "cache" in entry.given():
                    raise self._error(
                        f"backend '{entry.name}' sets 'cache', and 'cache' is an axis; "
                        "keep one of them",
                        ("matrix", "backend", at, "cache"),
                        key=True,
                    )

    def _check_repeats(self) -> None:
        for axis, values in self.axes.items():
            seen: set[object] = set()
            for at, value in enumerate(values):
                identity: object
                if isinstance(value, WorkloadBase):
                    identity = value.name
                elif isinstance(value, Backend):
                    identity = (value.canonical, value.cache)
                else:
                    identity = _canonical(value) if isinstance(value, (dict, list)) else value
                if identity in seen:
                    raise self._error(_listed_twice(axis, value), ("matrix", axis, at))
                seen.add(identity)

    # --------------------------------------------------- workloads and backends

    def _base(self, entry: Any, path: KeyPath) -> WorkloadBase:
        given = entry.given()
        self._check_size_keys(given, path)
        preset = _flat(catalogue.WORKLOAD_PRESETS.get(given.get("preset", ""), {}))
        return WorkloadBase(
            name=given["name"],
            fields={**self.defaults, **preset, **_flat(given)},
            written=frozenset(_flat(given)),
            preset=frozenset(preset),
            path=path,
            sweep=given.get("sweep"),
            sweep_written="sweep" in given,
        )

    def _backend(self, entry: Any, path: KeyPath) -> Backend:
        given = entry.given()
        name = given["name"]
        # a backend may be written as its bare name, which then is the place
        if name not in backends.names():
            raise self._error(
                f"unknown backend {shown(name)}. {did_you_mean(name, backends.names())}",
                (*path, "name"),
            )
        try:
            own = backends.get(name).environment
            options = backends.resolve_options(name, given.get("options", {}))
        except registry.BackendError as error:
            raise self._error(str(error), (*path, "name")) from None
        except backends.OptionError as error:
            if not error.errors:
                raise self._error(str(error), (*path, "options")) from None
            raise explain(
                self.config.root,
                error.errors,
                (*path, "options"),
                known=list(backends.options_model(name).model_fields),
            ) from None
        environment = given.get("environment", own)
        choice: BackendChoice = {"name": name, "options": options, "environment": environment}
        label = backends.option_label(name, options)
        return Backend(
            choice=choice,
            cache=given.get("cache"),
            label=label if environment == own else f"{label}@{environment}",
            canonical=_canonical(choice),
        )

    # --------------------------------------------------------- include, exclude

    def _check_patterns(self) -> None:
        for at, entry in enumerate(self.exclude):
            path: KeyPath = ("matrix", "exclude", at)
            if not entry:
                raise self._error("exclude entry is empty", path)
            for key in entry:
                if key not in self.axes:
                    hint = did_you_mean(key, list(self.axes))
                    if key in models.FIELD_KEYS and "workload" in self.axes:
                        hint = f"Write it as part of the workload: 'workload: {{{key}: …}}'."
                    raise self._error(
                        f"exclude: '{key}' is no axis of this matrix. {hint}",
                        (*path, key),
                        key=True,
                    )
            self._check_names(entry, path)
        for at, entry in enumerate(self.include):
            path = ("matrix", "include", at)
            if not entry:
                raise self._error("include entry is empty", path)
            self._check_size_keys(entry, path)
            self._check_names(entry, path)

    def _check_names(self, entry: dict[str, Any], path: KeyPath) -> None:
        """Refuse names in patterns that nothing has, which would silently fit nothing."""
        if "backend" in entry:
            name = entry["backend"].given().get("name")
            if name is not None and name not in backends.names():
                raise self._error(
                    f"unknown backend {shown(name)}. {did_you_mean(name, backends.names())}",
                    (*path, "backend", "name"),
                )
        if "workload" in entry:
            given = entry["workload"].given()
            self._check_size_keys(given, (*path, "workload"))
            known = [base.name for base in self.axes.get("workload", [])]
            if list(given) == ["name"] and given["name"] not in known:
                hint = did_you_mean(given["name"], known)
                raise self._error(
                    f"unknown workload {shown(given['name'])}. {hint}",
                    (*path, "workload", "name"),
                )

    def _matches(self, key: str, asked: Any, value: Any) -> bool:
        if key == "workload":
            given = asked.given()
            if given.get("name", value.name) != value.name:
                return False
            return all(
                field in value.fields and matrix.equal(wanted, value.fields[field])
                for field, wanted in _flat(given).items()
            )
        if key == "backend":
            given = asked.given()
            options = value.choice["options"]
            return (
                given.get("name", value.choice["name"]) == value.choice["name"]
                and given.get("cache", value.cache) == value.cache
                and given.get("environment", value.choice["environment"])
                == value.choice["environment"]
                and all(
                    option in options and matrix.equal(wanted, options[option])
                    for option, wanted in given.get("options", {}).items()
                )
            )
        return matrix.equal(asked, value)

    def _own_combinations(self, combinations: list[Combination]) -> None:
        """Resolve the patterns in combinations that ``include`` made: a known one, or a new one."""
        names = {base.name for base in self.axes.get("workload", [])}
        resolved: dict[int, Choice] = {}  # an entry that fits many combinations is resolved once
        for combination in combinations:
            for key, pattern, model, make in (
                ("workload", models.WorkloadPattern, models.WorkloadEntry, self._base),
                ("backend", models.BackendPattern, models.BackendEntry, self._backend),
            ):
                choice = combination.get(key)
                if choice is None or not isinstance(choice.value, pattern):
                    continue
                if id(choice) in resolved:
                    combination[key] = resolved[id(choice)]
                    continue
                combination[key] = resolved[id(choice)] = self._resolved(
                    key, choice, model, make, names
                )

    def _resolved(
        self,
        key: str,
        choice: Choice,
        model: type[models.Strict],
        make: Callable[[Any, KeyPath], Any],
        names: set[str],
    ) -> Choice:
        given = choice.value.given()
        fitting = [
            value for value in self.axes.get(key, []) if self._matches(key, choice.value, value)
        ]
        if len(fitting) > 1:
            raise self._error(
                f"include: {len(fitting)} {key}s fit this; write more of the one that is meant",
                choice.path,
            )
        if len(fitting) == 1:
            return Choice(fitting[0], choice.path)
        if "name" not in given:
            raise self._error(f"include: a new {key} needs a name", choice.path)
        if key == "workload":
            if given["name"] in names:
                raise self._error(
                    f"duplicate workload name '{given['name']}'; to change a key of a workload in "
                    f"one cell, write it beside the name: {{workload: {given['name']}, steps: 20}}",
                    (*choice.path, "name"),
                )
            names.add(given["name"])
        return Choice(make(model.model_construct(set(given), **given), choice.path), choice.path)

    # ------------------------------------------------------------------- cells

    def _draft(self, combination: Combination) -> Draft:
        backend_choice = combination.get("backend")
        backend: Backend = self._baseline() if backend_choice is None else backend_choice.value
        cache = combination["cache"].value if "cache" in combination else backend.cache
        # choices are shared between combinations, so identity tells groups apart cheaply
        identity = tuple(
            id(choice) for key, choice in combination.items() if key not in ("backend", "cache")
        )
        group = self._groups.get(identity)
        if group is None:
            group = self._groups[identity] = self._group(combination)
        return Draft(combination, group, backend, cache or self.top.get("cache", "fresh"))

    def _baseline(self) -> Backend:
        if self._none is None:
            self._none = self._backend(models.BackendEntry(name="none"), ("matrix",))
        return self._none

    def _with_baselines(self, drafts: list[Draft]) -> list[Draft]:
        """Add ``none`` in each environment that a workload with a ``none`` has backends in.

        Figures of two environments never meet in one ratio, since another torch is another
        machine; so each needs a baseline of its own.
        """
        measured: dict[tuple[Any, ...], Draft] = {}
        known = set()
        for draft in drafts:
            if draft.backend.choice["name"] == backends.BASELINE:
                measured.setdefault(_workload_key(draft), draft)
                known.add((_workload_key(draft), draft.backend.choice["environment"]))
        made = []
        for draft in drafts:
            environment = draft.backend.choice["environment"]
            key = _workload_key(draft)
            if key in measured and (key, environment) not in known:
                known.add((key, environment))
                entry = models.BackendEntry.model_construct(
                    {"name", "environment"}, name=backends.BASELINE, environment=environment
                )
                baseline = self._backend(entry, ("matrix",))
                model = measured[key]
                made.append(Draft(model.combination, model.group, baseline, model.cache))
            made.append(draft)
        return made

    def _group(self, combination: Combination) -> Group:
        top_device = self.top.get("device", "auto")
        device = "cuda" if isinstance(top_device, tuple) else top_device
        if "device" in combination:
            device = combination["device"].value
        threads = (
            combination["threads"].value if "threads" in combination else self.top.get("threads", 1)
        )
        workload = self._workload(combination, device)
        given = self._inputs(workload, _Origin(self, combination, _base_of(combination)))
        unnamed = {
            **{key: value for key, value in workload.items() if key != "name"},
            # What a file holds makes the cell, wherever it lies.
            **{key: inputs.identity(key, file) for key, file in given.items()},
        }
        sweep = self._sweep(combination, workload)
        passes = self._passes(combination)
        # a cell without a pass is the cell that it was before there were such passes
        asked = {
            "repeat": passes.get("repeat"),
            "sweep": sweep,
            "telemetry": passes.get("telemetry"),
        }
        identity = "".join(
            f'"{name}":{_canonical(what)},' for name, what in asked.items() if what is not None
        )
        if workload["task"] == "folder":
            found = self._pictures(given["pictures"]["path"])
            self._check_seeds(workload, len(found), combination)
            self._check_folder(workload, [name for name in asked if asked[name]], combination)
            passes["calls_planned"] = folders.count_of(workload, found)
        return Group(workload, _canonical(unnamed), device, threads, sweep, passes, identity, given)

    def _passes(self, combination: Combination) -> CellMore:
        """Return the passes of a cell that take no further keys of other parts."""
        found: CellMore = {}
        telemetry, repeat = (
            combination[key].value if key in combination else self.top.get(key)
            for key in ("telemetry", "repeat")
        )
        if repeat is not None:
            found["repeat"] = repeat
        if telemetry is not None:
            given = telemetry.given()
            named = {"period": "period_s", "time": "time_s", "calls": "min_calls", "idle": "idle_s"}
            found["telemetry"] = cast(
                Telemetry,
                {
                    **catalogue.DEFAULT_TELEMETRY,
                    **{named[key]: value for key, value in given.items()},
                },
            )
        return found

    def _pictures(self, place: str) -> list[str]:
        """Return the names of a folder's pictures, listed once for all cells."""
        if place not in self._names:
            self._names[place] = folder.names(Path(place))
        return self._names[place]

    def _check_folder(
        self, workload: Workload, passes: Sequence[str], combination: Combination
    ) -> None:
        found = folders.problem(workload, passes)
        if found is not None:
            where = _Origin(self, combination, _base_of(combination))
            raise self._error(f"workload '{workload['name']}': {found[1]}", where.field(found[0]))

    def _check_seeds(self, workload: Workload, count: int, combination: Combination) -> None:
        """Refuse seeds beyond the largest, with which no picture could be made again alone."""
        last = workload["seed"] + count - 1
        if last > models.MAX_SEED:
            where = _Origin(self, combination, _base_of(combination))
            raise self._error(
                f"workload '{workload['name']}': the last of {count} pictures would have the seed "
                f"{last}, and {models.MAX_SEED} is the largest",
                where.field("seed"),
            )

    def _one_for_each_model(self, combinations: list[Combination]) -> list[Combination]:
        """Split combinations that draw from several models, so that each is loaded once."""
        found: list[Combination] = []
        # Equal choices must be one object, by which cells of one workload are told.
        made: dict[tuple[int, str], Choice] = {}
        for combination in combinations:
            base = _base_of(combination)
            fields = self._fields(combination, base)
            if fields.get("task") != "folder":
                found.append(combination)
                continue
            where = _Origin(self, combination, base)
            twice = folders.both(fields)
            if twice is not None:
                name = base.name if base is not None else "folder"
                raise self._error(f"workload '{name}': {twice[1]}", where.field(twice[0]), key=True)
            several = fields.get("models")
            if several is None:
                found.append(combination)
                continue
            path = where.field("models")
            for model in several:
                choice = made.setdefault((id(several), model), Choice(model, path))
                found.append({**combination, "model": choice})
        return found

    def _fields(self, combination: Combination, base: WorkloadBase | None) -> dict[str, Any]:
        """Return the fields of a workload as they were written, the nearest of each."""
        fields = dict(self.defaults if base is None else base.fields)
        for key, chosen in combination.items():
            if key in _WHOLE_SIZES:
                fields["height"], fields["width"] = chosen.value
            elif key in models.FIELD_KEYS:
                fields.update(additions.flat({key: chosen.value}))
        return fields

    def _seed(self, value: int | str, path: KeyPath) -> int:
        """Return a seed; a random one is drawn once for each place where it is written."""
        if not isinstance(value, str):
            return value
        place = ".".join(map(str, path))
        if place not in self._seeds_drawn:
            known = self._seeds_known.get(place)
            drawn = secrets.randbelow(RANDOM_SEEDS) if known is None else known
            self._seeds_drawn[place] = drawn
        return self._seeds_drawn[place]

    def _inputs(self, workload: Workload, where: _Origin) -> dict[str, GivenFile]:
        """Return the files that a workload names; refuse what is not there."""
        found: dict[str, GivenFile] = {}
        for key, text in inputs.named(workload):
            path = where.field(key)
            start = self.config.start_of(path)
            known = self._read.get((key, text, start))
            if known is None:
                try:
                    known = self._read[key, text, start] = inputs.read(key, text, start)
                except inputs.InputError as error:
                    raise self._error(f"workload '{workload['name']}': {error}", path) from None
            found[key] = known
        return found

    def _sweep(self, combination: Combination, workload: Workload) -> Sweep | None:
        """Return the sweep of a cell; nearer wins key by key, and null takes all away."""
        levels: list[tuple[Any, KeyPath]] = []
        if "sweep" in self.top:
            levels.append((self.top["sweep"], ("sweep",)))
        base = _base_of(combination)
        if base is not None and base.sweep_written:
            levels.append((base.sweep, (*base.path, "sweep")))
        if "sweep" in combination:
            levels.append((combination["sweep"].value, combination["sweep"].path))
        fields: dict[str, Any] = {}
        paths: dict[str, KeyPath] = {}
        for settings, path in levels:
            if settings is None:
                fields, paths = {}, {}
                continue
            paths[""] = path
            fields.update(settings.given())
            paths.update({key: (*path, key) for key in settings.given()})
        if not paths:
            return None
        steps, size = fields.get("steps") or [], fields.get("size") or []
        if not steps and not size:
            raise self._error(
                f"workload '{workload['name']}': a sweep needs 'steps' or 'size'; "
                "for none, write 'sweep: null'",
                paths[""],
            )
        self._check_sweep_steps(steps, workload, paths.get("steps", ()))
        return {
            "steps": list(steps),
            "size": [{"height": height, "width": width} for height, width in size],
            "repeats": fields.get("repeats", catalogue.DEFAULT_SWEEP_REPEATS),
        }

    def _check_sweep_steps(self, steps: list[int], workload: Workload, path: KeyPath) -> None:
        """Refuse step counts of which image-to-image leaves nothing, or too few different ones."""
        strength = workload["strength"]
        if strength is None or not steps:
            return
        if int(min(steps) * strength) < 1:
            raise self._error(
                f"workload '{workload['name']}': sweep: strength {strength:g} x {min(steps)} steps "
                f"leaves {min(steps) * strength:g}, less than one step",
                path,
            )
        # the steps of a chain's first round are all taken
        taken = sorted(
            {int(each * strength) for each in steps}
            if workload["task"] != chains.TASK
            else set(steps)
        )
        if len(taken) < models.MIN_SWEEP_STEPS:
            raise self._error(
                f"workload '{workload['name']}': sweep: strength {strength:g} leaves of these "
                f"steps only {' and '.join(map(str, taken))}; a line needs "
                f"{models.MIN_SWEEP_STEPS} different step counts",
                path,
            )

    def _workload(self, combination: Combination, device: str) -> Workload:
        base = _base_of(combination)
        fields = self._fields(combination, base)
        model = fields.get("model")
        name = base.name if base is not None else _model_name(model or "")
        where = _Origin(self, combination, base)
        if base is None and "workload" in self.axes:
            known = self.axes["workload"][0].name
            raise self._error(
                f"a combination of its own needs a workload; add one, such as 'workload: {known}'",
                where.workload[:3],
            )
        is_folder = fields.get("task") == "folder"
        if is_folder and "prompts" in fields:
            fields["prompt"] = ""
        for key in ("task", "model", "prompt", *(["pictures"] if is_folder else [])):
            if key not in fields:
                raise self._error(f"workload '{name}' needs the key '{key}'", where.workload)
        family = catalogue.FAMILIES[catalogue.family_of(fields["model"])]
        task = fields["task"]
        heavy = fields["model"].startswith(("hub:", "synthetic:"))
        more: WorkloadMore = {}
        if is_folder:
            start = self.config.start_of(where.field("model"))
            more = folders.keys(fields, fields["model"], start)
            if "models" in fields:  # of a mixture, each takes what it knows
                fields["strength" if more["how"] == "edit" else "image_guidance"] = None
        if fields.get("iterations", 1) != 1:
            more["iterations"] = fields["iterations"]
        if fields.get("one_by_one", False):
            more["one_by_one"] = True
        strength = fields.get("strength")
        if strength is None and more.get("how", task) == "image-to-image":
            strength = catalogue.DEFAULT_STRENGTH
        if task == chains.TASK:
            strength = catalogue.CHAIN_STRENGTH if strength is None else strength
            self._complete_chain(name, fields, where)
        workload: Workload = {
            "name": name,
            "task": task,
            "model": fields["model"],
            "variant": fields.get("variant"),
            "scheduler": fields.get("scheduler"),
            "steps": fields.get("steps", catalogue.DEFAULT_STEPS),
            "guidance": _real(fields.get("guidance")),
            "image_guidance": _real(fields.get("image_guidance")),
            "strength": _real(strength),
            "height": fields.get("height", family.size),
            "width": fields.get("width", family.size),
            "batch": fields.get("batch", 1),
            "seed": self._seed(fields.get("seed", catalogue.DEFAULT_SEED), where.field("seed")),
            "prompt": fields["prompt"],
            "negative_prompt": fields.get("negative_prompt"),
            "input_image": fields.get("input_image"),
            "dtype": self._dtype(fields, heavy and device != "cpu", where),
            "generator": fields.get("generator", "cpu"),
            "extra": fields.get("extra", {}),
            **more,
            **additions.of(fields),
        }
        self._round_size(workload, fields, where)
        # what is at its default is left out, so that cells stay what they were without these keys
        if fields.get("memory", modes.NONE) != modes.NONE:
            workload["memory"] = fields["memory"]
        if fields.get("precision") in modes.OF_ITS_OWN:
            workload["precision"] = fields["precision"]
        if fields.get("between", modes.NONE) != modes.NONE:
            workload["between"] = fields["between"]
        if fields.get("deterministic"):
            workload["deterministic"] = fields["deterministic"]
        if task == chains.TASK:
            workload["samples"] = fields["samples"]
            workload["max_batch"] = fields["max_batch"]
            workload["start_from"] = fields["start_from"]
        elif foreign := next((key for key in CHAIN_ONLY if key in fields), None):
            raise self._error(
                f"workload '{name}': '{foreign}' {shown(fields[foreign])} means nothing for "
                f"{task}; it belongs to chain",
                where.field(foreign),
            )
        self._check_workload(workload, where)
        if not is_folder:
            self._check_seeds(
                workload, workload["batch"] * workload.get("iterations", 1), combination
            )
            for key in catalogue.FOLDER_KEYS:
                if key in fields:
                    raise self._error(
                        f"workload '{name}': '{key}' belongs to task folder, and means nothing "
                        f"for {task}",
                        where.field(key),
                    )
        return workload

    def _dtype(self, fields: dict[str, Any], half: bool, where: _Origin) -> Any:
        """Return the type of the weights, which a precision sets; refuse one that says another."""
        word = fields.get("precision")
        if word is None:
            return fields.get("dtype", "float16" if half else "float32")
        dtype = modes.PRECISIONS[word]
        if fields.get("dtype", dtype) != dtype:
            raise self._error(
                f"precision '{word}' has weights in {dtype}, and 'dtype' says {fields['dtype']}; "
                "leave out 'dtype', or write it as the precision",
                where.field("dtype"),
            )
        return dtype

    def _complete_chain(self, name: str, fields: dict[str, Any], where: _Origin) -> None:
        """Fill in what a chain's fields leave out."""
        if where.is_written("batch"):
            raise self._error(
                f"workload '{name}': 'batch' means nothing for chain: 'max_batch' is the number of "
                "pictures of a round, 'samples' that of the whole chain",
                where.field("batch"),
            )
        fields.setdefault("samples", catalogue.CHAIN_SAMPLES)
        fields.setdefault("max_batch", catalogue.CHAIN_MAX_BATCH)
        fields.setdefault("start_from", "first")
        fields["batch"] = fields["max_batch"] = min(fields["max_batch"], fields["samples"])

    def _round_size(self, workload: Workload, fields: dict[str, Any], where: _Origin) -> None:
        """Make a size that was asked for one that the pipeline makes, and keep what was asked."""
        height, width = workload["height"], workload["width"]
        if not isinstance(height, sizes.Asked) or not isinstance(width, sizes.Asked):
            given = next((key for key in ("round_size", "size_multiple") if key in fields), None)
            if given is not None:
                raise self._error(
                    f"workload '{workload['name']}': '{given}' rounds 'asked_size', and this "
                    "workload has none; write asked_size instead of size",
                    where.field(given),
                )
            return
        how = fields.get("round_size", "down")
        multiple = fields.get("size_multiple") or self._own_multiple(workload["model"], where)
        workload["height"] = sizes.rounded(height, multiple, how)
        workload["width"] = sizes.rounded(width, multiple, how)
        # A size that needs no rounding is the cell that it is when written as 'size'.
        if (workload["height"], workload["width"]) != (height, width):
            workload["asked_height"], workload["asked_width"] = int(height), int(width)
            workload["round_size"] = how

    def _own_multiple(self, model: str, where: _Origin) -> int:
        source, _, name = model.partition(":")
        if source != "path":
            return sizes.LEAST_MULTIPLE
        start = self.config.start_of(where.field("model"))
        return sizes.own_multiple(start / Path(name.strip()).expanduser())

    def _check_workload(self, workload: Workload, where: _Origin) -> None:
        """Refuse what no machine could run."""
        name, task = workload["name"], workload["task"]
        source, _, model = workload["model"].partition(":")
        if source in catalogue.BUILT_IN_MODELS and task != "folder":
            tasks = catalogue.BUILT_IN_MODELS[source][model].tasks
            if task not in tasks:
                able = [
                    f"{source}:{other}"
                    for other, info in catalogue.BUILT_IN_MODELS[source].items()
                    if task in info.tasks
                ]
                raise self._error(
                    f"workload '{name}': model '{workload['model']}' does {' and '.join(tasks)}, "
                    f"not {task}. Did you mean '{able[0]}'?",
                    where.field("model"),
                )
        for key, only_for in (
            ("strength", ("image-to-image", "chain")),
            ("image_guidance", ("edit",)),
            ("input_image", ("image-to-image", "edit")),
        ):
            value = cast("dict[str, Any]", workload)[key]
            if value is not None and task not in (*only_for, "folder"):
                raise self._error(
                    f"workload '{name}': '{key}' {shown(value)} means nothing for {task}; "
                    f"it belongs to {' and '.join(only_for)}",
                    where.field(key),
                )
        wrong = additions.problem(workload, remote=self.top.get("allow_remote_code", False))
        if wrong is not None:
            raise self._error(f"workload '{name}': {wrong[1]}", where.field(wrong[0]))
        strength, steps = workload["strength"], workload["steps"]
        # the number of steps that diffusers' image-to-image pipelines take
        if strength is not None and int(steps * strength) < 1:
            written = "strength" if where.is_written("strength") else "steps"
            raise self._error(
                f"workload '{name}': strength {strength:g} x {steps} steps leaves "
                f"{steps * strength:g}, less than one step",
                where.field(written),
            )

    def _cells(self, drafts: Sequence[Draft]) -> list[Cell]:
        """Return the cells of ``drafts``, with names and identities."""
        rules = _canonical({"calls": self.protocol["calls"], "warmup": self.protocol["warmup"]})
        remote = self.top.get("allow_remote_code", False)
        profile = self.top.get("profile", False)
        # a cell that is not profiled is the cell that it was before there were profiles
        profiled = '"profile":true,' if profile else ""
        bounds = {key: value for key, value in self.limits.items() if key in _BOUNDS}
        bounded = f'"limits":{_canonical(bounds)},' if bounds else ""
        names = cell_names(drafts)
        seen: dict[str, int] = {}
        cells: list[Cell] = []
        for at, draft in enumerate(drafts):
            group = draft.group
            # the canonical JSON of the whole, put together from parts that many cells share
            identity = (
                f'{{"backend":{draft.backend.canonical},"cache":"{draft.cache}",'
                f'"device":"{group.device}",{bounded}{profiled}"protocol":{rules},'
                f"{group.passes_canonical}"
                f'"threads":{group.threads},'
                f'"workload":{group.canonical}}}'
            )
            cell_id = hashlib.sha256(identity.encode()).hexdigest()[:16]
            if cell_id in seen:
                self._refuse_duplicate(drafts[seen[cell_id]], draft, names[seen[cell_id]])
            seen[cell_id] = at
            cells.append(
                {
                    "schema": SCHEMA_VERSION,
                    "cell_id": cell_id,
                    "name": names[at],
                    "workload": group.workload,
                    "backend": draft.backend.choice,
                    "cache": cast(Any, draft.cache),
                    "protocol": self.protocol,
                    "sweep": group.sweep,
                    "profile": profile,
                    "inputs": group.inputs,
                    "device": group.device,
                    "threads": group.threads,
                    "limits": self.limits,
                    "allow_remote_code": remote,
                    **group.passes,
                }
            )
        counts: dict[str, int] = {}
        for cell in cells:
            counts[cell["name"]] = counts.get(cell["name"], 0) + 1
        for cell in cells:
            if counts[cell["name"]] > 1:
                cell["name"] = f"{cell['name']}/{cell['cell_id'][:6]}"
        return cells

    def _refuse_duplicate(self, first: Draft, second: Draft, name: str) -> None:
        path: KeyPath = ("matrix",)
        for key, choice in second.combination.items():
            if first.combination.get(key) is not choice:
                path = choice.path
                break
        one, two = first.group.workload["name"], second.group.workload["name"]
        alike = inputs.alike(first.group.workload, second.group.workload)
        why = (
            f"{alike[0]} and {alike[1]} hold the same"
            if alike
            else f"workloads '{one}' and '{two}' differ in nothing but their name"
            if one != two
            else "it arises twice"
        )
        raise self._error(f"duplicate cell '{name}': {why}", path)

    def _estimate(self, drafts: Sequence[Draft]) -> tuple[float, int]:
        known: dict[tuple[Any, ...], tuple[float, int]] = {}
        seconds, disk = 0.0, 0
        rounds = self.protocol["rounds"]
        for draft in drafts:
            workload, group, backend = draft.group.workload, draft.group, draft.backend
            key = (
                workload["model"], workload["height"], workload["width"], workload["batch"],
                workload["steps"], workload["strength"], chains.pictures(workload), group.device,
                backend.choice["name"], draft.cache, group.passes_canonical,
                group.passes.get("calls_planned"), workload.get("iterations"),
            )  # fmt: skip
            if key not in known:
                known[key] = (
                    self._worker_seconds(draft),
                    estimate.cell_bytes(
                        workload,
                        backend.choice["name"],
                        draft.cache,
                        rounds,
                        group.passes.get("calls_planned"),
                    ),
                )
            seconds += known[key][0]
            disk += known[key][1]
        return seconds, disk

    def _worker_seconds(self, draft: Draft) -> float:
        group = draft.group
        return estimate.worker_seconds(
            group.workload,
            draft.backend.choice["name"],
            draft.cache,
            group.device,
            self.protocol,
            group.sweep,
            group.passes,
        )


class _Origin:
    """Where the fields of a workload were written; asked for errors only."""

    def __init__(
        self, planner: _Planner, combination: Combination, base: WorkloadBase | None
    ) -> None:
        self._planner = planner
        self._combination = combination
        self._base = base

    @property
    def workload(self) -> KeyPath:
        if self._base is not None:
            return self._base.path
        return next((choice.path for choice in self._combination.values()), ("matrix",))

    def _find(self, key: str) -> KeyPath | None:
        if key in self._combination:
            return self._combination[key].path
        if self._base is not None and key in self._base.written:
            return (*self._base.path, key)
        if key in self._planner.defaults_written:
            return ("defaults", key)
        return None

    def is_written(self, key: str) -> bool:
        return self._find(key) is not None

    def field(self, key: str) -> KeyPath:
        return self._find(key) or self.workload


def _in_vain_together(drafts: Sequence[Draft]) -> Iterator[str]:
    """Name each pair of memory modes and backend that will end as unsupported, once."""
    seen: set[tuple[str, str]] = set()
    for draft in drafts:
        memory, choice = draft.group.workload.get("memory"), draft.backend.choice
        why = modes.with_backend(memory, registry.traits_of(choice["name"]), choice["options"])
        if why and (str(memory), draft.backend.label) not in seen:
            seen.add((str(memory), draft.backend.label))
            yield f"'{draft.backend.label}' with memory '{memory}' will be unsupported: {why}"


def _workload_key(draft: Draft) -> tuple[Any, ...]:
    """Return what cells share that differ in nothing but backend and cache."""
    group = draft.group
    name = group.workload["name"]
    return name, group.device, group.threads, group.canonical, group.passes_canonical


def _base_of(combination: Combination) -> WorkloadBase | None:
    choice = combination.get("workload")
    return None if choice is None else cast(WorkloadBase, choice.value)


def _listed_twice(axis: str, value: Any) -> str:
    if isinstance(value, WorkloadBase):
        return f"duplicate workload name '{value.name}'"
    if isinstance(value, Backend):
        return f"duplicate cell: backend '{value.label}' is listed twice"
    text = f"{value[1]}x{value[0]}" if isinstance(value, tuple) else shown(value)
    return f"duplicate cell: axis '{axis}' has {text} twice"


def _real(value: float | None) -> float | None:
    """Return a number as float, so that 7 and 7.0 are the same cell."""
    return None if value is None else float(value)


def _model_name(model: str) -> str:
    """Return a workload name for a matrix without a workload axis."""
    last = model.partition(":")[2].rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "workload"
