from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import doctor
from bench.cli import app
from bench.runner.devices import Gpu, Machine
from bench.text import GIB

VERSIONS = {
    "torch": "2.4.0+cu121",
    "diffusers": "0.35.1",
    "transformers": "4.55.0",
    "accelerate": "1.0.0",
    "safetensors": "0.4.5",
    "pillow": "10.4.0",
    "triton": "3.0.0",
    "nvidia-ml-py": "12",
}
GPU = Gpu("NVIDIA H200", "GPU-1", 140 * GIB, "550.1")


def facts(devices: list[str]) -> dict[str, Any]:
    return {
        "torch": "2.4.0",
        "cuda_build": "12.1",
        "cuda_available": True,
        "cpu_capability": "AVX2",
        "threads": 1,
        "devices": {
            device: {
                "meters": {"rss": None, "torch.max_memory_allocated": None},
                "backends": {"none": {"supported": True, "reason": None}},
            }
            for device in devices
        },
    }


@pytest.fixture
def around(tmp_path: Path) -> doctor.Surroundings:
    return doctor.Surroundings(
        root=tmp_path,
        environment={},
        home=tmp_path,
        folder=tmp_path,
        installed=VERSIONS.get,
        which=lambda name: f"/usr/bin/{name}",
        free_bytes=lambda folder: 100 * GIB,
        load=0.0,
        cores=8,
        facts=facts,
    )


def machine(*gpus: Gpu, cuda: str = "12.1") -> Machine:
    return Machine({}, gpus=gpus, torch_cuda=cuda, apple=False)


def findings(around: doctor.Surroundings, on: Machine | None = None) -> dict[str, doctor.Finding]:
    found = doctor.examine(around, on or machine(GPU))
    by_topic = {finding.topic: finding for finding in found}
    assert len(by_topic) == len(found)
    return by_topic


def put(around: doctor.Surroundings, path: str, text: str) -> None:
    file = around.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_good_machine_has_nothing_to_mend(around: doctor.Surroundings) -> None:
    found = doctor.examine(around, machine(GPU))
    assert {finding.topic for finding in found if finding.status != "ok"} <= {"workers"}
    assert doctor.can_measure(found)
    assert "H200 140 GiB, driver 550.1" in findings(around)["gpu"].says


@pytest.mark.parametrize("name", doctor.NEEDED)
def test_a_missing_package_means_that_nothing_can_be_measured(
    around: doctor.Surroundings, name: str
) -> None:
    without = {key: value for key, value in VERSIONS.items() if key != name}
    found = doctor.examine(replace(around, installed=without.get), machine(GPU))
    assert not doctor.can_measure(found)
    missing = next(finding for finding in found if finding.topic == name)
    assert missing.status == "missing"
    assert missing.remedy


def test_an_old_package_is_named_with_the_first_good_version(around: doctor.Surroundings) -> None:
    old = {**VERSIONS, "diffusers": "0.9.1"}
    finding = findings(replace(around, installed=old.get))["diffusers"]
    assert finding.status == "limited"
    assert "0.29" in finding.says


def test_no_gpu(around: doctor.Surroundings) -> None:
    found = findings(around, machine())
    assert found["gpu"].status == "limited"
    assert "triton" not in found
    assert "memory on cuda:0" not in found


