"""What a comparison needs of a run, as plain JSON: the samples themselves, never summaries of them.

The same structure is what a baseline file holds, so that a baseline can be judged again by a later
version of the statistics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import bench
from bench import comparable, fidelity
from bench.contract import Record
from bench.gate import GateError, session
from bench.store import RunFolder

SCHEMA_VERSION = 1
BASELINE_BACKEND = "none"
MEMORY_METER = "torch.max_memory_allocated"
"""Gates use warm allocated memory; values of another meter are never put in its place."""

COUNTS = (
    "steps_effective",
    "denoiser_calls",
    "graphs",
    "graph_breaks",
    "recompiles",
    "output_size",
    "pictures",
)
NOT_MEASURED = frozenset({"unsupported", "unavailable", "skipped"})
"""Outcomes that say that nothing was tried, rather than that it went wrong."""

PROCESS_KEYS = frozenset(
    {
        "record_id", "round", "outcome", "reason", "started_utc", "fingerprint_key", "e2e_s",
        "warmup_s", "warmup_stable", "memory_bytes", "memory_reason", "counts",
        "graph_break_reasons", "disturbances",
    }
)  # fmt: skip
"""What is kept of each process."""

LIKE = ("model_revision", "input_sha256", "scheduler_class", "synthetic_weights", "device")


def of_run(path: Path | str, *, judge_pictures: bool = True) -> dict[str, Any]:
    """Return a run as ``{"schema", "runs", "cells": {name: …}}``, all of it JSON.

    ``runs`` is provenance: run id, creation time, version of bench. Each cell has the configuration
    that can change a figure, its fingerprint, and per process: outcome, samples in seconds, steady
    allocated memory in bytes, counts, and digests of its pictures. Comparing pictures takes most of
    the time; without ``judge_pictures`` no cell has a verdict on them.

    Raises:
        bench.store.StoreError: there is no run, or it cannot be read.
        GateError: it has no record.
    """
    folder = RunFolder.open(path)
    records = list(folder.raw_records())
    if not records:
        raise GateError(f"{path} has no record: nothing was measured there.")
    watched = session.read(folder.path)
    by_cell: dict[str, list[Record]] = {}
    for record in records:
        by_cell.setdefault(record["cell_id"], []).append(record)
    judged = _Pictures(folder.path)
    cells: dict[str, Any] = {}
    for planned in folder.plan.get("cells", []):
        found = by_cell.get(planned["cell_id"], [])
        eager = _eager(found, records) if judge_pictures else []
        cells[planned["name"]] = {
            **_cell(planned, found, watched),
            "fidelity": judged.judge(found, eager) if judge_pictures else _no_word("not judged"),
        }
    return {
        "schema": SCHEMA_VERSION,
        "runs": [{"run_id": folder.run_id, "started_utc": _first(records, "started_utc")}],
        "bench_version": bench.__version__,
        "cells": cells,
    }


def _cell(
    planned: Mapping[str, Any], records: list[Record], watched: Mapping[tuple[str, int], list[str]]
) -> dict[str, Any]:
    first: Mapping[str, Any] = next((r for r in records if r["outcome"] == "ok"), {})
    return {
        "cell_id": planned["cell_id"],
        "rounds_planned": planned["protocol"]["rounds"],
        "asked": {
            "workload": _portable(comparable.workload({"cell": planned})),
            "backend": planned["backend"],
            "cache": planned["cache"],
            "threads": planned["threads"],
            "warmup": planned["protocol"].get("warmup"),
        },
        "found": {**{name: first.get(name) for name in LIKE}, "cache": first.get("cache")},
        "fingerprint": _without_reasons(first.get("fingerprint") or {}),
        "processes": [
            _process(record, watched.get((record["cell_id"], record["round"]), []))
            for record in records
        ],
    }


def _portable(workload: dict[str, Any]) -> dict[str, Any]:
    """Return a workload with the names of its files alone: another checkout has other folders.

    What a picture holds is compared by its digest.
    """
    portable = dict(workload)
    for key in ("input_image", "control_image", "lora", "custom_pipeline"):
        text = portable.get(key)
        if text is not None and not str(text).startswith(("embedded:", "hub:", "drawn:")):
            portable[key] = Path(str(text)).name
    for key in ("model", "controlnet"):
        text = str(portable.get(key))
        if text.startswith("path:"):
            portable[key] = f"path:{Path(text[5:]).name}"
    return portable


def _process(record: Mapping[str, Any], watched: list[str]) -> dict[str, Any]:
    evidence = (record.get("backend") or {}).get("evidence") or {}
    size = (record.get("output_width"), record.get("output_height"))
    return {
        "record_id": record["record_id"],
        "round": record["round"],
        "outcome": record["outcome"],
        "reason": record.get("reason"),
        "started_utc": record.get("started_utc"),
        "fingerprint_key": key(_without_reasons(record.get("fingerprint") or {})),
        "e2e_s": list(record.get("e2e_s") or []),
        "warmup_s": list(record.get("warmup_s") or []),
        "warmup_stable": record.get("warmup_stable"),
        "memory_bytes": _memory(record),
        "memory_reason": (record.get("null_reasons") or {}).get(f"memory.{MEMORY_METER}"),
        "counts": {
            "steps_effective": record.get("steps_effective"),
            "denoiser_calls": record.get("denoiser_calls"),
            "graphs": evidence.get("graphs"),
            "graph_breaks": evidence.get("graph_breaks"),
            "recompiles": evidence.get("recompiles"),
            "output_size": None if None in size else f"{size[0]}x{size[1]}",
            "pictures": {
                f"{image['seed']}/{image['index']}": image["sha256"]
                for image in record.get("images") or []
            }
            or None,
        },
        "graph_break_reasons": [
            entry.get("reason") for entry in evidence.get("graph_break_reasons") or []
        ],
        "disturbances": watched,
    }


def _memory(record: Mapping[str, Any]) -> int | None:
    for reading in record.get("memory") or []:
        if reading["meter"] == MEMORY_METER and reading["phase"] == "steady":
            value: int | None = reading["bytes"]
            return value
    return None


def _without_reasons(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fingerprint.items() if name != "null_reasons"}


def _first(records: Iterable[Mapping[str, Any]], name: str) -> Any:
    return min((r[name] for r in records if r.get(name)), default=None)


def key(fingerprint: Any) -> str:
    """Return twelve hexadecimal digits that name a fingerprint, or several."""
    text = json.dumps(fingerprint, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def machine_key(measured: Mapping[str, Any]) -> str:
    """Return the key of all machines and devices that a run was measured on."""
    keys = {key(cell["fingerprint"]) for cell in measured["cells"].values() if cell["fingerprint"]}
    return key(sorted(keys))


def good(cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the processes that ended ok: the only ones that enter a figure."""
    return [process for process in cell["processes"] if process["outcome"] == "ok"]


