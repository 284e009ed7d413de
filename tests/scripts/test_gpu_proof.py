"""The script's slices: what they run, that they resume, stop in time, and end as they should."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.config import load_config, make_plan

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_proof.sh"

PYTHON = """#!/usr/bin/env bash
# Stands in for Python: notes what it is asked, and leaves a run folder behind.
if [ "$1" = scripts/proof_state.py ]; then
  case $2 in
    ready) if [ -n "${UNREADY:-}" ]; then echo "gpu_proof: $UNREADY" >&2; exit 2; fi; exit 0 ;;
    name) echo a-machine; exit 0 ;;
    *) exec "$REAL" "$@" ;;
  esac
fi
echo "$@" >> "$CALLS"
if [ "$3" = run ]; then
  out=
  while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
  mkdir -p "$out/cache/a" && touch "$out/cache/a/artifacts.bin"
  cell='{"cell_id": "a", "protocol": {"rounds": 1}}'
  echo '{"schema": 1, "plan": {"cells": ['"$cell"']}}' > "$out/plan.json"
  case "$out" in
    *"${SLOW:-nothing}") echo 3600 > "$CLOCK"; exit 124 ;;
    *"${HANGING:-nothing}") echo "$$" > "$CALLS.pid"; exec sleep 30 ;;
    *"${BROKEN:-nothing}") exit 2 ;;
    *"${KILLED:-nothing}") kill -9 $$ ;;
    *"${STOPPED:-nothing}") exit 130 ;;
  esac
  outcome=ok
  case "$out" in *"${NOT_OK:-nothing}") outcome=failed ;; esac
  attempt=$(cat "$out/records.jsonl" 2> /dev/null | wc -l)
  echo '{"schema": 1, "cell_id": "a", "round": 0, "attempt": '"$attempt"', "name": "a",' \
    '"outcome": "'$outcome'"}' >> "$out/records.jsonl"
  [ $outcome = ok ]
  exit
fi
if [ "$3" = pack ]; then
  packed=$7/$5/$(basename "$4")
  mkdir -p "$packed" && touch "$packed/records.jsonl"
  exit
