"""`telemetry`, `repeat` and `deterministic`: what they give a cell, and what they leave alone."""

from __future__ import annotations

import pytest

from bench.config import ConfigError, make_plan, parse_config

MATRIX = {
    "workload": [
        {"name": "w", "task": "text-to-image", "model": "embedded:sdxl", "prompt": "a house"}
    ]
}


def cells(matrix=None, **top):
    return make_plan(parse_config({"matrix": {**MATRIX, **(matrix or {})}, **top})).cells


def test_off_is_the_cell_that_it_was():
    (plain,) = cells()
    for off in (
        {"telemetry": False},
        {"telemetry": None},
        {"repeat": None},
        {"defaults": {"deterministic": False}},
    ):
        (cell,) = cells(**off)
        assert cell == plain
    assert not {"telemetry", "repeat"} & set(plain)
    assert "deterministic" not in plain["workload"]


def test_each_is_another_cell():
    ids = {
        cells(**on)[0]["cell_id"]
        for on in (
            {},
            {"telemetry": True},
            {"telemetry": {"period": "50ms"}},
            {"repeat": 20},
            {"repeat": 21},
            {"repeat": 20, "telemetry": True},
            {"defaults": {"deterministic": True}},
            {"defaults": {"deterministic": "strict"}},
        )
    }
    assert len(ids) == 8


def test_what_is_not_given_has_its_default():
    (cell,) = cells(telemetry={"period": "50ms", "calls": 7})
    assert cell["telemetry"] == {"period_s": 0.05, "time_s": 5.0, "min_calls": 7, "idle_s": 1.0}
    assert cells(telemetry=True)[0]["telemetry"]["period_s"] == 0.1


def test_they_may_be_axes_with_names_of_their_own():
    found = cells({"deterministic": [False, True, "strict"]}, repeat=10)
    assert [c["name"] for c in found] == [
        "w/deterministic=False/none", "w/deterministic=True/none", "w/deterministic=strict/none",
    ]  # fmt: skip
    assert [c["repeat"] for c in cells({"repeat": [10, 20]})] == [10, 20]
    assert [c["name"] for c in cells({"telemetry": [False, True]})] == [
        "w/telemetry=off/none", "w/telemetry/none",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("top", "says"),
    [
        ({"telemetry": {"period": "1ms"}}, "10ms"),
        ({"telemetry": {"time": "2h"}}, "1h"),
        ({"telemetry": {"perod": "1s"}}, "period"),
        ({"repeat": 1}, "repeat"),
        ({"defaults": {"deterministic": "yes"}}, "deterministic"),
    ],
)
def test_nonsense_is_refused_by_name(top, says):
    with pytest.raises(ConfigError, match=says):
        cells(**top)
