"""``bench gate``, ``compare`` and ``baseline`` as typed, with doubles for workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from bench import api
from bench.cli import app
from bench.gate import GateError, baselines
from bench.gate import run as gating
from tests.gate import support
from tests.gate.conftest import CONFIG
from tests.gate.support import planned, records, times, write_run

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app.main(arguments)
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def saved(doubled: Path) -> Path:
    api.run("small.yaml")
    assert bench("baseline", "save", "runs/small", "--as", "main") == 0
    return doubled


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration, a run and a baseline, in which nothing is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    baselines.save(support.run(tmp_path / "runs", "small"), "main")
    return tmp_path


def gate(*more: str) -> int:
    return bench("gate", "small.yaml", "--baseline", "main", "--quiet", *more)


def test_an_unchanged_candidate_passes(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate() == 0
    out = capsys.readouterr().out
    assert "PASSED: " in out
    assert "0 figures" not in out
    (folder,) = (saved / "runs" / "gate").iterdir()
    assert [path.name for path in folder.iterdir()] == ["candidate"]


def test_a_slower_candidate_is_confirmed_and_red(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATE_SLOWER", "1.1")
    assert gate("--runs", "out") == 1
    out, told = capsys.readouterr()
    assert "measuring once more to confirm" in told
    assert (saved / "out" / "confirmation" / "records.jsonl").is_file()
    assert "FAILED: 2 regressions in 2 cells." in out


def test_slow_once_is_not_red(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_SLOWER", "1.1")
    measure = gating._measure

    def then_quick(asked: Any, out: Path, only: Any, ui: Any) -> Path:
        path = measure(asked, out, only, ui)
        os.environ["GATE_SLOWER"] = "1.0"
        return path

    monkeypatch.setattr(gating, "_measure", then_quick)
    assert gate() == 0


def test_only_suspects_are_measured_again(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sequence[str]] = []
    measure = gating._measure

    def noting(asked: Any, out: Path, only: Sequence[str], ui: Any) -> Path:
        seen.append(only)
        return measure(asked, out, only, ui)

    monkeypatch.setattr(gating, "_measure", noting)
    monkeypatch.setenv("GATE_SLOWER", "1.1")
    assert gate("--only", "name=t2i/none,t2i/torch-compile", "--only", "task=text-to-image") == 1
    assert seen[1] == ["task=text-to-image", "name=t2i/none", "name=t2i/torch-compile"]


def test_a_selection_is_compared_with_its_own_cells(saved: Path) -> None:
    assert gate("--only", "backend=none", "--fail-on", "counts") == 0


def test_a_graph_break_is_red_on_counts_alone(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATE_BREAKS", "1")
    assert gate("--fail-on", "counts") == 1
    assert "t2i/torch-compile, graph_breaks: 0 before, 1 now." in capsys.readouterr().out


def test_a_cell_that_breaks_is_red(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_OUTCOME", "oom")
    assert gate() == 1
    monkeypatch.setenv("GATE_OUTCOME", "unsupported")
    assert gate() == 3


def test_too_good_stops_until_acknowledged(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_SLOWER", "0.4")
    assert gate() == 3
    assert gate("--acknowledge", "t2i/none", "--acknowledge", "t2i/torch-compile") == 0
    assert gate("--implausible", "70") == 0


def test_memory_that_a_cpu_has_not_stops_if_asked_for(saved: Path) -> None:
    assert gate("--fail-on", "memory") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gate", "small.yaml"], "say what to compare with"),
        (["gate", "small.yaml", "--baseline", "mian"], "no baseline is called 'mian'"),
        (["gate", "small.yaml", "--baseline", "main", "--fail-on", "sped"], "is no limit"),
        (["gate", "small.yaml", "--baseline", "main", "--base-checkout", "."], "need --paired"),
        (["gate", "small.yaml", "--paired"], "needs two checkouts or two environments"),
        (["gate", "small.yaml", "--paired", "--base-checkout", "gone"], "is not a folder"),
        (["gate", "small.yaml", "--paired", "--base-python", "gone"], "is not an interpreter"),
        (["gate", "nothing.yaml", "--baseline", "main"], "nothing.yaml"),
        (["gate", "small.yaml", "--baseline", "main", "--runs", "runs"], "is not empty"),
        (["compare", "main", "nothing"], "neither a run folder nor a baseline"),
        (["compare", "mian", "runs/small"], "no baseline is called 'mian'"),
        (["compare", "small.yaml", "runs/small"], "is not JSON"),
        (["compare", "main", "runs/small", "--confirm", "x"], "is not the folder of a run"),
        (["compare", "main", "runs/small", "--out", "small.yaml/x.md"], "cannot be written"),
        (["baseline", "save", "runs/small"], "save needs a run and a name"),
        (["baseline", "show"], "show needs a name"),
        (["baseline", "list", "--as", "x"], "--as belongs to save"),
        (["history", "nothing"], "is not a folder"),
    ],
)
def test_mistakes_are_exit_code_2_with_a_sentence(
    prepared: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert bench(*arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("bench: ")
    assert message in told


def test_an_interruption_is_130(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(gating, "_measure", interrupted)
    assert gate() == 130


def test_baselines_are_listed_and_shown(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert bench("baseline", "list") == 0
    assert capsys.readouterr().out.startswith("main  machine ")
    assert bench("baseline", "show", "main") == 0
    assert "t2i/torch-compile" in capsys.readouterr().out
    assert bench("baseline", "show", "main", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "main"
    assert bench("baseline", "list", "--baselines", "empty") == 0
    assert "has no baseline" in capsys.readouterr().out


# What is written


def test_every_format_says_the_same(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATE_BREAKS", "1")
    outs = ["a.md", "a.json", "a.xml", "a.txt"]
    flags = [word for out in outs for word in ("--out", f"told/{out}")]
    capsys.readouterr()
    assert gate("--fail-on", "speed", *flags) == 1
    assert capsys.readouterr().out == "FAILED: 1 regression in 1 cell.\n"
    told = saved / "told"
    assert "❌ FAILED: 1 regression" in (told / "a.md").read_text()
    assert "graph\\_breaks | 0 | 1 |" in (told / "a.md").read_text()
    found = json.loads((told / "a.json").read_text())
    assert found["exit_code"] == 1
    assert {row["status"] for row in found["rows"]} >= {"regression", "passed"}
    root = ElementTree.fromstring((told / "a.xml").read_text())
    (failure,) = root.findall(".//failure")
    assert failure.attrib["message"] == "0 before, 1 now."
    assert root.attrib["failures"] == "1"
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase"))
    assert "FAILED" in (told / "a.txt").read_text()


def test_a_format_can_be_printed(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert bench("compare", "main", "runs/small", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["headline"].startswith("PASSED")
    assert bench("compare", "runs/small", "runs/small", "--format", "junit") == 0
    ElementTree.fromstring(capsys.readouterr().out.encode())


def test_names_cannot_break_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = planned(name="<b>|x`*\x07[red]", rounds=2)
    arm = times(processes=2)
    path = write_run(tmp_path / "run", [(of, records(of, arm))])
    assert bench("compare", str(path), str(path), "--format", "markdown") == 0
    told = capsys.readouterr().out
    assert "<b>" not in told
    assert "&lt;b&gt;\\|x\\`\\*" in told
    assert bench("compare", str(path), str(path), "--format", "junit") == 0
    ElementTree.fromstring(capsys.readouterr().out.encode())
    assert bench("compare", str(path), str(path)) == 0
    assert "[red]" in capsys.readouterr().out


# Paired


def two_arms(tmp_path: Path, slower: Sequence[float]) -> tuple[Any, list[str]]:
    """A stand-in for `measure_arm`: the n-th session's candidate is slower by ``slower[n]``."""
    order: list[str] = []

    def measure(arm: Any, asked: Any, run_dir: Path, only: Any, rounds: int) -> None:
        order.append(f"{arm.label[0]}{rounds}")
        again = "confirmation" in run_dir.parts
        factor = slower[int(again)] if arm.label == "candidate" else 1.0
        seed = 2 * int(again) + (arm.label == "candidate")
        if rounds == 6:
            support.run(run_dir.parent, run_dir.name, factor, seed)

    return measure, order


