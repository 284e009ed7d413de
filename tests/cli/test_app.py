from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import doctor
from bench.cli import app
from bench.store import RunFolder
from tests.cli import records
from tests.cli.records import cell, record

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "pandas", "numpy")


def bench(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    code = "from bench.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
        check=False,
    )


def modules_loaded_by(arguments: str, **environment: str) -> set[str]:
    code = (
        f"import sys\nfrom bench.cli.app import main\n"
        f"try: main({arguments})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return set(done.stderr.split())


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    cells = [cell(rounds=2), cell("torch-compile", rounds=2)]
    with RunFolder.acquire(tmp_path / "run") as folder:
        plan = {"schema": 1, "name": "t", "cells": cells}
        folder.write_plan(plan, host={}, version="0")
        folder.append(record(cells[0], [2.0, 2.0]))
        folder.append(record(cells[1], [1.0, 1.0]))
    return tmp_path / "run"


def test_help_names_every_verb_and_the_exit_codes_and_imports_nothing_heavy() -> None:
    done = bench("--help")
    assert done.returncode == 0
    for word in (*app.GROUPS, *app.VERBS, "Exit codes", "130", "--install-completion", "Examples"):
        assert word in done.stdout, word
    loaded = modules_loaded_by('["--help"]')
    assert not loaded & {*HEAVY, "pydantic"}
    assert "bench.cli.run" not in loaded


def test_completion_offers_the_verbs_and_imports_nothing_heavy() -> None:
    asked = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench s", "COMP_CWORD": "1"}
    done = bench(**asked)
    assert done.stdout.split() == ["show", "schema"]
    assert not modules_loaded_by("[]", **asked) & set(HEAVY)


def test_completion_offers_the_options_of_a_verb() -> None:
    asked = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench show --", "COMP_CWORD": "2"}
    assert {"--json", "--all-rounds"} <= set(bench(**asked).stdout.split())


@pytest.mark.parametrize("verb", app.VERBS)
def test_every_verb_has_examples_and_its_own_exit_codes(verb: str) -> None:
    done = bench(verb, "--help")
    assert done.returncode == 0
    if verb != "schema":
        assert "Exit codes" in done.stdout
    assert f"bench {verb}" in done.stdout.partition("Examples")[2]


def test_version() -> None:
    done = bench("--version")
    assert done.stdout.startswith("bench ")
    assert done.returncode == 0


def test_a_mistyped_verb_gets_the_nearest_one_and_2() -> None:
    done = bench("shwo")
    assert done.returncode == 2
    assert "show" in done.stderr


def test_an_unknown_option_is_2() -> None:
    assert bench("show", "--nonsense", "x").returncode == 2


def test_errors_are_messages_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("matrix: {workload: []}\n")
    for arguments in (
        ("show", str(tmp_path / "nothing")),
        ("show", "latest"),
        ("run", str(tmp_path / "none.yaml"), "--dry-run"),
        ("run", str(tmp_path / "bad.yaml")),
        ("once", "--steps", "0", "--model", "embedded:sdxl"),
        ("once", "--backend", "nexfrt", "--model", "embedded:sdxl"),
        ("once", "--model", "embedded:sdx"),
    ):
        done = bench(*arguments, cwd=tmp_path)
        assert done.returncode == 2, (arguments, done)
        assert done.stderr.startswith("bench: "), done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "x.yaml", "--json"), "needs --dry-run"),
        (("run", "x.yaml", "--all"), "needs --dry-run"),
        (("repeat", "x.yaml", "--steps", "4"), "goes with --model"),
        (("capacity", "x.yaml", "--model", "embedded:sdxl"), "goes with --model"),
        (("repeat",), "a configuration or --model"),
        (("list", "backend"), "backends"),
        (("chain", "--step", "4"), "--steps"),
    ],
)
def test_flags_that_do_not_go_together_are_2(arguments: tuple[str, ...], message: str) -> None:
    done = records.invoke(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_bug_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(ZeroDivisionError):
        app.main(["show"])


def test_interruption_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "app", interrupted)
    with pytest.raises(SystemExit) as end:
        app.main(["run"])
    assert end.value.code == 130


def test_show_prints_the_table_and_says_what_is_missing(run_folder: Path) -> None:
    done = bench("show", str(run_folder))
    assert done.returncode == 0
    for word in ("2.00×", "torch-compile", "ok 1/2", "rss", "without a record", "pictures"):
        assert word in done.stdout, word


