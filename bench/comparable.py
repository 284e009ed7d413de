"""Like with like: what two records must share before a ratio of their figures means anything."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

MEASURED = (
    ("model revision", "model_revision"),
    ("pipeline", "pipeline_class"),
    ("input picture", "input_sha256"),
    ("control picture", "control_sha256"),
    ("content of additions", "additions_content"),
    ("steps_effective", "steps_effective"),
    ("scheduler", "scheduler_class"),
    ("output height", "output_height"),
    ("output width", "output_width"),
    ("synthetic weights", "synthetic_weights"),
    ("device", "device"),
)
"""What a worker found, by the name shown to users and the field of the record."""

LOSSY = "(lossy)"
"""What a label says of a backend that changes the picture on purpose."""

READ = (
    "torch.max_memory_allocated",
    "torch.max_memory_reserved",
    "nvml.process_used",
    "device_used",
    "rss",
)
"""Meters that records read, the most telling first."""

METERS = (*READ, "rss (spawned)")
"""Names under which `meter` lets memory meet, the most telling first."""

ASKED_FIRST = (
    "model",
    "task",
    "steps",
    "height",
    "width",
    "batch",
    "guidance",
    "dtype",
    "scheduler",
)
"""Of several differences, the first of these is named; the others follow by name."""


def workload(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of the record's workload that can change a figure: everything but its name."""
    asked = (record.get("cell") or {}).get("workload") or {}
    return {key: value for key, value in asked.items() if key != "name"}


SIZED = frozenset({"batch", "height", "width", "asked_height", "asked_width"})
"""Of a workload: what says how much is drawn."""


def but_for_size(cell: Mapping[str, Any], device: str) -> str:
    """Return what cells share that differ in size, batch, name and seed only, as one text.

    Limits are among it, but for that on time: under another limit another cell runs out of memory.
    """
    free = {*SIZED, "name", "seed", "round_size"}
    limits = cell.get("limits") or {}
    told = {
        "workload": {k: v for k, v in cell["workload"].items() if k not in free},
        "backend": cell["backend"],
        "cache": cell.get("cache"),
        "threads": cell.get("threads"),
        "device": device,
        "limits": {k: v for k, v in limits.items() if k != "timeout_s"},
    }
    return json.dumps(told, sort_keys=True, default=str)


def environment(record: Mapping[str, Any]) -> str:
    """Name the environment that a record's cell asked for."""
    backend = (record.get("cell") or {}).get("backend") or {}
    return str(backend.get("environment") or "current")


def label(backend: Mapping[str, Any]) -> str:
    """Return a backend's name, with the environment it was sent to unless that is called alike."""
    name, place = str(backend.get("name", "?")), backend.get("environment") or "current"
    return name if place in ("current", name) else f"{name}@{place}"


def written(cell: Mapping[str, Any]) -> str:
    """Return a cell's backend with the options that are not its defaults, as the cell's name does.

    Of a name that ``bench.config.drafts.cell_names`` would not give, no options are told.
    """
    backend = cell.get("backend") or {}
    name = re.escape(str(backend.get("name")))
    after = r"(?:@[^/]+)?(?:/cache=\w+)?(?:/[0-9a-f]{6})?$"
    found = re.search(rf"(?:^|/){name}(\[.*\]){after}", str(cell.get("name")))
    place = label(backend).removeprefix(str(backend.get("name", "?")))
    return f"{backend.get('name', '?')}{found[1] if found else ''}{place}"


