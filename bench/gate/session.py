"""What else went on while a run was measured: other processes on the GPU, throttling, its clock.

The parent asks nvidia-smi at two moments of every process: when the worker has been started and has
not loaded anything, so that whoever is on the GPU is a stranger, and when its measured calls are
over and the GPU is still warm. Never during a call, and not while another lane measures. What was
seen is appended to ``session.jsonl`` in the run folder, one JSON object a line.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import nvml
from bench.contract import Record
from bench.runner.ui import RunSummary, Task, Ui

FILE = "session.jsonl"

SLOW_CLOCK_PCT = 15.0
"""A clock further below the other processes' than this, right after the calls, is a wrong one."""

_GPU = (
    "--query-gpu=uuid,clocks_event_reasons.active,clocks.sm,temperature.gpu",
    "--query-gpu=uuid,clocks_throttle_reasons.active,clocks.sm,temperature.gpu",
)
"""The second for drivers before 535, which know the reasons by their older name."""

_APPS = "--query-compute-apps=gpu_uuid,pid,process_name"

Ask = Callable[[str], str | None]
"""Runs nvidia-smi with one query and returns what it prints, or None."""


def nvidia_smi(query: str) -> str | None:
    """Return what ``nvidia-smi`` answers to a query, as CSV without units; None if it fails."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def observe(ask: Ask = nvidia_smi) -> list[dict[str, Any]]:
    """Return each GPU: ``uuid_hash``, ``reasons``, ``sm_clock_mhz``, ``temperature_c``, ``apps``.

    A value that nvidia-smi does not tell is None. Empty where there is no nvidia-smi.
    """
    gpus = next((rows for query in _GPU if (rows := _rows(ask(query), 4))), [])
    apps = _rows(ask(_APPS), 3)
    found = []
    for uuid, reasons, clock, temperature in gpus:
        bits = re.fullmatch(r"0x([0-9a-fA-F]+)", reasons)
        found.append(
            {
                "uuid_hash": _hash(uuid),
                "reasons": int(bits.group(1), 16) if bits else None,
                "sm_clock_mhz": _number(clock),
                "temperature_c": _number(temperature),
                "apps": sorted(Path(name).name for owner, _, name in apps if owner == uuid),
            }
        )
    return found


def _rows(text: str | None, width: int) -> list[list[str]]:
    rows = csv.reader((text or "").splitlines(), skipinitialspace=True)
    return [[field.strip() for field in row] for row in rows if len(row) == width]


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _hash(uuid: str) -> str:
    # As in a record's fingerprint, so that the two can be matched.
    return hashlib.sha256(uuid.removeprefix("GPU-").lower().encode()).hexdigest()[:16]


class Watch:
    """A `bench.runner.Ui` that passes everything on to another one, and observes between calls.

    Args:
        ui: what shows the run.
        observer: asks for the state of all GPUs.
    """

    def __init__(self, ui: Ui, observer: Callable[[], list[dict[str, Any]]] = observe) -> None:
        self._ui = ui
        self.tick_s = ui.tick_s
        self._observer = observer
        self._file: Path | None = None
        self._busy: set[tuple[str, int]] = set()

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None:
        self._file = run_dir / FILE
        self._ui.run_started(run_dir, tasks, reused)

    def note(self, text: str) -> None:
        self._ui.note(text)

    def preparing(self, task: Task, what: str) -> None:
        self._ui.preparing(task, what)

    def cell_started(self, task: Task) -> None:
        self._ui.cell_started(task)
        self._busy.add(task.key)
        self._look(task, "started")

    def cell_event(self, task: Task, event: dict[str, Any]) -> None:
        self._ui.cell_event(task, event)
        if event["event"] == "phase" and event["phase"] == "finish":
            self._look(task, "measured")

    def cell_finished(self, task: Task, record: Record) -> None:
        self._busy.discard(task.key)
        self._ui.cell_finished(task, record)

    def tick(self, left_s: float) -> None:
        self._ui.tick(left_s)

    def run_finished(self, summary: RunSummary) -> None:
        self._ui.run_finished(summary)

    def _look(self, task: Task, moment: str) -> None:
        if self._busy != {task.key} or not task.device.startswith("cuda") or self._file is None:
            return
        cell_id, round_ = task.key
        line = {"cell_id": cell_id, "round": round_, "moment": moment, "gpus": self._observer()}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def watched(ui: Ui) -> Ui:
    """Return ``ui`` with a watch around it, where there is an nvidia-smi to ask."""
    return Watch(ui) if shutil.which("nvidia-smi") else ui


def read(run_dir: Path) -> dict[tuple[str, int], list[str]]:
    """Return what disturbed each (cell_id, round) of a run, as sentences without a full stop.

    A line that was cut off by a crash is skipped; the last observation of a moment counts.
    """
    seen: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    try:
        lines = (run_dir / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            seen.setdefault((entry["cell_id"], entry["round"]), {})[entry["moment"]] = entry["gpus"]
        except (ValueError, KeyError, TypeError):
            continue
    return _judge(seen, _fingerprints(run_dir))


def _fingerprints(run_dir: Path) -> dict[tuple[str, int], str | None]:
    from bench.store import RunFolder

    return {
        (record["cell_id"], record["round"]): (
            ((record.get("fingerprint") or {}).get("gpu") or {}).get("uuid_hash")
        )
        for record in RunFolder.open(run_dir).raw_records()
    }


def _judge(
    seen: Mapping[tuple[str, int], Mapping[str, Sequence[Mapping[str, Any]]]],
    devices: Mapping[tuple[str, int], str | None],
) -> dict[tuple[str, int], list[str]]:
    clocks: dict[tuple[str, str | None], list[int]] = {}
    found: dict[tuple[str, int], list[str]] = {}
    for at, moments in seen.items():
        said = found.setdefault(at, [])
        before = _own(moments.get("started", ()), devices.get(at))
        after = _own(moments.get("measured", ()), devices.get(at))
        for gpu in before:
            if gpu["apps"]:
                said.append(f"other processes on the GPU: {', '.join(gpu['apps'])}")
        for gpu in after:
            if len(gpu["apps"]) > 1 and not said:
                said.append(f"{len(gpu['apps'])} processes on the GPU after the calls")
            held = nvml.throttled((gpu["reasons"] or 0) & nvml.HEAT_OR_SUPPLY)
            if held:
                hot = gpu["temperature_c"]
                said.append(f"{', '.join(held)}" + ("" if hot is None else f" at {hot} °C"))
            if gpu["sm_clock_mhz"]:
                clocks.setdefault((at[0], gpu["uuid_hash"]), []).append(gpu["sm_clock_mhz"])
    for at, moments in seen.items():
        for gpu in _own(moments.get("measured", ()), devices.get(at)):
            usual = sorted(clocks.get((at[0], gpu["uuid_hash"]), [0]))
            top, clock = usual[-1], gpu["sm_clock_mhz"]
            if clock and clock < top * (1 - SLOW_CLOCK_PCT / 100):
                found[at].append(f"SM clock of {clock} MHz after the calls, elsewhere {top} MHz")
    return found


def _own(gpus: Sequence[Mapping[str, Any]], uuid_hash: str | None) -> list[Mapping[str, Any]]:
    """Return the GPU that a process ran on; the only one there is, if its record has no UUID."""
    if uuid_hash is None:
        return list(gpus) if len(gpus) == 1 else []
    return [gpu for gpu in gpus if gpu["uuid_hash"] == uuid_hash]
