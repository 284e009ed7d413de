"""What runs where and in which order."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

from bench.contract import Cell
from bench.runner.devices import Machine, Unsupported
from bench.runner.ui import Task
from bench.store import Entry
from bench.store.journal import Key

HOST_LANE = "host"
"""Lane of everything that is not on a GPU of its own; runs when no GPU lane does."""


def assign_devices(
    cells: Sequence[Cell],
    machine: Machine,
    devices: Sequence[str],
    measured: Mapping[Key, Entry],
) -> dict[str, str | Unsupported]:
    """Choose the device of each cell.

    Cells that name a device get it. Of the others (``auto``, ``cuda``), all that could be compared
    with each other, those of one workload, share a device: they go to the one on which they were
    measured before, else in turn to the next.

    Args:
        cells: of the plan.
        machine: what there is.
        devices: resolved devices to use for cells that name none; empty for the machine's default.
        measured: records that exist.

    Returns:
        cell_id → device or why there is none.
    """
    before: dict[str, str] = {}
    free = [cell for cell in cells if devices and cell["device"] in ("auto", "cuda")]
    recorded = {cell_id: entry.device for (cell_id, _), entry in measured.items()}
    for cell in free:
        known = recorded.get(cell["cell_id"])
        if known in devices:
            before.setdefault(_workload(cell), str(known))
    chosen: dict[str, str | Unsupported] = {}
    turn = 0
    for cell in cells:
        if cell not in free:
            chosen[cell["cell_id"]] = machine.resolve(cell["device"])
            continue
        workload = _workload(cell)
        if workload not in before:
            before[workload] = devices[turn % len(devices)]
            turn += 1
        device = before[workload]
        if cell["device"] == "cuda" and not device.startswith("cuda"):
            chosen[cell["cell_id"]] = machine.resolve("cuda")
        else:
            chosen[cell["cell_id"]] = device
    return chosen


def order(
    cells: Sequence[Cell],
    devices: Mapping[str, str | Unsupported],
    measured: Mapping[Key, Entry],
    retry: Collection[str],
) -> list[Task]:
    """All tasks without a valid record, in order of execution.

    Rounds are interleaved and every second one is reversed (A B, B A), so that slow drift of the
    machine does not favour a cell. A record is valid unless its outcome is in ``retry``.
    """
    tasks = []
    for round_ in range(max((cell["protocol"]["rounds"] for cell in cells), default=0)):
        for cell in cells if round_ % 2 == 0 else reversed(cells):
            if round_ >= cell["protocol"]["rounds"]:
                continue
            entry = measured.get((cell["cell_id"], round_))
            if entry is not None and entry.outcome not in retry:
                continue
            device = devices[cell["cell_id"]]
            unsupported = device.reason if isinstance(device, Unsupported) else None
            name = cell["device"] if isinstance(device, Unsupported) else device
            attempt = 0 if entry is None else entry.attempt + 1
            tasks.append(Task(cell, round_, attempt, name, unsupported))
    return tasks


def lanes(tasks: Sequence[Task]) -> list[dict[str, list[Task]]]:
    """Split tasks into stages of lanes: lanes of a stage run at the same time.

    With several GPUs in use, each has a lane, and everything else follows in a stage of its own,
    since it would share the processor with them. Otherwise there is one lane.
    """
    gpus = {task.device for task in tasks if _on_gpu(task)}
    if len(gpus) < 2:
        return [{HOST_LANE: list(tasks)}] if tasks else []
    parallel = {gpu: [t for t in tasks if _on_gpu(t) and t.device == gpu] for gpu in sorted(gpus)}
    rest = [task for task in tasks if not _on_gpu(task)]
    return [parallel, *([{HOST_LANE: rest}] if rest else [])]


def folder_names(cells: Sequence[Cell], others: Sequence[Entry]) -> dict[str, str]:
    """A readable, unique file name for each cell.

    Args:
        cells: of the plan.
        others: entries of cells that the plan no longer has; their files stay theirs.
    """
    names = {cell["cell_id"]: _slug(cell["name"]) for cell in cells}
    taken = {_slug(entry.name).lower() for entry in others if entry.cell_id not in names}
    for cell_id, name in names.items():
        if name.lower() in taken:
            names[cell_id] = name = f"{name}-{cell_id[:8]}"
        taken.add(name.lower())
    return names


def _on_gpu(task: Task) -> bool:
    return task.unsupported is None and task.device.startswith("cuda")


def _workload(cell: Cell) -> str:
    workload = {name: value for name, value in cell["workload"].items() if name != "name"}
    return json.dumps(workload, sort_keys=True)


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._+=-]+", "-", name).strip("-.") or "cell"
    if len(slug) > 100:
        slug = f"{slug[:91]}-{sha256(name.encode()).hexdigest()[:8]}"
    return slug