def labels(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return each cell's backend as written, without and with what tells compile caches apart."""
    shorts = [written(cell) for cell in cells]
    caches: dict[str, set[Any]] = {}
    for short, cell in zip(shorts, cells, strict=True):
        caches.setdefault(short, set()).add(cell.get("cache"))
    return [
        (short, f"{short} cache={cell.get('cache')}" if len(caches[short]) > 1 else short)
        for short, cell in zip(shorts, cells, strict=True)
    ]


def between_environments(
    baselines: Sequence[tuple[str, Mapping[str, Any], float]],
) -> list[str]:
    """Say how much faster or slower the baseline of each further environment is, and its software.

    That is a finding about torch and its company, and enters no speedup.

    Args:
        baselines: (label, a record, median in seconds) of each that ended ok.
    """
    if not baselines:
        return []
    (first, known, first_s), *others = baselines
    return [
        f"{name} takes {each_s / first_s:.2f} times as long as {first} "
        f"({_software_apart(known, record)}): a difference between environments, and no speedup. "
        "Each backend is compared with the baseline of its own environment."
        for name, record, each_s in others
        if environment(record) != environment(known)
    ]


def _software_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    prints = [record.get("fingerprint") or {} for record in (one, other)]
    before, now = ({**(p.get("packages") or {}), "Python": p.get("python")} for p in prints)
    apart = [
        f"{name} {now.get(name)} instead of {before.get(name)}"
        for name in ("torch", "diffusers", "transformers", "Python")
        if before.get(name) != now.get(name)
    ]
    return ", ".join(apart) or "the same versions"


def meter(record: Mapping[str, Any], reading: Mapping[str, Any]) -> str:
    """Name what a memory reading may be compared with: its meter, and for ``rss`` more than that.

    A forked process shares pages with its template and counts fewer of them than a fresh
    interpreter does, so a spawned one has a meter of its own.
    """
    name = str(reading.get("meter"))
    process = record.get("process")
    start = process.get("start") if isinstance(process, Mapping) else None
    return f"{name} (spawned)" if (name, start) == ("rss", "spawn") else name


def shared_meter(read: Iterable[Collection[str]]) -> str | None:
    """Return the most telling meter for a comparison.

    Allocated memory is not among them where torch cannot tell it of a backend that replays CUDA
    graphs: what is reserved is then known of both.

    Args:
        read: the meters that each of those that are compared has.
    """
    allocated, reserved = METERS[:2]
    each = list(read)
    graphs = any(reserved in meters and allocated not in meters for meters in each)
    names = METERS[1:] if graphs else METERS
    return next((name for name in names if any(name in meters for meters in each)), None)


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Name the first field in which two records are unlike, with both values, or return None.

    Their backends and compile caches may differ; nothing else that can change a figure.
    """
    asked, other_asked = workload(one), workload(other)
    for name in sorted({*asked, *other_asked}, key=_rank):
        if asked.get(name) != other_asked.get(name):
            return _told(name, asked.get(name), other_asked.get(name))
    if environment(one) != environment(other):
        return _told("environment", environment(one), environment(other))
    for name, field in MEASURED:
        if one.get(field) != other.get(field):
            return _told(name, one.get(field), other.get(field))
    threads = [(record.get("cell") or {}).get("threads") for record in (one, other)]
    if threads[0] != threads[1]:
        return _told("threads", *threads)
    return _machine_difference(one.get("fingerprint") or {}, other.get("fingerprint") or {}, "")


def _rank(name: str) -> tuple[int, str]:
    return (ASKED_FIRST.index(name) if name in ASKED_FIRST else len(ASKED_FIRST), name)


def _machine_difference(
    one: Mapping[str, Any], other: Mapping[str, Any], prefix: str
) -> str | None:
    for name in sorted({*one, *other} - {"null_reasons"}):
        value, other_value = one.get(name), other.get(name)
        if value == other_value:
            continue
        if isinstance(value, Mapping) and isinstance(other_value, Mapping):
            found = _machine_difference(value, other_value, f"{name} ")
            if found is not None:
                return found
        else:
            return _told(f"{prefix}{name}", value, other_value)
    return None


def _told(name: str, value: Any, other: Any) -> str:
    texts = [_short(value), _short(other)]
    return name if texts[0] == texts[1] else f"{name} ({texts[0]}, baseline {texts[1]})"


def _short(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
