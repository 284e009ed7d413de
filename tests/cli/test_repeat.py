"""What `bench repeat` asks for, says, and ends with."""

from __future__ import annotations

import pytest

from bench import api
from bench.config import load_config, make_plan, parse_config
from tests.cli import records as support

SHA = "a" * 64
MODEL = ("--model", "embedded:sdxl")


def passed(round_, shas=(SHA,) * 20, memory=None, **more):
    memory = memory or [10**8] * len(shas)
    made = support.record(support.cell(deterministic=more.pop("mode", False)), round=round_)
    return support.typed({
        **made,
        "repeat_about": {"calls": 20, "meter": "rss", "reference": [], "differences": []},
        "repeat": [
            {"sha256": [sha], "memory_bytes": held}
            for sha, held in zip(shas, memory, strict=True)
        ],
        **more,
    })  # fmt: skip


def invoke(monkeypatch, tmp_path, records, *arguments):
    plans = []

    def run(config, folder, *, overrides, only, resume, ui):
        load = parse_config if isinstance(config, dict) else load_config
        plans.append(make_plan(load(config, overrides, only)))

        class Run:
            path = tmp_path
            summary = None

        Run.records = records
        return Run

    monkeypatch.setattr(api, "run", run)
    result = support.invoke("repeat", *arguments)
    return result, (plans or [None])[0]


def test_a_model_is_measured_in_two_processes_with_both(monkeypatch, tmp_path):
    result, plan = invoke(monkeypatch, tmp_path, [passed(0), passed(1)], *MODEL)
    assert result.exit_code == 0
    assert "20 of 20 equal within a process; 2 processes equal" in result.output
    assert "leak: none (+0.0 KiB per image" in result.output
    assert [c["repeat"] for c in plan.cells] == [20, 20]
    assert [c["workload"].get("deterministic", False) for c in plan.cells] == [False, True]
    assert plan.cells[0]["protocol"]["rounds"] == 2


def test_of_a_file_its_own_variants_stay(monkeypatch, tmp_path):
    arguments = ("configs/repeat.yaml", "-n", "5", "--only", "workload=edit", "--processes", "3")
    _, plan = invoke(monkeypatch, tmp_path, [passed(0)], *arguments)
    assert {c["workload"]["name"] for c in plan.cells} == {"edit"}
    assert plan.count == 2
    assert {(c["repeat"], c["protocol"]["rounds"]) for c in plan.cells} == {(5, 3)}
    _, plan = invoke(monkeypatch, tmp_path, [passed(0)], *arguments, "--deterministic", "strict")
    assert {c["workload"]["deterministic"] for c in plan.cells} == {"strict"}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([passed(0), passed(1, ("b" * 64,) * 20)], "2 processes NOT equal"),
        ([passed(0, (SHA,) * 19 + ("b" * 64,))], "19 of 20 calls equal within process 1"),
        ([passed(0, memory=[10**8 + n * 2**20 for n in range(20)])], "leak: FOUND (+1024.0 KiB"),
        ([passed(0, (SHA,) * 12)], "20 were asked for"),
        (
            [passed(0), passed(1, (), outcome="oom", reason="no room", repeat=[])],
            "process 2 is oom: no room",
        ),
    ],
)
def test_what_is_found_is_said_and_ends_with_1(monkeypatch, tmp_path, records, says):
    result, _ = invoke(monkeypatch, tmp_path, records, *MODEL)
    assert says in result.output
    assert result.exit_code == 1


def test_operations_without_a_deterministic_algorithm_are_named(monkeypatch, tmp_path):
    ran = {"mode": True, "operations": ["cumsum_cuda"]}
    record = passed(0, mode=True, deterministic=ran)
    result, _ = invoke(monkeypatch, tmp_path, [record], *MODEL)
    assert "without a deterministic algorithm: cumsum_cuda" in result.output
