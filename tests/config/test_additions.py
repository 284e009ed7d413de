"""LoRA, ControlNet and custom pipelines in a configuration: what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.config.errors import ConfigError
from tests.config.support import ROOT, plan_matrix, workload


def cells(**changes: Any) -> Any:
    return plan_matrix({"workload": [workload(**changes)]}).cells


def test_a_cell_without_additions_is_the_cell_that_it_was() -> None:
    plain = cells()[0]
    same = cells(lora=None, controlnet=None, custom_pipeline=None)[0]
    assert same["cell_id"] == plain["cell_id"]
    assert not {"lora", "lora_scale", "controlnet", "control_image", "custom_pipeline"} & set(
        plain["workload"]
    )


def test_a_lora_is_written_short_or_long() -> None:
    short = cells(lora="embedded:sepia")[0]
    long = cells(lora={"path": "embedded:sepia", "scale": 1, "fused": True})[0]
    assert short["cell_id"] == long["cell_id"]
    assert short["workload"]["lora"] == "embedded:sepia"
    assert "lora_scale" not in short["workload"]
    ids = {
        cells(lora=lora)[0]["cell_id"]
        for lora in (
            None,
            "embedded:sepia",
            {"path": "embedded:sepia", "scale": 0.5},
            {"path": "embedded:sepia", "fused": False},
        )
    }
    assert len(ids) == 4


def test_additions_are_axes_that_name_their_cells() -> None:
    plan = plan_matrix(
        {
            "workload": [workload(controlnet="embedded:edges")],
            "lora": [None, "embedded:sepia", {"path": "embedded:sepia", "fused": False}],
            "control_scale": [0.5, 1.0],
        }
    )
    names = [cell["name"] for cell in plan.cells]
    assert len(set(names)) == 6
    assert "t2i/lora=embedded-sepia-fused/control_scale=0.5/none" in names
    assert "t2i/lora=none/control_scale=1/none" in names


def test_what_a_file_holds_makes_the_cell(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    one.write_bytes(b"a")
    other.write_bytes(b"a")
    ids = [cells(lora=str(each))[0]["cell_id"] for each in (one, other)]
    assert ids[0] == ids[1]
    other.write_bytes(b"b")
    assert cells(lora=str(other))[0]["cell_id"] != ids[0]
    scaled = cells(lora={"path": str(one), "scale": 0.5})[0]
    assert scaled["cell_id"] != ids[0]
    assert scaled["inputs"]["lora"]["path"] == str(one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": "a.bin"}, "is a pickle"),
        ({"lora": "a.PT"}, "is a pickle"),
        ({"lora": "ORG/NAME"}, "Did you mean 'hub:ORG/NAME'?"),
        ({"lora": "hub:ORG/NAME/x.bin"}, "is a pickle"),
        ({"lora": "hub:ORG"}, "must be hub:ORG/NAME"),
        ({"lora": "embedded:sepa"}, "Did you mean 'sepia'?"),
        ({"lora": {"path": "embedded:sepia", "strength": 1}}, "unknown key 'strength' in lora"),
        ({"lora": {"path": "embedded:sepia", "scale": 0}}, "changes nothing"),
        ({"lora": {"path": "embedded:sepia", "scale": True}}, "must be a number"),
        ({"lora": {"scale": 1}}, "lora needs 'path'"),
        ({"lora": 7}, "lora must be"),
        ({"lora": "none-such.safetensors"}, "does not exist"),
        ({"controlnet": "edges"}, "Did you mean 'embedded:edges'?"),
        ({"controlnet": "ORG/NAME"}, "Did you mean 'hub:ORG/NAME'?"),
        ({"controlnet": "embedded:edge"}, "Did you mean 'edges'?"),
        ({"controlnet": "path:none-such"}, "ControlNet folder 'none-such'"),
        ({"control_image": "drawn:ellipse"}, "means nothing without a 'controlnet'"),
        ({"control_scale": 2}, "means nothing without a 'controlnet'"),
        ({"controlnet": "embedded:edges", "control_image": "drawn:edge"}, "drawn:edges"),
        ({"controlnet": "embedded:edges", "control_image": "no.png"}, "control image 'no.png'"),
        ({"controlnet": "embedded:edges", "control_scale": -1}, "must be from 0 to 100"),
        (
            {"controlnet": "embedded:edges", "model": "embedded:pix2pix", "task": "edit"},
            "not edit",
        ),
        ({"lora": "embedded:sepia", "model": "synthetic:sdxl-small"}, "made for embedded:sdxl"),
        ({"extra": {"control_image": 1}}, "use the field 'control_image'"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(changes: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cells(**changes)
    assert said in str(caught.value)


def test_own_code_is_refused_before_anything_loads(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("raise SystemExit('was run')")
    for given in (tmp_path, tmp_path / "pipeline.py"):
        with pytest.raises(ConfigError, match="is Python code, which is not run"):
            cells(custom_pipeline=str(given))
    allowed = plan_matrix(
        {"workload": [workload(custom_pipeline=str(tmp_path))]}, allow_remote_code=True
    )
    assert allowed.cells[0]["inputs"]["custom_pipeline"]["path"] == str(tmp_path)


def test_the_shipped_configuration_has_every_option() -> None:
    from bench.config import load_config, make_plan

    plan = make_plan(load_config(ROOT / "configs" / "onediff-options.yaml"))
    made = [dict(cell["workload"]) for cell in plan.cells]
    assert {each.get("lora_fused", True) for each in made if "lora" in each} == {True, False}
    assert {each["task"] for each in made if "controlnet" in each} == {
        "text-to-image",
        "image-to-image",
    }
    assert {cell["backend"]["name"] for cell in plan.cells} == {"none", "deepcache"}
    assert any((cell["sweep"] or {}).get("size") for cell in plan.cells)
