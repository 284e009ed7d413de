from __future__ import annotations

from typing import Any

import pytest

from bench.config import ConfigError, estimate, load_config, make_plan, parse_config
from tests.config.support import ROOT


def plan(axes: Any = None, **workload: Any) -> Any:
    made = {"name": "c", "task": "chain", "model": "embedded:sdxl", "prompt": "p", **workload}
    return make_plan(parse_config({"matrix": {"workload": [made], **(axes or {})}}))


def test_defaults_are_the_published_chain() -> None:
    (cell,) = plan().cells
    made = cell["workload"]
    assert (made["samples"], made["max_batch"], made["start_from"]) == (9, 3, "first")
    assert (made["strength"], made["batch"]) == (0.75, 3)


def test_other_tasks_know_nothing_of_chains() -> None:
    (cell,) = plan(task="text-to-image").cells
    assert not {"samples", "max_batch", "start_from"} & cell["workload"].keys()


def test_every_key_is_an_axis() -> None:
    axes = {
        "samples": [4, 9],
        "max_batch": [1, 3],
        "start_from": ["first", "previous"],
        "strength": [0.5, 1.0],
        "steps": [10, 20],
    }
    assert plan(axes).count == 32


def test_a_round_is_never_larger_than_the_chain() -> None:
    (cell,) = plan(samples=2, max_batch=8).cells
    assert (cell["workload"]["max_batch"], cell["workload"]["batch"]) == (2, 2)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"batch": 2}, "'max_batch' is the number of images of a round"),
        ({"task": "text-to-image", "samples": 4}, "it belongs to chain"),
        ({"task": "image-to-image", "start_from": "first"}, "it belongs to chain"),
        ({"input_image": "a.png"}, "means nothing for chain"),
        ({"model": "embedded:pix2pix"}, "Did you mean 'embedded:sdxl'"),
        ({"steps": 2, "strength": 0.25}, "less than one step"),
        ({"samples": 0}, "at least 1"),
        ({"start_from": "last"}, "There are: first, previous"),
    ],
)
def test_what_makes_no_sense_is_refused(workload: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(**workload)
    assert said in str(error.value)


def test_a_preset_of_one_picture_is_no_batch() -> None:
    (cell,) = plan(preset="onediff").cells
    assert cell["workload"]["batch"] == 3


def test_an_estimate_knows_every_round() -> None:
    def seconds(**workload: Any) -> float:
        (cell,) = plan(**workload).cells
        return estimate.worker_seconds({**cell, "device": "cpu"})

    one = seconds(samples=3)
    assert seconds(samples=9) > seconds(samples=6) > one
    assert seconds(samples=9, strength=1.0) > seconds(samples=9, strength=0.5)
    assert seconds(samples=3, strength=1.0) == seconds(samples=3, strength=0.5)


def test_the_configuration_that_ships_sweeps_what_the_page_says() -> None:
    found = make_plan(load_config(ROOT / "configs" / "chain.yaml"))
    made = [cell["workload"] for cell in found.cells]
    assert {each["task"] for each in made} == {"chain"}
    for key in ("steps", "strength", "start_from", "max_batch", "height", "scheduler", "prompt"):
        assert len({each.get(key) for each in made}) > 1, key
    assert found.estimated_seconds < 240
