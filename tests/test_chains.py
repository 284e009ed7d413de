from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import chains

PUBLISHED = [
    (50, 0.75, (50, 38, 126), (50, 37, 124)),
    (50, 0.5, (50, 26, 102), (50, 25, 100)),
    (100, 0.5, (100, 51, 202), (100, 50, 200)),
    (200, 0.75, (200, 151, 502), (200, 150, 500)),
    (200, 0.9, (200, 181, 562), (200, 180, 560)),
    (200, 1.0, (200, 200, 600), (200, 200, 600)),
]


@pytest.mark.parametrize(("steps", "strength", "script", "diffusers"), PUBLISHED)
def test_both_ways_to_count_the_published_chains(
    steps: int, strength: float, script: tuple[int, ...], diffusers: tuple[int, ...]
) -> None:
    rounds = len(chains.rounds(9, 3, "first"))
    for expected, later in (
        (script, chains.script_steps(steps, strength)),
        (diffusers, chains.diffusers_steps(steps, strength)),
    ):
        assert (steps, later, steps + (rounds - 1) * later) == expected


@given(st.integers(1, 60), st.integers(1, 70), st.sampled_from(["first", "previous"]))
def test_rounds_make_all_pictures_once_from_pictures_that_are_there(
    samples: int, max_batch: int, start_from: str
) -> None:
    found = chains.rounds(samples, max_batch, start_from)
    made = [each.first + place for each in found for place in range(each.batch)]
    assert made == list(range(samples))
    assert all(each.batch == max_batch for each in found[:-1])
    assert 1 <= found[-1].batch <= max_batch
    for before, each in itertools.pairwise(found):
        start = before.first if start_from == "previous" else 0
        assert each.parents == tuple(range(start, start + each.batch))
        assert max(each.parents) < each.first
    assert found[0].parents == ()


def test_pictures_of_a_call() -> None:
    assert chains.pictures({"batch": 3, "samples": 9}) == 9
    assert chains.pictures({"batch": 3}) == 3
    assert chains.pictures({}) == 1
