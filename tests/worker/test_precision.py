"""Precision: torch's switches, autocast around the call, and what disproves them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from bench.worker import precision
from bench.worker.instrument import Instruments
from tests.worker import fakes, tiny


@pytest.fixture(autouse=True)
def _switches() -> Any:
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def switches() -> tuple[bool, bool]:
    import torch

    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_fp32_and_tf32_set_both_switches_on_a_gpu():
    precision.set_up({"precision": "tf32"}, "cuda:0")
    assert switches() == (True, True)
    precision.set_up({"precision": "fp32"}, "cuda:0")
    assert switches() == (False, False)


@pytest.mark.parametrize("workload", [{}, {"precision": "autocast"}])
def test_other_precisions_leave_the_switches_alone(workload):
    before = switches()
    precision.set_up(workload, "cuda:0")
    precision.set_up({"precision": "tf32"}, "cpu")
    assert switches() == before


def test_tf32_is_no_mode_of_a_cpu_or_of_an_old_gpu(monkeypatch):
    import torch

    outcome, reason = precision.refusal({"precision": "tf32"}, "cpu") or ("", "")
    assert outcome == "unsupported"
    assert "another name" in reason
    for capability, refused in (((7, 5), True), ((8, 0), False), ((9, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _d, c=capability: c)
        found = precision.refusal({"precision": "tf32"}, "cuda:0")
        assert (found is not None) == refused
        assert found is None or "7.5" in found[1]


@pytest.mark.parametrize("word", [None, "fp32", "autocast"])
def test_other_precisions_work_on_a_cpu(word):
    assert precision.refusal({"precision": word}, "cpu") is None


def test_autocast_computes_in_half_inside_the_call_only():
    import torch

    product = torch.ones(2, 2)
    with precision.calling({"precision": "autocast"}, "cpu")():
        assert (product @ product).dtype == torch.bfloat16
    assert (product @ product).dtype == torch.float32
    assert precision.calling({"precision": "fp32"}, "cpu") is contextlib.nullcontext
    assert precision.half_type("cuda:1") == torch.float16


@pytest.mark.parametrize(
    ("word", "device", "computes"),
    [
        ("fp32", "cpu", "float32"),
        ("autocast", "cpu", "bfloat16"),
        ("autocast", "cuda:0", "float16"),
    ],
)
def test_ceilings_are_those_of_the_type_that_is_computed_in(word, device, computes):
    assert precision.computes_in({"precision": word, "dtype": "float32"}, device) == computes


def seen(word: str, device: str = "cpu", outputs: Any = ()) -> dict[str, Any]:
    return precision.found({"precision": word, "dtype": "float32"}, device, outputs)


def test_an_output_in_float32_disproves_autocast():
    assert precision.failure_of(seen("autocast", outputs={"bfloat16"})) is None
    assert "should be bfloat16" in str(precision.failure_of(seen("autocast", outputs={"float32"})))
    assert precision.failure_of(seen("autocast")) is None


def test_a_backend_that_switches_tf32_disproves_fp32():
    import torch

    precision.set_up({"precision": "fp32"}, "cuda:0")
    assert precision.failure_of(seen("fp32", "cuda:0")) is None
    torch.backends.cuda.matmul.allow_tf32 = True
    assert "switched matmul_tf32 on" in str(precision.failure_of(seen("fp32", "cuda:0")))
    assert precision.failure_of(seen("fp32", "cpu")) is None


def test_every_call_is_made_in_its_context():
    clock = fakes.FakeClock()
    inside: list[bool] = []
    state = {"in": False}

    @contextlib.contextmanager
    def context() -> Any:
        state["in"] = True
        yield
        state["in"] = False

    pipeline = fakes.FakePipeline(clock, before=lambda _call: inside.append(state["in"]))
    instruments = Instruments(pipeline, clock)
    instruments.calling = context
    instruments.measure({"steps": 2})
    instruments.measure({"steps": 2})
    assert inside == [True, True]
    assert state["in"] is False


def test_a_whole_cell_under_autocast_says_what_the_denoiser_gave(tmp_path):
    job = fakes.make_job(
        tmp_path,
        model=f"path:{tiny.shared('sd15')}",
        precision="autocast",
        steps=1,
        warmup={"stable_pct": 1000.0},
    )
    told = fakes.run(job)
    assert (told.outcome, told.reason) == ("ok", None)
    assert told["precision"]["denoiser_output"] == ["bfloat16"]
    assert told["precision"]["autocast"] == "bfloat16"
    assert told["precision"]["matmul_tf32"] is None
