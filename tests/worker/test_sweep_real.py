"""A sweep on real diffusers pipelines, tiny and with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.passes.sweep.judge import size_sweep, step_sweep
from tests import plugin_backend
from tests.cli.records import typed_of
from tests.plugin_backend.plugin_backend import limits
from tests.worker import fakes, tiny

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def swept(root: Path, kind: str, sweep: dict[str, Any], **job: Any) -> fakes.Told:
    import torch

    threads = torch.get_num_threads()
    model = tiny.build(kind, root / kind)
    made = fakes.make_job(root, model=f"path:{model}", warmup={"stable_pct": 1000.0}, **job)
    made["cell"]["sweep"] = {"steps": [], "size": [], "repeats": 2} | sweep
    told = fakes.run(made)
    torch.set_num_threads(threads)
    told |= {"cell_id": "c", "round": 0, "sequence": 0}
    told["outcome"] = told.outcome
    return told


def test_image_to_image_over_steps_and_sizes(tmp_path):
    told = swept(
        tmp_path,
        "sdxl",
        {
            "steps": [4, 8, 12],
            # a picture that the pipeline cannot make between two that it can
            "size": [{"height": h, "width": w} for h, w in ((64, 96), (60, 64), (96, 64))],
        },
        task="image-to-image",
        strength=0.5,
    )
    assert (told.outcome, told.reason) == ("ok", None)
    taken = {
        each["steps"]: (each["steps_effective"], each["denoiser_calls"])
        for each in told["sweep_steps"]
    }
    assert taken == {4: (2, 2), 8: (4, 4), 12: (6, 6)}
    assert all(each["e2e_s"] > 0 for each in told["sweep_steps"])
    found = step_sweep([typed_of(told)])
    assert found is not None
    assert found.fit is not None
    assert found.fit.n == 6
    assert found.failures == ()
    wide, odd, high = size_sweep([typed_of(told)])
    assert (wide.output_height, wide.output_width) == (64, 96)
    assert (high.output_height, high.output_width) == (96, 64)
    assert all(len(point.e2e_s[0]) == 2 for point in (wide, high))
    assert (odd.median_s, odd.failures[0].outcome) == (None, "failed")
    assert "60 is no multiple of" in (odd.failures[0].reason or "")


def test_instruct_pix2pix_takes_its_size_from_a_picture_of_each_size(tmp_path):
    told = swept(tmp_path, "sd15-pix2pix", {"size": [{"height": 96, "width": 64}]}, task="edit")
    (entry,) = told["sweep_size"]
    assert (entry["outcome"], entry["reason"]) == ("ok", None)
    assert (entry["output_height"], entry["output_width"]) == (96, 64)
    assert (entry["graphs"], entry["recompiles"], entry["compile_cache"]) == (0, 0, None)


def test_a_compiler_pays_for_new_sizes_until_its_recompile_limit(tmp_path, monkeypatch):
    import torch
    import torch._dynamo

    monkeypatch.syspath_prepend(str(plugin_backend.install(tmp_path / "plugins")))
    torch._dynamo.reset()
    config = torch._dynamo.config
    # each size is a graph of its own: the cell's, one more, and no third
    changes: dict[str, Any] = {limits()[0]: 2}
    if hasattr(config, "automatic_dynamic_shapes"):
        changes["automatic_dynamic_shapes"] = False
    with config.patch(changes):
        told = swept(
            tmp_path,
            "sd15",
            {"size": [{"height": h, "width": 64} for h in (64, 96, 128)], "repeats": 1},
            backend="plugin-good",
        )
    torch._dynamo.reset()
    assert (told.outcome, told.reason) == ("ok", None)
    own, new, eager = told["sweep_size"]
    assert (own["outcome"], own["graphs"], own["recompiles"]) == ("ok", 0, 0)
    assert (new["outcome"], new["graphs"], new["recompiles"]) == ("ok", 1, 1)
    assert eager["outcome"] == "fallback"
    # Older torches give up on the denoiser and go on to compile functions that it calls.
    assert (eager["graphs"] > 0) == (limits()[0] == "cache_size_limit")
    assert "recompile limit" in eager["reason"]
    assert [point.median_s is None for point in size_sweep([typed_of(told)])] == [
        False,
        False,
        True,
    ]