def test_show_json(run_folder: Path) -> None:
    value = json.loads(bench("show", str(run_folder), "--json").stdout)
    assert value[0]["backends"][1]["speedup"] == 2.0


def test_show_all_rounds(run_folder: Path) -> None:
    assert "torch-compile round 2" in bench("show", str(run_folder), "--all-rounds").stdout


def test_show_survives_a_torn_record(run_folder: Path) -> None:
    with (run_folder / "records.jsonl").open("a") as file:
        file.write('{"schema": 1, "cell')
    done = bench("show", str(run_folder))
    assert done.returncode == 0
    assert "2.00×" in done.stdout


@pytest.mark.parametrize("arguments", ["show", "run"])
def test_a_reader_that_goes_away_is_no_error(run_folder: Path, arguments: str) -> None:
    words = {
        "show": ["show", str(run_folder)],
        "run": ["run", "configs/quickstart.yaml", "--dry-run"],
    }[arguments]
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from bench.cli.app import main; sys.argv[1:] = {words!r}; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (-13, 0)


def test_show_needs_no_pandas(run_folder: Path) -> None:
    assert not modules_loaded_by(f"['show', {str(run_folder)!r}]") & set(HEAVY)


def test_a_program_that_calls_main_keeps_its_signals() -> None:
    before = signal.getsignal(signal.SIGPIPE)
    with pytest.raises(SystemExit):
        app.main(["--version"])
    assert signal.getsignal(signal.SIGPIPE) == before == signal.SIG_IGN


@pytest.fixture
def runs(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three runs; the newest by its plan is neither first nor last."""
    monkeypatch.chdir(tmp_path)
    for name, planned in (("a", "01T10"), ("deep/b", "03T10"), ("c", "02T10")):
        shutil.copytree(run_folder, Path("runs", name))
        plan = Path("runs", name, "plan.json")
        header = {**json.loads(plan.read_text()), "planned_utc": f"2026-01-{planned}:00:00+00:00"}
        plan.write_text(json.dumps(header))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "latest"),
        ("export", "latest"),
        ("audit", "latest"),
        ("compare", "latest", "latest"),
        ("baseline", "save", "latest", "--as", "x"),
    ],
    ids=" ".join,
)
def test_latest_is_the_newest_run_and_is_named(runs: Path, arguments: tuple[str, ...]) -> None:
    done = records.invoke(*arguments)
    assert "bench: latest is runs/deep/b\n" in done.stderr


def test_a_plan_that_cannot_be_read_is_passed_over(runs: Path) -> None:
    Path("runs/deep/b/plan.json").write_text("{")
    done = records.invoke("show", "latest")
    assert "runs/deep/b/plan.json is passed over" in done.stderr
    assert "latest is runs/c\n" in done.stderr


def test_a_folder_called_latest_is_meant(runs: Path) -> None:
    shutil.copytree("runs/a", "latest")
    done = records.invoke("show", "latest")
    assert done.exit_code == 0
    assert "latest is" not in done.stderr


def test_what_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(devices: list[str]) -> Any:
        verdicts = {
            "none": {"supported": True, "reason": None},
            "x": {"supported": False, "reason": "no compiler"},
            "nexfort": {"environment": "nexfort"},
        }
        return {"devices": {device: {"backends": verdicts} for device in devices}}

    monkeypatch.setattr(doctor, "ask_torch", answer)
    backends = json.loads(records.invoke("list", "backends", "--json").stdout)
    assert [each["backend"] for each in backends] == ["none", "x", "nexfort"]
    assert backends[0]["on this machine"].startswith("cpu: supported")
    assert "cpu: no compiler" in records.invoke("list", "backends").stdout
    assert backends[2]["environment"] == "nexfort"
    assert backends[2]["on this machine"].startswith("environment ")
    models = records.invoke("list", "models").stdout
    for name in ("embedded:sdxl", "synthetic:sdxl-small", "preset: onediff"):
        assert name in models
    configs = json.loads(records.invoke("list", "configs", "--json").stdout)
    assert {Path(each["configuration"]).name for each in configs} == {
        path.name for path in (ROOT / "configs").glob("*.yaml")
    }
    assert all(each["what"] for each in configs)


def test_without_torch_no_backend_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(devices: list[str]) -> Any:
        raise ValueError("ImportError: libcudart.so.12: cannot open")

    monkeypatch.setattr(doctor, "ask_torch", broken)
    done = records.invoke("list", "backends")
    assert done.exit_code == 2
    assert "libcudart" in done.stderr