def _eager(records: list[Record], all_records: list[Record]) -> list[Record]:
    """Return the records of the eager baseline of a cell's workload, in order of their rounds."""
    mine = next((r for r in records if r["outcome"] == "ok"), None)
    if mine is None:
        return []
    return sorted(
        (
            other
            for other in all_records
            if other["cell"]["backend"]["name"] == BASELINE_BACKEND
            and other["outcome"] == "ok"
            and comparable.difference(mine, other) is None
        ),
        key=lambda record: record["round"],
    )


class _Pictures:
    """Compares stored pictures with those of the eager baseline; equal pairs once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[str, str], fidelity.Comparison] = {}

    def judge(self, records: list[Record], eager: list[Record]) -> dict[str, Any]:
        """Return ``{"word", "worst_db", "reason"}``; word is None where nothing can be said."""
        ok = [record for record in records if record["outcome"] == "ok"]
        if not ok:
            return _no_word("the cell is not ok")
        if ok[0]["cell"]["backend"]["name"] == BASELINE_BACKEND:
            return _no_word(
                "this is the eager baseline itself; its pictures are compared by digest"
            )
        if not eager:
            return _no_word("the run has no comparable cell of backend none")
        reference, *again = eager
        try:
            control = [pair for other in again for pair in self._pairs(reference, other)]
            found = [pair for record in ok for pair in self._pairs(reference, record)]
        except (OSError, ValueError) as error:
            return _no_word(f"a picture cannot be read: {error}")
        if not found:
            return _no_word("no picture of the same seed was stored")
        verdict = fidelity.verdict(control, found)
        return {"word": verdict.word, "worst_db": verdict.worst_db, "reason": verdict.reason}

    def _pairs(
        self, reference: Mapping[str, Any], other: Mapping[str, Any]
    ) -> list[fidelity.Comparison]:
        first = {(i["seed"], i["index"]): i for i in reference.get("images") or []}
        pairs = []
        for image in other.get("images") or []:
            partner = first.get((image["seed"], image["index"]))
            if partner is None:
                continue
            pair = (partner["sha256"], image["sha256"])
            if pair not in self._known:
                self._known[pair] = fidelity.compare(self._load(partner), self._load(image))
            pairs.append(self._known[pair])
        return pairs

    def _load(self, image: Mapping[str, Any]) -> Any:
        from PIL import Image

        with Image.open(self._root / image["path"]) as picture:
            pixels = picture.convert("RGB")
        if hashlib.sha256(pixels.tobytes()).hexdigest() != image["sha256"]:
            raise ValueError(f"{image['path']} is not the picture that its record describes")
        return pixels


def _no_word(reason: str) -> dict[str, Any]:
    return {"word": None, "worst_db": None, "reason": reason}
