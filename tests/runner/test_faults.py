"""Workers that misbehave: each fault becomes a record, and the next cell goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.contract import Cell, Record
from bench.runner import Patience, Task, execute
from bench.store import RunFolder, StoreError
from tests.runner.support import Plan, Watcher, cell, lines, machine, program

STARTS = [
    "spawn",
    pytest.param(
        "fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
    ),
]


class Impatient(Watcher):
    """Its clock passes every time limit as soon as a worker that hangs is warming up."""

    late_s = 0.0

    def cell_event(self, task: Task, event: dict[str, Any]) -> None:
        super().cell_event(task, event)
        if event.get("phase") == "warmup" and task.cell["name"] != "after":
            self.late_s += task.cell["limits"]["timeout_s"]

    def clock(self) -> float:
        return time.monotonic() + self.late_s


def run_one(
    tmp_path: Path,
    faulty: Cell,
    start: str = "spawn",
    patience: Patience | None = None,
    *,
    impatient: bool = False,
) -> dict[str, Any]:
    """Run a faulty cell and a good one after it; return the faulty one's record."""
    watcher = Impatient()
    summary = execute(
        Plan([faulty, cell("after")]),
        tmp_path / "run",
        program=program("by_extra"),
        machine=machine(),
        start=start,  # type: ignore[arg-type]
        ui=watcher,
        clock=watcher.clock if impatient else time.monotonic,
        patience=patience,
    )
    first, second = lines(summary.run_dir)
    assert second["name"] == "after"
    assert second["outcome"] == "ok"
    assert summary.exit_code == (0 if first["outcome"] == "ok" else 1)
    return first


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"prepare_s": "soon"}, "prepare_s: expected float"),
        ({"images": [{"path": "../../other/run.png"}]}, r"images[0].path: expected a path below"),
        ({"lora": 7}, "lora: expected object"),
    ],
)
def test_what_no_reader_would_take_fails_its_cell_and_leaves_the_run_readable(
    tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    faulty = cell("faulty", extra={"do": "sends_nonsense", "fields": fields})
    found = run_one(tmp_path, faulty)
    assert found["outcome"] == "failed"
    assert why in found["reason"]
    assert "e2e_s" not in found
    outcomes = [record.outcome for record in RunFolder.open(tmp_path / "run").records()]
    assert outcomes == ["failed", "ok"]


def faulty(do: str, **changes: Any) -> Cell:
    return cell(do, extra={"do": do, **changes.pop("extra", {})}, **changes)


def limited(memory_bytes: int) -> dict[str, Any]:
    return {"timeout_s": 60.0, "memory_bytes": memory_bytes}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("segfault", "killed by signal 11 (SIGSEGV) during warmup"),
        ("killed", "killed by signal 9 (SIGKILL) during warmup"),
        ("raises", "ValueError: the backend fell over"),
    ],
)
def test_a_worker_that_dies(tmp_path, start, do, reason):
    record = run_one(tmp_path, faulty(do), start)
    assert (record["outcome"], record["reason"]) == ("failed", reason)
    assert record["process"]["start"] == start
    if do != "raises":
        assert record["load_s"] == 1.5
        assert record["last_phase"] == "warmup"


def test_a_crash_leaves_its_stack_in_the_log(tmp_path):
    record = run_one(tmp_path, faulty("segfault"))
    log = (tmp_path / "run" / record["process"]["log"]).read_text()
    assert "Segmentation fault" in log
    assert "in segfault" in log


@pytest.mark.parametrize("start", STARTS)
def test_a_worker_that_hangs_ends_at_its_time_limit(tmp_path, start):
    record = run_one(tmp_path, faulty("hang"), start, impatient=True)
    assert record["outcome"] == "timeout"
    assert record["reason"] == "no end within the time limit of 60 s: during warmup"
    assert record["load_s"] == 1.5
    log = (tmp_path / "run" / record["process"]["log"]).read_text()
    assert "in hang" in log


def test_a_worker_that_ignores_sigterm_is_killed(tmp_path):
    record = run_one(
        tmp_path,
        faulty("hang_ignoring_sigterm"),
        patience=Patience(term_s=0.1),
        impatient=True,
    )
    assert record["outcome"] == "timeout"
    assert record["process"]["signal"] == 9


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("code", [0, 1])
def test_a_library_that_prints_and_exits_is_quoted(tmp_path, start, code):
    record = run_one(tmp_path, faulty("quiet_exit", extra={"code": code}), start)
    assert record["outcome"] == "failed"
    assert record["reason"] == (
        f"ended with status {code} and no result during warmup; its last words: Key is empty."
    )


@pytest.mark.parametrize("code", [None, 0, 3, "out of licences"])
def test_sys_exit_ends_the_worker_and_nothing_else(tmp_path, code):
    record = run_one(tmp_path, faulty("exit_by_exception", extra={"code": code}), STARTS[0])  # type: ignore[arg-type]
    assert record["outcome"] == "failed"
    assert record["process"]["exit_code"] == {None: 0, 0: 0, 3: 3}.get(code, 1)
    assert "no licence" in record["reason"]


def test_sys_exit_in_a_fork_does_not_reach_the_template(tmp_path):
    record = run_one(tmp_path, faulty("exit_by_exception", extra={"code": 3}), "fork")
    assert record["process"]["exit_code"] == 3


