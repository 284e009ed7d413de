"""What else went on while a run was measured: other processes on the GPU, throttling, its clock.

The parent asks nvidia-smi at two moments of every process: when the worker has been started and has
not loaded anything, so that whoever is on the GPU is a stranger, and when its measured calls are
over and the GPU is still warm. Never during a call, and not while another lane measures. What was
seen is appended to ``session.jsonl`` in the run folder, one JSON object a line.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from bench import files, nvml
from bench.contract import Record as Written
from bench.records import Record
from bench.records.types import Text
from bench.runner.ui import Task, Ui

FILE = "session.jsonl"

SLOW_CLOCK_PCT = 15.0
"""A clock further below the other processes' than this, right after the calls, is a wrong one."""

_GPU = (
    "--query-gpu=uuid,clocks_event_reasons.active,clocks.sm,temperature.gpu",
    "--query-gpu=uuid,clocks_throttle_reasons.active,clocks.sm,temperature.gpu",
)
"""The second for drivers before 535, which know the reasons by their older name."""

_APPS = "--query-compute-apps=gpu_uuid,pid,process_name"


Moment = Literal["started", "measured"]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU at one moment; a value that nvidia-smi does not give is None."""

    uuid_hash: Text
    reasons: int | None
    sm_clock_mhz: int | None
    temperature_c: int | None
    apps: tuple[Text, ...]


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file."""

    cell_id: Text
    round: int
    moment: Moment
    gpus: tuple[Gpu, ...]


_decoder = msgspec.json.Decoder(Observation)

Key = tuple[str, int]
"""(cell_id, round)."""

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


def observe(ask: Ask = nvidia_smi) -> list[Gpu]:
    """Return each GPU that nvidia-smi lists."""
    gpus = next((rows for query in _GPU if (rows := _rows(ask(query), 4))), [])
    apps = _rows(ask(_APPS), 3)
    return [
        Gpu(
            # As in a record's fingerprint, so that the two can be matched.
            uuid_hash=hashlib.sha256(uuid.removeprefix("GPU-").lower().encode()).hexdigest()[:16],
            reasons=int(reasons, 16) if re.fullmatch("0x[0-9a-fA-F]+", reasons) else None,
            sm_clock_mhz=int(clock) if clock.isdigit() else None,
            temperature_c=int(temperature) if temperature.isdigit() else None,
            apps=tuple(sorted(Path(name).name for owner, _, name in apps if owner == uuid)),
        )
        for uuid, reasons, clock, temperature in gpus
    ]


def _rows(text: str | None, width: int) -> list[list[str]]:
    rows = csv.reader((text or "").splitlines(), skipinitialspace=True)
    return [[field.strip() for field in row] for row in rows if len(row) == width]


class Watch:
    """A `bench.runner.Ui` that passes everything on to another one, and observes between calls.

    Args:
        ui: what shows the run.
        observer: asks for the state of all GPUs.
    """

    def __init__(self, ui: Ui, observer: Callable[[], Sequence[Gpu]] = observe) -> None:
        self._ui = ui
        self._observer = observer
        self._file: Path | None = None
        self._busy: set[Key] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ui, name)

    def run_started(self, run_dir: Path, tasks: int, reused: int) -> None:
        self._file = run_dir / FILE
        self._ui.run_started(run_dir, tasks, reused)

    def cell_started(self, task: Task) -> None:
        self._ui.cell_started(task)
        self._busy.add(task.key)
        self._look(task, "started")

    def cell_event(self, task: Task, event: dict[str, Any]) -> None:
        self._ui.cell_event(task, event)
        if event["event"] == "phase" and event["phase"] == "finish":
            self._look(task, "measured")

    def cell_finished(self, task: Task, record: Written) -> None:
        self._busy.discard(task.key)
        self._ui.cell_finished(task, record)

    def _look(self, task: Task, moment: Moment) -> None:
        if self._busy != {task.key} or not task.device.startswith("cuda") or self._file is None:
            return
        cell_id, round_ = task.key
        gpus = tuple(self._observer())
        line = Observation(cell_id=cell_id, round=round_, moment=moment, gpus=gpus)
        with os.fdopen(files.create(self._file, os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def watched(ui: Ui) -> Ui:
    """Return ``ui`` with a watch around it, where there is an nvidia-smi to ask."""
    return cast(Ui, Watch(ui)) if shutil.which("nvidia-smi") else ui


def read(run_dir: Path, records: Sequence[Record]) -> dict[Key, list[str]]:
    """Return what disturbed each (cell_id, round) of a run, as sentences without a full stop.

    A line that was cut off by a crash is skipped; the last observation of a moment counts.
    """
    try:
        lines = files.read(files.inside(run_dir, FILE)).splitlines()
    except OSError:
        return {}
    seen = {(each.moment, each.cell_id, each.round): each.gpus for each in _observations(lines)}
    before: dict[Key, Gpu] = {}
    after: dict[Key, Gpu] = {}
    for record in records:
        key = record.cell_id, record.round
        uuid_hash = (record.fingerprint.get("gpu") or {}).get("uuid_hash")
        moments: tuple[tuple[Moment, dict[Key, Gpu]], ...]
        moments = (("started", before), ("measured", after))
        for moment, gpu_at in moments:
            gpus = seen.get((moment, *key), ())
            # Of a record without a UUID, the only GPU that there is.
            own = [gpu for gpu in gpus if uuid_hash in (gpu.uuid_hash, None)]
            if len(own) == 1:
                gpu_at[key] = own[0]
    fastest: dict[tuple[str, str], int] = {}
    for (cell_id, _), gpu in after.items():
        at = (cell_id, gpu.uuid_hash)
        fastest[at] = max(fastest.get(at, 0), gpu.sm_clock_mhz or 0)
    return {
        key: list(_disturbances(before.get(key), gpu, fastest.get((key[0], gpu.uuid_hash), 0)))
        for key, gpu in {**before, **after}.items()
    }


def _observations(lines: Sequence[bytes]) -> Iterator[Observation]:
    for line in lines:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield _decoder.decode(line)


def _disturbances(before: Gpu | None, after: Gpu, fastest_mhz: int) -> Iterator[str]:
    """Yield what disturbed a process; ``after`` is ``before`` where nothing else was seen."""
    if before and before.apps:
        yield f"other processes on the GPU: {', '.join(before.apps)}"
    if after is before:
        return
    if len(after.apps) > 1 and not (before and before.apps):
        yield f"{len(after.apps)} processes on the GPU after the calls"
    held = nvml.throttled((after.reasons or 0) & nvml.HEAT_OR_SUPPLY)
    if held:
        hot = "" if after.temperature_c is None else f" at {after.temperature_c} °C"
        yield f"{', '.join(held)}{hot}"
    clock = after.sm_clock_mhz
    if clock and clock < fastest_mhz * (1 - SLOW_CLOCK_PCT / 100):
        yield f"SM clock of {clock} MHz after the calls, elsewhere {fastest_mhz} MHz"