@pytest.mark.parametrize(
    ("slower", "code", "sessions"),
    [((1.0, 1.0), 0, 1), ((1.05, 1.05), 1, 2), ((1.05, 1.0), 0, 2)],
)
def test_paired_arms_are_measured_in_turn(
    doubled: Path, slower: Sequence[float], code: int, sessions: int
) -> None:
    (doubled / "base").mkdir()
    measure, order = two_arms(doubled, slower)
    asked = gating.Request(doubled / "small.yaml", doubled / "out", ["protocol.rounds=6"])
    outcome = gating.paired(
        asked, gating.Arm("baseline", doubled / "base"), gating.Arm("candidate"), measure=measure
    )
    assert outcome.exit_code == code
    assert order[:6] == ["b1", "c1", "c2", "b2", "b3", "c3"]
    assert len(order) == 12 * sessions
    assert len(outcome.runs) == 2 * sessions


def test_a_paired_gate_also_keeps_to_stored_counts(doubled: Path, tmp_path: Path) -> None:
    (doubled / "base").mkdir()
    stored = support.run(tmp_path, "old", backend={"evidence": {**support.EVIDENCE, "graphs": 1}})
    baselines.save(stored, "main", doubled / "baselines")
    measure, _ = two_arms(doubled, (1.0, 1.0))
    asked = gating.Request(doubled / "small.yaml", doubled / "out", ["protocol.rounds=6"])
    arms = gating.Arm("baseline", doubled / "base"), gating.Arm("candidate")
    outcome = gating.paired(asked, *arms, stored=("main", doubled / "baselines"), measure=measure)
    assert outcome.comparison.exit_code == 0
    assert outcome.against_stored is not None
    assert outcome.against_stored.exit_code == 1
    assert outcome.exit_code == 1


