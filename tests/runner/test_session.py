"""What nvidia-smi said in recorded sessions, and what follows from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bench.gate import GateError, baselines, measured
from bench.runner import Silent, Task, session
from bench.runner.session import Gpu
from bench.store import RunFolder
from tests.gate.support import FINGERPRINT, GPU, planned, records, times, write_run

UUID = "GPU-1a2b3c4d-0000-1111-2222-333344445555"
HASH = hashlib.sha256(UUID.removeprefix("GPU-").encode()).hexdigest()[:16]
IDLE = f"{UUID}, 0x0000000000000001, 345, 41\n"


def smi(gpus: str = IDLE, apps: str = "") -> session.Ask:
    return lambda query: gpus if query.startswith("--query-gpu") else apps


def test_the_answer_is_read() -> None:
    apps = f"{UUID}, 4242, /usr/bin/python3\n{UUID}, 77, [Not Found]\nGPU-else, 1, x\n"
    (gpu,) = session.observe(smi(apps=apps))
    assert gpu == Gpu(
        uuid_hash=HASH,
        reasons=1,
        sm_clock_mhz=345,
        temperature_c=41,
        apps=("[Not Found]", "python3"),
    )


@pytest.mark.parametrize("name", ["clocks_event_reasons", "clocks_throttle_reasons"])
def test_the_reasons_are_asked_by_the_name_that_the_driver_knows(name: str) -> None:
    def ask(query: str) -> str | None:
        if query.startswith("--query-gpu"):
            return "GPU-1, 0x0000000000000004, 1755, 61\n" if f",{name}.active," in query else None
        return ""

    (gpu,) = session.observe(ask)
    assert (gpu.reasons, gpu.sm_clock_mhz, gpu.temperature_c) == (4, 1755, 61)


def test_answers_without_values_are_none() -> None:
    (gpu,) = session.observe(smi(f"{UUID}, [N/A], [N/A], [Not Supported]\n"))
    assert (gpu.reasons, gpu.sm_clock_mhz, gpu.temperature_c) == (None, None, None)
    assert session.observe(lambda query: None) == []
    assert session.observe(smi("something else entirely\n")) == []


def test_no_program_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert session.nvidia_smi("--query-gpu=uuid") is None
    quiet = Silent()
    assert session.watched(quiet) is quiet


def gpu(apps: int = 0, reasons: int = 0, clock: int = 1500, hot: int | None = 60) -> Gpu:
    names = tuple(f"app{i}" for i in range(apps))
    return Gpu(uuid_hash=HASH, reasons=reasons, sm_clock_mhz=clock, temperature_c=hot, apps=names)


def watched_run(
    tmp_path: Path, observations: dict[tuple[int, str], Any], uuid_hash: str | None = HASH
) -> list[list[str]]:
    """Return each round's disturbances of a run during which this was seen."""
    of = planned(rounds=4)
    path = tmp_path / "run"
    seen: list[Any] = []
    watch = session.Watch(Silent(), observer=lambda: seen)
    path.mkdir()
    watch.run_started(path, 4, 0)
    fingerprint = {**FINGERPRINT, "gpu": {**GPU, "uuid_hash": uuid_hash}}
    made = records(of, times(processes=4), fingerprint=fingerprint)
    for round_ in range(4):
        task = Task(of, round_, 0, "cuda:0", None)
        seen = [observations.get((round_, "started"), gpu())]
        watch.cell_started(task)
        watch.cell_event(task, {"event": "phase", "phase": "steady"})
        seen = [observations.get((round_, "measured"), gpu(apps=1))]
        watch.cell_event(task, {"event": "phase", "phase": "finish"})
        watch.cell_finished(task, made[round_])
    (path / "session.jsonl").rename(tmp_path / "kept")
    write_run(path, [(of, made)])
    (tmp_path / "kept").rename(path / "session.jsonl")
    cell = measured.of_run(path).cells["t2i/torch-compile"]
    return [list(process.disturbances) for process in cell.processes]


def test_a_quiet_session_has_nothing_to_say(tmp_path: Path) -> None:
    assert watched_run(tmp_path, {}) == [[], [], [], []]


def test_a_disturbed_run_is_no_baseline(tmp_path: Path) -> None:
    watched_run(tmp_path, {(1, "started"): gpu(apps=1)})
    with pytest.raises(GateError, match="round 2: other processes on the GPU: app0"):
        baselines.save(tmp_path / "run", "x", tmp_path / "b")


@pytest.mark.parametrize(
    ("at", "seen", "said"),
    [
        ((1, "started"), gpu(apps=2), "other processes on the GPU: app0, app1"),
        ((1, "measured"), gpu(apps=2), "2 processes on the GPU after the calls"),
        ((1, "measured"), gpu(1, 0x40, hot=92), "thermal slowdown (hardware) at 92 °C"),
        ((1, "measured"), gpu(1, 0x20, hot=None), "thermal slowdown (software)"),
        ((1, "measured"), gpu(1, 0x88), "hardware slowdown, power brake at 60 °C"),
        ((1, "measured"), gpu(1, clock=1200), "SM clock of 1200 MHz after the calls, elsewhere"),
    ],
)
def test_disturbances_are_named(tmp_path: Path, at: Any, seen: Any, said: str) -> None:
    found = watched_run(tmp_path, {at: seen})
    assert found[1][0].startswith(said)
    assert [found[0], found[2], found[3]] == [[], [], []]


def test_the_power_cap_is_usual(tmp_path: Path) -> None:
    assert watched_run(tmp_path, {(1, "measured"): gpu(1, 0x04)}) == [[], [], [], []]


def test_another_gpu_disturbs_nobody(tmp_path: Path) -> None:
    assert watched_run(tmp_path, {(1, "started"): gpu(apps=3)}, "f" * 16) == [[], [], [], []]


def test_without_a_uuid_the_only_gpu_counts(tmp_path: Path) -> None:
    assert watched_run(tmp_path, {(1, "started"): gpu(apps=1)}, None)[1]


def test_nothing_is_asked_while_another_lane_measures_or_off_a_gpu(tmp_path: Path) -> None:
    asked: list[int] = []

    def observer() -> list[Gpu]:
        asked.append(1)
        return []

    watch = session.Watch(Silent(), observer)
    watch.run_started(tmp_path, 3, 0)
    first, second = (Task(planned(), round_, 0, "cuda:0", None) for round_ in (0, 1))
    watch.cell_started(first)
    assert len(asked) == 1
    watch.cell_started(second)
    watch.cell_event(first, {"event": "phase", "phase": "finish"})
    assert len(asked) == 1
    watch.cell_finished(first, records(planned(), times())[0])
    watch.cell_event(second, {"event": "phase", "phase": "finish"})
    assert len(asked) == 2
    watch.cell_finished(second, records(planned(), times())[0])
    watch.cell_started(Task(planned(), 2, 0, "cpu", None))
    assert len(asked) == 2


def test_a_torn_line_is_skipped(tmp_path: Path) -> None:
    watched_run(tmp_path, {})
    file = tmp_path / "run" / "session.jsonl"
    file.write_text(file.read_text() + '{"cell_id": "x", "rou')
    kept = list(RunFolder.open(tmp_path / "run").records())
    assert len(session.read(tmp_path / "run", kept)) == 4
