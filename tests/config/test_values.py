"""Keys of a workload, limits and passes one by one: cells, identities, names, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import ConfigError, estimate, load_config, make_plan
from bench.config.catalogue import PROTOCOLS
from bench.sizes import own_multiple, rounded
from tests.config.support import ROOT, only_cell, plan_matrix, plan_of, workload

CHAIN = {"task": "chain"}
SEPIA = {"path": "embedded:sepia", "scale": 1, "fused": True}
EDGES = {"controlnet": "embedded:edges"}
PLAIN = only_cell({})

# ------------------------------------------------------------------------------- identity


@pytest.mark.parametrize(
    ("changes", "top"),
    [
        ({"lora": None, "controlnet": None, "custom_pipeline": None}, {}),
        ({"memory": "none"}, {}),
        ({"memory": []}, {}),
        ({"between": "none"}, {}),
        ({"memory": ["none"], "between": []}, {}),
        ({"iterations": 1, "one_by_one": False}, {}),
        ({"deterministic": False, "control_image": "drawn:edges", "control_scale": 1}, {}),
        ({"asked_size": 128}, {}),
        ({}, {"telemetry": False}),
        ({}, {"telemetry": None}),
        ({}, {"repeat": None}),
        ({}, {"profile": False}),
        ({}, {"sweep": None}),
        ({}, {"limits": {"rss": None, "device_memory": None}}),
    ],
)
def test_what_is_off_or_at_its_default_leaves_a_cell_as_it_was(changes: Any, top: Any) -> None:
    assert only_cell(changes, **top) == PLAIN


def test_a_plain_cell_has_none_of_the_keys_that_only_some_cells_have() -> None:
    assert set(PLAIN["limits"]) == {"timeout_s", "memory_bytes"}
    assert not {"telemetry", "repeat", "calls_planned"} & set(PLAIN)
    assert not {
        "lora", "lora_scale", "controlnet", "control_image", "custom_pipeline", "deterministic",
        "memory", "precision", "between", "asked_height", "samples", "max_batch", "start_from",
    } & set(PLAIN["workload"])  # fmt: skip


@pytest.mark.parametrize(
    "cells",
    [
        [{"lora": "embedded:sepia"}, {"lora": SEPIA}],
        [{"precision": "fp16"}, {"dtype": "float16"}],
        [{"precision": "bf16"}, {"dtype": "bfloat16"}, {"precision": "bf16", "dtype": "bfloat16"}],
        [
            {"memory": ["vae-slicing", "attention-slicing"]},
            {"memory": "attention-slicing+vae-slicing"},
            {"memory": " vae-slicing + attention-slicing "},
        ],
    ],
)
def test_spellings_of_one_cell(cells: list[dict[str, Any]]) -> None:
    first, *others = map(only_cell, cells)
    assert all(other == first for other in others)
    assert first["cell_id"] != PLAIN["cell_id"]


def test_each_of_these_is_another_cell() -> None:
    changes: list[dict[str, Any]] = [
        {"lora": "embedded:sepia"},
        {"lora": {**SEPIA, "scale": 0.5}},
        {"lora": {**SEPIA, "fused": False}},
        {"memory": "vae-tiling"},
        {"between": "gc"},
        {"deterministic": True},
        {"deterministic": "strict"},
        {"dtype": "bfloat16"},
        {"iterations": 2, "batch": 2},
        {"one_by_one": True, "batch": 2},
        {"batch": 2},
        *({"precision": word} for word in ("fp32", "autocast", "tf32", "fp16")),
    ]
    tops: list[dict[str, Any]] = [
        {},
        {"profile": True},
        {"telemetry": True},
        {"telemetry": {"period": "50ms"}},
        {"repeat": 20},
        {"repeat": 21},
        {"repeat": 20, "telemetry": True},
        {"limits": {"rss": "2GiB"}},
        {"limits": {"rss": "3GiB"}},
        {"limits": {"device_memory": "2GiB"}},
    ]
    cells = [*map(only_cell, changes), *(only_cell({}, **top) for top in tops)]
    assert len({cell["cell_id"] for cell in cells}) == len(cells)


def test_what_a_file_holds_makes_the_cell(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    one.write_bytes(b"a")
    other.write_bytes(b"a")
    ids = [only_cell({"lora": str(each)})["cell_id"] for each in (one, other)]
    assert ids[0] == ids[1]
    other.write_bytes(b"b")
    assert only_cell({"lora": str(other)})["cell_id"] != ids[0]
    scaled = only_cell({"lora": {"path": str(one), "scale": 0.5}})
    assert scaled["cell_id"] != ids[0]
    assert scaled["inputs"]["lora"]["path"] == str(one)


# --------------------------------------------------------------------------- what cells hold


@pytest.mark.parametrize(
    ("changes", "top", "holds"),
    [
        ({"lora": "embedded:sepia"}, {}, {"lora": "embedded:sepia"}),
        ({"memory": ["vae-slicing", "attention-slicing"]}, {},
         {"memory": "attention-slicing+vae-slicing"}),
        *(({"precision": word, "model": "synthetic:sdxl"}, {},
           {"dtype": "float32", "precision": word}) for word in ("fp32", "autocast", "tf32")),
        (CHAIN, {}, {"samples": 9, "max_batch": 3, "start_from": "first", "strength": 0.75,
                     "batch": 3}),
        ({**CHAIN, "samples": 2, "max_batch": 8}, {}, {"max_batch": 2, "batch": 2}),
        ({**CHAIN, "preset": "onediff"}, {}, {"batch": 3}),  # a preset's one image is no batch
        ({}, {"telemetry": {"period": "50ms", "calls": 7}},
         {"telemetry": {"period_s": 0.05, "time_s": 5.0, "min_calls": 7, "idle_s": 1.0}}),
        ({}, {"telemetry": True},
         {"telemetry": {"period_s": 0.1, "time_s": 5.0, "min_calls": 3, "idle_s": 1.0}}),
        ({}, {"limits": {"rss": "2GiB", "device_memory": "1GB"}},
         {"limits": {"timeout_s": 1800.0, "memory_bytes": None, "rss_bytes": 2 * 2**30,
                     "device_bytes": 10**9}}),
    ],
)  # fmt: skip
def test_what_a_cell_holds(changes: Any, top: Any, holds: dict[str, Any]) -> None:
    cell = only_cell(changes, **top)
    assert holds.items() <= {**cell["workload"], **cell}.items()


def test_defaults_are_left_out_of_a_cell() -> None:
    assert "lora_scale" not in only_cell({"lora": SEPIA})["workload"]
    assert "precision" not in only_cell({"precision": "fp16"})["workload"]


@pytest.mark.parametrize(
    ("given_", "axes", "count", "names"),
    [
        (EDGES, {"lora": [None, "embedded:sepia", {**SEPIA, "fused": False}],
                 "control_scale": [0.5, 1.0]}, 6,
         {"t2i/lora=embedded-sepia-fused/control_scale=0.5/none",
          "t2i/lora=none/control_scale=1/none"}),
        ({}, {"memory": ["none", "vae-tiling", ["vae-slicing", "model-offload"]],
              "precision": ["fp32", "bf16"], "between": ["none", ["empty-cache", "gc"]]}, 12,
         {"t2i/memory=vae-slicing+model-offload/precision=bf16/between=gc+empty-cache/none",
          "t2i/memory=none/precision=fp32/between=none/none"}),
        ({}, {"memory": ["none", "vae-tiling", "vae-slicing"], "batch": [1, 2],
              "exclude": [{"memory": ["vae-slicing"], "batch": 1}]}, 5, set()),
        (CHAIN, {"samples": [4, 9], "max_batch": [1, 3], "start_from": ["first", "previous"],
                 "strength": [0.5, 1.0], "steps": [10, 20]}, 32, set()),
        ({}, {"deterministic": [False, True, "strict"]}, 3,
         {"t2i/deterministic=False/none", "t2i/deterministic=strict/none"}),
        ({}, {"telemetry": [False, True]}, 2, {"t2i/telemetry=off/none", "t2i/telemetry/none"}),
        ({}, {"repeat": [10, None]}, 2, {"t2i/repeat=10/none", "t2i/repeat=none/none"}),
        ({}, {"iterations": [1, 2]}, 2, {"t2i/iterations=1/none", "t2i/iterations=2/none"}),
        ({"round_size": "nearest"}, {"asked_size": [301, 512]}, 2,
         {"t2i/301->304/none", "t2i/512/none"}),
    ],
)  # fmt: skip
def test_axes_name_their_cells(given_: Any, axes: Any, count: int, names: set[str]) -> None:
    found = {cell["name"] for cell in plan_matrix({"workload": [workload(**given_)], **axes}).cells}
    assert len(found) == count
    assert names <= found


# ----------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("changes", "message"),
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
        ({"lora": {"scale": 1}}, "lora of workload 't2i' needs the key 'path'"),
        ({"lora": 7}, "workload 't2i': 'lora' must be a mapping, not 7"),
        ({"lora": "none-such.safetensors"}, "does not exist"),
        ({"controlnet": "edges"}, "Did you mean 'embedded:edges'?"),
        ({"controlnet": "ORG/NAME"}, "Did you mean 'hub:ORG/NAME'?"),
        ({"controlnet": "embedded:edge"}, "Did you mean 'edges'?"),
        ({"controlnet": "path:none-such"}, "ControlNet folder 'none-such'"),
        ({"control_image": "drawn:ellipse"}, "means nothing without a 'controlnet'"),
        ({"control_scale": 2}, "means nothing without a 'controlnet'"),
        ({**EDGES, "control_image": "drawn:edge"}, "drawn:edges"),
        ({**EDGES, "control_image": "no.png"}, "control image 'no.png'"),
        ({**EDGES, "control_scale": -1}, "'control_scale' must be at least 0, not -1"),
        ({**EDGES, "model": "embedded:pix2pix", "task": "edit"}, "not edit"),
        ({**EDGES, **CHAIN}, "and chain makes many"),
        ({"lora": "embedded:sepia", "model": "synthetic:sdxl-small"}, "made for embedded:sdxl"),
        ({"extra": {"control_image": 1}}, "use the field 'control_image'"),
        ({"memory": "vae-tilling"}, "unknown memory mode 'vae-tilling'. Did you mean 'vae-tiling'"),
        ({"memory": 7}, "memory must be a mode or a list of modes, not 7"),
        ({"memory": ["none", "vae-tiling"]}, "'none' stands alone"),
        ({"memory": "vae-tiling+vae-tiling"}, "'vae-tiling' is there twice"),
        ({"memory": ["model-offload", "group-offload"]}, "diffusers takes one; keep one"),
        ({"memory": "xformers+attention-slicing"}, "slicing would do nothing; keep one"),
        ({"between": "gcc"}, "unknown between mode 'gcc'. Did you mean 'gc'"),
        ({"precision": "fp8"}, "precision"),
        ({"precision": "fp16", "dtype": "float32"}, "leave out 'dtype'"),
        ({"precision": "autocast", "dtype": "bfloat16"}, "has weights in float32"),
        ({"deterministic": "yes"}, "deterministic"),
        ({**CHAIN, "batch": 2}, "'max_batch' is the number of images of a round"),
        ({"samples": 4}, "it belongs to chain"),
        ({"task": "image-to-image", "start_from": "first"}, "it belongs to chain"),
        ({**CHAIN, "input_image": "a.png"}, "means nothing for chain"),
        ({**CHAIN, "model": "embedded:pix2pix"}, "Did you mean 'embedded:sdxl'"),
        ({**CHAIN, "steps": 2, "strength": 0.25}, "less than one step"),
        ({**CHAIN, "samples": 0}, "at least 1"),
        ({**CHAIN, "start_from": "last"}, "There are: first, previous"),
        ({"asked_size": 7}, "from 8 to 16384"),
        ({"asked_size": 300, "height": 8}, "says again"),
        ({"asked_size": 300, "size": 512}, "says again"),
        ({"size": 512, "round_size": "down"}, "write asked_size instead of size"),
        ({"size_multiple": 16}, "write asked_size instead of size"),
        ({"asked_size": 300, "round_size": "up"}, "down"),
        ({"size": 300}, "no multiple of 8"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        only_cell(changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ({"telemetry": {"period": "1ms"}}, "10ms"),
        ({"telemetry": {"time": "2h"}}, "1h"),
        ({"telemetry": {"perod": "1s"}}, "period"),
        ({"repeat": 1}, "repeat"),
        ({"defaults": {"size": 512, "height": 8}}, "says again"),
    ],
)
def test_nonsense_of_the_top_level_is_refused(top: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        only_cell({}, **top)


def test_the_message_names_the_line(tmp_path: Path) -> None:
    text = (
        "matrix:\n  workload:\n    - name: a\n      task: text-to-image\n"
        "      model: embedded:sdxl\n      prompt: x\n"
        "      memory: [model-offload, sequential-offload]\n"
    )
    with pytest.raises(ConfigError, match=r"x\.yaml:7"):
        plan_of(text, tmp_path)


def test_own_code_is_refused_before_anything_loads(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("raise SystemExit('was run')")
    for given_ in (tmp_path, tmp_path / "pipeline.py"):
        with pytest.raises(ConfigError, match="is Python code, which is not run"):
            only_cell({"custom_pipeline": str(given_)})
    allowed = only_cell({"custom_pipeline": str(tmp_path)}, allow_remote_code=True)
    assert allowed["inputs"]["custom_pipeline"]["path"] == str(tmp_path)


def test_a_plan_says_which_backends_cannot_work_under_a_mode() -> None:
    plan = plan_matrix(
        {
            "memory": ["none", "sequential-offload"],
            "batch": [1, 2],
            "backend": ["none", "torch-compile"],
        }
    )
    (note,) = plan.notes
    assert note.startswith("'torch-compile' with memory 'sequential-offload' will be unsupported")
    assert plan.count == 8


# -------------------------------------------------------------------------------------- sizes


@given(st.integers(8, 16384), st.sampled_from([8, 16, 64]))
def test_rounding(side: int, multiple: int) -> None:
    down, near = rounded(side, multiple, "down"), rounded(side, multiple, "nearest")
    assert down % multiple == near % multiple == 0
    assert min(down, near) >= multiple
    if side >= multiple:
        assert 0 <= side - down < multiple
        assert abs(side - near) <= multiple / 2


def _folder(tmp_path: Path, blocks: int, **denoiser: int) -> Path:
    for part, config in (
        ("vae", {"block_out_channels": [8] * blocks, "latent_channels": 16}),
        ("transformer", denoiser),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("blocks", "denoiser", "multiple"),
    [
        (3, {}, 8),  # 4 pixels, but pipelines refuse what is no multiple of 8
        (4, {}, 8),
        (5, {}, 16),
        (4, {"patch_size": 2, "in_channels": 16}, 16),  # Stable Diffusion 3
        (4, {"patch_size": 1, "in_channels": 64}, 16),  # Flux
        (6, {}, 32),
    ],
)
def test_a_folder_tells_what_its_sides_are_multiples_of(
    tmp_path: Path, blocks: int, denoiser: dict[str, int], multiple: int
) -> None:
    assert own_multiple(_folder(tmp_path, blocks, **denoiser)) == multiple


@pytest.mark.parametrize("vae", [None, "no JSON", "[]", '{"block_out_channels": []}'])
def test_a_folder_that_does_not_tell_has_the_usual_multiple(
    tmp_path: Path, vae: str | None
) -> None:
    if vae is not None:
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae" / "config.json").write_text(vae)
    assert own_multiple(tmp_path) == 8


def test_a_size_is_rounded_to_what_the_folder_makes(tmp_path: Path) -> None:
    _folder(tmp_path, 5)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    made = only_cell({"model": f"path:{tmp_path}", "asked_size": "300x200"})["workload"]
    assert (made["width"], made["height"]) == (288, 192)


def test_the_published_sizes_become_those_that_were_used() -> None:
    axis = [300, "640x360", "800x450", "800x600", "960x540"]
    cells = plan_matrix({"asked_size": axis}, defaults={"size_multiple": 16}).cells
    made = [cell["workload"] for cell in cells]
    assert [(each["width"], each["height"]) for each in made] == [
        (288, 288), (640, 352), (800, 448), (800, 592), (960, 528),
    ]  # fmt: skip
    assert [(each["asked_width"], each["asked_height"]) for each in made][:2] == [
        (300, 300), (640, 360),
    ]  # fmt: skip
    assert {each["round_size"] for each in made} == {"down"}


# ------------------------------------------------------------------------ estimates, shipped


def test_an_estimate_knows_every_round_of_a_chain() -> None:
    def seconds(**changes: Any) -> float:
        cell = only_cell({**CHAIN, **changes}, device="cpu", protocol={"preset": "quick"})
        assert cell["protocol"] == PROTOCOLS["quick"]
        return estimate.worker_seconds(cell)

    one = seconds(samples=3)
    assert seconds(samples=9) > seconds(samples=6) > one
    assert seconds(samples=9, strength=1.0) > seconds(samples=9, strength=0.5)
    assert seconds(samples=3, strength=1.0) == seconds(samples=3, strength=0.5)


def test_the_shipped_chain_sweeps_what_the_page_says() -> None:
    plan = make_plan(load_config(ROOT / "configs" / "chain.yaml"))
    made = [cell["workload"] for cell in plan.cells]
    assert {each["task"] for each in made} == {"chain"}
    for key in ("steps", "strength", "start_from", "max_batch", "height", "scheduler", "prompt"):
        assert len({each.get(key) for each in made}) > 1, key
    assert plan.estimated_seconds < 240


def test_the_shipped_options_are_every_option() -> None:
    plan = make_plan(load_config(ROOT / "configs" / "onediff-options.yaml"))
    made = [dict(cell["workload"]) for cell in plan.cells]
    assert {each.get("lora_fused", True) for each in made if "lora" in each} == {True, False}
    tasks = {each["task"] for each in made if "controlnet" in each}
    assert tasks == {"text-to-image", "image-to-image"}
    assert {cell["backend"]["name"] for cell in plan.cells} == {"none", "deepcache"}
    assert any((cell["sweep"] or {}).get("size") for cell in plan.cells)
