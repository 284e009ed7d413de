from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker import fingerprint


def test_it_says_what_figures_depend_on():
    import torch

    found = fingerprint.collect("cpu")
    for name in ("os", "kernel", "cpu", "cpu_cores", "ram_bytes", "python", "environment_hash"):
        assert found[name], name
    # Some wheels leave the build out of their version, "2.0.1" for "2.0.1+cu117".
    assert torch.__version__.startswith(found["packages"]["torch"])
    assert found["threads"] == torch.get_num_threads()
    assert found["gpu"] is None
    json.dumps(found, allow_nan=False)


def test_secrets_in_the_environment_stay_there(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_tell")
    monkeypatch.setenv("PYTORCH_SECRET", "do_not_tell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = fingerprint.collect("cpu")
    assert "do_not_tell" not in json.dumps(found)
    assert found["settings"]["OMP_NUM_THREADS"] == "7"


def test_no_listed_setting_is_named_like_a_secret():
    from bench.redact import SECRET_NAME

    assert not [name for name in fingerprint.ENVIRONMENT if SECRET_NAME.search(name)]


def test_another_package_or_version_is_another_environment(tmp_path, monkeypatch):
    before = fingerprint.environment_hash()
    assert fingerprint.environment_hash() == before
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "new_thing-1.0.dist-info").mkdir()
    first = fingerprint.environment_hash()
    (tmp_path / "new_thing-1.0.dist-info").rename(tmp_path / "new_thing-1.1.dist-info")
    assert len({before, first, fingerprint.environment_hash()}) == 3


class FakeNvml(SimpleNamespace):
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVMLError = RuntimeError
    uuid = "GPU-12345678-aaaa-bbbb-cccc-1234567890ab"

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert uuid == self.uuid
        return "handle"

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"570.1"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:  # noqa: N802
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, handle: str, clock: int) -> int:  # noqa: N802
        return {1: 1980, 2: 2619}[clock]

    def nvmlDeviceGetApplicationsClock(self, handle: str, clock: int) -> int:  # noqa: N802
        raise RuntimeError("not supported")


def gpu(monkeypatch: pytest.MonkeyPatch, nvml: Any, uuid: str | None) -> Any:
    import torch

    properties = SimpleNamespace(name="Fake GPU", total_memory=1, major=9, minor=0)
    if uuid:
        properties.uuid = uuid
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return fingerprint.collect("cuda:0")


def test_a_gpu_is_described_and_its_uuid_hashed(monkeypatch):
    found = gpu(monkeypatch, FakeNvml(), FakeNvml.uuid.removeprefix("GPU-"))
    assert found["gpu"]["name"] == "Fake GPU"
    assert found["gpu"]["driver"] == "570.1"
    assert found["gpu"]["power_limit_w"] == 700.0
    assert found["gpu"]["sm_clock_max_mhz"] == 1980
    assert found["gpu"]["uuid_hash"]
    assert FakeNvml.uuid.removeprefix("GPU-") not in json.dumps(found)
    assert found["null_reasons"] == {
        "gpu.sm_clock_locked_mhz": "the driver does not tell",
        "gpu.ecc": "the driver does not tell",
    }


def test_without_nvml_the_figures_are_none_with_the_reason(monkeypatch):
    found = gpu(monkeypatch, None, "12345678")
    assert found["gpu"]["driver"] is None
    assert "nvidia-ml-py" in found["null_reasons"]["gpu.driver"]
    assert "gpu.uuid_hash" not in found["null_reasons"]


def test_a_torch_that_hides_the_uuid_says_so(monkeypatch):
    found = gpu(monkeypatch, FakeNvml(), None)
    assert found["gpu"]["uuid_hash"] is None
    assert "UUID" in found["null_reasons"]["gpu.uuid_hash"]
