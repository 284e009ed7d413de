"""Like with like: what two records must share before a ratio of their figures means anything."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bench.records.types import Record

MEASURED = (
    ("model revision", "model_revision"),
    ("pipeline", "pipeline_class"),
    ("input image", "input_sha256"),
    ("control image", "control_sha256"),
    ("content of additions", "additions_content"),
    ("steps_effective", "steps_effective"),
    ("scheduler", "scheduler_class"),
    ("output height", "output_height"),
    ("output width", "output_width"),
    ("synthetic weights", "synthetic_weights"),
    ("device", "device"),
)
"""What a worker measured, by the name shown to users and the field of the record."""

READ = (
    "torch.max_memory_allocated",
    "torch.max_memory_reserved",
    "nvml.process_used",
    "device_used",
    "rss",
)
"""Meters that records read, the most telling first."""

METERS = (*READ, "rss (spawned)")
"""Names under which memory may be compared, the most telling first."""

ASKED_FIRST = (
    *("model", "task", "steps", "height", "width", "batch", "guidance", "dtype", "scheduler"),
)
"""Of several differences, the first of these is named; the others follow by name."""

SIZED = frozenset({"batch", "height", "width", "asked_height", "asked_width"})
"""What of a workload says how much is drawn."""


def key(record: Record) -> str:
    """Return all that records must share to be compared, as one text."""
    measured = {field: getattr(record, field) for _, field in MEASURED}
    return f"{_asked_key(record)}{_fingerprint_key(record.fingerprint)}{measured}"


def _asked_key(record: Record) -> str:
    cell = record.cell
    known: str | None = cell.__dict__.get("asked_key")
    if known is None:
        shared = (_asked(record), cell.backend.environment, cell.threads)
        known = cell.__dict__["asked_key"] = json.dumps(shared, sort_keys=True)
    return known


_FINGERPRINT_KEYS: dict[int, tuple[Mapping[str, Any], str]] = {}


def _fingerprint_key(fingerprint: Mapping[str, Any]) -> str:
    known = _FINGERPRINT_KEYS.get(id(fingerprint))
    if known is None:
        text = json.dumps(without_reasons(fingerprint), sort_keys=True)
        # The object is kept, so that no other one takes its id.
        known = _FINGERPRINT_KEYS[id(fingerprint)] = (fingerprint, text)
    return known[1]


def without_reasons(value: Any) -> Any:
    """Return JSON data without its ``null_reasons``, which are words and no facts."""
    if isinstance(value, Mapping):
        return {k: without_reasons(v) for k, v in value.items() if k != "null_reasons"}
    return value


def _asked(record: Record) -> dict[str, Any]:
    """Return all of the record's workload that can change a figure: everything but its name."""
    return {k: v for k, v in record.cell.raw["workload"].items() if k != "name"}


def but_for_size(cell: Mapping[str, Any], device: str) -> str:
    """Return what cells share that differ in size, batch, name and seed only, as one text.

    Limits are among it, but for that on time: under another limit another cell runs out of memory.

    Args:
        cell: as in a plan.
    """
    free = {*SIZED, "name", "seed", "round_size"}
    limits = cell.get("limits") or {}
    shared = {
        "workload": {k: v for k, v in cell["workload"].items() if k not in free},
        "backend": cell["backend"],
        "cache": cell.get("cache"),
        "threads": cell.get("threads"),
        "device": device,
        "limits": {k: v for k, v in limits.items() if k != "timeout_s"},
    }
    return json.dumps(shared, sort_keys=True, default=str)


def difference(one: Record, other: Record, without: Collection[str] = ()) -> str | None:
    """Name the first field in which two records differ, with both values, or return None.

    Their backends and compile caches may differ; nothing else that can change a figure.

    Args:
        without: what of the workload may differ besides its name.
    """
    asked = first_difference(
        *({k: v for k, v in _asked(each).items() if k not in without} for each in (one, other))
    )
    if asked is not None:
        return asked
    environments = (one.cell.backend.environment, other.cell.backend.environment)
    if environments[0] != environments[1]:
        return _both("environment", *environments)
    for name, field in MEASURED:
        if getattr(one, field) != getattr(other, field):
            return _both(name, getattr(one, field), getattr(other, field))
    if one.cell.threads != other.cell.threads:
        return _both("threads", one.cell.threads, other.cell.threads)
    return machine_difference(one.fingerprint, other.fingerprint)


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Name the first key in which two workloads differ, with both values, or return None."""
    for name in sorted({*one, *other}, key=_rank):
        if one.get(name) != other.get(name):
            return _both(name, one.get(name), other.get(name))
    return None


def _rank(name: str) -> tuple[int, str]:
    return (ASKED_FIRST.index(name) if name in ASKED_FIRST else len(ASKED_FIRST), name)


def machine_difference(
    one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> str | None:
    """Name the first field in which two fingerprints differ, or return None."""
    for name in sorted({*one, *other} - {"null_reasons"}):
        value, other_value = one.get(name), other.get(name)
        if value == other_value:
            continue
        if isinstance(value, Mapping) and isinstance(other_value, Mapping):
            found = machine_difference(value, other_value, f"{name} ")
            if found is not None:
                return found
        else:
            return _both(f"{prefix}{name}", value, other_value)
    return None


def _both(name: str, value: Any, other: Any) -> str:
    texts = [_short(value), _short(other)]
    return name if texts[0] == texts[1] else f"{name} ({texts[0]}, baseline {texts[1]})"


def _short(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def shared_meter(read: Iterable[Collection[str]]) -> str | None:
    """Return the most telling meter for a comparison.

    Allocated memory is not among them where torch cannot give it for a backend that replays CUDA
    graphs: what is reserved is then known of both.

    Args:
        read: the meters that each of those that are compared has.
    """
    allocated, reserved = METERS[:2]
    each = list(read)
    graphs = any(reserved in meters and allocated not in meters for meters in each)
    names = METERS[1:] if graphs else METERS
    return next((name for name in names if any(name in meters for meters in each)), None)


def between_environments(baselines: Sequence[tuple[str, Record, float]]) -> list[str]:
    """Describe how much faster or slower the baseline of each further environment is, and why.

    That is a finding about torch and its company, and enters no speedup.

    Args:
        baselines: (label, a record, median in seconds) of each that ended ok.
    """
    if not baselines:
        return []
    (first, known, first_s), *others = baselines
    return [
        f"{name} takes {each_s / first_s:.2f} times as long as {first} "
        f"({_software_difference(known, record)}): a difference between environments, and no "
        "speedup. Each backend is compared with the baseline of its own environment."
        for name, record, each_s in others
        if record.cell.backend.environment != known.cell.backend.environment
    ]


def _software_difference(one: Record, other: Record) -> str:
    before, now = (
        {**(record.fingerprint.get("packages") or {}), "Python": record.fingerprint.get("python")}
        for record in (one, other)
    )
    differences = [
        f"{name} {now.get(name)} instead of {before.get(name)}"
        for name in ("torch", "diffusers", "transformers", "Python")
        if before.get(name) != now.get(name)
    ]
    return ", ".join(differences) or "the same versions"
