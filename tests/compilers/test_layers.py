"""Which layers torchao quantises to what, and which steps step caching calls full."""

from __future__ import annotations

from typing import Any

import pytest

from compilers.base import TellsSteps, UnsupportedPipelineError
from compilers.deepcache import DeepCache
from compilers.step_cache import DeepFeatures
from compilers.torchao import TorchaoOptions, kinds_of
from compilers.tuned import TunedCache

LAYERS = ("down.0.attn1.to_q", "down.0.attn1.to_out", "mid.attn1.to_q", "time.linear")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (TorchaoOptions(kind="int8-weights"), dict.fromkeys(LAYERS, "int8-weights")),
        (TorchaoOptions(modules={"mid": "int8"}), {"mid.attn1.to_q": "int8"}),
        (
            TorchaoOptions(modules={"*": "int8", "*to_q": "fp8", "down.0.attn1.to_q": None}),
            {"down.0.attn1.to_out": "int8", "mid.attn1.to_q": "fp8", "time.linear": "int8"},
        ),
        (
            TorchaoOptions(ignores=("down", "time.linear")),
            {"mid.attn1.to_q": "int8"},
        ),
        (TorchaoOptions(modules={"mid": "int8"}, ignores=("*attn1*",)), {}),
    ],
)
def test_the_longest_name_that_fits_counts(options: TorchaoOptions, wanted: Any) -> None:
    assert kinds_of(LAYERS, options) == wanted


@pytest.mark.parametrize(
    "options", [TorchaoOptions(modules={"up": "int8"}), TorchaoOptions(ignores=("dow",))]
)
def test_a_name_that_fits_nothing_is_an_error(options: TorchaoOptions) -> None:
    with pytest.raises(UnsupportedPipelineError, match="fits none of the 4 linear layers"):
        kinds_of(LAYERS, options)


def test_step_caches_tell_their_steps() -> None:
    for backend in (DeepCache(), TunedCache()):
        assert isinstance(backend, TellsSteps)
        assert backend.step_kinds() == []


def test_a_schedule_begins_the_count_anew() -> None:
    import torch

    class Part:
        resnets = ()
        downsamplers = None

        def forward(self, value: Any) -> Any:
            return value

    class Unet:
        down_blocks = (Part(), Part())
        up_blocks = (Part(), Part())
        mid_block = Part()

    class Scheduler:
        def set_timesteps(self) -> None:
            pass

    scheduler: Any = Scheduler()
    features = DeepFeatures(Unet(), scheduler, interval=3)
    sample = torch.zeros(1)
    for _ in range(2):
        scheduler.set_timesteps()
        for _ in range(5):
            features.begin_call(sample)
        assert features.reused == [False, True, True, False, True]
