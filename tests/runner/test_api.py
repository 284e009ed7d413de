"""The Python API and what the command line shows, with a double for the worker."""

from __future__ import annotations

import functools
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from rich.console import Console

import bench
from bench import api
from bench.cli import progress
from bench.config import ConfigError
from bench.contract import Record
from bench.runner import RunnerError, RunSummary, Task, execute
from bench.store import StoreError
from tests.runner.support import cell, machine, program

CONFIG: dict[str, Any] = {
    "name": "small",
    "device": "cpu",
    "protocol": {"preset": "quick", "rounds": 2},
    "matrix": {
        "workload": [
            {
                "name": "t2i",
                "task": "text-to-image",
                "model": "embedded:sdxl",
                "prompt": "a boat",
                "steps": 2,
            }
        ],
        "backend": ["none", "torch-compile"],
    },
}


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    doubled = functools.partial(execute, program=program("good"), machine=machine())
    monkeypatch.setattr(api, "execute", doubled)


def test_a_run_from_a_mapping():
    run = bench.run(CONFIG)
    assert run.path == Path.cwd() / "runs" / "small"
    assert run.summary is not None
    assert run.summary.exit_code == 0
    assert [(r.name, r.round) for r in run.records] == [
        ("t2i/none", 0),
        ("t2i/torch-compile", 0),
        ("t2i/torch-compile", 1),
        ("t2i/none", 1),
    ]
    assert len(run.frame()) == 4
    assert run.images == []
    again = bench.Run.open("runs/small")
    assert msgspec.json.encode(again.records) == msgspec.json.encode(run.records)
    assert again.summary is None


def test_a_run_from_a_file_with_overrides(tmp_path):
    import yaml

    (tmp_path / "my.yaml").write_text(yaml.safe_dump(CONFIG))
    run = bench.run("my.yaml", "elsewhere", overrides=["protocol.rounds=1"], only=["backend=none"])
    assert run.path == tmp_path / "elsewhere"
    assert len(run.records) == 1
    with pytest.raises(RunnerError, match="--resume"):
        bench.run("my.yaml", "elsewhere")
    assert len(bench.run("my.yaml", "elsewhere", resume=True).records) == 4


def test_mistakes_start_nothing():
    with pytest.raises(ConfigError):
        bench.run({**CONFIG, "matrx": {}})
    with pytest.raises(StoreError):
        bench.Run.open("runs/small")
    assert not Path("runs").exists()


def test_an_interruption_is_raised_once_the_folder_is_in_order():
    class Impatient(progress.Notes):
        def cell_finished(self, task: Task, record: Record) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        bench.run(CONFIG, ui=Impatient(Console(file=out)))
    assert 0 < len(bench.Run.open("runs/small").records) < 4
    assert "--resume continues it" in out.getvalue()
    assert len(bench.run(CONFIG, resume=True).records) == 4


def test_importing_the_package_is_cheap():
    code = (
        "import sys, bench; print(bench.__version__);"
        "heavy = {'torch', 'diffusers', 'pandas', 'pydantic', 'yaml', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    with pytest.raises(AttributeError, match="nothing"):
        _ = bench.nothing


# What is shown


def _record(outcome: str = "ok", **fields: Any) -> Record:
    made: dict[str, Any] = {"outcome": outcome, "reason": None, "process": {"wall_s": 12.3}}
    return cast("Record", made | fields)


TASK = Task(cell("t2i/none", rounds=2), 1, 0, "cpu", None)


def _console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, color_system=None), out


def test_lines_say_what_ended_and_how_long_is_left():
    console, out = _console(terminal=False)
    lines = progress.display(console)
    lines.run_started(Path.cwd() / "runs" / "x", 12, 3)
    lines.tick(125.0)
    lines.cell_finished(TASK, _record(e2e_s=[0.3, 0.25, 0.2]))
    lines.cell_finished(TASK, _record("oom", reason="no memory [1 GiB]"))
    assert out.getvalue().splitlines() == [
        "12 measurement(s), 3 of them measured before, into runs/x",
        "[ 4/12] t2i/none round 2 of 2 on cpu  ok  0.25 s a call  (12 s, about 2 min left)",
        "[ 5/12] t2i/none round 2 of 2 on cpu  oom  no memory [1 GiB]  (12 s, about 2 min left)",
    ]


def test_quiet_keeps_what_must_be_read():
    console, out = _console(terminal=True)
    quiet = progress.display(console, quiet=True)
    quiet.run_started(Path("x"), 1, 0)
    quiet.note("Mind the gap.")
    quiet.cell_started(TASK)
    quiet.cell_finished(TASK, _record())
    assert out.getvalue() == "Mind the gap.\n"


def test_a_terminal_shows_what_goes_on():
    console, out = _console(terminal=True)
    now = [100.0]
    live = progress.LiveDisplay(console, clock=lambda: now[0])
    live.run_started(Path("x"), 2, 0)
    live.cell_started(TASK)
    now[0] += 4
    live.cell_event(TASK, {"event": "phase", "phase": "warmup"})
    live.cell_event(TASK, {"event": "append", "fields": {"warmup_s": 1.0}})
    assert "t2i/none round 2 of 2 on cpu: warming up, call 1, 4.0 s" in out.getvalue()
    live.tick(30.0)
    assert "0/2 done, about 30 s left" in out.getvalue()
    live.cell_finished(TASK, _record())
    live.run_finished(RunSummary(Path("x"), Counter(), 1, 0, 1, True))
    assert "Interrupted: 1 cell(s) measured now, 1 missing." in out.getvalue()


def test_a_reader_that_goes_away_does_not_stop_the_run():
    code = (
        "import sys, time; from pathlib import Path; from rich.console import Console;"
        "from bench.cli import progress; lines = progress.display(Console());"
        "sys.stdin.read();"
        "[lines.note('x' * 1000) for _ in range(200)]; print('y' * 100_000, flush=True);"
        "sys.stderr.write('done')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"done")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (37, "37 s"), (89.6, "1 min"), (5400, "1 h 30 min")],
)
def test_durations_read_like_a_person_says_them(seconds, text):
    assert progress.duration(seconds) == text
