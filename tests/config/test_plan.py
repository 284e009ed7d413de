from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import contract
from bench.config import ConfigError, Plan, backends, load_config, make_plan, parse_config
from bench.config.catalogue import BUILT_IN_MODELS, PROTOCOLS, RESERVED_CALL_ARGUMENTS
from compilers import registry
from tests.config.support import BASE, ROOT, plan_matrix, plan_of, workload


def names(plan: Plan) -> list[str]:
    return [cell["name"] for cell in plan.cells]


def ids(plan: Plan) -> set[str]:
    return {cell["cell_id"] for cell in plan.cells}


# --------------------------------------------------------------------------- resolved form


def test_the_resolved_form_of_a_minimal_cell() -> None:
    (cell,) = plan_matrix({}).cells
    assert set(cell) == contract.Cell.__required_keys__
    assert set(cell["workload"]) == contract.Workload.__required_keys__
    assert cell["workload"] == {
        "name": "t2i", "task": "text-to-image", "model": "embedded:sdxl", "variant": None,
        "scheduler": None, "steps": 10, "guidance": None, "image_guidance": None, "strength": None,
        "height": 128, "width": 128, "batch": 1, "seed": 333, "prompt": "a red house",
        "negative_prompt": None, "input_image": None, "dtype": "float32", "generator": "cpu",
        "extra": {},
    }  # fmt: skip
    assert cell["backend"] == {"name": "none", "options": {}, "environment": "current"}
    assert cell["protocol"] == PROTOCOLS["standard"]
    assert (cell["device"], cell["threads"], cell["cache"]) == ("auto", 1, "fresh")
    assert cell["limits"] == {"timeout_s": 1800.0, "memory_bytes": None}
    assert cell["allow_remote_code"] is False
    assert cell["schema"] == contract.SCHEMA_VERSION


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "hub:o/some-xl"}, (1024, 1024, "float16")),
        ({"model": "hub:o/dreamer@v1"}, (512, 512, "float16")),
        ({"model": "hub:xl/dreamer"}, (512, 512, "float16")),
        ({"model": "path:models/tinyXL/"}, (1024, 1024, "float32")),
        ({"model": "synthetic:sdxl"}, (1024, 1024, "float16")),
        ({"model": "synthetic:sd15-pix2pix", "task": "edit"}, (512, 512, "float16")),
        ({"size": "768x1024"}, (1024, 768, "float32")),
        ({"size": {"height": 64, "width": 72}}, (64, 72, "float32")),
        ({"width": 256}, (128, 256, "float32")),
        ({"dtype": "bfloat16"}, (128, 128, "bfloat16")),
    ],
)
def test_size_and_dtype_follow_the_model(
    fields: Any, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tinyXL").mkdir(parents=True)
    (cell,) = plan_matrix({"workload": [workload(**fields)]}).cells
    made = cell["workload"]
    assert (made["height"], made["width"], made["dtype"]) == expected


def test_weights_are_float32_where_the_device_is_the_cpu() -> None:
    (cell,) = plan_matrix({"workload": [workload(model="synthetic:sdxl")]}, device="cpu").cells
    assert cell["workload"]["dtype"] == "float32"


def test_strength_has_a_default_for_image_to_image_only() -> None:
    plan = plan_matrix({"workload": [workload(task="image-to-image"), workload(name="b")]})
    assert [cell["workload"]["strength"] for cell in plan.cells] == [0.8, None]


@pytest.mark.parametrize(("steps", "strength", "fine"), [(10, 0.1, True), (9, 0.1, False)])
def test_one_step_has_to_be_left(steps: int, strength: float, fine: bool) -> None:
    entry = workload(task="image-to-image", steps=steps, strength=strength)
    if fine:
        assert plan_matrix({"workload": [entry]}).count == 1
    else:
        with pytest.raises(ConfigError, match="less than one step"):
            plan_matrix({"workload": [entry]})


def test_whatever_is_nearer_wins() -> None:
    plan = plan_matrix(
        {
            "workload": [
                workload(name="a"),
                workload(name="b", preset="onediff", prompt=None),
                workload(name="c", preset="onediff", guidance=4, scheduler="DDIMScheduler"),
            ],
            "include": [{"workload": "c", "guidance": 5}],
        },
        defaults={"scheduler": "none", "guidance": 3, "seed": 1},
    )
    a, b, c = (cell["workload"] for cell in plan.cells)
    assert (a["scheduler"], a["guidance"], a["seed"], a["steps"]) == (None, 3, 1, 10)
    assert b["scheduler"] == "EulerAncestralDiscreteScheduler"
    assert (b["guidance"], b["seed"], b["steps"]) == (3, 333, 30)
    assert b["prompt"] == "best quality, realistic, unreal engine, 4K,a cat sitting on human lap"
    assert (c["scheduler"], c["guidance"], c["prompt"]) == ("DDIMScheduler", 5, "a red house")


def test_protocol_overrides_its_preset() -> None:
    protocol = {"preset": "quick", "calls": {"time_cap": "1m30s", "max_calls": 9}, "rounds": 4}
    (cell,) = plan_matrix({}, protocol=protocol).cells
    assert cell["protocol"]["warmup"] == PROTOCOLS["quick"]["warmup"]
    assert cell["protocol"]["calls"] == {
        **PROTOCOLS["quick"]["calls"], "time_cap_s": 90.0, "max_calls": 9,
    }  # fmt: skip
    assert cell["protocol"]["rounds"] == 4
    assert plan_matrix({}, protocol="quick").cells[0]["protocol"] == PROTOCOLS["quick"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_preset_warms_up_with_a_single_call(name: str) -> None:
    rule = PROTOCOLS[name]["warmup"]
    assert 2 <= rule["stable_calls"] <= rule["max_calls"]
    assert 2 <= rule["min_calls"] <= rule["max_calls"]
    calls = PROTOCOLS[name]["calls"]
    assert 1 < calls["min_calls"] <= calls["max_calls"]


@pytest.mark.parametrize(
    ("key", "written", "held"),
    [
        *(("timeout", text, seconds) for text, seconds in (
            ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5 h", 5400), ("500ms", 0.5), (7, 7),
            (1.5, 1.5),
        )),
        *(("memory", text, count) for text, count in (
            ("8GiB", 8 * 1024**3), ("500MB", 500_000_000), ("1.5 GB", 1_500_000_000), (None, None),
        )),
    ],
)  # fmt: skip
def test_durations_and_amounts_of_memory(key: str, written: Any, held: Any) -> None:
    (cell,) = plan_matrix({}, limits={key: written}).cells
    names = {"timeout": "timeout_s", "memory": "memory_bytes"}
    assert dict(cell["limits"])[names[key]] == held


@pytest.mark.parametrize("written", [0, -1, "0s", "", "10", "1 week", True, [], "1e3s", "40d"])
def test_what_is_no_duration(written: Any) -> None:
    with pytest.raises(ConfigError, match="limits: "):
        plan_matrix({}, limits={"timeout": written})


def test_a_list_of_gpus_is_a_pool_for_cells_on_cuda() -> None:
    plan = plan_matrix({}, device=["cuda:0", "cuda:2"])
    assert plan.devices == ("cuda:0", "cuda:2")
    assert plan.cells[0]["device"] == "cuda"
    assert ids(plan) == ids(plan_matrix({}, device="cuda"))
    assert plan_matrix({}, device="cuda").devices == ()


def test_cells_are_the_same_in_another_process_folder_and_environment(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((ROOT / "configs" / "quickstart.yaml").read_text())
    code = (
        "import json, sys; from bench.config import *;"
        "print(json.dumps(make_plan(load_config(sys.argv[1])).to_json()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "other.yaml"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = make_plan(load_config(ROOT / "configs" / "quickstart.yaml")).to_json()
    assert json.loads(done.stdout) == json.loads(json.dumps(here))


def test_json_there_and_back() -> None:
    plan = plan_matrix({"size": [64, 128]}, device=["cuda:0"])
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    "change", [{"schema": contract.SCHEMA_VERSION + 1}, {"schema": None}, {"cells": None}]
)
def test_json_that_is_no_plan(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="plan"):
        Plan.from_json({**plan_matrix({}).to_json(), **change})


# ------------------------------------------------------------------------------- identity


def test_identity_is_the_hash_of_what_the_contract_names() -> None:
    (cell,) = plan_matrix({"workload": [workload(extra={"b": 1, "a": "ü"})]}).cells
    identity = {
        "backend": cell["backend"],
        "cache": cell["cache"],
        "device": cell["device"],
        "protocol": {key: cell["protocol"][key] for key in ("warmup", "calls")},
        "threads": cell["threads"],
        "workload": {key: value for key, value in cell["workload"].items() if key != "name"},
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    assert cell["cell_id"] == hashlib.sha256(text.encode()).hexdigest()[:16]


RICH: dict[str, Any] = {
    "threads": 2,
    "protocol": {"preset": "quick", "rounds": 2},
    "limits": {"timeout": "10m"},
    "defaults": {"seed": 7, "guidance": 3},
    "matrix": {
        "workload": [
            workload(task="image-to-image", strength=0.5),
            workload(name="edit", task="edit", model="embedded:pix2pix"),
        ],
        "backend": ["none", {"name": "torch-compile", "options": {"mode": "max-autotune"}}],
        "steps": [10, 20],
    },
}


def reordered(value: Any, draw: Any) -> Any:
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: reordered(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [reordered(item, draw) for item in value]
    return value


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_order_of_keys_changes_no_identity(data: Any) -> None:
    assert ids(make_plan(parse_config(reordered(RICH, data.draw)))) == ids(
        make_plan(parse_config(RICH))
    )


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("name=other", False),
        ("limits.timeout=1h", False),
        ("limits.memory=8GiB", False),
        ("protocol.rounds=9", False),
        ("matrix.workload.edit.name=renamed", False),
        ("allow_remote_code=true", False),
        ("defaults.guidance=3.0", False),
        ("defaults.negative_prompt=null", False),
        ("matrix.workload.edit.prompt=make it day", True),
        ("defaults.seed=8", True),
        ("defaults.guidance=3.5", True),
        ("defaults.extra={clip_skip: 1}", True),
        ("device=cpu", True),
        ("threads=1", True),
        ("cache=warm", True),
        ("protocol.warmup.max_calls=5", True),
        ("protocol.calls.min_calls=4", True),
        ("matrix.backend.torch-compile.options.dynamic=false", True),
        ("sweep.size=[128]", True),
        ("sweep.steps=[5, 10, 20]", True),
        ("sweep=null", False),
    ],
)
def test_what_changes_an_identity(override: str, changes: bool) -> None:
    before = ids(make_plan(parse_config(RICH)))
    after = ids(make_plan(parse_config(RICH, [override])))
    assert (before != after) == changes


def test_identity_is_pinned() -> None:
    """A changed hash would make every stored run look changed; do it knowingly."""
    (cell,) = plan_matrix({}).cells
    assert cell["cell_id"] == "6ce1221405607fdd"


# ----------------------------------------------------------------------- names and order


def test_names_say_what_varies() -> None:
    plan = plan_matrix(
        {
            "workload": [workload(), workload(name="i2i", task="image-to-image")],
            "backend": [
                "none",
                {"name": "torch-compile", "options": {"scope": ["unet", "vae.decode"]}},
            ],
            "size": [64, "128x64"],
            "include": [{"workload": "i2i", "guidance": 1.5}],
        }
    )  # fmt: skip
    assert names(plan) == [
        "t2i/64/none",
        "t2i/64/torch-compile[scope=unet+vae.decode]",
        "t2i/128x64/none",
        "t2i/128x64/torch-compile[scope=unet+vae.decode]",
        "i2i/64/none",
        "i2i/64/torch-compile[scope=unet+vae.decode]",
        "i2i/128x64/none",
        "i2i/128x64/torch-compile[scope=unet+vae.decode]",
    ]


def test_names_tell_caches_apart() -> None:
    plan = plan_matrix(
        {"backend": ["none", "torch-compile", {"name": "torch-compile", "cache": "warm"}]}
    )
    assert names(plan) == [
        "t2i/none",
        "t2i/torch-compile/cache=fresh",
        "t2i/torch-compile/cache=warm",
    ]
    assert [cell["cache"] for cell in plan.cells] == ["fresh", "fresh", "warm"]


def test_names_are_unique_even_if_prompts_begin_alike() -> None:
    prompts = [f"{'a very long prompt ' * 5}{n}" for n in range(3)]
    plan = plan_matrix({"prompt": prompts, "workload": [workload(prompt=None)]})
    assert len(set(names(plan))) == 3
    assert all(len(name) < 80 for name in names(plan))


@pytest.mark.parametrize(
    "order", [["workload", "backend", "size"], ["backend", "size", "workload"]]
)
def test_backends_of_a_workload_are_neighbours(order: list[str]) -> None:
    axes = {
        "workload": [workload(), workload(name="b", prompt="x")],
        "backend": ["none", "torch-compile"],
        "size": [64, 128],
    }
    plan = make_plan(parse_config({"matrix": {axis: axes[axis] for axis in order}}))
    for first, second in zip(plan.cells[::2], plan.cells[1::2], strict=True):
        assert first["workload"] == second["workload"]
        assert first["backend"]["name"] == "none"


def test_a_matrix_without_workloads() -> None:
    plan = make_plan(
        parse_config(
            {
                "defaults": {"prompt": "x"},
                "matrix": {
                    "model": ["embedded:sdxl", "hub:o/n"],
                    "task": ["text-to-image", "image-to-image"],
                },
            }
        )
    )
    assert names(plan) == [
        "sdxl/text-to-image/none", "sdxl/image-to-image/none",
        "n/text-to-image/none", "n/image-to-image/none",
    ]  # fmt: skip


# --------------------------------------------------------------------- include, exclude


def test_exclude_by_name_and_by_part() -> None:
    axes = {
        "workload": [workload(), workload(name="e", task="edit", model="embedded:pix2pix")],
        "backend": [
            "none",
            "torch-compile",
            {"name": "torch-compile", "options": {"dynamic": True}},
        ],
        "size": [64, 128],
    }  # fmt: skip
    plan = plan_matrix(
        {
            **axes,
            "exclude": [
                {"workload": {"task": "edit"}, "size": "128x128"},
                {"backend": {"options": {"dynamic": True}}, "workload": "t2i"},
                {"backend": "torch-compile", "size": 64},
            ],
        }
    )
    assert names(plan) == [
        "t2i/64/none", "t2i/128/none", "t2i/128/torch-compile", "e/none",
    ]  # fmt: skip


def test_exclude_matches_a_part_that_comes_from_defaults() -> None:
    plan = plan_matrix(
        {"workload": [workload(), workload(name="b", steps=5)],
         "exclude": [{"workload": {"steps": 7}}]},
        defaults={"steps": 7},
    )  # fmt: skip
    assert names(plan) == ["b/none"]


def test_include_adds_to_what_it_does_not_change() -> None:
    plan = plan_matrix(
        {
            "workload": [workload(), workload(name="b", prompt="y", steps=5)],
            "backend": ["none", "torch-compile"],
            "include": [
                {"backend": "torch-compile", "threads": 4},
                {"workload": "b", "steps": 6},
                {"workload": "b", "backend": "none", "seed": 1},
            ],
        }
    )
    found = {
        (c["workload"]["name"], c["backend"]["name"]):
        (c["threads"], c["workload"]["steps"], c["workload"]["seed"])
        for c in plan.cells
    }  # fmt: skip
    assert found == {
        ("t2i", "none"): (1, 10, 333),
        ("t2i", "torch-compile"): (4, 10, 333),
        ("b", "none"): (1, 6, 1),
        ("b", "torch-compile"): (4, 6, 333),
    }


def test_include_makes_a_cell_of_its_own_where_it_would_change_an_axis() -> None:
    plan = plan_matrix(
        {
            "backend": ["none"],
            "size": [64],
            "include": [
                {"workload": "t2i", "size": 256},
                {"workload": "t2i", "backend": "torch-compile", "size": 64},
                {"workload": workload(name="new", steps=3), "backend": "none"},
            ],
        }
    )
    assert [(n, c["backend"]["name"]) for n, c in zip(names(plan), plan.cells, strict=True)] == [
        ("t2i/64/none", "none"),
        ("t2i/64/torch-compile", "torch-compile"),
        ("t2i/256/none", "none"),
        ("new/none", "none"),
    ]
    assert plan.cells[-1]["workload"]["steps"] == 3


def test_only_include() -> None:
    include = [
        {"workload": workload()},
        {"workload": workload(name="b", seed=1), "backend": "none"},
    ]
    assert names(make_plan(parse_config({"matrix": {"include": include}}))) == [
        "t2i/none",
        "b/none",
    ]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ({"size": [64], "include": [{"size": 72}]}, "needs a workload; add one, such as"),
        ({"include": [{"workload": {"steps": 3}}]}, "a new workload needs a name"),
        ({"include": [{}]}, "include entry is empty"),
        ({"exclude": [{}]}, "exclude entry is empty"),
        ({"exclude": [{"steps": 3}]}, "as part of the workload: 'workload: {steps: …}'"),
        ({"backend": ["torch-compile", {"name": "torch-compile", "cache": "warm"}],
          "size": [64], "include": [{"workload": "t2i", "size": 72, "backend": "torch-compile"}]},
         "2 backends fit this"),
        ({"workload": [workload(), workload(name="b")]}, "differ in nothing but their name"),
        ({"workload": [workload(steps=3)], "steps": [3, 4]}, "'steps' is an axis"),
        ({"workload": [workload(size=64)], "height": [64]}, "'height' is an axis"),
        ({"cache": ["warm"], "backend": [{"name": "none", "cache": "warm"}]}, "'cache' is an axis"),
        ({"size": [64], "width": [64]}, "says again what 'size' says"),
        ({"strength": [0.5]}, "'strength' 0.5 means nothing"),
        ({"workload": [workload(task="image-to-image", strength=0.1)], "steps": [10, 5]},
         "strength 0.1 x 5 steps leaves 0.5"),
    ],
)  # fmt: skip
def test_matrices_that_are_refused(matrix: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_matrix(matrix)
    assert message in str(caught.value)


def test_a_matrix_without_workloads_needs_them_in_defaults_or_axes() -> None:
    with pytest.raises(ConfigError, match="needs the key 'task'"):
        make_plan(parse_config({"matrix": {"backend": ["none"]}}))


def test_a_duplicate_is_shown_where_it_was_written(tmp_path: Path) -> None:
    text = BASE.replace("prompt: a red house", "prompt: a red house\n    - name: same\n"
                        "      task: text-to-image\n      model: embedded:sdxl\n"
                        "      prompt: a red house")  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        plan_of(text, tmp_path)
    assert str(caught.value).endswith(
        "x.yaml:9: duplicate cell 't2i/none': workloads 't2i' and 'same' differ in nothing but "
        "their name"
    )


# ----------------------------------------------------------------------------- selection


def test_selection_is_and_between_keys_and_or_between_values() -> None:
    matrix = {"backend": ["none", "torch-compile"], "size": [64, 128, "64x128"], "seed": [1, 2]}

    def kept(*only: str) -> int:
        return plan_matrix(matrix, only=only).count

    assert kept("backend=none") == 6
    assert kept("backend=none", "size=64,64x128") == 4
    assert kept("size=64", "size=128x128") == 8
    assert kept("seed=1", "backend=none, torch-compile", "size=64") == 2
    assert kept("task=text-to-image") == 12
    assert kept("guidance=null") == 12
    assert kept("repeat=null") == kept("telemetry=false") == kept("deterministic=false") == 12
    assert kept("memory=none") == kept("precision=float32") == kept("lora=none") == 12


def test_selection_by_keys_that_some_cells_alone_have() -> None:
    matrix = {"telemetry": [True, False], "repeat": [3, None], "memory": ["none", "vae-slicing"]}

    def kept(*only: str) -> int:
        return plan_matrix(matrix, only=only).count

    assert plan_matrix(matrix).count == 8
    for text in (
        "telemetry=true",
        "telemetry=false",
        "repeat=3",
        "repeat=none",
        "memory=vae-slicing",
    ):
        assert kept(text) == 4
    assert kept("repeat=3", "telemetry=true", "memory=none") == 1
    with pytest.raises(ConfigError, match=r"no cell has repeat .4.; there are: 3, null"):
        plan_matrix(matrix, only=["repeat=4"])


def test_selection_keeps_names_and_identities() -> None:
    matrix = {"backend": ["none", "torch-compile"], "size": [64, 128]}
    every = plan_matrix(matrix)
    some = plan_matrix(matrix, only=["size=64"])
    assert names(some) == names(every)[:2]
    assert ids(some) < ids(every)


def test_selection_by_options_by_prompt_and_by_name() -> None:
    matrix = {
        "workload": [workload(prompt=None)],
        "prompt": ["a, b", "c"],
        "backend": ["torch-compile", {"name": "torch-compile", "options": {"dynamic": False}}],
    }
    assert plan_matrix(matrix, only=["prompt=a, b"]).count == 2
    assert plan_matrix(matrix, only=["backend=torch-compile"]).count == 4
    assert plan_matrix(matrix, only=["backend=torch-compile[dynamic=false]"]).count == 2
    name = "t2i/prompt=c/torch-compile"
    assert names(plan_matrix(matrix, only=[f"name={name}"])) == [name]


def test_selections_that_exclude_each_other() -> None:
    matrix = {"backend": ["none", "torch-compile"], "size": [64, 128],
              "exclude": [{"backend": "none", "size": 64}]}  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        plan_matrix(matrix, only=["backend=none", "size=64"])
    assert (
        str(caught.value) == "--only backend=none --only size=64: no cell agrees with all of these"
    )


# ----------------------------------------------------------------------------- overrides


def test_overrides_reach_lists_names_and_missing_mappings() -> None:
    original = copy.deepcopy(RICH)
    plan = make_plan(
        parse_config(
            RICH,
            [
                "protocol.calls.max_calls=4",
                "matrix.workload.1.prompt=make it day",
                "matrix.workload.t2i.seed=5",
                "matrix.backend.none.cache=warm",
                "matrix.steps=[10]",
                "defaults.extra.clip_skip=2",
            ],
        )
    )
    assert original == RICH
    assert plan.count == 4
    first, last = plan.cells[0], plan.cells[-1]
    assert first["protocol"]["calls"]["max_calls"] == 4
    assert (first["workload"]["seed"], last["workload"]["seed"]) == (5, 7)
    assert last["workload"]["prompt"] == "make it day"
    assert (first["cache"], last["cache"]) == ("warm", "fresh")
    assert first["workload"]["extra"] == {"clip_skip": 2}


def test_an_override_of_an_alias_changes_one_place_only(tmp_path: Path) -> None:
    text = """\
matrix:
  workload:
    - &a {name: a, task: text-to-image, model: embedded:sdxl, prompt: x, extra: &e {clip_skip: 1}}
    - {<<: *a, name: b, seed: 1, extra: *e}
"""
    plan = plan_of(text, tmp_path, ["matrix.workload.a.extra.clip_skip=9"])
    assert [cell["workload"]["extra"]["clip_skip"] for cell in plan.cells] == [9, 1]


def test_the_last_override_wins(tmp_path: Path) -> None:
    plan = plan_of(BASE, tmp_path, ["defaults.steps=3", "defaults.steps=4"])
    assert plan.cells[0]["workload"]["steps"] == 4


def test_an_override_may_hold_an_equals_sign(tmp_path: Path) -> None:
    plan = plan_of(BASE, tmp_path, ["matrix.workload.t2i.prompt=a=b"])
    assert plan.cells[0]["workload"]["prompt"] == "a=b"


# ------------------------------------------------------------------------------ backends


@dataclass(frozen=True)
class PickyOptions:
    """Options of a backend that somebody else wrote.

    Attributes:
        level: how hard to try,
            from 1 to 3.
        parts: what to touch.
    """

    level: int
    parts: tuple[Literal["a", "b"], ...] = ("a",)
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.level > 3:
            raise ValueError("level is at most 3")


class Picky:
    name = "picky"
    options = PickyOptions
    environment = "locked"
    lossy = False


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Any:
    get = registry.get

    monkeypatch.setattr(registry, "names", lambda: ("none", "picky", "broken"))

    def fake(name: str) -> Any:
        if name == "broken":
            raise registry.BackendError("backend 'broken' (x:y) does not load: ImportError: z")
        return Picky() if name == "picky" else get(name)

    monkeypatch.setattr(registry, "get", fake)
    backends.look_again()
    yield
    backends.look_again()


def plan_picky(**options: Any) -> Plan:
    return plan_matrix({"backend": [{"name": "picky", "options": options}]})


def test_a_backend_of_somebody_else(picky: None) -> None:
    (cell,) = plan_picky(level=2, parts=["b", "a"]).cells
    assert cell["backend"] == {
        "name": "picky",
        "options": {"level": 2, "parts": ["b", "a"], "ratio": None},
        "environment": "locked",
    }
    assert backends.option_descriptions("picky") == {
        "level": "how hard to try, from 1 to 3.", "parts": "what to touch.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "options of backend 'picky' needs the key 'level'"),
        ({"level": 4}, "level is at most 3"),
        ({"level": "2"}, "options of backend 'picky': 'level' must be a whole number, not '2'"),
        ({"level": 1, "lvel": 1},
         "unknown key 'lvel' in options of backend 'picky'. Did you mean 'level'?"),
        ({"level": 1, "ratio": True}, "'ratio' must be a number, not true"),
    ],
)  # fmt: skip
def test_options_that_a_backend_of_somebody_else_refuses(
    picky: None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_picky(**options)
    assert message in str(caught.value)


def test_a_backend_that_does_not_load_harms_only_who_asks_for_it(picky: None) -> None:
    assert plan_matrix({"backend": ["none"]}).count == 1
    with pytest.raises(ConfigError, match=r"'broken' .* does not load"):
        plan_matrix({"backend": ["broken"]})


def test_options_are_stored_with_their_defaults() -> None:
    plan = plan_matrix({"backend": [{"name": "torch-compile", "options": {"mode": "default"}}]})
    assert plan.cells[0]["backend"]["options"] == {
        "mode": "default", "dynamic": None, "fullgraph": False, "channels_last": False,
        "fuse_qkv": False, "scope": ["unet"],
    }  # fmt: skip
    assert ids(plan) == ids(plan_matrix({"backend": ["torch-compile"]}))


# ----------------------------------------------------------------------- catalogue, cost


def test_the_catalogue_knows_the_models_that_the_worker_loads() -> None:
    from bench.worker.sources import embedded, synthetic

    assert set(BUILT_IN_MODELS["embedded"]) == set(embedded.NAMES)
    assert set(BUILT_IN_MODELS["synthetic"]) == set(synthetic.ARCHITECTURES)


def test_every_reserved_argument_names_a_field() -> None:
    fields = contract.Workload.__required_keys__ | contract.Workload.__optional_keys__
    assert {field for field in RESERVED_CALL_ARGUMENTS.values() if field} <= fields


def test_estimates_grow_with_the_work() -> None:
    def seconds(matrix: dict[str, Any], **top: Any) -> float:
        return plan_matrix(matrix, **top).estimated_seconds

    base = seconds({})
    assert base > 0
    assert seconds({"steps": [100]}) > base
    assert seconds({"size": [512]}) > base
    assert seconds({"batch": [8]}) > base
    assert seconds({"backend": ["torch-compile"]}) > seconds(
        {"backend": ["torch-compile-regional"]}
    )
    assert seconds({"backend": ["torch-compile-regional"]}) > base
    assert seconds({}, protocol={"rounds": 4}) == pytest.approx(2 * base)
    assert seconds({}, device=["cuda:0", "cuda:1"]) == pytest.approx(
        seconds({}, device="cuda") / 2, abs=0.1
    )


def test_disk_counts_pictures_warm_caches_and_downloads() -> None:
    small = plan_matrix({})
    assert plan_matrix({"batch": [8]}).estimated_disk_bytes > small.estimated_disk_bytes
    warm = plan_matrix({"backend": ["torch-compile"]}, cache="warm")
    fresh = plan_matrix({"backend": ["torch-compile"]})
    assert warm.estimated_disk_bytes > fresh.estimated_disk_bytes
    assert small.estimated_download_bytes == 0
    hub = {"workload": [workload(model="hub:o/xl", variant="fp16")], "seed": [1, 2]}
    assert plan_matrix(hub).estimated_download_bytes == pytest.approx(6.94e9, rel=0.01)


def test_ten_thousand_cells_are_planned_in_no_time(tmp_path: Path) -> None:
    """The promise is 2 s of wall time on an idle machine; this asks for CPU time, so that a busy
    one does not fail it. Imports are counted, in a process of its own."""
    seeds = ", ".join(str(n) for n in range(500))
    path = tmp_path / "x.yaml"
    path.write_text(
        BASE.replace("[none, torch-compile]", "[none, torch-compile, torch-compile-regional, "
                     "{name: torch-compile, cache: warm}]")
        + f"  seed: [{seeds}]\n  steps: [1, 2, 3, 4, 5]\n"
    )  # fmt: skip
    code = (
        "import sys, time; from bench.config import *;"
        "plan = make_plan(load_config(sys.argv[1]));"
        "print(plan.count, time.process_time());"
        "assert not {'torch', 'diffusers', 'pandas'} & set(sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    count, seconds = done.stdout.split()
    assert int(count) == 10_000
    assert float(seconds) < 2.0
    assert time.monotonic() - started < 30.0


# --------------------------------------------------------------------------- environments


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment of the user's, called ``other``."""
    (tmp_path / "other.toml").write_text('python = "python"')
    monkeypatch.setenv("BENCH_ENVIRONMENT_FILES", str(tmp_path))
    return "other"


def elsewhere(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "environment": "other", **keys}


def test_each_environment_gets_a_baseline_before_its_first_cell(other: str) -> None:
    plan = plan_matrix({"backend": ["none", elsewhere("torch-compile"), "torch-compile"]})
    assert names(plan) == [
        "t2i/none", "t2i/none@other", "t2i/torch-compile@other", "t2i/torch-compile",
    ]  # fmt: skip
    added = plan.cells[1]
    assert added["backend"] == {"name": "none", "options": {}, "environment": other}
    assert {**added, "cell_id": "", "name": "", "backend": None} == {
        **plan.cells[0], "cell_id": "", "name": "", "backend": None,
    }  # fmt: skip
    assert len(ids(plan)) == 4


def test_no_baseline_is_added_where_there_is_one_or_none_is_wanted(other: str) -> None:
    own = [elsewhere("torch-compile"), "none", elsewhere("none")]
    assert names(plan_matrix({"backend": own})) == [
        "t2i/torch-compile@other", "t2i/none", "t2i/none@other",
    ]  # fmt: skip
    assert names(plan_matrix({"backend": [elsewhere("torch-compile")]})) == [
        "t2i/torch-compile@other"
    ]


def test_a_baseline_is_added_for_each_workload_that_needs_it(other: str) -> None:
    plan = plan_matrix(
        {
            "steps": [5, 6],
            "backend": ["none", elsewhere("torch-compile")],
            "exclude": [{"steps": 6, "backend": {"environment": "other"}}],
        }
    )
    assert names(plan) == [
        "t2i/steps=5/none", "t2i/steps=5/none@other", "t2i/steps=5/torch-compile@other",
        "t2i/steps=6/none",
    ]  # fmt: skip


def test_only_backend_none_keeps_every_baseline(other: str) -> None:
    matrix = {"backend": ["none", elsewhere("torch-compile")]}
    assert names(plan_matrix(matrix, only=["backend=none"])) == ["t2i/none", "t2i/none@other"]
    assert names(plan_matrix(matrix, only=["backend=none@other"])) == ["t2i/none@other"]


def test_an_environment_that_nobody_declared_is_planned_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(backends.get("torch-compile")), "environment", "a plugin's")
    assert names(plan_matrix({"backend": ["none", "torch-compile"]})) == [
        "t2i/none", "t2i/none@a plugin's", "t2i/torch-compile"
    ]  # fmt: skip


def test_options_may_be_a_json_object_in_a_string() -> None:
    mapping = {"name": "torch-compile", "options": {"mode": "max-autotune", "dynamic": False}}
    text = {**mapping, "options": '{"mode": "max-autotune", "dynamic": false}'}
    assert ids(plan_matrix({"backend": [mapping]})) == ids(plan_matrix({"backend": [text]}))