def test_a_hidden_gpu_is_explained(around: doctor.Surroundings) -> None:
    hidden = replace(around, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert "CUDA_VISIBLE_DEVICES" in str(findings(hidden, machine())["gpu"].remedy)


def test_a_gpu_with_a_torch_that_cannot_use_it(around: doctor.Surroundings) -> None:
    found = findings(around, machine(GPU, cuda=""))
    assert found["gpu"].status == "limited"
    assert "CUDA build" in str(found["gpu"].remedy)


def test_a_driver_too_old_for_torch(around: doctor.Surroundings) -> None:
    def answer(devices: list[str]) -> dict[str, Any]:
        return {**facts(devices), "cuda_available": False}

    finding = findings(replace(around, facts=answer))["torch loads"]
    assert finding.status == "limited"
    assert "driver" in str(finding.remedy)


def test_a_torch_that_does_not_load_is_told(around: doctor.Surroundings) -> None:
    def broken(devices: list[str]) -> dict[str, Any]:
        raise ValueError("ImportError: libcudart.so.12: cannot open")

    found = doctor.examine(replace(around, facts=broken), machine(GPU))
    assert not doctor.can_measure(found)
    assert any("libcudart" in finding.says for finding in found)


def test_a_backends_reason_reaches_the_user(around: doctor.Surroundings) -> None:
    def answer(devices: list[str]) -> dict[str, Any]:
        made = facts(devices)
        made["devices"]["cpu"]["backends"]["x"] = {"supported": False, "reason": "no compiler"}
        return made

    finding = findings(replace(around, facts=answer))["x on cpu"]
    assert (finding.status, finding.says) == ("limited", "no compiler")


def test_a_backend_elsewhere_is_as_ready_as_its_environment(around: doctor.Surroundings) -> None:
    def answer(devices: list[str]) -> dict[str, Any]:
        made = facts(devices)
        for about in made["devices"].values():
            about["backends"] |= {"a": {"environment": "built"}, "b": {"environment": "not"}}
        return made

    why = {"not": "the environment 'not' is not ready: it is not built"}
    found = findings(replace(around, facts=answer, not_ready=why.get))
    assert (found["a"].status, found["b"].status) == ("ok", "limited")
    assert "bench env check built" in found["a"].says
    assert found["b"].says == why["not"]


def test_a_peak_that_cannot_be_reset(around: doctor.Surroundings) -> None:
    def answer(devices: list[str]) -> dict[str, Any]:
        made = facts(devices)
        made["devices"]["cpu"]["meters"] = {"rss": "Permission denied"}
        return made

    finding = findings(replace(around, facts=answer))["memory on cpu"]
    assert finding.status == "limited"
    assert "Permission denied" in finding.says
    assert "clear_refs" in str(finding.remedy)


def test_no_compiler(around: doctor.Surroundings) -> None:
    finding = findings(replace(around, which=lambda name: None))["C++ compiler"]
    assert finding.status == "limited"


def test_the_compiler_named_in_cxx_is_looked_for_first(around: doctor.Surroundings) -> None:
    named = replace(around, environment={"CXX": "icpx"})
    assert findings(named)["C++ compiler"].says == "/usr/bin/icpx"


def test_a_container_with_less_cpu_than_cores(around: doctor.Surroundings) -> None:
    put(around, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    put(around, "sys/fs/cgroup/memory.max", str(4 * GIB))
    put(around, "proc/meminfo", f"MemTotal: {16 * 1024**2} kB\n")
    found = findings(around)
    assert found["CPU quota"].status == "limited"
    assert "1.5 core" in found["CPU quota"].says
    assert found["memory"].says == "16.0 GiB of memory, 4.0 GiB of it for this container"


@pytest.mark.parametrize("text", ["max 100000", "", "nonsense", "1 0"])
def test_no_quota_is_no_finding(around: doctor.Surroundings, text: str) -> None:
    put(around, "sys/fs/cgroup/cpu.max", text)
    assert "CPU quota" not in findings(around)


def test_what_makes_times_noisy(around: doctor.Surroundings) -> None:
    put(around, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    put(around, "sys/devices/system/cpu/intel_pstate/no_turbo", "0\n")
    found = findings(replace(around, load=7.5))
    for topic in ("load", "clock governor", "turbo"):
        assert found[topic].status == "limited", topic
        assert found[topic].remedy


def test_little_disk(around: doctor.Surroundings) -> None:
    found = findings(replace(around, free_bytes=lambda folder: 3 * GIB))
    assert found["disk for runs"].status == "limited"
    assert found["disk for models"].status == "limited"


def test_a_token_is_counted_and_never_shown(around: doctor.Surroundings) -> None:
    secret = "hf_" + "s3cret" * 5
    with_token = replace(around, environment={"HF_TOKEN": secret, "OMP_NUM_THREADS": "2"})
    found = doctor.examine(with_token, machine(GPU))
    hub = next(finding for finding in found if finding.topic == "Hub")
    assert "token present" in hub.says
    assert "s3cret" not in json.dumps(doctor.as_json(found))
    file = around.home / ".cache/huggingface/token"
    assert "token absent" in findings(around)["Hub"].says
    file.parent.mkdir(parents=True)
    file.write_text(secret)
    assert "token present" in findings(around)["Hub"].says


def test_offline_is_said(around: doctor.Surroundings) -> None:
    offline = replace(around, environment={"HF_HUB_OFFLINE": "1"})
    assert findings(offline)["Hub"].status == "limited"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.4.0+cu121", (2, 4, 0)), ("0.29", (0, 29)), ("3", (3, 0)), ("2.0.0a1", (2, 0))],
)
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert doctor._version(text) == numbers


@pytest.mark.thorough
def test_the_process_that_asks_torch_answers() -> None:
    answer = doctor.ask_torch(["cpu"])
    assert answer["devices"]["cpu"]["backends"]["none"] == {"supported": True, "reason": None}
    assert answer["devices"]["cpu"]["backends"]["nexfort"] == {"environment": "nexfort"}
    assert "rss" in answer["devices"]["cpu"]["meters"]


def test_a_process_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="status 1"):
        doctor.ask_torch(["cpu"])


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("limited", 0), ("missing", 1)])
def test_exit_code_and_output(monkeypatch: pytest.MonkeyPatch, status: Any, code: int) -> None:
    made = [doctor.Finding("torch", status, "says [this]", "do that")]
    monkeypatch.setattr(doctor, "examine", lambda: made)
    shown = CliRunner().invoke(app.app, ["doctor"])
    assert shown.exit_code == code
    assert "says [this]" in shown.stdout
    assert "→ do that" in shown.stdout
    value = json.loads(CliRunner().invoke(app.app, ["doctor", "--json"]).stdout)
    assert value["can_measure"] is (code == 0)
