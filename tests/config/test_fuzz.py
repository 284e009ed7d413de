"""Whatever is written, the answer is a plan or one message; never another exception."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.config import ConfigError, Plan, load_config, make_plan, parse_config
from bench.config.models import shapes
from tests.config.support import BASE, ROOT

SHIPPED = [
    yaml.safe_load((ROOT / "configs" / name).read_text())
    for name in ("quickstart.yaml", "realvisxl.yaml", "cpu-full.yaml")
]
RICH = {
    "name": "rich",
    "device": ["cuda:0", "cuda:1"],
    "threads": 2,
    "cache": "warm",
    "protocol": {
        "preset": "quick",
        "warmup": {"min_calls": 2, "stable_pct": 3},
        "calls": {"min_calls": 3, "time_cap": "10s"},
        "rounds": 2,
    },
    "sweep": {"steps": [5, 10, 20], "size": [64, "768x1024"], "repeats": 2},
    "limits": {"timeout": "10m", "memory": "8GiB"},
    "defaults": {"preset": "onediff", "guidance": 3, "extra": {"clip_skip": 1}},
    "matrix": {
        "workload": [
            {
                "name": "a",
                "task": "text-to-image",
                "model": "hub:o/n@main",
                "prompt": "x",
                "sweep": {"size": None},
            },
            {
                "name": "b",
                "task": "image-to-image",
                "model": f"path:{ROOT / 'tests' / 'config'}",
                "strength": 0.5,
            },
        ],
        "backend": ["none", {"name": "torch-compile", "options": {"scope": ["unet"]}}],
        "size": [512, "768x1024", {"height": 64, "width": 8}],
        "seed": [1, 2],
        "exclude": [{"workload": "a", "size": 512}, {"workload": {"task": "edit"}}],
        "include": [
            {"workload": "b", "threads": 4, "sweep": None},
            {"workload": "a", "seed": 3, "sweep": {"repeats": 4}},
        ],
    },
}
DOCUMENTS = [*SHIPPED, RICH]

WORDS = st.sampled_from(
    sorted({*shapes().axes, *shapes().document.model_fields, "options", "preset"})
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 40),
    st.floats(),
    st.text(max_size=12),
    WORDS,
    st.sampled_from(
        ["none", "torch-compile", "cuda:0", "768x1024", "10m", "8GiB", "embedded:sdxl", "hub:a/b",
         "path:", "edit", "quick", 10**399, "\ud800", "\x00", "1e400", -0.0]
    ),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(WORDS, st.text(max_size=6)), inner, max_size=4),
    ),
    max_leaves=8,
)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [prefix, *(path for key, item in items for path in paths(item, (*prefix, key)))]


PLACES = [(at, path) for at, document in enumerate(DOCUMENTS) for path in paths(document)]


def check(make: Any) -> None:
    """The one property: a plan that survives JSON, or a message of one line."""
    try:
        plan = make()
    except ConfigError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert "Traceback" not in text
        assert "pydantic" not in text.lower()
        return
    assert isinstance(plan, Plan)
    assert plan.count >= 1
    assert len({cell["cell_id"] for cell in plan.cells}) == plan.count
    assert len({cell["name"] for cell in plan.cells}) == plan.count
    json.dumps(plan.to_json(), allow_nan=False)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PLACES), VALUES, st.one_of(st.none(), WORDS, st.text(max_size=8)))
def test_any_value_at_any_place(place: Any, value: Any, new_key: str | None) -> None:
    at, path = place
    document: Any = copy.deepcopy(DOCUMENTS[at])
    if not path:
        document = value
    else:
        owner = document
        for step in path[:-1]:
            owner = owner[step]
        if isinstance(owner, dict) and new_key is not None:
            owner[new_key] = value
        else:
            owner[path[-1]] = value
    check(lambda: make_plan(parse_config(document)))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=5), st.dictionaries(WORDS, VALUES, max_size=5))
def test_any_document(top: dict[str, Any], matrix: dict[str, Any]) -> None:
    check(lambda: make_plan(parse_config({"matrix": matrix, **top})))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, len(BASE)), st.integers(0, 20), st.text(max_size=10))
@example(0, len(BASE), "&a [*a]")
@example(0, 0, "%YAML 9.9\n---\n")
@example(0, 0, "? [a]\n: b\n")
def test_any_text_in_a_file(tmp_path: Any, start: int, cut: int, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes((BASE[:start] + text + BASE[start + cut :]).encode("utf-8", "surrogatepass"))
    check(lambda: make_plan(load_config(path)))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_file(tmp_path: Any, data: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    check(lambda: make_plan(load_config(path)))


OVERRIDE_PATHS = st.lists(
    st.one_of(WORDS, st.text(max_size=4), st.sampled_from(["0", "1", "9", "a", "t2i", "matrix"])),
    max_size=5,
).map(".".join)
YAMLISH = st.one_of(
    st.text(max_size=12),
    VALUES.map(lambda value: json.dumps(value, default=str)),
    st.sampled_from(["[", "{a: 1", "*a", "&a [*a]", "!!int x", "- 1\n- 2", "null", "'", "\t"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(OVERRIDE_PATHS, YAMLISH), max_size=3), st.sampled_from(DOCUMENTS))
def test_any_override(changes: list[tuple[str, str]], document: dict[str, Any]) -> None:
    overrides = [f"{path}={text}" for path, text in changes]
    check(lambda: make_plan(parse_config(document, overrides)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=20), WORDS.map(lambda w: f"{w}=x")), max_size=3))
def test_any_selection(only: list[str]) -> None:
    check(lambda: make_plan(parse_config(SHIPPED[0], only=only)))


@pytest.mark.parametrize("at", range(len(DOCUMENTS)))
def test_the_documents_that_are_changed_are_right_themselves(at: int) -> None:
    assert make_plan(parse_config(DOCUMENTS[at])).count > 1
