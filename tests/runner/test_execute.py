"""A run as a whole: order, resuming, retrying, refusing, interrupting."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bench import files
from bench.contract import Cell, Record
from bench.environments import view
from bench.runner import (
    EnvironmentUnavailable,
    Interpreter,
    Patience,
    RunnerError,
    RunSummary,
    Task,
    execute,
)
from bench.runner.devices import Machine
from bench.store import RunFolder, StoreError
from tests.runner.support import Plan, Watcher, cell, lines, machine, program


def go(run_dir: Path, *cells: Cell, **options: Any) -> RunSummary:
    options = {"program": program("by_extra"), "machine": machine(), "start": "fork"} | options
    devices = options.pop("plan_devices", ())
    return execute(Plan(list(cells), devices), run_dir, **options)


def order_of(run_dir: Path) -> list[str]:
    return [f"{r['name']}{r['round']}" for r in lines(run_dir)]


def test_rounds_are_interleaved_and_reversed(tmp_path):
    summary = go(tmp_path, cell("a", rounds=3), cell("b", rounds=3), cell("c", rounds=1))
    assert order_of(tmp_path) == ["a0", "b0", "c0", "b1", "a1", "a2", "b2"]
    assert [r["sequence"] for r in lines(tmp_path)] == list(range(7))
    assert summary.exit_code == 0
    assert (summary.executed, summary.reused, summary.missing) == (7, 0, 0)


def test_a_record_says_who_it_is(tmp_path):
    go(tmp_path, cell("t2i / none", rounds=2))
    folder = RunFolder.open(tmp_path)
    first, second = folder.records()
    assert first.run_id == folder.run_id
    assert first.record_id != second.record_id
    assert first.cell.name == "t2i / none"
    assert first.process.log == "logs/t2i-none-r0.log"
    assert first.e2e_s == (0.1, 0.2, 0.3)
    assert None not in (first.started_utc, first.ended_utc, second.started_utc)
    assert str(first.started_utc) <= str(first.ended_utc) <= str(second.started_utc)
    assert (first.process.startup_s or 0) > 0
    assert first.process.pid != second.process.pid
    assert (tmp_path / "pictures" / "t2i-none" / "r1").is_dir()


def test_a_fork_is_a_process_of_its_own(tmp_path):
    looks = [cell(n, rounds=2, extra={"do": "environment"}, threads=3) for n in ("a", "b")]
    go(tmp_path, *looks)
    go(tmp_path / "spawned", *looks, start="spawn")
    forked = [r["fingerprint"] for r in lines(tmp_path)]
    spawned = [r["fingerprint"] for r in lines(tmp_path / "spawned")]
    for seen in (*forked, *spawned):
        assert seen["session"] is True
        assert seen["sigterm"] is True
        assert seen["stdin"] == "/dev/null"
        assert seen["env"]["OMP_NUM_THREADS"] == "3"
        assert seen["env"]["OPENBLAS_NUM_THREADS"] == "1"
        # Standard streams, the event pipe and what listing them opens: nothing of the launcher's.
        assert len(seen["fds"]) == 5 or all("socket" not in fd for fd in seen["fds"]), seen["fds"]
        assert not any("socket:" in fd or "eventpoll" in fd for fd in seen["fds"])
    assert len({seen["random"] for seen in forked}) == 4
    layouts = [seen["layout"] for seen in forked]
    assert layouts[0] == layouts[1]
    assert layouts[2] == layouts[3]


@pytest.mark.parametrize("start", ["fork", "auto"])
def test_a_template_that_may_not_fork_spawns_or_says_so(tmp_path, monkeypatch, start):
    unsafe = program("by_extra")
    unsafe = type(unsafe)(entry=unsafe.entry, preload=("tests.runner.starts_thread",))
    if start == "fork":
        with pytest.raises(RunnerError, match=r"1 more thread.*--start"):
            go(tmp_path, cell("a"), program=unsafe, start=start)
        return
    watcher = Watcher()
    go(tmp_path, cell("a"), cell("b"), program=unsafe, start=start, ui=watcher)
    assert [r["process"]["start"] for r in lines(tmp_path)] == ["spawn", "spawn"]
    assert "1 more thread" in lines(tmp_path)[0]["process"]["start_reason"]
    assert len(watcher.notes) == 1


def test_a_template_that_may_not_fork_keeps_nothing_of_its_imports(tmp_path):
    unsafe = program("tells_launchers_threads")
    unsafe = type(unsafe)(entry=unsafe.entry, preload=("tests.runner.starts_thread",))
    go(tmp_path, cell("a"), program=unsafe, start="auto")
    (record,) = lines(tmp_path)
    assert "1 more thread" in record["process"]["start_reason"]
    assert record["fingerprint"]["launcher_threads"] == 1


def test_a_template_whose_imports_crash_gives_way_to_fresh_interpreters(tmp_path):
    crashing = program("by_extra")
    crashing = type(crashing)(entry=crashing.entry, preload=("tests.runner.crashes_template",))
    watcher = Watcher()
    go(tmp_path, cell("a"), program=crashing, start="auto", ui=watcher)
    (record,) = lines(tmp_path)
    assert record["outcome"] == "ok"
    assert "signal 6" in record["process"]["start_reason"]


# Refusing, resuming, retrying


def test_records_are_not_added_to_without_being_asked(tmp_path):
    go(tmp_path, cell("a"))
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(RunnerError, match=r"1 record.*--resume.*--out"):
        go(tmp_path, cell("a"))
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_a_complete_run_is_not_measured_again(tmp_path):
    go(tmp_path, cell("a"), cell("bad", extra={"do": "raises"}))
    watcher = Watcher()
    again = go(tmp_path, cell("a"), cell("bad", extra={"do": "raises"}), resume=True, ui=watcher)
    assert again.executed == 0
    assert again.exit_code == 1
    assert "nothing was measured" in watcher.notes[0]
    assert len(lines(tmp_path)) == 2


def test_resuming_measures_what_a_changed_plan_invalidates(tmp_path):
    go(tmp_path, cell("a", cell_id="a1"), cell("b", cell_id="b1"))
    watcher = Watcher()
    summary = go(
        tmp_path, cell("a", cell_id="a1"), cell("b", cell_id="b2"), resume=True, ui=watcher
    )
    assert (summary.executed, summary.reused) == (1, 1)
    folder = RunFolder.open(tmp_path)
    assert [r.cell_id for r in folder.records()] == ["a1", "b2"]
    assert [r.cell_id for r in folder.records(every=True)] == ["a1", "b1", "b2"]
    assert "1 record(s) are of cells outside this plan" in watcher.notes[0]
    # The old record's log and pictures are still its own.
    old, new = (r["process"]["log"] for r in lines(tmp_path)[1:])
    assert (old, new) == ("logs/b-r0.log", "logs/b-b2-r0.log")


def test_more_rounds_add_and_fewer_rounds_hide(tmp_path):
    go(tmp_path, cell("a", rounds=2))
    assert go(tmp_path, cell("a", rounds=3), resume=True).executed == 1
    shorter = go(tmp_path, cell("a", rounds=1), resume=True)
    assert (shorter.executed, sum(shorter.outcomes.values())) == (0, 1)
    assert [r.round for r in RunFolder.open(tmp_path).records()] == [0]


def test_retrying_supersedes_and_keeps(tmp_path):
    cells = [cell("a", cell_id="a"), cell("bad", cell_id="bad", extra={"do": "raises"})]
    assert go(tmp_path, *cells).exit_code == 1
    mended = [cells[0], cell("bad", cell_id="bad")]
    summary = go(tmp_path, *mended, retry=["oom", "failed"])
    assert (summary.executed, summary.exit_code) == (1, 0)
    assert [(r["name"], r["attempt"]) for r in lines(tmp_path)] == [
        ("a", 0),
        ("bad", 0),
        ("bad", 1),
    ]
    assert [r.outcome for r in RunFolder.open(tmp_path).records()] == ["ok", "ok"]
    assert lines(tmp_path)[2]["process"]["log"] == "logs/bad-r0-a1.log"


def test_only_outcomes_can_be_retried(tmp_path):
    with pytest.raises(RunnerError, match=r"'faild'.*failed"):
        go(tmp_path / "run", cell("a"), retry=["faild"])
    assert not (tmp_path / "run").exists()


def test_without_a_run_there_is_nothing_to_retry(tmp_path):
    with pytest.raises(RunnerError, match=r"no run in .*nothing to retry.*--out.*without --retry"):
        go(tmp_path / "run", cell("a"), retry=["failed"])
    assert not (tmp_path / "run").exists()


def test_another_machine_is_refused_unless_allowed(tmp_path):
    go(tmp_path, cell("a", cell_id="a"))
    plan_file = tmp_path / "plan.json"
    header = json.loads(plan_file.read_text())
    header["host"]["torch"] = "1.0"
    plan_file.write_text(json.dumps(header))
    cells = [cell("a", cell_id="a"), cell("b", cell_id="b")]
    with pytest.raises(RunnerError, match=r"torch: 1\.0 → .*--out.*--allow-other-host"):
        go(tmp_path, *cells, resume=True)
    assert json.loads(plan_file.read_text()) == header
    assert go(tmp_path, *cells, resume=True, allow_other_host=True).executed == 1


def test_another_device_is_refused(tmp_path):
    go(tmp_path, cell("a", cell_id="a", device="auto", rounds=2), machine=machine(2))
    both = cell("a", cell_id="a", device="auto", rounds=3)
    with pytest.raises(RunnerError, match="device of a: cuda:0 → cpu"):
        go(tmp_path, both, resume=True, machine=machine(2), devices=["cpu"])


def test_a_torn_record_is_reported_and_measured_again(tmp_path):
    go(tmp_path, cell("a", cell_id="a"), cell("b", cell_id="b"))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "cache" / "fresh-left").mkdir()
    watcher = Watcher()
    summary = go(tmp_path, cell("a", cell_id="a"), cell("b", cell_id="b"), resume=True, ui=watcher)
    assert summary.executed == 1
    assert "that cell will run again" in watcher.notes[0]
    assert "records.torn-1.jsonl" in watcher.notes[0]
    assert order_of(tmp_path) == ["a0", "b0"]
    assert os.listdir(tmp_path / "cache") == []


# Devices and environments


def test_a_missing_gpu_is_unsupported_at_once(tmp_path):
    summary = go(tmp_path, cell("a", device="cuda:0"), cell("b"))
    first, second = lines(tmp_path)
    assert first["outcome"] == "unsupported"
    assert "no GPU is visible" in first["reason"]
    assert first["device"] == "cuda:0"
    assert set(first["process"]) == {"wall_s"}  # nothing was started
    assert second["outcome"] == "ok"
    assert summary.exit_code == 1


def test_several_gpus_work_at_the_same_time(tmp_path):
    slow = {"do": "slow", "seconds": 1.0}
    cells = [
        cell(f"{name}-{backend}", device="cuda", extra={**slow, "w": name})
        for name in ("x", "y")
        for backend in ("none", "other")
    ]
    for each in cells:
        each["workload"]["name"] = each["workload"]["prompt"] = each["name"][0]
    go(tmp_path, *cells, cell("host"), plan_devices=("cuda:0", "cuda:1"), machine=machine(2))
    by_name = {r["name"]: r for r in lines(tmp_path)}
    assert by_name["y-none"]["started_utc"] < by_name["x-none"]["ended_utc"]
    assert by_name["x-none"]["started_utc"] < by_name["y-none"]["ended_utc"]
    assert by_name["x-other"]["started_utc"] >= by_name["x-none"]["ended_utc"]
    devices = {r["name"]: r["device"] for r in lines(tmp_path)}
    assert devices == {
        "x-none": "cuda:0",
        "x-other": "cuda:0",
        "y-none": "cuda:1",
        "y-other": "cuda:1",
        "host": "cpu",
    }
    assert order_of(tmp_path)[-1] == "host0"


def test_an_environment_that_is_not_there_is_unavailable(tmp_path):
    backend = {"name": "nexfort", "options": {}, "environment": "nexfort-291"}
    go(tmp_path, cell("a", backend=backend), cell("b"))
    first, second = lines(tmp_path)
    assert first["outcome"] == "unavailable"
    assert "'nexfort-291'" in first["reason"]
    assert second["outcome"] == "ok"


def test_another_interpreter_can_be_plugged_in(tmp_path):
    def find(environment: str) -> Interpreter:
        if environment == "current":
            raise EnvironmentUnavailable("not today")
        return Interpreter(sys.executable)

    backend = {"name": "none", "options": {}, "environment": "mine"}
    go(tmp_path, cell("a", backend=backend), cell("b"), interpreters=find)
    assert [r["outcome"] for r in lines(tmp_path)] == ["ok", "unavailable"]


def test_a_run_asks_once_for_each_environment_it_needs_and_keeps_who_it_was(tmp_path):
    asked: list[str] = []

    def find(environment: str) -> Interpreter:
        asked.append(environment)
        return Interpreter(sys.executable, identity=None if environment == "current" else "one")

    mine = {"name": "none", "options": {}, "environment": "mine"}
    cells = (cell("a", backend=mine, rounds=2), cell("b"))
    go(tmp_path, *cells, interpreters=find)
    assert asked == ["mine", "current"]
    assert [r["environment"]["identity"] for r in lines(tmp_path)] == ["one", None, "one"]

    def rebuilt(environment: str) -> Interpreter:
        return Interpreter(sys.executable, identity="two")

    go(tmp_path, *cells, interpreters=rebuilt, resume=True)  # nothing is left to be measured
    more = (cell("a", backend=mine, rounds=3), cell("b"))
    with pytest.raises(RunnerError, match="environment mine: one → two"):
        go(tmp_path, *more, interpreters=rebuilt, resume=True)


def test_an_environment_that_was_built_meanwhile_does_not_forbid_to_resume(tmp_path):
    mine = {"name": "none", "options": {}, "environment": "mine"}
    cells = (cell("a", backend=mine), cell("b"))

    def find(environment: str) -> Interpreter:
        if environment == "mine" and not built:
            raise EnvironmentUnavailable("not yet")
        return Interpreter(sys.executable, identity="one")

    built = False
    go(tmp_path, *cells, interpreters=find)
    built = True
    summary = go(tmp_path, *cells, interpreters=find, retry=["unavailable"])
    assert summary.outcomes == {"ok": 2}


def test_a_foreign_interpreter_sees_the_project_and_nothing_of_the_parents(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "parents"))
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    interpreter = Interpreter(sys.executable, name="mine", variables={"WORD": "hello"})
    environment = view.process_environment(interpreter)
    program = (
        "import os, bench.contract, compilers; "
        "print('VIRTUAL_ENV' in os.environ, os.environ['WORD'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    active, word = done.stdout.split()
    assert sorted(os.listdir(view.project_folder())) == ["bench", "compilers"]
    assert (active, word) == ("False", "hello")
    assert environment["PATH"].startswith(os.path.dirname(sys.executable) + os.pathsep)
    assert str(tmp_path / "parents") not in environment["PYTHONPATH"]


def test_an_interpreter_that_does_not_start_fails_its_cells(tmp_path):
    summary = go(tmp_path, cell("a"), interpreters=lambda _: Interpreter("/nowhere/python"))
    assert lines(tmp_path)[0]["reason"] == (
        "/nowhere/python could not be started: no such file or directory"
    )
    assert summary.exit_code == 1


def test_a_device_that_is_no_device(tmp_path):
    with pytest.raises(RunnerError, match="'gpu' is not a device"):
        go(tmp_path, cell("a"), devices=["gpu"])
    with pytest.raises(RunnerError, match="only cuda:0 is visible"):
        go(tmp_path, cell("a"), devices=["cuda:1"], machine=machine(1))


# Compile caches

PATIENT_S = 120.0
"""For what ends at once unless the machine is very busy."""

COMPILING = {"name": "torch-compile", "options": {}, "environment": "current"}


def test_a_warm_cache_is_filled_once_and_kept(tmp_path):
    warm = cell("a", rounds=2, cache="warm", backend=COMPILING)
    watcher = Watcher()
    go(tmp_path, warm, ui=watcher)
    first, second = lines(tmp_path)
    assert watcher.names("preparing").count("a: filling its compile cache") == 1
    assert first["compile_cache"]["before_bytes"] == 1000
    assert first["compile_cache"]["prime_s"] > 0
    assert second["compile_cache"] == {"before_bytes": 1000, "after_bytes": 1000}
    assert first["e2e_s"] == [0.1, 0.2, 0.3]
    assert (tmp_path / "logs" / "a-r0-prime.log").exists()


def test_a_fresh_cache_is_gone_afterwards(tmp_path):
    go(tmp_path, cell("a", cache="fresh", backend=COMPILING))
    assert os.listdir(tmp_path / "cache") == []


def test_without_a_compiler_there_is_nothing_to_fill(tmp_path):
    watcher = Watcher()
    go(tmp_path, cell("a", cache="warm"), ui=watcher)
    assert "prime_s" not in lines(tmp_path)[0]["compile_cache"]


def test_a_cache_that_cannot_be_filled_is_the_reason(tmp_path):
    go(tmp_path, cell("a", cache="warm", backend=COMPILING, extra={"do": "prime_fails"}))
    (record,) = lines(tmp_path)
    assert record["outcome"] == "failed"
    assert record["reason"] == "while filling the compile cache: no compiler"


def test_an_unfinished_cache_is_filled_from_its_beginning(tmp_path):
    warm = cell("a", cache="warm", backend=COMPILING)
    half = tmp_path / "cache" / warm["cell_id"] / "half"
    RunFolder.acquire(tmp_path).close()
    half.parent.mkdir()
    half.write_text("left by a crash")
    go(tmp_path, warm)
    assert not half.exists()
    assert lines(tmp_path)[0]["compile_cache"]["before_bytes"] == 1000


# Interruptions

CHILD = """
import json, sys
from tests.runner.support import *
from bench.runner import execute, Patience
spec = json.loads(open(sys.argv[1]).read())
ui = Watcher()
ui.cell_started = lambda task: print("started", task.cell["name"], flush=True)
ui.note = lambda text: print("note", text, flush=True)
summary = execute(
    Plan(spec["cells"]), spec["run_dir"], resume=True, machine=machine(),
    program=program("by_extra", *spec["preload"]),
    start=spec["start"], ui=ui, patience=Patience(term_s=0.2),
)
print("summary", summary.executed, summary.missing, flush=True)
sys.exit(summary.exit_code)
"""


def child(
    run_dir: Path,
    cells: list[Cell],
    start: str = "fork",
    preload: Sequence[str] = (),
    **options: Any,
) -> subprocess.Popen[str]:
    spec = run_dir.with_suffix(".spec.json")
    asked = {"cells": cells, "run_dir": str(run_dir), "start": start, "preload": preload}
    spec.write_text(json.dumps(asked))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(spec)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
        **options,
    )


def processes_of(run_dir: Path) -> list[str]:
    """Command lines of processes that work for this run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path("/proc", name, "environ").read_bytes().decode(errors="replace")
            command = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"TEST_RUN={run_dir}" in environment or str(run_dir) in command:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("do", ["hang", "hang_ignoring_sigterm"])
