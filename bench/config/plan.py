"""From a configuration to cells: the same on every machine that has its files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from bench import modes
from bench.config import backends, catalogue, estimate, inputs, matrix, tree
from bench.config import values as v
from bench.config.cells import Backend, Base, Draft, adjacent, cell_names
from bench.config.errors import ConfigError, did_you_mean, shown
from bench.config.keys import Strict
from bench.config.load import Config, explain
from bench.config.matrix import Choice, Combination
from bench.config.merge import Merger, canonical, fields_of, sides_apart
from bench.config.select import select
from bench.config.tree import KeyPath, collector_paused
from bench.contract import (
    BASELINE,
    SCHEMA_VERSION,
    BackendChoice,
    Cell,
    Limits,
    LimitsMore,
    Protocol,
)
from compilers import registry


@dataclass(frozen=True)
class Plan:
    """The resolved form of a configuration.

    Cells of one workload are neighbours, in the order of the backends. Cells share their parts
    (workload, protocol, …) and must not be changed.
    """

    name: str
    cells: list[Cell]
    # GPUs that the cells whose device is ``cuda`` are shared out between, one cell on each at a
    # time; empty if the configuration named no list
    devices: tuple[str, ...]
    estimated_seconds: float  # on a reference machine; see `bench.config.estimate`
    estimated_disk_bytes: int
    estimated_download_bytes: int  # of the Hub models, if none is there yet
    notes: tuple[str, ...] = ()  # what a user may not have meant, a sentence each
    seeds_drawn: Mapping[str, int] = field(default_factory=dict)  # by where ``random`` was written
    draws: Sequence[Mapping[str, Any]] = ()  # what each image of a folder gets, with its cells
    # of a search for what fits, the ``multiple`` of the sizes tried, in pixels, and their
    # ``aspect``, width over height; None for the shape that it began with
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of cells; each runs once for every round of its protocol."""
        return len(self.cells)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data that `from_json` reads back."""
        whole = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(self).items()}
        cells, seeds, draws, search = map(whole.pop, ("cells", "seeds_drawn", "draws", "search"))
        more = {"seeds_drawn": seeds, "draws": draws, "search": search}
        head = {"schema": SCHEMA_VERSION, "name": whole.pop("name"), "count": self.count}
        return head | whole | {key: v for key, v in more.items() if v} | {"cells": cells}

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
            known = {each.name: data[each.name] for each in fields(cls) if each.name in data}
            for name in ("devices", "notes", "draws"):
                known[name] = tuple(known.get(name, ()))
            return cls(**{**known, "cells": list(known["cells"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a plan: {error}") from error


_SIZE_KEYS = ("size", "asked_size", "height", "width")
_WHOLE_SIZES = _SIZE_KEYS[:2]


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


class _Planner:
    def __init__(self, config: Config, seeds_known: Mapping[str, int]) -> None:
        self.config = config
        self.shapes = config.shapes
        self._baselines: dict[str | None, Backend] = {}
        document = config.document
        top = document.given()
        self.top = {key: Choice(value, (key,)) for key, value in top.items()}
        given = document.matrix.given()
        self.exclude: list[dict[str, Any]] = [entry.given() for entry in given.pop("exclude", [])]
        self.include: list[dict[str, Any]] = [entry.given() for entry in given.pop("include", [])]
        # the order in which axes were written decides which one varies slowest
        written = cast("dict[str, Any]", config.root.value)["matrix"].node.value
        self.axes: dict[str, list[Any]] = {key: given[key] for key in written if key in given}
        self.protocol = self._protocol(document.protocol)
        limits = document.limits.model_dump(by_alias=True)
        bounds = {key: limits.pop(key) for key in LimitsMore.__annotations__}
        self.bounds = {key: bound for key, bound in bounds.items() if bound is not None}
        self.limits = cast(Limits, {**limits, **self.bounds})
        defaults = top["defaults"].given() if "defaults" in top else {}
        self._check_size_keys(defaults, ("defaults",))
        fields = fields_of(defaults, ("defaults",))
        self.merger = Merger(config, self.top, fields, seeds_known)

    # ---------------------------------------------------------------- the road

    def plan(self) -> Plan:
        self._check_axes()
        for key, make in (("workload", self._base), ("backend", self._backend)):
            if key in self.axes:
                entries = enumerate(self.axes[key])
                self.axes[key] = [make(each.given(), ("matrix", key, at)) for at, each in entries]
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
        drafts = adjacent([draft for each in combinations for draft in self._drafts(each)])
        idle = [draft.group for draft in drafts if draft.group.calls == 0]
        drafts = self._with_baselines([draft for draft in drafts if draft.group.calls != 0])
        cells = self._cells(drafts)
        if self.config.only:
            labels = [draft.backend.label for draft in drafts]
            kept = select(cells, labels, self.config.only, self.shapes)
            cells, drafts = [cells[at] for at in kept], [drafts[at] for at in kept]
        seconds = [estimate.worker_seconds(cell) for cell in cells]
        device = self.top["device"].value if "device" in self.top else None
        pool = device if isinstance(device, tuple) else ()
        downloads = {(c["workload"]["model"], c["workload"]["variant"]) for c in cells}
        notes = (
            *self._overridden_in_vain(drafts),
            *_in_vain_together(drafts),
            *(
                f"workload '{each.workload['name']}': no image was drawn for "
                f"{each.workload['model']}, so it has no cell"
                for each in idle
            ),
            *self._too_long(cells, seconds),
            *(
                f"{place}: drew {seed}; 'seed: {seed}' makes the same images again"
                for place, seed in self.merger.seeds_drawn.items()
            ),
        )
        return Plan(
            name=self.config.name,
            cells=cells,
            devices=pool,
            estimated_seconds=round(sum(seconds) / max(1, len(pool)), 1),
            estimated_disk_bytes=sum(estimate.cell_bytes(cell) for cell in cells),
            estimated_download_bytes=sum(estimate.download_bytes(*item) for item in downloads),
            notes=tuple(dict.fromkeys(notes)),
            seeds_drawn=self.merger.seeds_drawn,
            draws=tuple(
                draw
                for name, task in self.shapes.tasks.items()
                for draw in task.draws(
                    [cell for cell in cells if cell["workload"]["task"] == name],
                    self.merger.images_in,
                )
            ),
        )

    def _too_long(self, cells: Sequence[Cell], seconds: Sequence[float]) -> Iterator[str]:
        """Name workloads of planned calls that may take longer than a worker is given."""
        limit = self.limits["timeout_s"]
        for cell, all_rounds in zip(cells, seconds, strict=True):
            spent = all_rounds / self.protocol["rounds"]
            if "calls_planned" in cell and spent > limit:
                yield (
                    f"workload '{cell['workload']['name']}': {cell['calls_planned']} images may "
                    f"take {spent:.0f} s, and 'limits.timeout' ends a worker after {limit:.0f} s"
                )

    def _overridden_in_vain(self, drafts: Sequence[Draft]) -> Iterator[str]:
        """Refuse a ``--set`` that no cell takes, and say which workloads do not take one."""
        defaults = self.top["defaults"].value.given() if "defaults" in self.top else {}
        paths = [("defaults", key) for key in defaults if key != "preset"]
        for path in (*paths, *((key,) for key in self.shapes.cell_keys if key in self.top)):
            place = tree.place_of(self.config.root, path, key=True)
            if place.source == self.config.source:
                continue
            reasons = [self._nearer(path, draft) for draft in drafts]
            deaf = {
                draft.group.workload["name"]: why
                for draft, why in zip(drafts, reasons, strict=True)
                if why
            }
            if all(reasons):
                why = next(iter(deaf.values()))
                raise self._error(f"has no effect: {why}", path, key=True)
            for why in dict.fromkeys(deaf.values()):
                yield f"{place} has no effect on some cells: {why}"

    def _nearer(self, path: KeyPath, draft: Draft) -> str | None:
        """Return what takes precedence over a key of the defaults or of the top level, if any."""
        key, chosen = cast(str, path[-1]), draft.combination.get("workload")
        fields = ("height", "width") if key in _WHOLE_SIZES else (key,)
        nearest = [draft.group.fields.get(each) or draft.combination.get(each) for each in fields]
        if key == "cache" and nearest == [None] and draft.backend.cache is not None:
            return f"backend '{draft.backend.choice['name']}' has its own 'cache'"
        if any(each is None or each.path == path for each in nearest):
            return None
        where = cast(Choice, nearest[0]).path
        own: KeyPath = chosen.value.path if chosen is not None else path
        if where[: len(own)] == own:
            name = draft.group.workload["name"]
            if where[-1] == "preset":
                return f"workload '{name}' takes '{key}' from its preset"
            return (
                f"workload '{name}' has its own '{key}'; change it by "
                f"--set matrix.workload.{name}.{key}=…"
            )
        if where[1] == "include":
            return f"an include entry sets '{where[-1]}'"
        return f"'{where[1]}' is an axis; change it by --set 'matrix.{where[1]}=[…]'"

    def _error(self, message: str, path: KeyPath, *, key: bool = False) -> ConfigError:
        return self.config.error(message, path, key=key)

    # ------------------------------------------------------- protocol and axes

    def _protocol(self, settings: Any) -> Protocol:
        preset, given = catalogue.PROTOCOLS[settings.preset], settings.given()
        rules: dict[str, dict[str, Any]] = {}
        for part in ("warmup", "calls"):
            rules[part] = dict(cast("dict[str, Any]", preset)[part])
            if part in given:
                rules[part] |= given[part].model_dump(by_alias=True, exclude_unset=True)
        for part, lower in (("warmup", "min_calls"), ("warmup", "stable_calls"),
                            ("calls", "min_calls")):  # fmt: skip
            least, most = rules[part][lower], rules[part]["max_calls"]
            if least > most:
                wrong = lower if lower in given[part].given() else "max_calls"
                raise self._error(
                    f"protocol.{part}: {lower} {least} is more than max_calls {most}",
                    ("protocol", part, wrong),
                )
        return cast(Protocol, {**rules, "rounds": given.get("rounds", preset["rounds"])})

    def _check_size_keys(self, given: Mapping[str, Any], path: KeyPath) -> None:
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
        for kind in ("workload", "backend"):
            for at, entry in enumerate(self.axes.get(kind, [])):
                path = ("matrix", kind, at)
                given = entry.given()
                self._check_size_keys(given, path)
                for key in given:
                    axis = key if key in self.axes and key != kind else None
                    if key in _SIZE_KEYS and sized:
                        whole = {key, *sized} & set(_WHOLE_SIZES)
                        axis = sized[0] if whole or key in sized else None
                    if axis is not None:
                        raise self._error(
                            f"{kind} '{entry.name}' sets '{key}', and '{axis}' is an axis; "
                            "keep one of them",
                            (*path, key),
                            key=True,
                        )

    def _check_repeats(self) -> None:
        for axis, values in self.axes.items():
            seen: set[object] = set()
            for at, value in enumerate(values):
                identity: object = value
                if isinstance(value, Base):
                    identity = value.name
                elif isinstance(value, Backend):
                    identity = (value.canonical, value.cache)
                elif isinstance(value, (dict, list)):
                    identity = canonical(value)
                if identity in seen:
                    raise self._error(_listed_twice(axis, value), ("matrix", axis, at))
                seen.add(identity)

    # --------------------------------------------------- workloads and backends

    def _base(self, given: Mapping[str, Any], path: KeyPath) -> Base:
        self._check_size_keys(given, path)
        fields = fields_of(given, path)
        passes = {key: fields.pop(key) for key in self.shapes.passes if key in fields}
        return Base(given["name"], {**self.merger.defaults, **fields}, passes, path)

    def _backend(self, given: Mapping[str, Any], path: KeyPath) -> Backend:
        name = given["name"]
        self._check_backend_name(name, path)
        # a backend may be written as its bare name, which then is the place
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
            canonical=canonical(choice),
        )

    def _check_backend_name(self, name: str, path: KeyPath) -> None:
        if name not in backends.names():
            raise self._error(
                f"unknown backend {shown(name)}. {did_you_mean(name, backends.names())}",
                (*path, "name"),
            )

    # --------------------------------------------------------- include, exclude

    def _check_patterns(self) -> None:
        for kind, entries in (("exclude", self.exclude), ("include", self.include)):
            for at, entry in enumerate(entries):
                path: KeyPath = ("matrix", kind, at)
                if not entry:
                    raise self._error(f"{kind} entry is empty", path)
                if kind == "include":
                    self._check_size_keys(entry, path)
                else:
                    self._check_excluded(entry, path)
                self._check_names(entry, path)

    def _check_excluded(self, entry: Mapping[str, Any], path: KeyPath) -> None:
        for key in entry:
            if key not in self.axes:
                hint = did_you_mean(key, list(self.axes))
                if key in self.shapes.fields and "workload" in self.axes:
                    hint = f"Write it as part of the workload: 'workload: {{{key}: …}}'."
                raise self._error(
                    f"exclude: '{key}' is no axis of this matrix. {hint}", (*path, key), key=True
                )

    def _check_names(self, entry: Mapping[str, Any], path: KeyPath) -> None:
        """Refuse names in patterns that nothing has, which would silently fit nothing."""
        if "backend" in entry and "name" in entry["backend"].model_fields_set:
            self._check_backend_name(entry["backend"].name, (*path, "backend"))
        if "workload" in entry:
            given = entry["workload"].given()
            self._check_size_keys(given, (*path, "workload"))
            known = [base.name for base in self.axes.get("workload", [])]
            if list(given) == ["name"] and given["name"] not in known:
                hint = did_you_mean(given["name"], known)
                raise self._error(
                    f"unknown workload {shown(given['name'])}. {hint}", (*path, "workload", "name")
                )

    def _matches(self, key: str, asked: Any, value: Any) -> bool:
        if key not in ("workload", "backend"):
            return matrix.equal(asked, value)
        given = asked.given()
        if key == "workload":
            wanted = sides_apart({name: Choice(each, ()) for name, each in given.items()})
            has = {"name": value.name, **{name: c.value for name, c in value.fields.items()}}
            wanted.pop("preset", None)
            return _has({name: choice.value for name, choice in wanted.items()}, has)
        options = given.pop("options", {})
        has = {**value.choice, "cache": value.cache}
        return _has(given, has) and _has(options, value.choice["options"])

    def _own_combinations(self, combinations: list[Combination]) -> None:
        """Resolve the patterns in combinations that ``include`` made: a known one, or a new one."""
        names = {base.name for base in self.axes.get("workload", [])}
        resolved: dict[int, Choice] = {}  # an entry that fits many combinations is resolved once
        for combination in combinations:
            if "workload" in self.axes and "workload" not in combination:
                known = self.axes["workload"][0].name
                raise self._error(
                    "a combination of its own needs a workload; add one, such as "
                    f"'workload: {known}'",
                    next(iter(combination.values())).path[:3],
                )
            for key in ("workload", "backend"):
                choice = combination.get(key)
                if choice is not None and isinstance(choice.value, Strict):
                    if id(choice) not in resolved:
                        resolved[id(choice)] = self._resolved(key, choice, names)
                    combination[key] = resolved[id(choice)]

    def _resolved(self, key: str, choice: Choice, names: set[str]) -> Choice:
        given, path = choice.value.given(), choice.path
        fitting = [
            value for value in self.axes.get(key, []) if self._matches(key, choice.value, value)
        ]
        if len(fitting) > 1:
            raise self._error(
                f"include: {len(fitting)} {key}s fit this; write more of the one that is meant",
                path,
            )
        if fitting:
            return Choice(fitting[0], path)
        if "name" not in given:
            raise self._error(f"include: a new {key} needs a name", path)
        if key == "backend":
            return Choice(self._backend(given, path), path)
        if given["name"] in names:
            raise self._error(
                f"duplicate workload name '{given['name']}'; to change a key of a workload in "
                f"one cell, write it beside the name: {{workload: {given['name']}, steps: 20}}",
                (*path, "name"),
            )
        names.add(given["name"])
        return Choice(self._base(given, path), path)

    # ------------------------------------------------------------------- cells

    def _drafts(self, combination: Combination) -> Iterator[Draft]:
        """Yield the cells of a combination: one, or one for each model that images are drawn."""
        backend = combination["backend"].value if "backend" in combination else self._baseline()
        cache = (
            combination["cache"].value if "cache" in combination else backend.cache
        ) or self.merger.at_top("cache")
        for added, group in self.merger.groups(combination):
            yield Draft({**combination, **added}, group, backend, cache)

    def _baseline(self, environment: str | None = None) -> Backend:
        if environment not in self._baselines:
            given = {"name": BASELINE, **({"environment": environment} if environment else {})}
            self._baselines[environment] = self._backend(given, ("matrix",))
        return self._baselines[environment]

    def _with_baselines(self, drafts: list[Draft]) -> list[Draft]:
        """Add the baseline in each environment that a workload with one has backends in.

        Figures of two environments never meet in one ratio, since a different torch counts as a
        different machine; so each needs a baseline of its own.
        """
        measured: dict[tuple[str, ...], Draft] = {}
        known = set()
        for draft in drafts:
            if draft.backend.choice["name"] == BASELINE:
                measured.setdefault(draft.group.key, draft)
                known.add((draft.group.key, draft.backend.choice["environment"]))
        made = []
        for draft in drafts:
            key, environment = draft.group.key, draft.backend.choice["environment"]
            if key in measured and (key, environment) not in known:
                known.add((key, environment))
                made.append(replace(measured[key], backend=self._baseline(environment)))
            made.append(draft)
        return made

    def _cells(self, drafts: Sequence[Draft]) -> list[Cell]:
        """Return the cells of ``drafts``, with names and identities."""
        rules = {"calls": self.protocol["calls"], "warmup": self.protocol["warmup"]}
        shared = {"protocol": canonical(rules)}
        if self.bounds:
            shared["limits"] = canonical(self.bounds)
        # the order in which cells have always had them
        passes = dict(reversed(list(self.shapes.passes.items())))
        always = [name for name, each in passes.items() if each.always]
        names = cell_names(drafts, self.shapes)
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        seen: dict[str, int] = {}
        cells: list[Cell] = []
        for at, (draft, name) in enumerate(zip(drafts, names, strict=True)):
            group = draft.group
            # the canonical JSON of the whole, put together from parts that many cells share
            parts = {
                **shared,
                **group.identity,
                "backend": draft.backend.canonical,
                "cache": f'"{draft.cache}"',
            }
            text = ",".join(f'"{key}":{parts[key]}' for key in sorted(parts))
            cell_id = hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:16]
            if cell_id in seen:
                self._refuse_duplicate(drafts[seen[cell_id]], draft, names[seen[cell_id]])
            seen[cell_id] = at
            on = {key: value for key, value in group.passes.items() if key in group.identity}
            cell = {
                "schema": SCHEMA_VERSION,
                "cell_id": cell_id,
                "name": name if counts[name] == 1 else f"{name}/{cell_id[:6]}",
                "workload": group.workload,
                "backend": draft.backend.choice,
                "cache": draft.cache,
                "protocol": self.protocol,
                **{key: group.passes[key] for key in always},
                "inputs": group.inputs,
                "device": group.device,
                "threads": group.threads,
                "limits": self.limits,
                "allow_remote_code": self.merger.remote,
                **{key: on[key] for key in passes if key in on and key not in always},
            }
            if group.calls is not None:
                cell["calls_planned"] = group.calls
            cells.append(cast(Cell, cell))
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


def _has(wanted: Mapping[str, Any], has: Mapping[str, Any]) -> bool:
    return all(key in has and matrix.equal(value, has[key]) for key, value in wanted.items())


def _in_vain_together(drafts: Sequence[Draft]) -> Iterator[str]:
    """Name each pair of memory modes and backend that will end as unsupported."""
    for draft in drafts:
        memory, choice = draft.group.workload.get("memory"), draft.backend.choice
        why = memory and modes.with_backend(
            memory, backends.traits(choice["name"]), choice["options"]
        )
        if why:
            yield f"'{draft.backend.label}' with memory '{memory}' will be unsupported: {why}"


def _listed_twice(axis: str, value: Any) -> str:
    if isinstance(value, Base):
        return f"duplicate workload name '{value.name}'"
    if isinstance(value, Backend):
        return f"duplicate cell: backend '{value.label}' is listed twice"
    text = str(value) if isinstance(value, v.Sides) else shown(value)
    return f"duplicate cell: axis '{axis}' has {text} twice"
