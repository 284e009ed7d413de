"""Memory modes, precision and pauses in a configuration: axes, identity, and what is refused."""

from __future__ import annotations

import pytest

from bench.config import ConfigError
from tests.config.support import plan_matrix, plan_of, workload


def only(**changes):
    (cell,) = plan_matrix({"workload": [workload(**changes)]}).cells
    return cell


def test_defaults_leave_a_cell_what_it_was():
    plain = only()
    for changes in (
        {"memory": "none"},
        {"memory": []},
        {"between": "none"},
        {"memory": ["none"], "between": []},
    ):
        assert only(**changes)["cell_id"] == plain["cell_id"]
        assert only(**changes)["workload"] == plain["workload"]
    assert only(memory="vae-tiling")["cell_id"] != plain["cell_id"]
    assert only(between="gc")["cell_id"] != plain["cell_id"]


def test_a_list_and_a_sum_in_any_order_are_the_same_cell():
    written = [
        ["vae-slicing", "attention-slicing"],
        "attention-slicing+vae-slicing",
        " vae-slicing + attention-slicing ",
    ]
    cells = [only(memory=each) for each in written]
    assert {cell["workload"]["memory"] for cell in cells} == {"attention-slicing+vae-slicing"}
    assert len({cell["cell_id"] for cell in cells}) == 1


def test_half_precisions_are_a_dtype_and_no_more():
    for word, dtype in (("fp16", "float16"), ("bf16", "bfloat16")):
        assert only(precision=word)["cell_id"] == only(dtype=dtype)["cell_id"]
        assert "precision" not in only(precision=word)["workload"]


@pytest.mark.parametrize("word", ["fp32", "autocast", "tf32"])
def test_other_precisions_are_float32_and_a_word(word):
    made = only(precision=word, model="synthetic:sdxl")["workload"]
    assert (made["dtype"], made["precision"]) == ("float32", word)
    assert only(precision=word)["cell_id"] != only(dtype="float32")["cell_id"]


def test_they_are_axes_and_stand_in_the_names_of_cells():
    plan = plan_matrix(
        {
            "memory": ["none", "vae-tiling", ["vae-slicing", "model-offload"]],
            "precision": ["fp32", "bf16"],
            "between": ["none", ["empty-cache", "gc"]],
        }
    )
    names = {cell["name"] for cell in plan.cells}
    assert len(names) == plan.count == 12
    assert (
        "t2i/memory=vae-slicing+model-offload/precision=bf16/between=gc+empty-cache/none" in names
    )
    assert "t2i/memory=none/precision=fp32/between=none/none" in names


def test_a_combination_can_be_left_out():
    plan = plan_matrix(
        {
            "memory": ["none", "vae-tiling", "vae-slicing"],
            "batch": [1, 2],
            "exclude": [{"memory": ["vae-slicing"], "batch": 1}],
        }
    )
    assert plan.count == 5


def refused(**changes):
    with pytest.raises(ConfigError) as error:
        only(**changes)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
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
    ],
)
def test_nonsense_is_refused_with_what_to_write(changes, said):
    assert said in refused(**changes)


def test_an_agreeing_dtype_may_stand_beside_a_precision():
    assert only(precision="bf16", dtype="bfloat16")["workload"]["dtype"] == "bfloat16"


def test_the_message_names_the_line(tmp_path):
    text = (
        "matrix:\n  workload:\n    - name: a\n      task: text-to-image\n"
        "      model: embedded:sdxl\n      prompt: x\n"
        "      memory: [model-offload, sequential-offload]\n"
    )
    with pytest.raises(ConfigError, match=r"x\.yaml:7"):
        plan_of(text, tmp_path)


def test_a_plan_says_which_backends_cannot_work_under_a_mode():
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
