from __future__ import annotations

import inspect
from typing import Any

import pytest

from bench.contract import STAGES
from bench.worker import instrument
from bench.worker.instrument import Instruments
from tests.worker import fakes


def measure(steps: int = 4, device_events: bool = False, **options: Any) -> instrument.Sample:
    clock = fakes.FakeClock(device_events)
    pipeline = fakes.FakePipeline(clock, **options)
    instruments = Instruments(pipeline, clock)
    return instruments.measure({"steps": steps, "on_step": instruments.on_step})


def test_ten_ms_steps_and_200_ms_besides():
    sample = measure(10)
    assert sample.e2e_s == pytest.approx(10 * fakes.STEP_S + fakes.FIXED_S)
    assert sample.step_s == pytest.approx([fakes.STEP_S] * 9)
    assert sample.it_per_s == pytest.approx(100.0)
    assert sample.stages == pytest.approx(
        {
            "text_encode_s": fakes.ENCODE_S,
            "image_encode_s": 0.0,
            "denoise_s": 10 * fakes.STEP_S,
            "vae_decode_s": fakes.DECODE_S,
            "post_s": fakes.POST_S,
            "unaccounted_s": fakes.OTHER_S,
        }
    )
    assert tuple(sample.stages) == STAGES
    assert sum(value or 0.0 for value in sample.stages.values()) == pytest.approx(sample.e2e_s)


def test_three_calls_of_four_steps_give_nine_intervals_and_none_across_calls():
    clock = fakes.FakeClock()
    instruments = Instruments(fakes.FakePipeline(clock), clock)
    intervals = []
    for _ in range(3):
        sample = instruments.measure({"steps": 4, "on_step": instruments.on_step})
        intervals += sample.step_s
        clock.pass_(100.0)
    assert intervals == pytest.approx([fakes.STEP_S] * 9)


def test_one_callback_has_no_rate():
    sample = measure(1)
    assert sample.it_per_s is None
    assert sample.step_s == []


@pytest.mark.parametrize(
    ("scheduler", "calls", "effective"),
    [
        (fakes.FakeScheduler(), 10, 10),
        (fakes.FakeScheduler(fakes.heun, order=2), 19, 10),
        # Two evaluations a step, the second at a level of its own.
        (
            fakes.FakeScheduler(lambda n: [n - i / 2 for i in range(2 * n - 1)], order=2),
            19,
            10,
        ),
        # PNDM repeats its second level once.
        (fakes.FakeScheduler(lambda n: [n, n - 1, *(float(n - i) for i in range(1, n))]), 11, 10),
        # Image-to-image starts late.
        (fakes.FakeScheduler(lambda n: [float(i) for i in range(3)]), 3, 3),
    ],
)
def test_three_step_numbers(scheduler, calls, effective):
    sample = measure(10, scheduler=scheduler)
    assert (sample.denoiser_calls, sample.steps_effective) == (calls, effective)
    assert sample.denoiser_batches == (2,)


