"""The ``sweep`` of a configuration: where it may stand, what it becomes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.config import ConfigError, make_plan, parse_config
from bench.contract import Cell
from tests.config.support import BASE, plan_of, workload

SWEEP = {"steps": [5, 10, 20, 30, 50], "size": [128, "192x64"]}
BOTH = [workload(), workload(name="i2i", task="image-to-image", strength=0.5)]


def cells_of(matrix: dict[str, Any] | None = None, **top: Any) -> dict[str, Cell]:
    plan = make_plan(parse_config({"matrix": {"workload": BOTH, **(matrix or {})}, **top}))
    return {cell["name"]: cell for cell in plan.cells}


def test_the_top_level_applies_to_every_cell() -> None:
    cells = cells_of(sweep=SWEEP)
    assert len(cells) == 2
    for cell in cells.values():
        assert cell["sweep"] == {
            "steps": [5, 10, 20, 30, 50],
            "size": [{"height": 128, "width": 128}, {"height": 64, "width": 192}],
            "repeats": 3,
        }


def test_without_one_there_is_none() -> None:
    assert all(cell["sweep"] is None for cell in cells_of().values())


def test_a_workload_changes_it_key_by_key_and_include_after_it() -> None:
    cells = cells_of(
        {
            "workload": [BOTH[0], BOTH[1] | {"sweep": {"size": None, "repeats": 5}}],
            "backend": ["none", "torch-compile"],
            "include": [{"workload": "i2i", "backend": "none", "sweep": {"steps": [10, 20, 40]}}],
        },
        sweep=SWEEP,
    )
    points = {
        name: (cell["sweep"]["steps"], len(cell["sweep"]["size"]), cell["sweep"]["repeats"])
        for name, cell in cells.items()
        if cell["sweep"] is not None
    }
    every = SWEEP["steps"]
    assert points == {
        "t2i/none": (every, 2, 3),
        "t2i/torch-compile": (every, 2, 3),
        "i2i/none": ([10, 20, 40], 0, 5),
        "i2i/torch-compile": (every, 0, 5),
    }


def test_null_takes_it_away_and_a_nearer_one_starts_anew() -> None:
    cells = cells_of(
        {
            "workload": [BOTH[0], BOTH[1] | {"sweep": None}],
            "backend": ["none", "torch-compile"],
            "include": [{"workload": "i2i", "backend": "none", "sweep": {"size": [64]}}],
        },
        sweep=SWEEP,
    )
    assert cells["i2i/torch-compile"]["sweep"] is None
    assert cells["i2i/none"]["sweep"] == {
        "steps": [],
        "size": [{"height": 64, "width": 64}],
        "repeats": 3,
    }


def test_a_cell_without_a_sweep_keeps_the_identity_it_had() -> None:
    bare = {name: cell["cell_id"] for name, cell in cells_of().items()}
    off = {name: cell["cell_id"] for name, cell in cells_of(sweep=None).items()}
    swept = {name: cell["cell_id"] for name, cell in cells_of(sweep=SWEEP).items()}
    more = {name: c["cell_id"] for name, c in cells_of(sweep=SWEEP | {"repeats": 4}).items()}
    assert bare == off
    assert len({*bare.values(), *swept.values(), *more.values()}) == 6


def test_the_estimate_grows_by_the_sweep(tmp_path: Path) -> None:
    seconds = [
        plan_of(BASE, tmp_path, overrides).estimated_seconds
        for overrides in (
            [],
            ["sweep.steps=[5, 10, 20]"],
            ["sweep.steps=[5, 10, 20]", "sweep.repeats=6"],
            ["sweep.size=[128]"],
            ["sweep.size=[128, 256]"],
        )
    ]
    assert seconds[0] < seconds[1] < seconds[2]
    assert seconds[0] < seconds[3] < seconds[4]


STRENGTH = ["matrix.workload.t2i.task=image-to-image", "matrix.workload.t2i.strength=0.3"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.steps=[5, 10]"], "sweep: steps needs from 3 to 100 different values, not 2"),
        (["sweep.steps=[]"], "sweep: steps needs from 3 to 100 different values, not 0"),
        (
            ["sweep.steps=[5, 10, 5]"],
            "sweep: steps has 5 twice; 'repeats' says how often each is measured",
        ),
        (["sweep.steps=[0, 5, 10]"], "sweep.steps: its value must be at least 1, not 0"),
        (["sweep.steps=20"], "sweep: 'steps' must be a list, such as [20], not 20"),
        (["sweep.steps=[5, 10, 2.5]"], "sweep.steps: its value must be a whole number, not 2.5"),
        (
            ["sweep.size=[100]"],
            "sweep.size: size 100 is no multiple of 8; the nearest are 96 or 104",
        ),
        (["sweep.size=[64, 64x64]"], "sweep: size has 64x64 twice"),
        (["sweep.repeats=3"], "workload 't2i': a sweep needs 'steps' or 'size'; for none, write"),
        (["sweep.size=[64]", "sweep.repeats=0"], "sweep: 'repeats' must be at least 1, not 0"),
        (["sweep.stesp=[5, 10, 20]"], "unknown key 'stesp' in sweep. Did you mean 'steps'?"),
        (
            [*STRENGTH, "sweep.steps=[3, 10, 20]"],
            "workload 't2i': sweep: strength 0.3 x 3 steps leaves 0.9, less than one step",
        ),
        (
            [*STRENGTH, "sweep.steps=[4, 5, 10]"],
            "strength 0.3 leaves of these steps only 1 and 3; a line needs 3 different",
        ),
        (
            ["defaults.sweep={steps: [5, 10, 20]}"],
            "unknown key 'sweep' in defaults. Did you mean 'sweep' at the top level?",
        ),
        (
            ["matrix.workload.t2i.sweep={stesp: [5]}"],
            "unknown key 'stesp' in sweep of workload 't2i'. Did you mean 'steps'?",
        ),
        (
            ["matrix.include=[{sweep: {sizes: [64]}}]"],
            "unknown key 'sizes' in sweep of include entry 1. Did you mean 'size'?",
        ),
        (["matrix.exclude=[{sweep: {size: [64]}}]"], "exclude: 'sweep' is no axis of this matrix"),
    ],
)
def test_what_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(BASE, tmp_path, overrides)
    assert message in str(caught.value)


def test_how_strength_rounds_is_the_models_class(tmp_path: Path) -> None:
    def plan(class_name: str, steps: int, sweep: list[int]) -> Any:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model/model_index.json").write_text(json.dumps({"_class_name": class_name}))
        model = f"path:{tmp_path / 'model'}"
        one = workload(model=model, task="image-to-image", strength=0.3, steps=steps)
        return cells_of({"workload": [one]}, sweep={"steps": sweep})

    assert plan("FluxPipeline", 3, [1, 4, 11])
    with pytest.raises(ConfigError, match="only 2 and 3; a line needs 3"):
        plan("FluxPipeline", 3, [4, 7, 10])
    with pytest.raises(ConfigError, match="less than one step"):
        plan("StableDiffusionPipeline", 3, [4, 7, 11])
    assert plan("StrangePipeline", 3, [4, 7, 10]), "what is not known is not refused"
    assert plan("LatentConsistencyModelPipeline", 1, [1, 2, 3])
