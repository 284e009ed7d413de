"""The plugin in a pytest of its own, with doubles for workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gate.conftest import CONFIG

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]

DOUBLES = """
import functools
from bench import api
from bench.runner import execute
from tests.gate.conftest import PROGRAM
from tests.runner.support import machine

api.execute = functools.partial(execute, program=PROGRAM, machine=machine())
"""


@pytest.fixture
def place(doubled: Path) -> Path:
    (doubled / "doubles_plugin.py").write_text(DOUBLES)
    (doubled / "test_other.py").write_text("def test_other():\n    pass\n")
    return doubled


def run(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-p", "pytest_benchmark.plugin", "-p", "bench.gate.pytest_plugin"]
    command += ["-p", "doubles_plugin", "--bench-config", "small.yaml", *arguments]
    # pytest-benchmark measures nothing in a worker of pytest-xdist, which this test may run in.
    ours = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    env = {
        **ours,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(place)]),
        # As if only these were installed; the plug-in is found by its entry point otherwise.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        **environment,
    }
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)


def test_each_cell_is_a_test_with_our_samples(place: Path) -> None:
    done = run(place, "--benchmark-json", "out.json", "--bench-out", "measured")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout  # and not test_other.py
    assert "t2i/none round 1 of 3 on cpu  ok" in done.stdout
    found = json.loads((place / "out.json").read_text())
    first = found["benchmarks"][0]
    assert first["fullname"] == "small.yaml::t2i/none"
    from bench.store import RunFolder

    records = [
        record
        for record in RunFolder.open(place / "measured").records()
        if record.name == "t2i/none"
    ]
    assert first["stats"]["data"] == [t for record in records for t in record.e2e_s]
    assert first["stats"]["rounds"] == 15
    extra: dict[str, Any] = first["extra_info"]
    assert extra["steady_peak_bytes"] == {"rss": 5_000_000}
    assert extra["warmup_s"] == [2.0, 2.0, 2.0]
    assert extra["fidelity"] is None
    assert extra["fidelity_reason"]
    assert extra["graph_breaks"] == 0


def test_a_time_limit_for_tests_does_not_end_the_measuring(place: Path) -> None:
    done = run(place, "-p", "pytest_timeout", "--timeout=0.05", "--bench-only", "backend=none")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_saving_comparing_and_failing_work_as_users_know_them(place: Path) -> None:
    assert run(place, "--benchmark-autosave", "-q").returncode == 0
    same = run(place, "--benchmark-compare", "--benchmark-compare-fail=median:5%", "-q")
    assert same.returncode == 0, same.stdout
    assert "NOW" in same.stdout
    slow = run(
        place,
        "--benchmark-compare",
        "--benchmark-compare-fail=median:5%",
        "-q",
        GATE_SLOWER="1.1",
    )
    assert slow.returncode != 0
    assert "Performance has regressed" in slow.stdout + slow.stderr


def test_cells_that_are_not_ok_fail_or_are_skipped_with_their_reason(place: Path) -> None:
    names = ["oom", "fallback", "invalid", "failed", "timeout", "unsupported", "unavailable"]
    changed: dict[str, Any] = {**CONFIG, "protocol": {"preset": "quick", "rounds": 1}}
    changed["matrix"] = {
        "workload": [{"name": name, "seed": i} for i, name in enumerate(["t2i", *names])]
    }
    (place / "small.yaml").write_text(yaml.safe_dump(changed))
    done = run(place, "-rs")
    assert done.returncode == 1
    for name in names[:5]:
        assert f"{name}/none: {name}: as told" in done.stdout
        assert f"logs/{name}-none-r0.log" in done.stdout
    assert "unsupported: as told" in done.stdout
    assert "unavailable: as told" in done.stdout
    assert "5 failed, 1 passed, 2 skipped" in done.stdout


def test_selections_measure_only_what_is_selected(place: Path) -> None:
    done = run(place, "-k", "compile", "--bench-out", "m", "--bench-set", "protocol.rounds=1")
    assert "1 passed, 1 deselected" in done.stdout
    from bench.store import RunFolder

    assert [r.name for r in RunFolder.open(place / "m").records()] == ["t2i/torch-compile"]


def test_a_configuration_is_found_and_named_from_wherever_pytest_runs(place: Path) -> None:
    inner = place / "sub"
    inner.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--bench-config", "../small.yaml", "--collect-only", "-q"],
        cwd=inner,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small.yaml::t2i/none" in done.stdout


def test_paths_of_ones_own_are_collected_too(place: Path) -> None:
    done = run(place, "--collect-only", "-q", "test_other.py", "--bench-only", "backend=none")
    assert "test_other.py::test_other" in done.stdout
    assert "small.yaml::t2i/none" in done.stdout
    assert "torch-compile" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bench-config", "gone.yaml"], "--bench-config: gone.yaml is not a file"),
        (["--bench-set", "protocl.rounds=1"], "protocl"),
        (["-p", "xdist.plugin", "-n", "2"], "one cell at a time"),
    ],
)
def test_mistakes_are_told(place: Path, arguments: list[str], message: str) -> None:
    done = run(place, *arguments)
    assert done.returncode in (2, 4)
    assert message in done.stdout + done.stderr
    assert not (place / "runs").exists()


def test_without_the_option_the_plugin_does_nothing(place: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    command += ["-p", "bench.gate.pytest_plugin", "test_other.py"]
    # pytest-benchmark measures nothing in a worker of pytest-xdist, which this test may run in.
    ours = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    env = {
        **ours,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout


def test_the_plugin_is_installed_and_cheap() -> None:
    assert 'bench = "bench.gate.pytest_plugin"' in (ROOT / "pyproject.toml").read_text()
    code = (
        "import sys, bench.gate.pytest_plugin;"
        "heavy = {'torch', 'pydantic', 'pandas', 'numpy', 'yaml', 'pytest_benchmark'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_pytest_benchmark_compare_reads_the_export(place: Path) -> None:
    """Both ways out: ``bench export`` and the plugin's own JSON."""
    run(place, "--benchmark-json", "plugin.json", "--bench-out", "m", "-q")
    from reports.export import render

    (place / "export.json").write_bytes(render([place / "m"], "pytest-benchmark"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "plugin.json", "export.json"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "t2i/torch-compile" in done.stdout
