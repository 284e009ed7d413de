"""Sizes as asked for and as made, and limits that are part of a cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import ConfigError
from bench.config.sizes import own_multiple, rounded
from bench.contract import Workload
from tests.config.support import plan_of

BASE = "defaults: {task: text-to-image, model: embedded:sdxl, prompt: a house%s}\n"


def workloads(tmp_path: Path, matrix: str, more: str = "") -> list[Workload]:
    text = BASE % more + f"matrix:\n  {matrix}\n"
    return [cell["workload"] for cell in plan_of(text, tmp_path).cells]


@given(st.integers(8, 16384), st.sampled_from([8, 16, 64]))
def test_rounding(side: int, multiple: int) -> None:
    down, near = rounded(side, multiple, "down"), rounded(side, multiple, "nearest")
    assert down % multiple == near % multiple == 0
    assert min(down, near) >= multiple
    if side >= multiple:
        assert 0 <= side - down < multiple
        assert abs(side - near) <= multiple / 2


def _folder(tmp_path: Path, blocks: int, **denoiser: int) -> Path:
    for part, told in (
        ("vae", {"block_out_channels": [8] * blocks, "latent_channels": 16}),
        ("transformer", denoiser),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(told))
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
    text = f"defaults: {{task: text-to-image, model: 'path:{tmp_path}', prompt: a house}}\n"
    text += "matrix:\n  asked_size: [300x200]\n"
    made = plan_of(text, tmp_path).cells[0]["workload"]
    assert (made["width"], made["height"]) == (288, 192)


def test_the_published_sizes_become_those_that_were_used(tmp_path: Path) -> None:
    made = workloads(
        tmp_path, "asked_size: [300, 640x360, 800x450, 800x600, 960x540]", ", size_multiple: 16"
    )
    sizes = [(each["width"], each["height"]) for each in made]
    assert sizes == [(288, 288), (640, 352), (800, 448), (800, 592), (960, 528)]
    assert [(each["asked_width"], each["asked_height"]) for each in made][:2] == [
        (300, 300), (640, 360),
    ]  # fmt: skip
    assert {each["round_size"] for each in made} == {"down"}


def test_nearest_and_names(tmp_path: Path) -> None:
    text = BASE % ", round_size: nearest" + "matrix:\n  asked_size: [301, 512]\n"
    cells = plan_of(text, tmp_path).cells
    assert [cell["workload"]["height"] for cell in cells] == [304, 512]
    assert [cell["name"] for cell in cells] == ["sdxl/301->304/none", "sdxl/512/none"]


def test_a_size_that_needs_no_rounding_is_the_cell_it_always_was(tmp_path: Path) -> None:
    plain = plan_of(BASE % "" + "matrix:\n  size: [512]\n", tmp_path).cells[0]
    asked = plan_of(BASE % "" + "matrix:\n  asked_size: [512]\n", tmp_path).cells[0]
    assert asked["cell_id"] == plain["cell_id"]
    assert "asked_height" not in asked["workload"]


@pytest.mark.parametrize(
    ("matrix", "more", "message"),
    [
        ("asked_size: [7]", "", "from 8 to 16384"),
        ("asked_size: [300]", ", size: 512, height: 8", "says again"),
        ("size: [512]", ", round_size: down", "write asked_size instead of size"),
        ("asked_size: [300]\n  size: [512]", "", "says again"),
        ("asked_size: [300]", ", round_size: up", "down"),
        ("size: [300]", "", "no multiple of 8"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, matrix: str, more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workloads(tmp_path, matrix, more)


def test_a_memory_limit_makes_another_cell_and_none_changes_nothing(tmp_path: Path) -> None:
    def cell(limits: str) -> Any:
        return plan_of(
            f"limits: {limits}\n" + BASE % "" + "matrix:\n  batch: [1]\n", tmp_path
        ).cells[0]

    plain = cell("{timeout: 10m}")
    none = cell("{rss: null, device_memory: null}")
    host, card = cell("{rss: 2GiB}"), cell("{device_memory: 2GiB}")
    assert none["cell_id"] == plain["cell_id"]
    assert set(none["limits"]) == {"timeout_s", "memory_bytes"}
    assert len({each["cell_id"] for each in (plain, host, card, cell("{rss: 3GiB}"))}) == 4
    assert host["limits"]["rss_bytes"] == card["limits"]["device_bytes"] == 2 * 2**30
