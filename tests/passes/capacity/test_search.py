"""The search finds every edge, with few trials, and says when it cannot."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bench.passes.capacity.search import WAVE, Search


def run(search: Search, edge: int, guess: int | None = None) -> int:
    """Answer as a machine on which numbers up to ``edge`` fit; return how many trials ran."""
    seen: set[int] = set()
    for _ in range(200):
        numbers = search.wave(guess)
        if not numbers:
            return len(seen)
        for number in numbers:
            assert search.least <= number <= search.most
            seen.add(number)
            search.tell(number, "fits" if number <= edge else "oom")
    raise AssertionError("the search does not end")


@given(st.integers(0, 300), st.integers(1, 64), st.integers(64, 256))
def test_it_finds_the_edge(edge: int, start: int, most: int) -> None:
    search = Search(start, most=most)
    count = run(search, edge)
    assert search.fits == (min(edge, most) or None)
    assert search.fails == (edge + 1 if edge < most else None)
    assert count <= 3 * math.log2(most) + WAVE


@given(st.integers(1, 250), st.integers(1, 256))
def test_a_wrong_guess_costs_no_more_than_twice(edge: int, guess: int) -> None:
    search = Search(1, most=256)
    count = run(search, edge, guess)
    assert search.fits == edge
    assert count <= 5 * math.log2(256)


def test_a_right_guess_needs_two_trials() -> None:
    search = Search(1, most=1024)
    for number in search.wave(None):
        search.tell(number, "fits")
    for number in search.wave(None):
        search.tell(number, "fits" if number <= 100 else "oom")
    assert search.wave(100) == [100, 101]
    search.tell(100, "fits")
    search.tell(101, "oom")
    assert search.done
    assert (search.fits, search.fails) == (100, 101)


def test_a_failure_of_another_kind_is_no_answer() -> None:
    search = Search(1)
    search.tell(1, "fits")
    search.tell(2, "unknown", "timeout: no end")
    assert search.done
    assert search.fits == 1
    assert search.stopped == "timeout: no end"


def test_a_failure_above_what_ran_out_is_of_no_interest() -> None:
    search = Search(1)
    search.tell(1, "fits")
    search.tell(2, "oom")
    search.tell(4, "unknown", "skipped")
    assert search.stopped is None
    assert search.done


def test_nothing_fits() -> None:
    search = Search(16, least=4)
    run(search, 0)
    assert search.fits is None
    assert search.fails == 4