def test_an_arm_runs_the_code_of_its_checkout(tmp_path: Path) -> None:
    """Two folders with a ``bench`` of their own; each says which one it is."""
    asked = gating.Request(tmp_path / "c.yaml", tmp_path / "out")
    for name in ("one", "two"):
        package = tmp_path / name / "bench" / "cli"
        package.mkdir(parents=True)
        (tmp_path / name / "bench" / "__init__.py").touch()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            "import sys, pathlib\n"
            "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
            "out.mkdir(parents=True); (out / 'plan.json').touch()\n"
            f"(out / 'said').write_text({name!r} + ' '.join(sys.argv))\n"
        )
    for label, name in (("baseline", "one"), ("candidate", "two")):
        arm = gating.Arm(label, tmp_path / name)
        gating.measure_arm(arm, asked, tmp_path / "out" / label, ["name=x"], 2)
        said = (tmp_path / "out" / label / "said").read_text()
        assert said.startswith(name)
        assert "--set protocol.rounds=2 --only name=x --quiet --resume" in said


def test_an_arm_that_cannot_start_says_why(tmp_path: Path) -> None:
    asked = gating.Request(tmp_path / "gone.yaml", tmp_path / "out")
    with pytest.raises(GateError, match=r"the baseline arm could not be measured: .*gone\.yaml"):
        gating.measure_arm(gating.Arm("baseline", ROOT), asked, tmp_path / "out", [], 1)
    mute = gating.Arm("candidate", python=Path("/bin/false"))
    with pytest.raises(GateError, match=r"candidate arm .* ended with 1 and said nothing"):
        gating.measure_arm(mute, asked, tmp_path / "other", [], 1)


@pytest.mark.slow
def test_two_environments_are_really_measured(tmp_path: Path) -> None:
    """Both arms of a paired gate on the embedded model; the base is a copy of this checkout."""
    base = tmp_path / "base"
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(base)], check=True)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bench.cli", "gate", str(ROOT / "configs/ci-cpu.yaml")),
                *("--paired", "--base-checkout", str(base), "--only", "backend=none"),
                *("--fail-on", "counts", "--runs", str(tmp_path / "runs")),
            ],
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0
    finally:
        command = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(base)]
        subprocess.run(command, check=True)
