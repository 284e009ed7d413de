"""From a record's sweep to a line and its check, on records made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.passes.sweep.judge import size_sweep, step_sweep
from bench.records import Record
from tests.cli.records import typed_of

STEPS = (20, 5, 50, 10, 30, 5, 30, 50, 20, 10)


def entries(step_s: float = 0.01, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "order": order,
            "steps": each,
            "steps_effective": each,
            "denoiser_calls": each,
            "e2e_s": 0.2 + step_s * each,
            "it_per_s": 1 / step_s,
            "outcome": "ok",
            "reason": None,
            **changes,
        }
        for order, each in enumerate(STEPS)
    ]


def record(rate: float | None = 100.0, **changes: Any) -> Record:
    made = {"it_per_s": [rate], "step_s": [[0.01] * 9], "sweep_steps": entries()}
    return typed_of(made, **changes)


def size(height: int, **changes: Any) -> dict[str, Any]:
    return {
        "order": 0,
        "height": height,
        "width": 64,
        "output_height": height,
        "output_width": 64,
        "first_s": 9.0,
        "second_s": 1.5,
        "e2e_s": [1.0, 1.2, 1.1],
        "graphs": 1,
        "recompiles": 1,
        "outcome": "ok",
        "reason": None,
        **changes,
    }


def test_more_than_3_percent_between_the_slope_and_the_rate_is_said() -> None:
    found = step_sweep([record(rate=97.0)])
    assert found is not None
    assert found.check is not None
    assert not found.check.agrees
    assert found.marginal_it_per_s == pytest.approx(100)
    assert "disagrees with it_per_s: +3.1 %" in found.check.reason
    near = step_sweep([record(rate=98.0)])
    assert near is not None
    assert near.check is not None
    assert near.check.agrees


def test_two_denoiser_calls_a_step_event_are_accounted_for() -> None:
    found = step_sweep([record(rate=50.0, denoiser_calls=20)])
    assert found is not None
    assert found.denoiser_calls_per_step == 2
    assert found.marginal_it_per_s == pytest.approx(50)
    assert found.check is not None
    assert found.check.agrees


def test_without_a_rate_there_is_a_line_and_no_check() -> None:
    found = step_sweep([record(rate=None)])
    assert found is not None
    assert found.fit is not None
    assert found.it_per_s is None
    assert found.check is None


def test_order_and_not_position_in_the_record_says_when_a_call_ran() -> None:
    found = step_sweep([record(sweep_steps=entries()[::-1])])
    assert found is not None
    assert [call.steps for call in found.calls] == list(STEPS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"denoiser_calls": None}, "could not be counted"),
        ({"denoiser_calls": 0}, "could not be counted"),
        ({"denoiser_calls": 5}, "two different step counts"),
        ({"outcome": "oom", "e2e_s": None, "reason": "no memory"}, "two different step counts"),
    ],
)
def test_no_line_has_a_reason(change: dict[str, Any], words: str) -> None:
    found = step_sweep([record(sweep_steps=entries(**change))])
    assert found is not None
    assert found.fit is None
    assert words in (found.reason or "")


def test_only_ok_rounds_of_one_cell_are_pooled() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        step_sweep([record(), record(cell_id="d")])
    found = step_sweep([record(), record(round=1, sequence=1, outcome="invalid")])
    assert found is not None
    assert len(found.calls) == 10
    assert step_sweep([record(outcome="failed")]) is None
    assert size_sweep([record()]) == []


def test_a_size_is_pooled_over_rounds() -> None:
    points = size_sweep(
        [
            record(sweep_size=[size(64), size(128, order=1)]),
            record(
                round=1,
                sequence=1,
                sweep_size=[
                    size(64, first_s=8.0, e2e_s=[2.0, 2.2, 2.1]),
                    size(128, order=1, outcome="oom", first_s=None, e2e_s=[], reason="no memory"),
                ],
            ),
        ]
    )
    small, large = points
    assert small.median_s == pytest.approx(1.6)
    assert list(small.recompile_s) == pytest.approx([7.9, 5.9])
    assert small.failures == ()
    assert large.median_s == pytest.approx(1.1)
    assert large.first_s == (9.0, None)
    assert large.recompile_s[0] == pytest.approx(7.9)
    assert large.recompile_s[1] is None
    assert [(each.point, each.round, each.outcome) for each in large.failures] == [
        ("64x128", 1, "oom")
    ]