@pytest.mark.parametrize(
    ("name", "settings", "steps", "calls"),
    [
        ("EulerDiscreteScheduler", {}, 10, 10),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, 50, 50),
        ("EulerAncestralDiscreteScheduler", {}, 10, 10),
        ("HeunDiscreteScheduler", {}, 10, 19),
        ("KDPM2DiscreteScheduler", {}, 10, 19),
        ("KDPM2AncestralDiscreteScheduler", {}, 10, 19),
        ("PNDMScheduler", {"skip_prk_steps": True}, 10, 11),
        # Three Runge-Kutta steps of four evaluations each, then one evaluation a step.
        ("PNDMScheduler", {}, 10, 19),
        ("PNDMScheduler", {}, 30, 39),
        ("IPNDMScheduler", {}, 10, 10),
        ("DDIMScheduler", {}, 10, 10),
        # 1000 is no multiple of 150, so the stride is rounded.
        ("DDIMScheduler", {}, 150, 150),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, 150, 150),
        ("DDPMScheduler", {}, 10, 10),
        ("LCMScheduler", {}, 4, 4),
        ("TCDScheduler", {}, 4, 4),
        ("DEISMultistepScheduler", {}, 10, 10),
        ("DPMSolverMultistepScheduler", {}, 10, 10),
        ("DPMSolverSinglestepScheduler", {}, 10, 10),
        ("DPMSolverSinglestepScheduler", {"solver_order": 3}, 9, 9),
        ("UniPCMultistepScheduler", {}, 10, 10),
        ("FlowMatchEulerDiscreteScheduler", {}, 10, 10),
        ("FlowMatchHeunDiscreteScheduler", {}, 10, 19),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_steps_of_real_schedulers(name, settings, steps, calls):
    import diffusers
    import torch

    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    scheduler = getattr(diffusers, name)(**settings)
    clock = fakes.FakeClock()
    pipeline = fakes.FakePipeline(clock, scheduler=scheduler)

    def call(steps: int, on_step: Any) -> None:
        scheduler.set_timesteps(steps)
        sample = torch.ones(1, 4, 8, 8)
        for timestep in scheduler.timesteps:
            output = pipeline.unet(sample, timestep)[0]
            sample = scheduler.step(output * 0.1, timestep, sample).prev_sample
            on_step()

    pipeline.__class__ = type(
        "Real", (fakes.FakePipeline,), {"__call__": lambda self, **k: call(**k)}
    )
    instruments = Instruments(pipeline, clock)
    sample = instruments.measure({"steps": steps, "on_step": instruments.on_step})
    assert (sample.denoiser_calls, sample.steps_effective) == (calls, steps)
    assert len(sample.step_s) == calls - 1


def test_without_callbacks_the_scheduler_gives_the_step_events():
    sample = measure(4, callbacks=False)
    assert sample.step_source == "scheduler"
    assert sample.step_s == pytest.approx([fakes.STEP_S] * 3)
    assert sample.stages["denoise_s"] == pytest.approx(4 * fakes.STEP_S)


def test_callbacks_are_preferred_and_counted_once():
    clock = fakes.FakeClock()
    instruments = Instruments(fakes.FakePipeline(clock), clock)
    for _ in range(2):
        sample = instruments.measure({"steps": 4, "on_step": instruments.on_step})
        assert sample.step_source == "callback"
        assert len(sample.step_s) == 3


def test_one_synchronise_at_each_end_and_none_between():
    clock = fakes.FakeClock(device_events=True)
    instruments = Instruments(fakes.FakePipeline(clock), clock)
    sample = instruments.measure({"steps": 50, "on_step": instruments.on_step})
    assert clock.synchronised == 2
    assert sample.device_e2e_s == pytest.approx(sample.e2e_s)


def test_device_time_is_none_without_device_events():
    assert measure().device_e2e_s is None


def test_nested_borders_count_once():
    events = [
        ("enter", "text_encode_s", 0.0),
        ("enter", "text_encode_s", 1.0),
        ("exit", "text_encode_s", 2.0),
        ("exit", "text_encode_s", 3.0),
        ("denoiser", "denoise_s", 3.0),
        ("callback", "", 5.0),
        ("enter", "image_encode_s", 5.0),
        ("exit", "image_encode_s", 6.0),
        ("callback", "", 8.0),
        ("enter", "post_s", 8.0),
        ("enter", "vae_decode_s", 8.5),
        ("exit", "vae_decode_s", 9.0),
        ("exit", "post_s", 10.0),
    ]
    stages = instrument.stage_seconds(events, 10.0, {})
    assert stages == {
        "text_encode_s": 3.0,
        "image_encode_s": 1.0,
        "denoise_s": 4.0,
        "vae_decode_s": 0.0,
        "post_s": 2.0,
        "unaccounted_s": 0.0,
    }