def test_an_interruption_keeps_records_and_leaves_no_process(tmp_path, number, do, monkeypatch):
    monkeypatch.setenv("TEST_RUN", str(tmp_path))
    cells = [cell("good"), cell("hangs", extra={"do": do}), cell("never")]
    runner = child(tmp_path / "run", cells)
    assert runner.stdout is not None
    for line in runner.stdout:
        if line == "started hangs\n":
            break
    log = tmp_path / "run" / "logs" / "hangs-r0.log"
    while not log.exists():
        time.sleep(0.01)
    # As a terminal does it: to the whole foreground process group.
    os.killpg(runner.pid, number)
    rest = runner.communicate(timeout=PATIENT_S)[0]
    assert runner.returncode == 130
    assert "note Stopping" in rest
    assert "summary 1 2" in rest
    assert order_of(tmp_path / "run") == ["good0"]
    monkeypatch.delenv("TEST_RUN")
    assert processes_of(tmp_path) == []
    assert os.listdir(tmp_path / "run" / "cache") == []
    mended = [cell("good"), cell("never")]
    assert go(tmp_path / "run", *mended, resume=True).executed == 1


@pytest.mark.parametrize("twice", [False, True])
def test_an_interruption_does_not_wait_for_imports_or_for_a_stubborn_worker(
    tmp_path, monkeypatch, twice
):
    monkeypatch.setenv("TEST_RUN", str(tmp_path))
    stubborn = cell("a", extra={"do": "hang_ignoring_sigterm"})
    preload = () if twice else ("tests.runner.imports_for_long",)
    runner = child(tmp_path / "run", [stubborn], preload=preload)
    assert runner.stdout is not None
    assert runner.stdout.readline() == "started a\n"
    if twice:
        while not list((tmp_path / "run" / "logs").glob("a-r0.log")):
            time.sleep(0.01)
    else:
        while "tests.runner.imports_for_long" not in "".join(processes_of(tmp_path)):
            time.sleep(0.01)
    time.sleep(0.5)
    began = time.monotonic()
    for _ in range(1 + twice):
        os.killpg(runner.pid, signal.SIGINT)
        time.sleep(0.05)
    said = runner.communicate(timeout=PATIENT_S)[0]
    # 3 s, and as much for a busy machine; it was 10 s.
    assert time.monotonic() - began < 6.0
    assert runner.returncode == 130
    assert ("Stopping at once" in said) == twice
    monkeypatch.delenv("TEST_RUN")
    assert processes_of(tmp_path) == []


