"""The shape of a configuration: what may be written where, put together from declared keys.

Tasks and passes bring their own (``keys.py`` in their folders), so the shape is made when it is
asked for. A key that was left out is absent from ``model_fields_set``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import GenericAlias
from typing import Annotated, Any, Union, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    WithJsonSchema,
    create_model,
)

from bench.config import catalogue
from bench.config import values as v
from bench.config.keys import REQUIRED, PassKey, Strict, Workload, key
from bench.contract import BASELINE
from bench.passes import PASSES
from bench.tasks import TASKS

_NOT_WRITTEN = ("asked_height", "asked_width")
_LETTERS = "letters, digits, `.`, `_`, `-`"
_MAPPING = "a mapping or null"


def _name_to_mapping(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _named(model: Any) -> Any:
    """Return a mapping for which its bare name may stand."""
    return Annotated[model, BeforeValidator(_name_to_mapping), v.ShortForm({"type": "string"})]


def _preset_to_mapping(value: object) -> object:
    return {"preset": value} if isinstance(value, str) else value


class BackendPattern(Strict):
    """A backend by its name or by some of its keys; or all of a new one."""

    name: v.Text = key(None, "registered name of the backend")
    options: v.Options = key(
        {},
        "the backend's own options; see its documentation",
        "a mapping, or a JSON object in a string",
    )
    environment: v.Environment = key(
        None,
        "[interpreter](environments.md) that it runs in",
        "`current`, or one of `bench env list`",
        absent="the backend's own",
    )
    cache: v.Cache = key(None, "compile cache", absent="the top-level `cache`")


class BackendEntry(BackendPattern):
    """A backend with its options; the bare name is the same without options."""

    name: v.Text = key(REQUIRED, "a registered backend", "see below")


class WarmupSettings(Strict):
    """Warm-up ends once ``stable_calls`` consecutive calls lie within ``stable_pct`` per cent."""

    min_calls: int = key(
        None, "warm-up calls at least; one call is never enough", ge=2, le=v.MAX_CALLS
    )
    max_calls: int = key(None, "at most, stable or not", ge=2, le=v.MAX_CALLS)
    stable_calls: int = key(None, "this many consecutive calls …", ge=2, le=v.MAX_CALLS)
    stable_pct: v.Percent = key(None, "… within this many per cent end the warm-up")


class CallSettings(Strict):
    """Measured calls end at the noise target, not before ``min_calls``, or at a cap."""

    min_calls: int = key(None, "measured calls at least", ge=1, le=v.MAX_CALLS)
    max_calls: int = key(None, "at most", ge=1, le=v.MAX_CALLS)
    noise_target_pct: v.Percent = key(
        None, "stop at this relative half-width of the median's 95 % interval, per cent"
    )
    time_cap: v.Duration = key(
        None, "stop after this much measured time", "a duration", alias="time_cap_s"
    )


class ProtocolSettings(Strict):
    """How a cell is warmed up, repeated and run again; the bare preset name is the same."""

    preset: Annotated[
        str,
        AfterValidator(v.one_of("protocol preset", lambda: list(catalogue.PROTOCOLS))),
        WithJsonSchema({"type": "string", "enum": list(catalogue.PROTOCOLS)}),
    ] = key("standard", "where to start; the keys beside it override it")
    warmup: WarmupSettings = key(None, "when warm-up ends", "a mapping")
    calls: CallSettings = key(None, "when measuring ends", "a mapping")
    rounds: int = key(None, "separate processes for each cell, interleaved", ge=1, le=1000)


class LimitSettings(Strict):
    """What one worker process may use before it is ended."""

    timeout: v.Duration = key(
        1800.0,
        "wall time of one process; then the cell is `timeout`",
        "a duration",
        alias="timeout_s",
        unit="s",
    )
    memory: v.Memory = key(
        None,
        "host memory of one process: its address space, on a GPU its data segment; torch's "
        "libraries alone map several GiB",
        "such as `8GiB`, `500MB`, or null",
        alias="memory_bytes",
    )
    # They decide who runs out of memory; a cell without them is the cell that it always was.
    rss: v.Memory = key(
        None,
        "resident memory of one process: the runner watches it and ends the process that passes "
        "it; then the cell is `oom`",
        "such as `2GiB`, or null",
        alias="rss_bytes",
    )
    device_memory: v.Memory = key(
        None,
        "what torch may reserve on a CUDA device, to stand for a smaller card",
        "such as `8GiB`, or null",
        alias="device_bytes",
    )


class _Document(Strict):
    """A matrix of workloads and backends, and how to measure it."""

    name: v.Name = key(
        None, "the run, and its folder `runs/NAME`", _LETTERS, absent="the file's name"
    )
    device: v.Devices = key(
        "auto",
        "where cells run; `auto` is the best there is. A list shares the cells out, one on each "
        "GPU at a time, and keeps the cells of a workload on one GPU",
        "`auto`, `cpu`, `cuda`, `cuda:N`, `mps`, or a list of `cuda:N`",
    )
    threads: v.Threads = key(1, "CPU threads of torch")
    cache: v.Cache = key(
        "fresh",
        "compile cache of every cell. `fresh` starts empty; `warm` is filled first by a run that "
        "is not measured, as a second start would find it",
    )
    allow_remote_code: bool = key(False, "let a model's repository run its own Python code")
    protocol: Annotated[
        ProtocolSettings,
        BeforeValidator(_preset_to_mapping),
        v.ShortForm({"enum": list(catalogue.PROTOCOLS)}),
    ] = key(
        ProtocolSettings(),
        "see [Protocol](#protocol)",
        "a preset or a mapping",
        absent="`standard`",
    )
    limits: LimitSettings = key(LimitSettings(), "see [Limits](#limits)", "a mapping", absent="")


@dataclass(frozen=True)
class Shapes:
    """What may be written, with the tasks and passes that are registered."""

    document: type[Strict]
    fields: tuple[str, ...]  # keys of a workload that may be an axis, as names of cells have them
    cell_keys: Mapping[str, Any]  # further keys of an axis, with what holds if nothing is written
    passes: Mapping[str, PassKey]
    tasks: Mapping[str, type[Workload]]  # the complete workload of each
    workload: TypeAdapter[Workload]  # of whichever task

    @property
    def axes(self) -> tuple[str, ...]:
        return ("workload", "backend", *self.fields, *self.cell_keys)


def shapes() -> Shapes:
    """Return what may be written with the tasks and passes that are registered."""
    return _shapes(TASKS.names(), PASSES.names())


def _part(name: str, about: str | None, base: Any = Strict, /, **fields: Any) -> Any:
    model: Any = create_model
    return model(name, __base__=base, __doc__=about, **fields)


def _list(kind: Any, *metadata: Any) -> Any:
    for item in metadata:
        kind = Annotated[kind, item]
    return GenericAlias(list, (kind,))


@functools.cache
def _shapes(task_names: tuple[str, ...], pass_names: tuple[str, ...]) -> Shapes:
    tasks = {name: cast(Any, TASKS.part(name, "keys")).Keys for name in task_names}
    passes = {name: cast(Any, PASSES.part(name, "keys")).KEY for name in pass_names}
    fields = _workload_fields(tasks)
    kind, info = fields["task"]
    names_of_tasks = WithJsonSchema({"type": "string", "enum": list(task_names)})
    fields["task"] = (Annotated[kind, names_of_tasks], info)
    base = _part("WorkloadFields", Workload.__doc__, **fields)
    preset = fields.pop("preset")
    change = key(None, "changes the top-level key of this name, key by key; null: none", _MAPPING)
    nested = {name: (each.kind, change) for name, each in passes.items() if each.nested}
    called = key(REQUIRED, "what cells, tables and images call it", _LETTERS)
    entry = _part(
        "WorkloadEntry", "A named workload.",
        name=(v.Name, called), **fields, preset=preset, **nested,
    )  # fmt: skip
    pattern = _part(
        "WorkloadPattern", "A workload by its name or by some of its keys; or all of a new one.",
        base, name=(v.Name, key(None, "name of a workload")),
    )  # fmt: skip
    top = {name: (info.annotation, info) for name, info in _Document.model_fields.items()}
    cell_keys = {
        **{name: top[name] for name in ("cache", "device", "threads")},
        "device": (v.Device, key("auto", "device of the cell")),
        **{name: (each.kind, each.declared) for name, each in passes.items() if each.axis},
    }
    settable = {**fields, **cell_keys}
    combination = _part(
        "Combination", "Some keys of a combination: what to leave out, or what to add.",
        workload=(_named(pattern),
                  key(None, "name of a workload, or some of its keys")),
        backend=(_named(BackendPattern),
                 key(None, "name of a backend, or some of its keys")),
        **nested, **settable,
    )  # fmt: skip
    backend = Annotated[BackendEntry, BeforeValidator(_name_to_mapping)]
    matrix = _part(
        "MatrixSettings",
        "Axes, whose product is the cells; include and exclude as in GitHub Actions.",
        workload=(_list(entry), key(None, "named workloads", min_length=1)),
        backend=(_list(backend), key(None, f"`{BASELINE}` is the baseline", min_length=1)),
        **{name: (_list(kind, *info.metadata),
                  key(None, f"axis: {info.description}", min_length=1))
           for name, (kind, info) in settable.items()},
        exclude=(_list(combination), key(None, "leave out each combination that agrees with all "
                                              "keys of an entry; applied before include")),
        include=(_list(combination), key(None, "add an entry's keys to each combination whose axis "
                                              "values it does not change; if there is none, make "
                                              "it a combination of its own")),
    )  # fmt: skip
    everywhere = "[workload keys](#workloads) that every workload starts from"
    document = _part(
        "Document", _Document.__doc__, _Document,
        **{name: (each.kind, each.declared) for name, each in passes.items()},
        defaults=(base, key(None, everywhere, "a mapping", absent="")),
        matrix=(matrix, key(REQUIRED, "see [Matrix](#matrix)", "a mapping")),
    )  # fmt: skip
    union: Any = Union[tuple(tasks.values())]  # noqa: UP007 - its members are known only now
    return Shapes(
        document=document,
        fields=tuple(fields),
        cell_keys={name: info.default for name, (_, info) in cell_keys.items()},
        passes=passes,
        tasks=tasks,
        workload=TypeAdapter(Annotated[union, Field(discriminator="task")]),
    )


def _workload_fields(tasks: Mapping[str, type[Workload]]) -> dict[str, tuple[Any, Any]]:
    """Return the keys of all tasks, each of them as it may be written: or be left out."""
    infos = {name: info for name, info in Workload.model_fields.items() if name not in _NOT_WRITTEN}
    for model in tasks.values():
        own = {k: i for k, i in model.model_fields.items() if k not in Workload.model_fields}
        names = list(infos)
        at = names.index(model.traits.after) + 1 if model.traits.after else len(names)
        items = list(infos.items())
        infos = dict([*items[:at], *own.items(), *items[at:]])
    fields = {}
    for name, declared in infos.items():
        info = copy.copy(declared)
        info.default = None if info.is_required() else info.default
        fields[name] = (info.annotation, info)
    return fields
