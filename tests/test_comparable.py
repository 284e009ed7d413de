"""How rows are told apart: by what a user wrote, as the planner names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import comparable
from bench.config import load_config, make_plan

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
    assert comparable.labels(cells) == [
        ("none", "none"),
        ("none@nexfort", "none@nexfort"),
        ("torch-compile", "torch-compile cache=fresh"),
        ("torch-compile", "torch-compile cache=warm"),
        (name := "torch-compile[mode=max-autotune,scope=unet+vae.decode]", name),
        (name := "tuned[alone=compile,cache_file=artifacts[1]@x.bin]", name),
    ]


def test_another_name_tells_the_backend_alone(cells):
    assert comparable.written({**cells[-1], "name": "mine"}) == "tuned"
    assert comparable.written({}) == "?"
