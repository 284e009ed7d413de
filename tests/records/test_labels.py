"""How arms are told apart: by what a user wrote, as the planner names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config import load_config, make_plan
from tests.cli.records import grouped

CONFIGURATION = """
name: told-apart
matrix:
  workload: [{name: t2i, task: text-to-image, model: "embedded:sdxl", prompt: a cat}]
  size: [64, 128]
  backend:
    - none
    - {name: none, environment: nexfort}
    - {name: torch-compile, cache: fresh}
    - {name: torch-compile, cache: warm}
    - {name: torch-compile, options: {mode: max-autotune, scope: [unet, vae.decode]}}
    - {name: tuned, options: {alone: compile, cache_file: "/a/b/artifacts[1]@x.bin"}}
"""


@pytest.fixture
def cells(tmp_path: Path) -> list[dict]:
    path = tmp_path / "bench.yaml"
    path.write_text(CONFIGURATION)
    return [cell for cell in make_plan(load_config(path)).cells if cell["workload"]["width"] == 64]


def test_labels_are_those_of_the_plan(cells):
    (group,) = grouped([], cells)
    assert {(arm.short, arm.label) for arm in group.arms} == {
        ("none", "none"),
        ("none@nexfort", "none@nexfort"),
        ("torch-compile", "torch-compile cache=fresh"),
        ("torch-compile", "torch-compile cache=warm"),
        (name := "torch-compile[mode=max-autotune,scope=unet+vae.decode]", name),
        (name := "tuned[alone=compile,cache_file=artifacts[1]@x.bin]", name),
    }


def test_a_label_is_of_the_options_and_not_of_the_name(cells):
    (group,) = grouped([], [{**cells[-1], "name": "mine"}])
    assert group.arms[0].label == "tuned[alone=compile,cache_file=artifacts[1]@x.bin]"