def test_runs_work_in_other_threads(tmp_path):
    thread = threading.Thread(target=go, args=(tmp_path, cell("a")))
    thread.start()
    thread.join(PATIENT_S)
    assert order_of(tmp_path) == ["a0"]


def test_signal_handlers_are_given_back(tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    go(tmp_path, cell("a"))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_two_runners_at_once(tmp_path):
    runner = child(tmp_path, [cell("hangs", extra={"do": "hang"})])
    assert runner.stdout is not None
    assert runner.stdout.readline() == "started hangs\n"
    try:
        with pytest.raises(StoreError, match=f"pid {runner.pid}"):
            go(tmp_path, cell("a"))
    finally:
        os.kill(runner.pid, signal.SIGINT)
        runner.communicate(timeout=PATIENT_S)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


NURSERY = """
import os, signal, sys
from pathlib import Path
from tests.runner.support import *
from bench.runner import execute
cells = [cell(f"c{i}", extra={"do": "slow", "seconds": 0.01}) for i in range(300)]
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        execute(Plan(cells), sys.argv[1], resume=True, program=program("by_extra"),
                machine=machine(), start=line.strip())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@pytest.mark.thorough
def test_a_runner_killed_at_random_moments_loses_and_doubles_nothing(tmp_path):
    """Fifty runners, each forked from a process that has the imports done, and killed."""
    run_dir = tmp_path / "run"
    records = run_dir / "records.jsonl"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TEST_RUN": str(tmp_path),
    }
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    dice = random.Random(333)
    stored: list[bytes] = []
    size = 0
    try:
        for turn in range(50):
            nursery.stdin.write("fork\n" if turn % 5 else "spawn\n")
            nursery.stdin.flush()
            runner = int(nursery.stdout.readline())
            if turn % 2:
                # However slow the machine is, half of them get somewhere.
                deadline = time.monotonic() + PATIENT_S
                while _size(records) <= size and time.monotonic() < deadline:
                    time.sleep(0.005)
            time.sleep(dice.uniform(0.0, 0.2))
            os.kill(runner, signal.SIGKILL)
            assert nursery.stdout.readline() == "gone\n"
            *whole, _ = records.read_bytes().split(b"\n") if records.exists() else [b""]
            assert whole[: len(stored)] == stored
            stored, size = whole, _size(records)
    finally:
        nursery.stdin.close()
        nursery.wait(PATIENT_S)
        nursery.stdout.close()
    deadline = time.monotonic() + PATIENT_S
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(tmp_path) == []
    assert 25 <= len(stored) < 300
    cells = [cell(f"c{i}", extra={"do": "slow", "seconds": 0.01}) for i in range(len(stored) + 5)]
    assert go(run_dir, *cells, resume=True).exit_code == 0
    keys = [(r["cell_id"], r["round"]) for r in lines(run_dir)]
    assert len(keys) == len(set(keys)) == len(cells)


# Disks


def test_after_a_runner_is_killed_no_file_holds_a_secret(tmp_path, monkeypatch):
    token = "tok/en+9f8e7d6c5b4a"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("TEST_RUN", str(tmp_path))
    secret = cell("tells", extra={"do": "prints_secret_and_hangs", "key": token})
    secret["workload"]["prompt"] = f"a boat, {token}, https://{token}@host"
    runner = child(tmp_path / "run", [secret])
    log = tmp_path / "run" / "logs" / "tells-r0.log"
    deadline = time.monotonic() + PATIENT_S
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    runner.kill()
    runner.communicate(timeout=PATIENT_S)
    monkeypatch.delenv("TEST_RUN")
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_of(tmp_path) == []
    text = "".join(f.read_text() for f in (tmp_path / "run").rglob("*") if f.is_file())
    assert log.read_text().count("[hidden]") == 6
    for form in (token, quote(token, safe=""), "en+9f8e7d6c", "9f8e7d6c5b4a"):
        assert form not in text
    assert base64.b64encode(f"u:{token}".encode()).decode()[4:20] not in text


def test_a_full_disk_stops_the_run_and_says_what_to_do(tmp_path):
    many = cell("a", rounds=50)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Workers' own files are small; only records.jsonl, which grows, meets the limit.
    resource.setrlimit(resource.RLIMIT_FSIZE, (7_000, hard))
    try:
        with pytest.raises(StoreError, match=r"are safe\. Free some space.*--resume"):
            go(tmp_path, many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stored = len(lines(tmp_path))
    assert 0 < stored < 50
    assert go(tmp_path, cell("a", rounds=stored + 1), resume=True).executed == 1


def test_a_folder_that_fills_up_between_cells_says_what_to_do(tmp_path, monkeypatch):
    write = files.write

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.endswith(".job.json"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, *arguments, **options)

    go(tmp_path, cell("a"))
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(StoreError, match=r"cannot be written: no space .* Free some space.*resume"):
        go(tmp_path, cell("a"), cell("b"), resume=True)
    assert len(lines(tmp_path)) == 1


def test_a_plan_that_does_not_fit_on_the_disk_starts_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    watcher = Watcher()
    try:
        with pytest.raises(StoreError, match=r"plan\.json cannot be written"):
            go(tmp_path, cell("a"), ui=watcher)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert watcher.seen == []


# Time


def test_the_parent_sleeps_while_a_worker_measures(tmp_path):
    before: list[float] = []
    during: list[float] = []
    busy_s: list[float] = []

    class Ticking(Watcher):
        tick_s = 0.01

        def cell_event(self, task: Task, event: dict[str, Any]) -> None:
            super().cell_event(task, event)
            if event.get("phase") == "steady":
                busy_s.append(time.process_time())

        def cell_finished(self, task: Task, record: Record) -> None:
            busy_s.append(time.process_time())

        def tick(self, left_s: float) -> None:
            (during if len(busy_s) == 1 else before).append(left_s)

    measuring = cell("a", extra={"do": "slow", "seconds": 1.5})
    go(tmp_path, measuring, ui=Ticking(), estimate=lambda _: 30.0)
    started, measured = busy_s
    assert measured - started < 0.5  # a wait that polls would take 1.5
    assert during == []
    assert 0 < before[0] <= 30


def test_the_machine_is_only_asked_once_needed():
    assert Machine({}, gpus=[], torch_cuda="", apple=True).resolve("auto") == "mps"


def test_a_worker_that_needs_patience_gets_its_own_limits(tmp_path):
    summary = go(tmp_path, cell("a"), patience=Patience(ready_s=30, launch_s=30))
    assert summary.exit_code == 0
