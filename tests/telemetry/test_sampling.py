"""A recorded session through the sampler, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.telemetry import Sampler, sampler, sources
from scripts import record_nvml
from tests.passes.test_telemetry import summary
from tests.telemetry.nvml_replay import Replayer

HERE = Path(__file__).parent
SESSION = json.loads((HERE / "session-a100-constructed.json").read_text())
PERIOD_S = 0.1


class Time:
    """Passes when waited for; `stop_after` waits end the sampling."""

    def __init__(self, stop_after):
        self.now_s = 500.0
        self.left = stop_after

    def now(self):
        return self.now_s

    def wait(self, seconds):
        self.now_s += seconds
        self.left -= 1
        return self.left <= 0


class Tree(sources.ProcessTree):
    """The worker of the session, on a system that has it."""

    def __init__(self, pid):
        super().__init__(pid)

    def pids(self):
        return {4242}

    def read(self):
        return {"cpu_pct": 50.0, "rss_bytes": 1000}


def sample(monkeypatch, session=SESSION, samples=71, device="cuda:0", tree=Tree):
    monkeypatch.setattr(sources, "ProcessTree", tree)
    library = Replayer(session)
    time = Time(samples)
    opened = lambda: sources.opened(device, 4242, lambda: ["GPU-1"], library)  # noqa: E731
    made = Sampler(opened, PERIOD_S, sources.COLUMNS, time.now, time.wait)
    made.run()
    assert library.open == 0
    return made


CALLS = [[501.0 + i, 502.0 + i, 2] for i in range(5)]


def test_a_recorded_session_replays(monkeypatch):
    found, reasons = sample(monkeypatch).fields(500.0, CALLS)
    assert (found["source"], found["ended"], reasons) == ("nvml and psutil", None, {})
    assert found["achieved_s"] == pytest.approx(PERIOD_S)
    assert len(found["columns"]["t_s"]) == 71
    assert found["columns"]["process_used_bytes"][0] == 8_912_896_000
    assert found["calls"][0] == [1.0, 2.0, 2]
    told = summary(found, reasons)
    assert told.quantities["power_w"].before == pytest.approx(68, abs=1)
    assert told.energy.per_image_j == pytest.approx(193, rel=0.03)
    assert abs(told.energy.disagreement_pct) < 3
    assert told.throttled["thermal slowdown (software)"] == pytest.approx(16 / 51, abs=0.02)
    assert told.foreign == (1, ("a process that this system does not show",))
    assert any("SM clock went from 1410 to 1275" in flag for flag in told.flags)
    assert len(json.dumps(found)) < 10_000


def without(function, code, text, after=0):
    answers = dict(SESSION["answers"])
    answers[function] = [*answers[function][:after], {"error": code, "text": text}]
    return {**SESSION, "answers": answers}


def test_what_a_gpu_does_not_support_is_null_with_its_reason(monkeypatch):
    session = without("nvmlDeviceGetTotalEnergyConsumption", 3, "Not Supported")
    found, reasons = sample(monkeypatch, session).fields(500.0, CALLS)
    assert found["columns"]["energy_counter_j"] is None
    assert reasons == {"telemetry.energy_counter_j": "NVML: Not Supported"}
    assert summary(found, reasons).energy.per_image_j is not None


def test_old_bindings_lack_queries(monkeypatch):
    answers = {k: v for k, v in SESSION["answers"].items() if k != "nvmlDeviceGetTemperature"}
    found, reasons = sample(monkeypatch, {**SESSION, "answers": answers}).fields(500.0, CALLS)
    assert found["columns"]["temperature_c"] is None
    assert reasons == {"telemetry.temperature_c": "these bindings have no such query"}


def test_a_lost_gpu_ends_sampling_and_keeps_what_was_read(monkeypatch):
    session = without("nvmlDeviceGetPowerUsage", 15, "GPU is lost", after=20)
    found, _ = sample(monkeypatch, session).fields(500.0, CALLS)
    assert found["ended"] == "NVML: GPU is lost"
    assert len(found["columns"]["t_s"]) == 20
    flags = summary(found, {}).flags
    assert flags[0] == "sampling ended early: NVML: GPU is lost"


def test_a_passing_error_costs_its_samples_alone(monkeypatch):
    answers = dict(SESSION["answers"])
    power = list(answers["nvmlDeviceGetPowerUsage"])
    power[30] = {"error": 10, "text": "Interrupted"}
    session = {**SESSION, "answers": {**answers, "nvmlDeviceGetPowerUsage": power}}
    found, reasons = sample(monkeypatch, session).fields(500.0, CALLS)
    assert found["columns"]["power_w"].count(None) == 1
    assert "Interrupted" in reasons["telemetry.power_w"]


def test_a_container_that_hides_processes(monkeypatch):
    class Hidden(Tree):
        def pids(self):
            return {17}

    found, reasons = sample(monkeypatch, tree=Hidden).fields(500.0, CALLS)
    assert found["columns"]["process_used_bytes"] is None
    assert "container" in reasons["telemetry.process_used_bytes"]
    assert max(found["columns"]["foreign_processes"]) == 1


def test_without_a_gpu_it_is_cpu_and_memory(monkeypatch):
    found, reasons = sample(monkeypatch, device="cpu", samples=3).fields(500.0, CALLS)
    assert found["columns"]["rss_bytes"] == [1000] * 3
    assert {name for name in sources.GPU if found["columns"][name] is not None} == set()
    assert all("cpu" in reasons[f"telemetry.{name}"] for name in sources.GPU)


def test_without_bindings_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with sources.opened("cuda:0", os.getpid(), lambda: ["GPU-1"]) as source:
        assert source.name == "psutil"
        assert source.reasons["power_w"] == "nvidia-ml-py is not installed"


def test_the_worker_dies_during_the_pass(monkeypatch):
    class Dying(Tree):
        def read(self):
            raise sources.SourceEndedError("the worker is gone")

    found, _ = sample(monkeypatch, device="cpu", tree=Dying).fields(None, [])
    assert (found["ended"], found["columns"]["t_s"], found["achieved_s"]) == (
        "the worker is gone", [], None,
    )  # fmt: skip
    summary(found, {})


def test_many_samples_are_thinned(monkeypatch):
    monkeypatch.setattr(sampler, "MAX_SAMPLES", 9)
    found, _ = sample(monkeypatch, device="cpu", samples=30).fields(500.0, [])
    assert len(found["columns"]["t_s"]) < 9
    assert found["thinned"] >= 2
    assert found["achieved_s"] == pytest.approx(PERIOD_S * 2 ** found["thinned"])


def test_slow_samples_are_not_caught_up(monkeypatch):
    time = Time(4)

    @contextmanager
    def slow():
        def read():
            time.now_s += 0.35
            return {"rss_bytes": 1}

        yield SimpleNamespace(read=read, name="slow", cpus=1, foreign=set(), reasons={})

    made = Sampler(slow, PERIOD_S, ("rss_bytes",), time.now, time.wait)
    made.run()
    found, _ = made.fields(500.0, [])
    assert found["columns"]["t_s"] == pytest.approx([0.175, 0.525, 0.875, 1.225])


def test_clocks_without_a_common_origin_are_noticed(monkeypatch):
    found, reasons = sample(monkeypatch, device="cpu", samples=3).fields(9000.0, [[9001, 9002, 1]])
    assert found["calls"] == []
    assert "no common origin" in reasons["telemetry.calls"]


def test_cpu_share_is_of_all_cpus_and_new_processes_count_from_0():
    assert sources.cpu_pct({1: 10.0}, {1: 11.0, 2: 1.0}, 2.0, 4) == pytest.approx(25.0)
    assert sources.cpu_pct({1: 10.0, 2: 5.0}, {1: 10.0}, 1.0, 1) == 0.0


def test_this_process_has_a_tree():
    tree = sources.ProcessTree(os.getpid())
    row = tree.read()
    assert row["cpu_pct"] is None
    assert row["rss_bytes"] >= psutil.Process().memory_info().rss // 2
    assert os.getpid() in tree.pids()


def test_the_recorder_keeps_what_the_replayer_gives(tmp_path):
    recorder = record_nvml.Recorder(Replayer(SESSION))
    recorder.nvmlInit()
    handle = recorder.nvmlDeviceGetHandleByUUID("GPU-1")
    assert recorder.nvmlDeviceGetUtilizationRates(handle).gpu == 0
    recorder.nvmlDeviceGetComputeRunningProcesses(handle)
    recorder.nvmlDeviceGetPowerUsage(handle)
    recorder.write(tmp_path / "again.json", "a copy")
    again = json.loads((tmp_path / "again.json").read_text())
    for name, answers in again["answers"].items():
        assert answers == SESSION["answers"][name][:1]
    assert again["constants"] == SESSION["constants"]
