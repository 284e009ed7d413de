"""The script's slices: what they run, that they resume, stop in time, and end as they should."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.config import load_config, make_plan

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_proof.sh"

PYTHON = """#!/usr/bin/env bash
# Stands in for Python: notes what it is asked, and leaves a run folder behind.
if [ "$1" = -c ]; then exec python3 "$@"; fi
echo "$@" >> "$CALLS"
if [ "$3" = run ]; then
  out=
  while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
  mkdir -p "$out" && touch "$out/plan.json"
  case "$out" in *"${SLOW:-nothing}") sleep 30 ;; *"${BROKEN:-nothing}") exit 2 ;;
    *"${EMPTY:-nothing}") exit 1 ;;
    *"${PARTLY:-nothing}") echo '{"outcome": "ok"}' > "$out/records.jsonl"; exit 1 ;; esac
fi
if [ "$1" = scripts/ready.py ]; then exit "${READY:-0}"; fi
if [ "$1" = scripts/selfcheck.py ]; then echo "self-check: lines"; exit "${SELFCHECK:-0}"; fi
exit 0
"""


class Proof:
    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        return subprocess.run(
            [str(SCRIPT), "--out", str(self.out), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={
                **os.environ,
                "PYTHON": str(self.python),
                "CALLS": str(self.calls_file),
                **environment,
            },
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
    assert len(proof.runs) == 16
    assert set(asked) == planned, "all of the configuration, and nothing else"
    for call in proof.runs:
        baselines = {name for name in names_asked(call) if name.endswith("/none")}
        sizes = {name.rsplit("/", 1)[0] for name in baselines}
        assert sizes, "each slice has its own baseline"
        for name in names_asked(call):
            assert any(name.startswith(f"{size}/") for size in sizes)


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
    done = proof.run("--minutes", "0.35", SLOW="/core-512")
    assert done.returncode == 75
    assert "stopped in core-512" in done.stdout
    status = proof.run("--status").stdout
    assert "done     core-1024" in status
    assert "begun    core-512" in status
    assert "to do    lossy-1024" in status
    assert proof.run("--slice", "core-512").returncode == 0
    assert "--resume" in proof.runs[0]


def test_a_slice_that_cannot_run_fails_the_whole_and_not_the_others(proof: Proof) -> None:
    done = proof.run("--device", "cpu", "--small", BROKEN="/alone-128")
    assert done.returncode == 1
    assert "failed: alone-128" in done.stderr
    assert "done" in proof.run("--status", "--device", "cpu", "--small").stdout


def test_nothing_begins_where_something_is_missing(proof: Proof) -> None:
    done = proof.run(READY="2")
    assert done.returncode == 2
    assert proof.runs == []
    assert proof.calls == ["scripts/ready.py cuda"]
    assert "to do    core-1024" in proof.run("--status", READY="2").stdout


def test_a_slice_without_any_figure_is_not_done(proof: Proof) -> None:
    """A GPU that is lost in between fails every cell; the next call measures them."""
    done = proof.run("--slice", "core-512", EMPTY="/core-512")
    assert done.returncode == 1
    assert "core-512 failed" in done.stderr
    assert "begun    core-512" in proof.run("--status").stdout
    assert proof.run("--slice", "core-512", PARTLY="/core-512").returncode == 0
    assert "done     core-512" in proof.run("--status").stdout


def test_a_broken_answer_fails_the_whole(proof: Proof) -> None:
    done = proof.run("--slice", "core-512", SELFCHECK="1")
    assert done.returncode == 1
    assert "self-check" in done.stderr
    assert (proof.out / "self-check.txt").read_text() == "self-check: lines\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--device", "cpu"), "add --small"),
        (("--minutes", "soon"), "no number"),
        (("--what",), "unknown option"),
        (("--slice",), "needs a value"),
        (("--slice", "nothing"), "there is no slice nothing"),
    ],
)
def test_wrong_usage_is_said(proof: Proof, arguments: tuple[str, ...], says: str) -> None:
    done = proof.run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert proof.runs == []