fi
if [ "$1" = scripts/selfcheck.py ]; then echo "self-check: lines"; exit "${SELFCHECK:-0}"; fi
exit 0
"""


DATE = """#!/usr/bin/env bash
# A clock that stands still until it is moved.
if [ "$1" = +%s ]; then cat "$CLOCK"; else exec /bin/date "$@"; fi
"""


class Proof:
    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.clock = folder / "clock"
        date = folder / "bin" / "date"
        date.parent.mkdir()
        date.write_text(DATE)
        date.chmod(0o755)
        self.path = f"{date.parent}:{os.environ['PATH']}"

    def command(self, *arguments: str) -> list[str]:
        return [str(SCRIPT), "--out", str(self.out), *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        self.clock.write_text("0\n")
        known = {
            "PYTHON": str(self.python),
            "REAL": sys.executable,
            "CALLS": str(self.calls_file),
            "CLOCK": str(self.clock),
            "PATH": self.path,
        }
        return {**os.environ, **known, **more}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=self.environment(**environment),
        )

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()

    @property
    def runs(self) -> list[str]:
        return [call for call in self.calls if call.startswith("-m bench.cli run")]


@pytest.fixture
def proof(tmp_path: Path) -> Proof:
    return Proof(tmp_path)


def names_asked(call: str) -> list[str]:
    return [word.removeprefix("name=") for word in call.split() if word.startswith("name=")]


def test_every_slice_asks_for_cells_that_the_plan_has(proof: Proof) -> None:
    done = proof.run()
    assert done.returncode == 0, done.stderr
    planned = {
        cell["name"] for cell in make_plan(load_config(ROOT / "configs/gpu-sdxl.yaml")).cells
    }
    asked = [name for call in proof.runs for name in names_asked(call)]
    shipped = [call for call in proof.runs if "/shipped-1024" in call]
    assert len(proof.runs) == 16 + len(shipped)
    assert set(asked) == planned, "all of the configuration, and nothing else"
    for call in [each for each in proof.runs if each not in shipped]:
        baselines = {name for name in names_asked(call) if name.endswith("/none")}
        sizes = {name.rsplit("/", 1)[0] for name in baselines}
        assert sizes, "each slice has its own baseline"
        for name in names_asked(call):
            assert any(name.startswith(f"{size}/") for size in sizes)


def test_what_was_compiled_is_shipped_to_a_cell_that_starts_with_nothing(proof: Proof) -> None:
    early = proof.run("--slice", "shipped-1024")
    assert early.returncode == 1
    assert "core-1024 has compiled nothing yet" in early.stderr
    assert proof.run("--slice", "core-1024").returncode == 0
    assert proof.run("--slice", "shipped-1024").returncode == 0
    (call,) = proof.runs
    change = re.search(r"(matrix\.include=\[.*\]) --only workload", call)
    assert change is not None
    only = re.findall(r"--only (\S+)", call)
    config = load_config(ROOT / "configs/gpu-sdxl.yaml", [change[1]], only)
    baseline, shipped = make_plan(config).cells
    assert baseline["name"] == "t2i/1024/none"
    assert shipped["name"] == "t2i/1024/tuned[cache_file=shipped-1024.bin]"
    assert shipped["cache"] == "fresh"
    assert Path(shipped["backend"]["options"]["cache_file"]) == proof.out / "shipped-1024.bin"


def test_the_small_ones_ask_for_cells_of_the_narrowed_plan(proof: Proof) -> None:
    done = proof.run("--device", "cpu", "--small")
    assert done.returncode == 0, done.stderr
    plan = make_plan(load_config(proof.out / "gpu-sdxl-small.yaml"))
    planned = {cell["name"] for cell in plan.cells}
    asked = {name for call in proof.runs for name in names_asked(call)}
    assert asked
    assert asked <= planned
    models = {cell["workload"]["model"] for cell in plan.cells}
    assert all(model.endswith("-small") for model in models)
    assert {cell["workload"]["height"] for cell in plan.cells} == {64, 128}
    assert any("quickstart.yaml" in call for call in proof.runs)


def test_what_is_done_is_not_done_again(proof: Proof) -> None:
    assert proof.run("--slice", "core-1024").returncode == 0
    assert len(proof.runs) == 1
    assert "--resume" not in proof.runs[0]
    assert proof.run("--slice", "core-1024").returncode == 0
    assert proof.runs == []
    assert any("report" in call for call in proof.calls), "the report is made anew"


def test_it_stops_in_time_and_goes_on(proof: Proof) -> None:
    done = proof.run(SLOW="/core-512")
    assert done.returncode == 75
    assert "stopped in core-512 by time (0 of 1)" in done.stdout
    status = proof.run("--status").stdout
    assert "done     core-1024  1 of 1\n" in status
    assert "begun    core-512   0 of 1\n" in status
    assert "to do    lossy-1024\n" in status
    assert proof.run("--slice", "core-512").returncode == 0
    assert "--resume" in proof.runs[0]


def test_a_cell_that_needs_longer_than_a_call_is_said(proof: Proof) -> None:
    done = proof.run(SLOW="/core-1024")
    assert done.returncode == 75, "the first call planned the slice"
    done = proof.run(SLOW="/core-1024")
    assert done.returncode == 1
    assert "got no further in 8.5 minutes; give it more with --minutes" in done.stderr


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("KILLED", 1, "core-512 was killed (0 of 1)"),
        ("STOPPED", 130, "interrupted in core-512 (0 of 1)"),
    ],
)
def test_what_ended_a_slice_early_is_said(proof: Proof, how: str, code: int, says: str) -> None:
    done = proof.run("--slice", "core-512", **{how: "/core-512"})
    assert done.returncode == code
    assert says in done.stderr
    assert "begun    core-512" in proof.run("--status").stdout
    assert proof.run("--slice", "core-512").returncode == 0


def test_a_slice_that_cannot_run_fails_the_whole_and_not_the_others(proof: Proof) -> None:
    done = proof.run("--device", "cpu", "--small", BROKEN="/alone-128")
    assert done.returncode == 1
    assert "alone-128 cannot continue" in done.stderr
    assert "failed: alone-128; done: core-64 shipped-64 edits-64" in done.stderr
    assert "done" in proof.run("--status", "--device", "cpu", "--small").stdout


def test_a_slice_without_anything_ok_is_not_done(proof: Proof) -> None:
    done = proof.run("--slice", "core-512", NOT_OK="/core-512")
    assert done.returncode == 1
    assert "in core-512 nothing is ok (1 of 1, of them 1 failed)" in done.stderr
    assert "failed   core-512" in proof.run("--status").stdout
    assert proof.run("--slice", "core-512").returncode == 0
    assert "--retry failed," in proof.runs[0]
    assert "done     core-512" in proof.run("--status").stdout


def test_what_failed_in_a_slice_is_measured_again_if_asked(proof: Proof) -> None:
    assert proof.run("--slice", "core-512").returncode == 0
    cell = '{"cell_id": "b", "protocol": {"rounds": 1}}'
    plan = proof.out / "core-512" / "plan.json"
    plan.write_text(plan.read_text().replace("[{", f"[{cell}, {{"))
    with (proof.out / "core-512" / "records.jsonl").open("a") as file:
        file.write('{"schema": 1, "cell_id": "b", "round": 0, "name": "b", "outcome": "oom"}\n')
    assert "2 of 2, of them 1 oom" in proof.run("--status").stdout
    proof.run("--slice", "core-512")
    assert proof.runs == []
    proof.run("--slice", "core-512", "--retry")
    assert "--retry failed,timeout,oom" in proof.runs[0]


def test_a_machine_that_is_not_ready_stops_it_before_anything(proof: Proof) -> None:
    done = proof.run(UNREADY="no GPU is visible")
    assert done.returncode == 2
    assert "no GPU is visible" in done.stderr
    assert proof.calls == []


def test_two_calls_in_one_folder_do_not_meet(proof: Proof) -> None:
    first = subprocess.Popen(
        proof.command("--slice", "core-512"),
        env=proof.environment(HANGING="/core-512"),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(Path(f"{proof.calls_file}.pid"))
        second = subprocess.run(
            proof.command(), env=proof.environment(), capture_output=True, text=True, check=False
        )
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 2
    assert "another call is at work" in second.stderr
    assert len(proof.runs) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_its_children_end_with_it(proof: Proof, how: signal.Signals) -> None:
    script = subprocess.Popen(
        proof.command("--slice", "core-512"),
        env=proof.environment(HANGING="/core-512"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    child = int(wait_for(Path(f"{proof.calls_file}.pid")))
    script.send_signal(how)
    script.wait()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child outlived the script")
    assert proof.run("--slice", "core-512").returncode == 0


def wait_for(file: Path) -> str:
    for _ in range(400):
        if file.is_file() and file.read_text().strip():
            return file.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{file} did not come")


def test_a_broken_answer_fails_the_whole(proof: Proof) -> None:
    done = proof.run("--slice", "core-512", SELFCHECK="1")
    assert done.returncode == 1
    assert "self-check" in done.stderr
    assert (proof.out / "self-check.txt").read_text() == "self-check: lines\n"


def test_the_report_is_of_all_that_is_done_and_says_what_to_bring_back(proof: Proof) -> None:
    proof.run("--slice", "core-512")
    done = proof.run("--slice", "core-1024")
    report = next(call for call in proof.calls if "bench.cli report" in call)
    assert f"{proof.out}/core-1024 {proof.out}/core-512" in report
    packed = [call for call in proof.calls if "publish pack" in call]
    assert len(packed) == 1, "what is packed is not packed again"
    assert packed[0].endswith(f"{proof.out}/core-1024 a-machine --into {proof.out}/results")
    assert f"copy {proof.out}/results/* to reports/results" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--device", "cpu"), "add --small"),
        (("--device", "auto"), "add --small"),
        (("--minutes", "soon"), "no number"),
        (("--minutes", "0"), "too short"),
        (("--what",), "unknown option"),
        (("--slice",), "needs a value"),
        (("--slice", "nothing"), "there is no slice nothing"),
        (("--out", "/dev/null/x"), "nothing can be written in /dev/null/x"),
    ],
)
def test_wrong_usage_is_said(proof: Proof, arguments: tuple[str, ...], says: str) -> None:
    done = proof.run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert proof.runs == []


def test_without_the_interpreter_nothing_starts(proof: Proof) -> None:
    done = proof.run(PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "there is no /nowhere/python; name a Python" in done.stderr