def test_a_pipeline_without_a_border_gets_none_and_a_reason():
    clock = fakes.FakeClock()
    pipeline = fakes.FakePipeline(clock)
    pipeline.image_processor = None
    vae = pipeline.vae
    pipeline.vae = None
    pipeline.__class__ = type(
        "Pixels",
        (fakes.FakePipeline,),
        {"__call__": lambda self, **_: self.unet(fakes.FakeLatents(1), 1) and vae},
    )
    instruments = Instruments(pipeline, clock)
    sample = instruments.measure({})
    assert sample.stages["vae_decode_s"] is None
    assert sample.stages["post_s"] is None
    assert sample.stages["denoise_s"] is None, "no step event, so no end of denoising"
    assert set(instruments.missing) == {"vae_decode_s", "image_encode_s", "post_s"}
    assert sample.steps_effective is None


def test_a_wrapped_scheduler_keeps_the_signature_that_pipelines_ask_for():
    clock = fakes.FakeClock()
    pipeline = fakes.FakePipeline(clock)
    Instruments(pipeline, clock)
    assert "eta" in inspect.signature(pipeline.scheduler.step).parameters


def test_a_callable_without_hooks_is_replaced_by_what_passes_for_it():
    clock = fakes.FakeClock()
    pipeline = fakes.FakePipeline(clock)
    unet = pipeline.unet
    Instruments(pipeline, clock)
    assert pipeline.unet is not unet
    assert isinstance(pipeline.unet, fakes.FakeUnet)
    assert pipeline.unet.config["in_channels"] == 4
    pipeline.unet.seconds = 7.0
    assert unet.seconds == 7.0


class TestModules:
    """Each kind of module has another outside; none may be traced, broken or counted twice."""

    def watched(self, make: Any) -> tuple[list[str], Any]:
        import torch

        class Block(torch.nn.Module):
            def forward(self, sample: Any) -> Any:
                return sample * 2

        class Denoiser(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.block = Block()

            def forward(self, sample: Any, timestep: Any = 0) -> Any:
                return self.block(sample) + 1

        class Owner:
            unet = make(Denoiser())

        owner = Owner()
        seen: list[str] = []
        instrument.wrap_calls(
            owner, "unet", lambda args, kwargs: seen.append("in"), lambda: seen.append("out")
        )
        return seen, owner

    @pytest.mark.parametrize("way", ["eager", "wrapped", "in place", "regional", "forward"])
    def test_calls_are_seen_outside_the_graph(self, way):
        import torch
        from torch._dynamo.utils import counters

        if way in ("in place", "regional") and not hasattr(torch.nn.Module, "compile"):
            pytest.skip(f"torch {torch.__version__} compiles no module in place")

        def make(module: Any) -> Any:
            if way == "wrapped":
                return torch.compile(module, backend="eager", fullgraph=True)
            if way == "in place":
                module.compile(backend="eager", fullgraph=True)
            elif way == "regional":
                module.block.compile(backend="eager", fullgraph=True)
            elif way == "forward":
                module.forward = torch.compile(module.forward, backend="eager", fullgraph=True)
            return module

        torch._dynamo.reset()
        before = counters["stats"]["unique_graphs"]
        breaks = sum(counters["graph_break"].values())
        seen, owner = self.watched(make)
        with torch.no_grad():
            for _ in range(3):
                owner.unet(torch.ones(2, 4), timestep=1)
        assert seen == ["in", "out"] * 3
        assert counters["stats"]["unique_graphs"] - before == (0 if way == "eager" else 1)
        assert sum(counters["graph_break"].values()) == breaks

    @pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
    def test_a_traced_module_is_seen_too(self):
        import torch

        example = (torch.ones(2, 4), torch.tensor(0))
        seen, owner = self.watched(lambda module: torch.jit.trace(module, example))
        owner.unet(*example)
        assert seen == ["in", "out"]


@pytest.mark.parametrize(
    ("args", "kwargs", "batch"),
    [
        ((fakes.FakeLatents(3), 1), {}, 3),
        ((), {"timestep": 1, "hidden_states": fakes.FakeLatents(2)}, 2),
        (([1, 2, 3, 4],), {}, 4),
        ((), {"timestep": 1}, None),
    ],
)
def test_the_batch_is_the_first_dimension_of_the_latents(args, kwargs, batch):
    assert instrument._batch_size(args, kwargs) == batch
