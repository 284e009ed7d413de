"""The semantics of GitHub Actions, by the known answers of its documentation and by a reference."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.matrix import MAX_ADDITIONS, TooManyError, expand


def values(*arguments: Any, **named: Any) -> list[dict[str, Any]]:
    return [
        {key: choice.value for key, choice in combination.items()}
        for combination in expand(*arguments, **named)
    ]


def test_order_of_the_product() -> None:
    axes = {"version": [10, 12, 14], "os": ["ubuntu", "windows"]}
    assert values(axes) == [
        {"version": version, "os": os} for version in (10, 12, 14) for os in ("ubuntu", "windows")
    ]


def test_include_as_documented() -> None:
    """The fruit and animal example of "Running variations of jobs in a workflow"."""
    found = values(
        {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]},
        include=[
            {"color": "green"},
            {"color": "pink", "animal": "cat"},
            {"fruit": "apple", "shape": "circle"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ],
    )
    assert found == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_expanding_as_documented() -> None:
    found = values(
        {"os": ["windows-latest", "ubuntu-latest"], "node": [14, 16]},
        include=[{"os": "windows-latest", "node": 16, "npm": 6}],
    )
    assert found == [
        {"os": "windows-latest", "node": 14},
        {"os": "windows-latest", "node": 16, "npm": 6},
        {"os": "ubuntu-latest", "node": 14},
        {"os": "ubuntu-latest", "node": 16},
    ]


def test_adding_as_documented() -> None:
    systems = ["macos-latest", "windows-latest", "ubuntu-latest"]
    found = values(
        {"os": systems, "version": [12, 14, 16]}, include=[{"os": "windows-latest", "version": 17}]
    )
    assert len(found) == 10
    assert found[-1] == {"os": "windows-latest", "version": 17}


def test_only_include_as_documented() -> None:
    include = [
        {"site": "production", "datacenter": "site-a"},
        {"site": "staging", "datacenter": "site-b"},
    ]
    assert values({}, include=include) == include


def test_exclude_as_documented() -> None:
    found = values(
        {
            "os": ["macos-latest", "windows-latest"],
            "version": [12, 14, 16],
            "environment": ["staging", "production"],
        },
        exclude=[
            {"os": "macos-latest", "version": 12, "environment": "production"},
            {"os": "windows-latest", "version": 16},
        ],
    )
    assert len(found) == 9
    assert {"os": "macos-latest", "version": 12, "environment": "staging"} in found
    assert not any(f["os"] == "windows-latest" and f["version"] == 16 for f in found)


def test_include_comes_after_exclude_and_brings_back() -> None:
    found = values({"a": [1, 2]}, exclude=[{"a": 1}], include=[{"a": 1, "b": 3}])
    assert found == [{"a": 2}, {"a": 1, "b": 3}]


def test_true_is_not_one_but_one_is_one_point_zero() -> None:
    assert values({"a": [1, True]}, exclude=[{"a": True}]) == [{"a": 1}]
    assert values({"a": [1, 2]}, exclude=[{"a": 1.0}]) == [{"a": 2}]


def reference(
    axes: dict[str, list[int]], exclude: list[dict[str, int]], include: list[dict[str, int]]
) -> list[dict[str, int]]:
    """The documented rules, word by word, without any cleverness."""
    original = [
        dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())
    ]
    if not axes:
        original = []
    original = [
        combination
        for combination in original
        if not any(all(combination[key] == entry[key] for key in entry) for entry in exclude)
    ]
    result = [dict(combination) for combination in original]
    extra = []
    for entry in include:
        added = False
        for before, after in zip(original, result, strict=True):
            if all(before[key] == entry[key] for key in entry if key in axes):
                after.update(entry)
                added = True
        if not added:
            extra.append(dict(entry))
    return result + extra


ENTRY = st.dictionaries(st.sampled_from("abcxy"), st.integers(0, 3), min_size=1, max_size=3)


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
        max_size=3,
    ),
    st.lists(ENTRY, max_size=3),
    st.lists(ENTRY, max_size=4),
)
def test_against_the_reference(axes: Any, exclude: Any, include: Any) -> None:
    exclude = [entry for entry in exclude if set(entry) <= set(axes)]
    assert values(axes, exclude, include) == reference(axes, exclude, include)


def test_paths_lead_back_to_the_configuration() -> None:
    combinations = expand({"a": [5, 6]}, include=[{"a": 6, "b": 7}, {"a": 8}])
    assert combinations[1]["a"].path == ("matrix", "a", 1)
    assert combinations[1]["b"].path == ("matrix", "include", 0, "b")
    assert combinations[2]["a"].path == ("matrix", "include", 1, "a")


def test_bounds() -> None:
    with pytest.raises(TooManyError, match=r"100,001 cells \(100001 a\)"):
        expand({"a": range(100_001)})
    many = [{"x": n} for n in range(MAX_ADDITIONS // 1000)]
    with pytest.raises(TooManyError, match="1,000,000 times"):
        expand({"a": range(1001)}, include=many)
    assert len(expand({"a": range(100_000)})) == 100_000
