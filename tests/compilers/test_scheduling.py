"""Schedulers without waits step to the same bit; fused ones to the same rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compilers import scheduling

FAMILY = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")


def make(name: str, **more: Any) -> Any:
    import diffusers

    return getattr(diffusers, name)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, **more
    )


def walk(
    scheduler: Any, *, steps: int = 6, begin: int | None = 0, dtype: Any = torch.float32
) -> list[Any]:
    """Denoise with a made-up model and return the latents after each step."""
    generator = torch.Generator().manual_seed(7)
    scheduler.set_timesteps(steps, device="cpu")
    sample = torch.randn(1, 4, 8, 8, generator=generator).to(dtype) * scheduler.init_noise_sigma
    if begin is not None:
        scheduler.set_begin_index(begin)
    found = []
    for timestep in scheduler.timesteps[begin or 0 :]:
        scaled = scheduler.scale_model_input(sample, timestep)
        noise = (scaled.sin() + timestep / 1000).to(dtype)
        sample = scheduler.step(noise, timestep, sample, generator=generator, return_dict=False)[0]
        found.append(sample.clone())
    return found


def pair(kind: scheduling.StepKind, steps: int | None = None) -> tuple[Any, Any]:
    """Return diffusers' own scheduler and a changed one, both at the beginning of ``steps``."""
    plain, changed = make(FAMILY[0]), make(FAMILY[0])
    scheduling.apply(changed, kind)
    for scheduler in (plain, changed) if steps else ():
        scheduler.set_timesteps(steps)
    return plain, changed


def first_step(scheduler: Any, **more: Any) -> Any:
    timestep, sample = scheduler.timesteps[0], torch.ones(1, 4, 2, 2)
    scheduler.scale_model_input(sample, timestep)
    return scheduler.step(sample / 3, timestep, sample, **more)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("begin", [0, 2, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_wait_means_the_same_bits(name: str, begin: int | None, dtype: Any) -> None:
    expected = walk(make(name), begin=begin, dtype=dtype)
    changed = make(name)
    assert scheduling.apply(changed, "no-sync") == {"scheduler_no_sync": "on"}
    for _ in range(2):  # the second picture finds its schedule kept
        for mine, other in zip(walk(changed, begin=begin, dtype=dtype), expected, strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_a_fused_step_differs_by_rounding_alone(name: str, spacing: str) -> None:
    expected = walk(make(name, timestep_spacing=spacing))
    changed = make(name, timestep_spacing=spacing)
    said = scheduling.apply(changed, "fused")
    assert said == {"scheduler_no_sync": "on", "scheduler_fused": "on"}
    for mine, other in zip(walk(changed), expected, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-4)


def test_a_fused_step_returns_the_predicted_original_too() -> None:
    expected, own = (first_step(each, return_dict=False)[1] for each in pair("fused", 4))
    assert torch.allclose(own, expected)


def test_a_caller_with_other_habits_gets_the_original_step() -> None:
    expected, own = (
        first_step(each, s_churn=2.0, generator=torch.Generator().manual_seed(1)).prev_sample
        for each in pair("fused", 4)
    )
    assert torch.equal(own, expected)


def test_changing_between_step_counts_and_back_keeps_each_schedule() -> None:
    changed = make(FAMILY[1])
    scheduling.apply(changed, "fused")
    for steps in (4, 7, 4):
        for mine, other in zip(
            walk(changed, steps=steps), walk(make(FAMILY[1]), steps=steps), strict=True
        ):
            assert torch.allclose(mine, other, rtol=1e-5, atol=1e-4)


def test_a_schedule_of_the_callers_own_is_not_kept() -> None:
    plain, changed = pair("no-sync", 4)
    for scheduler in (plain, changed):
        scheduler.set_timesteps(sigmas=[10.0, 5.0, 1.0, 0.0])
    assert torch.equal(changed.timesteps, plain.timesteps)
    assert len(changed.timesteps) == 3
    changed.set_timesteps(4)
    assert len(changed.timesteps) == 4


def test_a_place_is_found_without_searching_and_a_stranger_is_searched() -> None:
    plain, changed = pair("no-sync", 5)
    for view, value in zip(changed.timesteps[1:], plain.timesteps[1:], strict=True):
        assert changed.index_for_timestep(view) == plain.index_for_timestep(value)
    assert changed.index_for_timestep(changed.timesteps[3].clone()) == 3
    with pytest.raises(IndexError):
        changed.index_for_timestep(torch.tensor(-5.0))


def test_doubled_timesteps_begin_at_the_second_as_diffusers_does() -> None:
    plain, changed = pair("no-sync", 3)
    for scheduler in (plain, changed):
        scheduler.timesteps = torch.tensor([9.0, 5.0, 5.0, 1.0])
    assert changed.index_for_timestep(changed.timesteps[1]) == 2
    assert plain.index_for_timestep(plain.timesteps[1]) == 2


def test_others_are_left_as_they_are_and_that_is_said() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler()
    before = dict(vars(scheduler))
    said = scheduling.apply(scheduler, "fused")
    assert set(said) == {"scheduler_no_sync", "scheduler_fused"}
    assert all("DDIMScheduler" in why for why in said.values())
    assert {k: id(v) for k, v in vars(scheduler).items()} == {k: id(v) for k, v in before.items()}
    assert scheduling.apply(scheduler, "as-is") == {}


def test_another_prediction_is_not_fused() -> None:
    scheduler = make(FAMILY[0], prediction_type="v_prediction")
    said = scheduling.apply(scheduler, "fused")
    assert said["scheduler_no_sync"] == "on"
    assert "v_prediction" in said["scheduler_fused"]
    for mine, other in zip(
        walk(scheduler), walk(make(FAMILY[0], prediction_type="v_prediction")), strict=True
    ):
        assert torch.equal(mine, other)


def test_drawing_gives_diffusers_own_numbers() -> None:
    from diffusers.utils.torch_utils import randn_tensor

    def seeded() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    shape = (2, 4, 3, 3)
    mine = scheduling.upload_noise(shape, generator=seeded(), device=torch.device("cpu"))
    assert torch.equal(mine, randn_tensor(shape, generator=seeded(), device=torch.device("cpu")))
