"""The parent samples in the phase ``telemetry`` and in no other one, whatever the worker does."""

from __future__ import annotations

import json

import pytest

from bench.passes.telemetry import watch
from bench.runner import execute
from tests.runner.support import Plan, cell, machine, program

ASKED = {"period_s": 0.01, "time_s": 0.1, "min_calls": 1, "idle_s": 0.1}


class Sampler:
    def __init__(self, device, pid, period_s, uuids):
        self.about = (device, period_s)
        self.pid = pid
        self.told = []

    def start(self):
        self.told.append("start")

    def stop(self):
        self.told.append("stop")

    def fields(self, begun_s, calls):
        used = [None, 5, 7]
        return (
            {
                "period_s": 0.01,
                "begun_s": begun_s,
                "calls": calls,
                "columns": {"process_used_bytes": used},
            },
            {"telemetry.power_w": "no power here"},
        )


@pytest.fixture
def run(tmp_path, monkeypatch):
    made = []

    def sampler_of(*arguments):
        made.append(Sampler(*arguments))
        return made[-1]

    monkeypatch.setattr(watch, "sampler_of", sampler_of)

    def run(double, **changes):
        plan, folder = Plan([cell("a", **changes)]), tmp_path / "run"
        execute(plan, folder, program=program(double), machine=machine(), start="fork")
        (line,) = (folder / "records.jsonl").read_text().splitlines()
        return made, json.loads(line)

    return run


def test_a_pass_is_sampled_and_stored(run):
    (sampler,), record = run("telemetry", telemetry=ASKED)
    assert sampler.about == ("cpu", 0.01)
    assert sampler.pid == record["process"]["pid"]
    assert sampler.told[:2] == ["start", "stop"]
    assert record["telemetry"]["begun_s"] == 5.0
    assert record["telemetry"]["calls"] == [[6.0, 7.0, 1]]
    assert "telemetry_calls" not in record
    assert record["null_reasons"] == {"stages": "none", "telemetry.power_w": "no power here"}
    (reading,) = [r for r in record["memory"] if r["meter"] == "nvml.process_used"]
    assert (reading["phase"], reading["bytes"]) == ("telemetry", 7)
    assert record["outcome"] == "ok"


def test_a_worker_that_dies_in_its_pass_keeps_figures_and_samples(run):
    (sampler,), record = run("dies_in_telemetry", telemetry=ASKED)
    assert "stop" in sampler.told
    assert (record["outcome"], record["e2e_s"]) == ("ok", [0.1])
    assert record["telemetry"]["calls"] == [[6.0, 7.0, 1]]
    assert any("the telemetry is incomplete" in text for text in record["warnings"])


def test_without_the_key_nothing_is_sampled(run):
    made, record = run("good")
    assert made == []
    assert "telemetry" not in record
