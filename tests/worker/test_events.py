from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.runner.draft import Draft
from bench.worker.events import Report, plain, sanitised


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(1.5), 1.5),
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([1.0, np.inf]), [1.0, None]),
        ((1, 2), [1, 2]),
        ({"b", "a"}, ["a", "b"]),
        ({1: {"x": float("nan")}}, {"1": {"x": None}}),
        (PurePosixPath("a/b"), "a/b"),
        (True, True),
        (int, "<class 'int'>"),
    ],
)
def test_values_become_what_json_can_hold(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_a_torch_scalar_becomes_a_number():
    import torch

    assert plain(torch.tensor(2)) == 2
    assert plain(torch.tensor([1.0, float("nan")])) == [1.0, None]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    )
)
def test_any_value_survives_strict_json(value):
    sent: list[Any] = []
    sanitised(sent.append)({"event": "set", "fields": {"x": value}})
    assert json.loads(json.dumps(sent[0], allow_nan=False)) == sent[0]


def test_a_value_that_becomes_none_has_its_reason_in_the_record():
    draft = Draft()
    report = Report(sanitised(lambda event: draft.feed(json.dumps(event).encode() + b"\n")))
    report.null({"it_per_s": "its own reason"})
    report.set(load_s=float("nan"), stages={"post_s": float("inf")}, it_per_s=float("nan"))
    report.append(step_s=[1.0, float("-inf")])
    assert draft.fields["load_s"] is None
    found = draft.fields["null_reasons"]
    assert found.pop("it_per_s") == "its own reason"
    assert found == {
        name: f"the worker's value was {value}, which is no finite number"
        for name, value in (("load_s", "nan"), ("stages.post_s", "inf"), ("step_s", "-inf"))
    }