@pytest.mark.parametrize("start", STARTS)
def test_exhausted_memory_under_a_limit_is_oom(tmp_path, start):
    limits = limited(memory_bytes=512 * 2**20)
    record = run_one(tmp_path, faulty("memory", limits=limits), start)
    assert record["outcome"] == "oom"
    assert record["last_phase"] == "warmup"


def test_an_abort_for_lack_of_memory_is_oom(tmp_path):
    record = run_one(tmp_path, faulty("memory_abort", limits=limited(memory_bytes=2**33)))
    assert record["outcome"] == "oom"
    assert "bad_alloc" in record["reason"]


def test_an_abort_without_a_limit_is_not_called_oom(tmp_path):
    assert run_one(tmp_path, faulty("memory_abort"))["outcome"] == "failed"


def test_garbage_on_the_event_pipe_costs_a_warning(tmp_path):
    record = run_one(tmp_path, faulty("garbage"))
    assert record["outcome"] == "ok"
    assert record["load_s"] == 2.0
    assert record["cell_id"] == faulty("garbage")["cell_id"]
    (warning,) = record["warnings"]
    assert warning.startswith("6 line(s) on the event pipe were no events")
    assert "from a C library" in warning


def test_numbers_that_json_has_not_become_null_with_a_reason(tmp_path):
    record = run_one(tmp_path, faulty("not_finite"))
    assert record["load_s"] is None
    assert "not a finite number" in record["null_reasons"]["load_s"]


def test_a_hundred_megabytes_of_output_neither_block_nor_fill_memory(tmp_path):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = run_one(tmp_path, faulty("loud", extra={"mebibytes": 100}))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert record["outcome"] == "ok"
    assert (tmp_path / "run" / record["process"]["log"]).stat().st_size == 100 * 2**20
    assert grown < 40 * 1024


def _alive(*needles: str) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if all(needle in command for needle in needles):
            found.append(int(name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a launcher adopt orphans")
@pytest.mark.parametrize("start", STARTS)
def test_a_helper_that_holds_the_pipe_neither_hangs_nor_survives(tmp_path, start):
    ready = str(tmp_path / "ready")
    begun = time.monotonic()
    record = run_one(tmp_path, faulty("leaves_helper", extra={"ready": ready}), start)
    assert record["outcome"] == "ok"
    assert time.monotonic() - begun < 300  # the helper stays for 600 s
    assert Path(ready).exists()
    assert _alive(ready) == []


def test_a_worker_that_does_not_leave_after_its_end_is_made_to(tmp_path):
    record = run_one(tmp_path, faulty("hangs_after_end"), patience=Patience(exit_s=0.1))
    assert record["outcome"] == "ok"
    assert "signal 9" in record["warnings"][0]


def test_a_crash_after_the_end_does_not_change_the_result(tmp_path):
    record = run_one(tmp_path, faulty("crashes_after_end"))
    assert record["outcome"] == "ok"
    assert "signal 6 (SIGABRT) after its result" in record["warnings"][0]


@pytest.mark.parametrize("start", STARTS)
def test_a_launcher_that_is_killed_fails_its_cell_and_is_replaced(tmp_path, start):
    record = run_one(tmp_path, faulty("kills_launcher"), start)
    assert record["outcome"] == "failed"
    assert record["reason"] == (
        "the process that starts workers was killed by signal 9 (SIGKILL) during warmup"
    )


def test_a_launcher_that_hangs_fails_its_cell_and_is_replaced(tmp_path):
    record = run_one(
        tmp_path,
        faulty("stops_launcher"),
        "fork",
        Patience(term_s=0.1, kill_s=0.2),
        impatient=True,
    )
    assert record["outcome"] == "failed"
    assert "did not answer and was killed" in record["reason"]


def test_a_secret_reaches_neither_record_nor_log(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_notarealtoken123")
    record = run_one(tmp_path, faulty("tells_secret"))
    assert record["reason"] == "refused: [hidden]"
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            assert b"hf_notarealtoken123" not in file.read_bytes(), file
    assert "401 for token [hidden]" in (tmp_path / "run" / record["process"]["log"]).read_text()


class Meddler(Watcher):
    """Changes the run folder after the first record, as a user would from another terminal."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def cell_finished(self, task: Task, record: Record) -> None:
        if task.cell["name"] == "a":
            subprocess.run(["sh", "-ec", self.change], check=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sed -i s/ok/ok/ {0}/records.jsonl", "was replaced .*All 2 .*safe in records.saved-1"),
        ("rm {0}/records.jsonl", "was deleted .*put back with all 2"),
        ("rm -r {0}", "was deleted .*1 record.*lost"),
        ("mv {0} {0}.moved", "was moved .*All 1 record.*safe"),
    ],
)
def test_a_folder_that_a_user_changes_ends_the_run_with_what_became_of_it(tmp_path, change, words):
    run = tmp_path / "run"
    with pytest.raises(StoreError, match=f"(?s){words}"):
        execute(
            Plan([cell("a"), cell("b"), cell("c")]),
            run,
            program=program("good"),
            machine=machine(),
            ui=Meddler(change.format(run)),
        )
