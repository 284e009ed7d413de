from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.config import ConfigError, load_config, make_plan, parse_config, tree
from bench.config.schema import json_schema
from tests.config.support import ROOT, workload
from tests.config.test_fuzz import DOCUMENTS, PLACES, VALUES

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_accepts_what_ships(validator: Any, path: Any) -> None:
    assert list(validator.iter_errors(tree.plain(tree.read_file(path, str(path))))) == []


@pytest.mark.parametrize("at", range(len(DOCUMENTS)))
def test_it_accepts_every_form(validator: Any, at: int) -> None:
    assert list(validator.iter_errors(DOCUMENTS[at])) == []


def test_every_key_is_described() -> None:
    def check(schema: Any, path: str) -> None:
        if isinstance(schema, dict):
            for key, part in schema.get("properties", {}).items():
                assert part.get("description"), f"{path}.{key}"
            for key, part in schema.items():
                if key not in ("if", "then"):  # conditions on keys that are described elsewhere
                    check(part, f"{path}.{key}")
        elif isinstance(schema, list):
            for part in schema:
                check(part, path)

    check(json_schema(), "")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"matrix": {}},
        {"matrix": {"steps": []}},
        {"matrix": {"steps": [1, 1]}},
        {"matrix": {"steps": [0]}},
        {"matrix": {"stesp": [1]}},
        {"matrix": {"backend": ["nope"]}},
        {"matrix": {"backend": [{"name": "none", "options": {"mode": "default"}}]}},
        {"matrix": {"backend": [{"name": "torch-compile", "options": {"mode": "fast"}}]}},
        {"matrix": {"backend": ["none"], "exclude": [{"backend": "nope"}]}},
        {"matrix": {"backend": ["none"], "include": [{}]}},
        {"matrix": {"size": [100]}},
        {"matrix": {"size": ["1024 by 768"]}},
        {"matrix": {"size": [64], "width": [64]}},
        {"matrix": {"model": ["sdxl"]}},
        {"matrix": {"model": ["embedded:sd3"]}},
        {"matrix": {"workload": [workload(name=None)]}},
        {"matrix": {"workload": [workload(strength=0.5)]}},
        {"matrix": {"workload": [workload(extra={"height": 8})]}},
        {"matrix": {"workload": [workload(scheduler="euler")]}},
        {"matrix": {"steps": [1]}, "protocol": "quik"},
        {"matrix": {"steps": [1]}, "protocol": {"warmup": {"min_calls": 1}}},
        {"matrix": {"steps": [1]}, "limits": {"timeout": "soon"}},
        {"matrix": {"steps": [1]}, "limits": {"memory": 8}},
        {"matrix": {"steps": [1]}, "device": "gpu"},
        {"matrix": {"steps": [1]}, "device": ["cuda:0", "cuda:0"]},
        {"matrix": {"steps": [1]}, "threads": True},
        {"matrix": {"steps": [1]}, "sweep": {"steps": [5, 10]}},
        {"matrix": {"steps": [1]}, "sweep": {"steps": [5, 10, 10]}},
        {"matrix": {"steps": [1]}, "sweep": {"steps": [0, 5, 10]}},
        {"matrix": {"steps": [1]}, "sweep": {"size": []}},
        {"matrix": {"steps": [1]}, "sweep": {"size": [100]}},
        {"matrix": {"steps": [1]}, "sweep": {"size": [64], "repeats": 0}},
        {"matrix": {"steps": [1]}, "sweep": [5, 10, 20]},
        {"matrix": {"steps": [1]}, "name": "a b"},
    ],
    ids=str,
)
def test_it_refuses(validator: Any, document: Any) -> None:
    assert list(validator.iter_errors(document))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES[1:]), VALUES)
def test_what_can_be_planned_satisfies_it(validator: Any, place: Any, value: Any) -> None:
    at, path = place
    if not path:
        return
    document: Any = copy.deepcopy(DOCUMENTS[at])
    owner = document
    for step in path[:-1]:
        owner = owner[step]
    owner[path[-1]] = value
    try:
        make_plan(parse_config(document))
    except ConfigError:
        return
    assert list(validator.iter_errors(document)) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_ships_means_the_same_to_other_yaml_readers(path: Any) -> None:
    """Editors and scripts may read YAML 1.1; no shipped value depends on the difference."""
    ours = tree.plain(tree.read_file(path, str(path)))
    assert yaml.safe_load(path.read_text()) == ours
    assert make_plan(load_config(path)).count > 1
