"""Task folder, drawn seeds and iterations in a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.config import ConfigError, Plan, make_plan, parse_config
from tests.config.support import ROOT, plan_matrix, workload

EDIT, REDRAW = "embedded:pix2pix", "embedded:sdxl"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for n in range(12):
        (tmp_path / f"{n:02d}.png").write_bytes(bytes([n]))
    return tmp_path


def planned(place: Path, **changes: Any) -> Plan:
    fields = {"name": "f", "task": "folder", "pictures": str(place), **changes}
    return plan_matrix({"workload": [workload(**fields)]})


def refused(place: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        planned(place, **changes)
    return str(error.value)


def test_a_folder_is_one_cell_with_its_pictures_hash(pictures: Path) -> None:
    plan = planned(pictures)
    (cell,) = plan.cells
    made = cell["workload"]
    assert (made["how"], made["strength"], cell["calls_planned"]) == ("image-to-image", 0.8, 12)
    assert not {"resize", "enlarge", "draw_seed", "iterations", "prompts"} & made.keys()
    assert cell["inputs"]["pictures"]["path"] == str(pictures)
    (pictures / "11.png").write_bytes(b"another")
    assert planned(pictures).cells[0]["cell_id"] != cell["cell_id"]
    assert len(plan.draws[0]["pictures"]) == 12
    assert plan.draws[0]["cells"] == [cell["cell_id"]]


def test_defaults_that_are_written_change_no_cell(pictures: Path) -> None:
    written = planned(pictures, resize="fit", enlarge=False, draw_seed=0, iterations=1)
    assert written.cells[0]["cell_id"] == planned(pictures).cells[0]["cell_id"]
    changed = planned(pictures, resize="pad", enlarge=True)
    assert changed.cells[0]["cell_id"] != planned(pictures).cells[0]["cell_id"]


def test_each_model_is_a_cell_and_together_they_have_every_picture(pictures: Path) -> None:
    plan = planned(pictures, model=None, models=[REDRAW, EDIT], strength=0.5)
    hows = {each["workload"]["model"]: each["workload"] for each in plan.cells}
    assert (hows[REDRAW]["how"], hows[REDRAW]["strength"]) == ("image-to-image", 0.5)
    assert (hows[EDIT]["how"], hows[EDIT]["strength"]) == ("edit", None)
    assert sum(each["calls_planned"] for each in plan.cells) == 12
    (draw,) = plan.draws
    assert set(draw["cells"]) == {each["cell_id"] for each in plan.cells}
    for each in plan.cells:
        drawn = [d for d in draw["pictures"] if d["model"] == each["workload"]["model"]]
        assert len(drawn) == each["calls_planned"]


def test_a_model_that_no_picture_is_drawn_has_no_cell(tmp_path: Path) -> None:
    (tmp_path / "only.png").write_bytes(b"x")
    plan = planned(tmp_path, model=None, models=[REDRAW, EDIT])
    assert len(plan.cells) == 1
    assert any("no image was drawn" in note for note in plan.notes)


def test_the_plan_keeps_the_draw(pictures: Path) -> None:
    plan = planned(pictures, prompt=None, prompts=["make it night", "make it sunset"])
    read = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert list(read.draws) == list(plan.draws)
    assert {each["prompt"] for each in read.draws[0]["pictures"]} == {
        "make it night",
        "make it sunset",
    }
    assert plan.cells[0]["workload"]["prompt"] == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pictures": None}, "needs the key 'pictures'"),
        ({"prompt": None}, "needs the key 'prompt'"),
        ({"prompts": ["a"]}, "'prompts' and 'prompt' are both given"),
        ({"models": [REDRAW]}, "'models' and 'model' are both given"),
        ({"prompt": None, "prompts": ["a", "a"]}, "'a' twice"),
        ({"batch": 2}, "'batch' must be 1 in task folder"),
        ({"iterations": 2}, "'iterations' must be 1 in task folder"),
        ({"model": EDIT, "strength": 0.5}, "'strength' 0.5 means nothing here"),
        ({"image_guidance": 2.0}, "'image_guidance' 2.0 means nothing here"),
        ({"input_image": "x.png"}, "means nothing for folder"),
        ({"how": "edit"}, "does text-to-image and image-to-image and chain, not edit"),
        ({"sweep": {"steps": [2, 4, 8]}}, "'sweep' needs equal calls"),
        ({"seed": 2**32 - 5}, "the last of 12 images would have the seed"),
        ({"strength": 0.05}, "less than one step"),
    ],
)
def test_what_cannot_be_is_refused(pictures: Path, changes: Any, said: str) -> None:
    assert said in refused(pictures, **changes)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    assert "holds no image" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "gone")


def test_keys_of_folders_belong_to_folders() -> None:
    with pytest.raises(ConfigError, match=r"'resize' 'pad' means nothing .* it belongs to folder"):
        plan_matrix({"workload": [workload(resize="pad")]})


def test_a_folder_that_takes_longer_than_its_limit_is_said(pictures: Path) -> None:
    entry = workload(name="f", task="folder", pictures=str(pictures), steps=1000)
    plan = plan_matrix({"workload": [entry]}, limits={"timeout": "1s"})
    assert any("12 images may take" in note for note in plan.notes)


def test_a_random_seed_is_drawn_kept_and_said() -> None:
    matrix = {"workload": [workload(seed="random"), workload(name="other", seed="random")]}
    config = parse_config({"matrix": matrix})
    one, other = make_plan(config), make_plan(config)
    assert len(one.seeds_drawn) == 2
    assert one.seeds_drawn != other.seeds_drawn
    assert [c["workload"]["seed"] for c in one.cells] == list(one.seeds_drawn.values())
    assert [c["cell_id"] for c in one.cells] != [c["cell_id"] for c in other.cells]
    again = make_plan(config, one.to_json()["seeds_drawn"])
    assert [c["cell_id"] for c in again.cells] == [c["cell_id"] for c in one.cells]
    for place, seed in one.seeds_drawn.items():
        assert f"{place}: drew {seed}; 'seed: {seed}' makes the same images again" in one.notes


def test_cells_that_share_a_seed_share_the_draw() -> None:
    plan = plan_matrix({"steps": [2, 4]}, defaults={"seed": "random"})
    assert len({cell["workload"]["seed"] for cell in plan.cells}) == 1


@pytest.mark.parametrize(
    ("seed", "said"),
    [
        (-1, "at least 0"),
        (2**32, "at most 4294967295"),
        (True, "or 'random', not true"),
        ("Random", "or 'random', not 'Random'"),
        (1.5, "or 'random', not 1.5"),
    ],
)
def test_seeds_are_whole_numbers_or_random(seed: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_matrix({"workload": [workload(seed=seed)]})


def test_the_shipped_configuration() -> None:
    from bench.config import load_config

    plan = make_plan(load_config(ROOT / "configs" / "folder.yaml"))
    assert {cell["workload"]["task"] for cell in plan.cells} == {"folder"}
    assert sum(c["calls_planned"] for c in plan.cells if "models" in c["workload"]) == 7
    assert plan.estimated_seconds < 180
