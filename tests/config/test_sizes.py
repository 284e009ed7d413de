"""Sizes as asked for and as made, and limits that are part of a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import ConfigError
from bench.config.sizes import rounded
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
