from __future__ import annotations

from typing import Any

from bench.worker import faults
from bench.worker.dynamo import Counts
from bench.worker.instrument import Sample


def sample(**fields: Any) -> Sample:
    given = {
        "output": None,
        "e2e_s": 1.0,
        "device_e2e_s": None,
        "step_s": [],
        "it_per_s": None,
        "stages": {},
        "steps_effective": 10,
        "denoiser_calls": 10,
        "denoiser_batches": (2,),
        "step_source": "callback",
    }
    return Sample(**(given | fields))


def test_equal_counts_are_no_fault():
    assert faults.of_counts([sample(), sample()]) == []


def test_counts_that_differ_are_named():
    found = faults.of_counts([sample(), sample(denoiser_calls=7), sample(denoiser_batches=(1, 2))])
    assert len(found) == 2
    assert "10, 7" in found[0]
    assert "(1, 2)" in found[1]


def test_compiling_while_measuring_is_a_fault_with_its_reason():
    assert faults.of_compiling(Counts(), ["forward: from warm-up"]) == []
    (text,) = faults.of_compiling(Counts(graphs=2, attempts=3), ["forward: size changed"])
    assert "3 more" in text
    assert "size changed" in text
    assert faults.of_compiling(Counts(attempts=1), []), "an attempt costs time without a graph"


def test_pictures():
    assert faults.of_pictures([], False, [["a"], ["a"]]) == ([], [])
    invalid, doubts = faults.of_pictures(["picture 1 is black"], True, [["a"], ["b"]])
    assert "NaN" in invalid[0]
    assert invalid[1] == "picture 1 is black"
    assert "2 different results in 2 calls" in doubts[0]


def test_time_outside_every_stage_is_flagged_when_large():
    few, more, much = (sample(stages={"unaccounted_s": share}) for share in (0.09, 0.25, 0.35))
    assert faults.of_stages([few]) == []
    (text,) = faults.of_stages([more, much])
    assert text.startswith("30 %")
