"""A picture of a batch made again alone, on the embedded models; several batches of one cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.worker import one_by_one
from tests.worker import fakes

pytestmark = pytest.mark.thorough

LOOSE = {"stable_pct": 1000.0, "min_calls": 2, "max_calls": 2}


def made(root: Path, **changes: Any) -> fakes.Told:
    asked = {"warmup": LOOSE, "calls": {"min_calls": 1, "max_calls": 1}, "steps": 2, **changes}
    told = fakes.run(fakes.make_job(root, **asked))
    assert told.outcome == "ok", told.reason
    return told


@pytest.mark.parametrize(
    "what",
    [
        {"model": "embedded:sdxl"},
        {"model": "embedded:sdxl", "task": "image-to-image", "strength": 1.0},
        {"model": "embedded:pix2pix", "task": "edit", "prompt": "make it night"},
    ],
    ids=lambda what: what.get("task", "text-to-image"),
)
def test_a_picture_of_a_batch_is_the_same_alone(tmp_path, what):
    batch = made(tmp_path / "batch", **what, batch=3, one_by_one=True)["images"]
    assert [image["seed"] for image in batch] == [333, 334, 335]
    for image in batch:
        alone = made(tmp_path / str(image["seed"]), **what, seed=image["seed"], one_by_one=True)[
            "images"
        ][0]
        assert alone["sha256"] == image["sha256"]
        assert (tmp_path / str(image["seed"]) / alone["path"]).read_bytes() == (
            tmp_path / "batch" / image["path"]
        ).read_bytes()


def test_iterations_number_all_pictures_of_the_cell(tmp_path):
    small = {"model": "embedded:sdxl", "height": 32, "width": 32, "one_by_one": True}
    several = made(tmp_path / "n", **small, batch=2, iterations=3)
    names = [Path(image["path"]).name for image in several["images"]]
    assert names == [f"seed_{333 + n}_{n:05d}.png" for n in range(6)]
    assert len(several["e2e_s"]) == 3
    whole = made(tmp_path / "1", **small, batch=6)
    assert [i["sha256"] for i in several["images"]] == [i["sha256"] for i in whole["images"]]


def test_every_model_sees_one_picture_at_a_time():
    import torch
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    seen: list[tuple[int, ...]] = []

    class Model(torch.nn.Module):
        def forward(self, x: Any, step: Any, more: Any = None, as_tuple: bool = False) -> Any:
            seen.append((len(x), step.dim(), len(more["text"])))
            result = x * 2 + more["text"]
            return (result, (x,)) if as_tuple else Transformer2DModelOutput(sample=result)

    model = Model()
    pipeline = type("P", (), {"components": {"unet": model, "name": "text", "none": None}})
    assert one_by_one.apply(pipeline) == ["unet"]
    x, text = torch.rand(3, 4), torch.rand(3, 4)
    made_ = model(x, torch.tensor(7), more={"text": text})
    assert torch.equal(made_.sample, x * 2 + text)
    assert seen == [(1, 0, 1)] * 3
    sample, (again,) = model(x, torch.tensor(7), {"text": text}, as_tuple=True)
    assert torch.equal(sample, x * 2 + text)
    assert torch.equal(again, x)
