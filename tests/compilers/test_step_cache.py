"""Reused deep features: less work at most steps, nothing stale at the first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compilers.base import UnsupportedPipelineError
from compilers.step_cache import DeepFeatures
from tests.worker import tiny


class Scheduler:
    def set_timesteps(self, steps: int) -> int:
        return steps


@pytest.fixture(params=["sdxl", "sd15"])
def unet(request: pytest.FixtureRequest) -> Any:
    from diffusers import UNet2DConditionModel

    folder = tiny.shared(request.param)
    model = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    # Three levels, so that there is a block between the outermost and the middle.
    config = dict(model.config)
    config.update(
        block_out_channels=(16, 16, 32),
        down_block_types=(config["down_block_types"][0], *config["down_block_types"]),
        up_block_types=(*config["up_block_types"], config["up_block_types"][-1]),
        attention_head_dim=4,
        transformer_layers_per_block=1,
    )
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(config).eval()


def call(unet: Any, sample: Any, features: DeepFeatures | None = None) -> Any:
    if features is not None:
        features.begin_call(sample)
    batch = sample.shape[0]
    size = unet.config.cross_attention_dim
    more = {}
    if unet.config.addition_embed_type:
        more["added_cond_kwargs"] = {
            "text_embeds": torch.zeros(batch, 32), "time_ids": torch.zeros(batch, 6)
        }  # fmt: skip
    with torch.no_grad():
        return unet(sample, torch.tensor(5.0), torch.ones(batch, 4, size), **more).sample


def count(block: Any) -> list[int]:
    calls: list[int] = []
    block.resnets[0].register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_step_that_computes_gives_the_same_and_one_that_reuses_works_less(unet: Any) -> None:
    torch.manual_seed(1)
    first, second = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    expected = [call(unet, sample) for sample in (first, second)]
    scheduler = Scheduler()
    features = DeepFeatures(unet, scheduler, 2)
    scheduler.set_timesteps(2)
    deep, outer = count(unet.down_blocks[1]), count(unet.up_blocks[-1])
    assert torch.equal(call(unet, first, features), expected[0])
    reused = call(unet, second, features)
    assert (len(deep), len(outer)) == (1, 2)
    assert not torch.equal(reused, expected[1]), "the second step reuses"
    assert torch.equal(call(unet, first, features), expected[0]), "the third computes again"


def test_the_same_input_reuses_to_the_same_result(unet: Any) -> None:
    sample = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = call(unet, sample)
    features = DeepFeatures(unet, Scheduler(), 3)
    for _ in range(4):
        assert torch.allclose(call(unet, sample, features), expected, atol=1e-6)


def test_every_picture_begins_with_a_step_that_computes(unet: Any) -> None:
    scheduler = Scheduler()
    features = DeepFeatures(unet, scheduler, 3)
    sample, other = torch.ones(2, 4, 16, 16), torch.zeros(1, 4, 8, 8)
    seen = []
    for picture in (sample, other, sample):
        assert scheduler.set_timesteps(4) == 4
        for _ in range(2):
            call(unet, picture, features)
            seen.append(features.reusing)
    assert seen == [False, True] * 3


def test_sizes_do_not_share_features(unet: Any) -> None:
    """Features are found by the size of this call, also where a replay ran without this code."""
    scheduler = Scheduler()
    features = DeepFeatures(unet, scheduler, 2)
    large, small = torch.ones(2, 4, 16, 16), torch.ones(2, 4, 8, 8)
    for sample in (large, small):
        scheduler.set_timesteps(1)
        call(unet, sample, features)
    features.begin_call(large)
    features._calls = 1
    assert call(unet, large, features).shape == large.shape


def test_a_denoiser_without_deep_blocks_is_refused() -> None:
    with pytest.raises(UnsupportedPipelineError, match="Linear has none"):
        DeepFeatures(torch.nn.Linear(2, 2), Scheduler(), 3)
