"""A pass and a task of another package: a folder each, and one line that registers it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench import plugins
from bench.config import ConfigError, make_plan, parse_config
from bench.config.schema import json_schema
from tests.config.support import plan_matrix, workload

PASS = """
from bench.config.keys import PassKey, Strict, key
from bench.config.values import Duration

class IdleSettings(Strict):
    time: Duration = key(5.0, "how long nothing runs", alias="time_s", unit="s")

class IdlePower(PassKey):
    kind = IdleSettings | None
    declared = key(None, "power while nothing runs")

    def value(self, written, workload, task):
        return None if written is None else written.model_dump(by_alias=True)

    def selected(self, value):
        return value is not None

    def seconds(self, value, work):
        return value["time_s"]

KEY = IdlePower()
"""
TASK = """
from typing import Literal
from bench.config.keys import REQUIRED, Traits, Workload, key

class Keys(Workload):
    traits = Traits(leaves_out={"strength": "", "image_guidance": "", "input_image": ""})
    task: Literal["inpaint"]
    mask: str = key(REQUIRED, "what to paint")
    feather: int = key(4, "width of the mask's border", ge=0, le=64)
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two folders of another package, registered under the groups of entry points."""
    for folder, text in (("idle_power", PASS), ("inpaint", TASK)):
        (tmp_path / "elsewhere" / folder).mkdir(parents=True)
        (tmp_path / "elsewhere" / folder / "keys.py").write_text(text)
    entries = {
        "bench.passes": {"idle-power": "elsewhere.idle_power"},
        "bench.tasks": {"inpaint": "elsewhere.inpaint"},
    }
    monkeypatch.setattr(plugins, "_entries", lambda group: entries.get(group, {}))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("elsewhere")]:
        del sys.modules[name]


def ids(*plans: Any) -> list[list[str]]:
    return [[cell["cell_id"] for cell in plan.cells] for plan in plans]


def test_a_pass_that_nobody_asks_for_changes_no_cell() -> None:
    plan = plan_matrix({})
    assert plan.cells[0]["cell_id"] == "6ce1221405607fdd"
    assert "idle-power" not in plan.cells[0]


def test_a_pass_brings_its_key_to_cells_identity_axes_and_estimates() -> None:
    off, on, other = (
        plan_matrix({}, **top) for top in ({}, {"idle-power": {}}, {"idle-power": {"time": "1m"}})
    )
    assert [plan.cells[0].get("idle-power") for plan in (off, on, other)] == [
        None, {"time_s": 5.0}, {"time_s": 60.0},
    ]  # fmt: skip
    assert len({each for listed in ids(off, on, other) for each in listed}) == 3
    assert other.estimated_seconds > on.estimated_seconds > off.estimated_seconds
    axis = plan_matrix({"idle-power": [None, {"time": 3}]}, ["idle-power=true"])
    assert [cell["idle-power"] for cell in axis.cells] == [{"time_s": 3.0}]


def test_its_mistakes_are_named_like_any_other() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'tme' in idle-power. Did you mean 'time'"):
        plan_matrix({}, **{"idle-power": {"tme": 1}})
    with pytest.raises(ConfigError, match=r"'idle-power' must be a mapping, not 7"):
        plan_matrix({}, **{"idle-power": 7})
    with pytest.raises(ConfigError, match="Did you mean 'idle-power' at the top level"):
        plan_matrix({}, defaults={"idle-powr": {}})


def test_a_task_brings_its_keys() -> None:
    given = workload(task="inpaint", mask="left", model="hub:o/n")
    plan = plan_matrix({"workload": [given], "feather": [4, 8]})
    assert [cell["workload"].get("feather") for cell in plan.cells] == [None, 8]
    assert [cell["name"] for cell in plan.cells] == ["t2i/feather=4/none", "t2i/feather=8/none"]
    for change, message in (
        ({"mask": None}, "workload 't2i' needs the key 'mask'"),
        ({"strength": 0.5}, "it belongs to image-to-image and chain"),
        ({"task": "edit", "model": "embedded:pix2pix"}, "it belongs to inpaint"),
        ({"feather": 65}, "'feather' must be at most 64"),
        ({"task": "inpant"}, "Did you mean 'inpaint'?"),
    ):  # fmt: skip
        changed = {key: value for key, value in {**given, **change}.items() if value is not None}
        with pytest.raises(ConfigError, match=message):
            make_plan(parse_config({"matrix": {"workload": [changed]}}))


def test_the_schema_knows_both() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    entry = workload(task="inpaint", mask="left")
    good = {"idle-power": {"time": "1m"}, "matrix": {"workload": [entry], "feather": [1]}}
    assert list(validator.iter_errors(good)) == []
    for bad in (
        {**good, "idle-power": {"time": "soon"}},
        {**good, "matrix": {"feather": [65]}},
        {"matrix": {"workload": [workload(mask="left")]}},
    ):
        assert list(validator.iter_errors(bad))
