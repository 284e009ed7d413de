"""What continuous integration is made of: the workflow, the scripts, the committed baseline."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from msgspec import to_builtins

from bench.config import load_config, make_plan
from bench.gate import baselines
from bench.store import RunFolder
from tests.cli.records import cell, record

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/gpu-regression.yml"
SCRIPTS = [ROOT / "scripts/gate.sh", ROOT / "scripts/publish_gate.sh"]


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (\S+)", WORKFLOW.read_text())
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)


def test_code_of_forks_never_reaches_the_runner_nor_a_token_the_code() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {}
    gate, publish = workflow["jobs"]["gate"], workflow["jobs"]["publish"]
    assert "head.repo.full_name == github.repository" in gate["if"]
    assert gate["permissions"] == {"contents": "read"}
    assert gate["steps"][0]["with"]["persist-credentials"] is False
    assert "self-hosted" not in publish["runs-on"]
    for job in (gate, publish):
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")


def test_actionlint_passes() -> None:
    actionlint = shutil.which("actionlint") or shutil.which(
        "actionlint", path=str(Path(sys.executable).parent)
    )
    if actionlint is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run(
        [actionlint, str(WORKFLOW)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_committed_baseline_is_of_the_committed_configuration() -> None:
    planned = {c["name"]: c for c in make_plan(load_config(ROOT / "configs/ci-cpu.yaml")).cells}
    for path in (ROOT / "baselines/ci-cpu").iterdir():
        baseline = baselines.read(path)
        assert set(baseline.cells) == set(planned)
        for name, kept in baseline.cells.items():
            assert to_builtins(kept.asked.backend) == planned[name]["backend"]
            assert kept.asked.workload["steps"] == planned[name]["workload"]["steps"]
            assert kept.good
        assert str(ROOT) not in path.read_text()


STAND_IN = """#!/usr/bin/env bash
echo "bench $*" >> said
if [ "$1" = gate ]; then mkdir -p gate-out/runs/candidate; \
touch gate-out/runs/candidate/records.jsonl; exit "${CODE:-0}"; fi
"""


def script(place: Path, **environment: str) -> tuple[int, str]:
    """Run scripts/gate.sh with a stand-in for ``bench``; return its exit code and the calls."""
    stand_in = place / "bench"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    env = {**os.environ, "BENCH": "./bench", **environment}
    command = ["bash", str(ROOT / "scripts/gate.sh")]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, check=False)
    said = place / "said"
    return done.returncode, said.read_text() if said.exists() else ""


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_script_ends_as_the_gate_did(tmp_path: Path, code: int) -> None:
    ended, said = script(tmp_path, CODE=str(code), FAIL_ON="counts")
    assert ended == code
    gate, report = said.splitlines()
    assert gate == (
        "bench gate configs/ci-gpu.yaml --runs gate-out/runs --out gate-out/summary.md "
        "--out gate-out/gate.json --out gate-out/junit.xml --fail-on counts --baseline ci-gpu "
        "--baselines baselines"
    )
    assert report == "bench report gate-out/runs/candidate --out gate-out/report"


def test_the_script_saves_a_baseline(tmp_path: Path) -> None:
    ended, said = script(tmp_path, SAVE="1", CONFIG="a/mine.yaml")
    assert ended == 0
    assert "--set protocol.rounds=32" in said
    assert "bench baseline save gate-out/runs/baseline --as mine --baselines baselines" in said


def repository(place: Path) -> list[str]:
    git = ["git", "-C", str(place), "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(place)], check=True)
    (place / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    return git


def test_the_script_measures_a_base_commit_in_turn(tmp_path: Path) -> None:
    git = repository(tmp_path)
    ended, said = script(tmp_path, BASE_REF="HEAD")
    assert ended == 0
    assert "--paired --base-checkout" in said
    listed = subprocess.run([*git, "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_what_is_kept_goes_to_a_branch_of_its_own(tmp_path: Path) -> None:
    remote, place = tmp_path / "remote", tmp_path / "clone"
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    place.mkdir()
    git = repository(place)
    subprocess.run([*git, "remote", "add", "origin", str(remote)], check=True)
    out = place / "gate-out"
    (out / "report/plots").mkdir(parents=True)
    (out / "report/plots/a.png").write_bytes(b"png")
    (out / "baselines/main").mkdir(parents=True)
    (out / "baselines/main/k.json").write_text("{}")
    for number in ("1", "2", "3"):
        command = ["bash", str(ROOT / "scripts/publish_gate.sh"), "gate-out", f"kept{number}"]
        env = {**os.environ, "RUN": number, "SAVE": "1", "KEEP": "2"}
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    tree = subprocess.run(
        ["git", "-C", str(remote), "ls-tree", "-r", "--name-only", "bench-gate"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tree.stdout.split() == ["baselines/main/k.json", "runs/2/a.png", "runs/3/a.png"]


def test_a_stored_run_can_become_a_baseline_on_any_machine(tmp_path: Path) -> None:
    of = cell()
    with RunFolder.acquire(tmp_path / "run") as folder:
        folder.write_plan({"schema": 1, "name": "run", "cells": [of]}, {}, "0")
        folder.append(record(of))
    assert baselines.save(tmp_path / "run", "x", tmp_path / "b").is_file()
