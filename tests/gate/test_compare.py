"""Every status, reason and exit code of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.gate import compare as gate
from bench.gate import limits
from bench.gate.compare import Comparison, Row
from bench.gate.limits import Limits
from tests.gate import support
from tests.gate.support import content, memory, planned, records, times, write_run

COUNTS = limits.parse("counts")


@pytest.fixture
def base(tmp_path: Path) -> Any:
    return content(tmp_path, "base")


@pytest.fixture
def new(tmp_path: Path) -> Any:
    return content(tmp_path, "new", seed=1)


def compare(base: Any, new: Any, of: Limits | None = None, **more: Any) -> Comparison:
    """Compare two contents of baseline files."""
    again = more.pop("confirmation", None)
    if again is not None:
        more["confirmation"] = tuple(each and support.measurement(each) for each in again)
    return gate.compare(support.measurement(base), support.measurement(new), of, **more)


def of(content_: dict[str, Any]) -> Any:
    return content_["cells"]["t2i/torch-compile"]


def row(found: Comparison, metric: str) -> Row:
    (one,) = [row for row in found.rows if row.metric == metric]
    return one


def each(content_: dict[str, Any], change: Callable[[Any], None]) -> dict[str, Any]:
    for process in of(content_)["processes"]:
        change(process)
    return content_


def test_the_same_passes(base: dict[str, Any], new: dict[str, Any]) -> None:
    found = compare(base, new)
    assert found.exit_code == 0
    assert found.headline.startswith("PASSED: ")
    assert {row(found, m).status for m in ("speed", "memory", "warmup")} == {"passed"}
    assert row(found, "speed").low_pct is not None
    assert row(found, "memory").change_pct == 0
    assert not found.suspects


def test_slower_is_a_regression(base: dict[str, Any], tmp_path: Path) -> None:
    found = compare(base, content(tmp_path, "slow", 1.05, 1))
    assert found.exit_code == 1
    assert row(found, "speed").status == "regression"
    assert "whole interval is beyond the allowed +1 %" in row(found, "speed").reason
    assert found.suspects == ("t2i/torch-compile",)
    assert found.headline == "FAILED: 1 regression in 1 cell."
    assert (
        compare(base, content(tmp_path, "slow2", 1.05, 1), limits.parse("speed=9%")).exit_code == 0
    )


def test_faster_passes_and_too_fast_stops(base: dict[str, Any], tmp_path: Path) -> None:
    assert compare(base, content(tmp_path, "fast", 0.9, 1)).exit_code == 0
    twice = content(tmp_path, "twice", 0.5, 1)
    found = compare(base, twice)
    assert found.exit_code == 3
    assert row(found, "speed").status == "implausible"
    assert found.headline.startswith("STOPPED: ")
    assert compare(base, twice, Limits(acknowledged=["t2i/torch-compile"])).exit_code == 0
    assert compare(base, twice, Limits(implausible_pct=60)).exit_code == 0
    assert "no such cell" in compare(base, twice, Limits(acknowledged=["x"])).notes[0]


def test_a_confirmation_decides(base: dict[str, Any], tmp_path: Path) -> None:
    slow = content(tmp_path, "slow", 1.05, 1)
    lucky, again = content(tmp_path, "a", 1.0, 2), content(tmp_path, "b", 1.05, 3)
    saved = compare(base, slow, confirmation=(None, lucky))
    assert (saved.exit_code, saved.confirmed) == (0, True)
    assert "not confirmed" in row(saved, "speed").reason
    assert compare(base, slow, confirmation=(None, again)).exit_code == 1


def test_memory_and_warmup_are_gated(base: dict[str, Any], tmp_path: Path) -> None:
    big = content(tmp_path, "big", memory=memory(int(1.03 * 2**30)))
    assert row(compare(base, big), "memory").status == "regression"
    assert compare(base, big, limits.parse("memory=5%")).exit_code == 0
    long = content(tmp_path, "long", warmup_s=[9.0, 2.0])
    assert row(compare(base, long), "warmup").status == "regression"


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_missing_figure_is_never_a_pass(
    base: dict[str, Any], new: dict[str, Any], side: str
) -> None:
    each({"baseline": base, "candidate": new}[side], lambda p: p.update(memory_bytes=None))
    found = compare(base, new)
    assert found.exit_code == 3
    assert f"of the {side}" in row(found, "memory").reason


def test_a_figure_missing_in_one_process_is_missing(
    base: dict[str, Any], new: dict[str, Any]
) -> None:
    of(new)["processes"][2]["memory_bytes"] = None
    found = compare(base, new)
    assert found.exit_code == 3
    assert "missing in 1 of 6 processes of the candidate" in row(found, "memory").reason


def test_what_neither_has_is_shown_and_only_stops_if_asked_for(
    base: dict[str, Any], new: dict[str, Any]
) -> None:
    for one in (base, new):
        each(one, lambda p: p.update(memory_bytes=None, memory_reason="a CPU has no such meter"))
    found = compare(base, new)
    assert found.exit_code == 0
    assert row(found, "memory").status == "not gated"
    assert "a CPU has no such meter" in row(found, "memory").reason
    assert compare(base, new, limits.parse("memory")).exit_code == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps_effective", 9),
        ("denoiser_calls", 20),
        ("graphs", 3),
        ("graphs", 1),
        ("graph_breaks", 1),
        ("recompiles", 2),
        ("output_size", "64x64"),
        ("pictures", {"333/0": "other"}),
    ],
)
def test_counts_are_exact(base: dict[str, Any], new: dict[str, Any], name: str, value: Any) -> None:
    of(new)["processes"][3]["counts"][name] = value
    found = compare(base, new, COUNTS)
    assert found.exit_code == 1
    assert row(found, name).status == "regression"


def test_other_work_makes_its_time_incomparable(base: dict[str, Any], new: dict[str, Any]) -> None:
    each(new, lambda p: p["counts"].update(steps_effective=5))
    found = compare(base, new)
    assert found.exit_code == 1
    assert row(found, "speed").status == "not comparable"
    assert "steps_effective differs" in row(found, "speed").reason


def test_a_graph_break_tells_its_reason(base: dict[str, Any], new: dict[str, Any]) -> None:
    each(new, lambda p: p["counts"].update(graph_breaks=1))
    each(new, lambda p: p.update(graph_break_reasons=["print in forward"]))
    assert "Reason: print in forward" in row(compare(base, new, COUNTS), "graph_breaks").reason


@pytest.mark.parametrize("name", ["graph_breaks", "recompiles"])
def test_fewer_breaks_are_better(base: dict[str, Any], new: dict[str, Any], name: str) -> None:
    each(base, lambda p: p["counts"].update({name: 3}))
    found = compare(base, new, COUNTS)
    assert found.exit_code == 0
    assert row(found, name).status == "improved"


def test_a_missing_count_is_never_a_pass(base: dict[str, Any], new: dict[str, Any]) -> None:
    of(new)["processes"][0]["counts"]["graphs"] = None
    found = compare(base, new, COUNTS)
    assert found.exit_code == 3
    assert row(found, "graphs").reason == "missing in the candidate."


def test_a_baseline_that_contradicts_itself_is_unclear(
    base: dict[str, Any], new: dict[str, Any]
) -> None:
    of(base)["processes"][0]["counts"]["recompiles"] = 7
    assert row(compare(base, new, COUNTS), "recompiles").status == "unclear"


def test_pictures_that_never_repeat_are_not_gated(
    base: dict[str, Any], new: dict[str, Any]
) -> None:
    of(base)["processes"][0]["counts"]["pictures"] = {"333/0": "other"}
    found = compare(base, new, COUNTS)
    assert found.exit_code == 0
    assert "does not repeat its images" in row(found, "pictures").reason


# Like with like


def fingerprint(content_: dict[str, Any], **changes: Any) -> dict[str, Any]:
    of(content_)["fingerprint"] = {**of(content_)["fingerprint"], **changes}
    return content_


def test_another_machine_gates_counts_alone(base: dict[str, Any], new: dict[str, Any]) -> None:
    fingerprint(new, cpu="CPU Y")
    each(new, lambda p: p["counts"].update(pictures={"333/0": "other"}))
    found = compare(base, new)
    assert found.exit_code == 3
    assert "another fingerprint: cpu (CPU Y, baseline CPU X)" in row(found, "speed").reason
    counted = compare(base, new, COUNTS)
    assert counted.exit_code == 0
    assert row(counted, "pictures").status == "not gated"


def test_other_software_has_other_counts(base: dict[str, Any], new: dict[str, Any]) -> None:
    fingerprint(new, packages={"torch": "2.14.0", "diffusers": "0.42.1"})
    found = compare(base, new, COUNTS)
    assert found.exit_code == 3
    assert "torch (2.14.0, baseline 2.13.0)" in row(found, "graphs").reason


def test_patch_levels_and_builds_count_alike(base: dict[str, Any], new: dict[str, Any]) -> None:
    fingerprint(new, python="3.11.9", packages={"torch": "2.13.0+cpu", "diffusers": "0.42.1"})
    assert compare(base, new, COUNTS).exit_code == 0
    assert compare(base, new).exit_code == 3
    fingerprint(new, python="3.12.9")
    assert compare(base, new, COUNTS).exit_code == 3


def test_paired_arms_may_differ_in_software_but_not_in_hardware(
    base: dict[str, Any], new: dict[str, Any]
) -> None:
    fingerprint(new, packages={"torch": "2.14.0"}, environment_hash="e2", python="3.12.0")
    found = compare(base, new, paired=True)
    assert found.exit_code == 0
    assert row(found, "pictures").status == "not gated"
    fingerprint(new, cpu="CPU Y")
    assert compare(base, new, paired=True).exit_code == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["asked"]["workload"].update(steps=4), "another workload: steps (4, base"),
        (lambda c: c["asked"]["workload"].update(prompt="x"), "another workload: prompt"),
        (lambda c: c["asked"].update(threads=2), "another workload: threads (2, baseline 1)"),
        (lambda c: c["asked"]["backend"].update(options={"mode": "x"}), "backend differs: options"),
        (lambda c: c["asked"].update(cache="warm"), "cache differs: warm (baseline fresh)"),
        (lambda c: c["found"].update(cache="warm"), "one was warm and the other cold"),
        (lambda c: c["found"].update(device="cpu"), "another workload: device (cpu, baseline cuda"),
        (lambda c: c["found"].update(model_revision="z"), "another workload: model revision"),
        (lambda c: c["asked"].update(warmup=None), "warm-up rule differs"),
    ],
)
def test_another_measurement_is_not_compared(
    base: dict[str, Any], new: dict[str, Any], change: Any, message: str
) -> None:
    change(of(new))
    found = compare(base, new)
    assert found.exit_code == 3
    assert message in row(found, "cell").reason
    assert [one.metric for one in found.rows] == ["outcome", "cell"]


@pytest.mark.parametrize("cold_side", ["baseline", "candidate"])
def test_warm_against_cold_is_not_comparable_and_no_win(
    base: dict[str, Any], tmp_path: Path, cold_side: str
) -> None:
    cold = content(tmp_path, "cold", 3.0, warmup_s=[])
    pair = (base, cold) if cold_side == "candidate" else (cold, base)
    found = compare(*pair)
    assert found.exit_code == 3
    assert "cold: it had no warm-up call" in row(found, "cell").reason
    unsettled = content(tmp_path, "unsettled", 3.0, warmup_stable=False)
    pair = (base, unsettled) if cold_side == "candidate" else (unsettled, base)
    assert "not warmed up" in row(compare(*pair), "cell").reason


def test_cells_without_a_partner_stop(tmp_path: Path, base: dict[str, Any]) -> None:
    other = content(tmp_path, "other", of=planned("none"))
    found = compare(base, other)
    assert found.exit_code == 3
    assert [one.reason for one in found.rows] == [
        "the candidate has no such cell.",
        "the baseline has no such cell; save a baseline that has it.",
    ]


# Outcomes


@pytest.mark.parametrize("outcome", ["oom", "fallback", "invalid", "failed", "timeout"])
def test_a_process_that_is_not_ok_is_a_regression(
    base: dict[str, Any], new: dict[str, Any], outcome: str
) -> None:
    of(new)["processes"][5].update(outcome=outcome, reason="broke")
    found = compare(base, new)
    assert found.exit_code == 1
    assert row(found, "outcome").reason == f"1 of 6 processes ended {outcome}: broke"


@pytest.mark.parametrize("outcome", ["unsupported", "unavailable", "skipped"])
def test_what_was_not_measured_is_no_pass(
    base: dict[str, Any], new: dict[str, Any], outcome: str
) -> None:
    each(new, lambda p: p.update(outcome=outcome, reason="no GPU"))
    found = compare(base, new)
    assert found.exit_code == 3
    assert row(found, "outcome").reason == f"{outcome} here: no GPU"
    both = compare(new, new)
    assert both.exit_code == 3
    assert both.headline == "NOT COMPARABLE: nothing was compared."
    assert "save a baseline" in row(compare(new, base), "outcome").reason


def test_missing_rounds_are_no_pass(base: dict[str, Any], new: dict[str, Any]) -> None:
    del of(new)["processes"][4:]
    found = compare(base, new)
    assert found.exit_code == 3
    assert row(found, "outcome").reason == "2 of 6 rounds have no record."
    of(new)["processes"].clear()
    assert "no record of this cell" in row(compare(base, new), "outcome").reason


# Disturbances


def test_a_disturbed_process_makes_figures_unclear_and_leaves_counts(
    base: dict[str, Any], tmp_path: Path
) -> None:
    slow = content(tmp_path, "slow", 1.2, 1)
    of(slow)["processes"][1]["disturbances"] = ["other processes on the GPU: trainer"]
    found = compare(base, slow)
    assert found.exit_code == 3
    assert row(found, "speed").status == "unclear"
    assert row(found, "speed").reason.startswith(
        "candidate, round 2: other processes on the GPU: trainer."
    )
    assert row(found, "graphs").status == "passed"
    assert found.headline.startswith("UNCLEAR: ")
    each(slow, lambda p: p["counts"].update(graph_breaks=1))
    assert compare(base, slow).exit_code == 1


def test_a_disturbed_baseline_is_unclear_too(base: dict[str, Any], new: dict[str, Any]) -> None:
    of(base)["processes"][0]["disturbances"] = ["thermal slowdown (hardware) at 91 °C"]
    assert "baseline, round 1: thermal" in row(compare(base, new), "speed").reason


def test_a_slowdown_halfway_is_unclear(base: dict[str, Any], tmp_path: Path) -> None:
    arm = times(1.0, 1, calls=20)
    arm[2] = [*arm[2][:10], *(1.3 * t for t in arm[2][10:])]
    found = compare(base, content(tmp_path, "hot", arm=arm))
    assert found.exit_code == 3
    assert "round 3: calls became" in row(found, "speed").reason


@pytest.mark.parametrize("name", ["sm_clock_locked_mhz", "power_limit_w"])
def test_a_wrong_clock_is_unclear(base: dict[str, Any], new: dict[str, Any], name: str) -> None:
    fingerprint(new, gpu={**support.GPU, name: 900})
    found = compare(base, new)
    assert found.exit_code == 3
    assert row(found, "speed").status == "unclear"
    assert "wrong clock: gpu " + name in row(found, "speed").reason


def test_rounds_on_two_machines_are_unclear(base: dict[str, Any], new: dict[str, Any]) -> None:
    of(new)["processes"][0]["fingerprint_key"] = "elsewhere"
    assert "not measured on one machine" in row(compare(base, new), "speed").reason


# Fidelity


def word(content_: dict[str, Any], verdict: str | None) -> None:
    of(content_)["fidelity"] = {"word": verdict, "worst_db": None, "reason": "because"}


@pytest.mark.parametrize(
    ("before", "now", "code"),
    [
        ("IDENTICAL", "CLOSE", 0),
        ("CLOSE", "VISIBLY DIFFERENT", 1),
        ("VISIBLY DIFFERENT", "VISIBLY DIFFERENT", 0),
        ("VISIBLY DIFFERENT", "OTHER PICTURE", 1),
        ("OTHER PICTURE", "IDENTICAL", 0),
        ("CLOSE", None, 3),
        (None, "CLOSE", 3),
        (None, None, 3),
    ],
)
def test_fidelity(
    base: dict[str, Any], new: dict[str, Any], before: Any, now: Any, code: int
) -> None:
    word(base, before)
    word(new, now)
    assert compare(base, new, limits.parse("fidelity")).exit_code == code


def test_fidelity_is_judged_from_stored_pictures(tmp_path: Path) -> None:
    import hashlib

    from PIL import Image

    def drawn(folder: Path, name: str, shade: int) -> list[dict[str, Any]]:
        folder.mkdir(exist_ok=True)
        picture = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
        picture.putpixel((3, 3), (shade, shade, shade))
        picture.save(folder / name)
        sha = hashlib.sha256(picture.tobytes()).hexdigest()
        return [{**support.images()[0], "path": f"pictures/{name}", "sha256": sha}]

    run = tmp_path / "run"
    eager, compiled = planned("none", rounds=1), planned(rounds=1)
    arm = times(processes=1)
    write_run(run, [(eager, []), (compiled, [])])
    near = drawn(run / "pictures", "b.png", 14)
    same = drawn(run / "pictures", "a.png", 12)
    from bench.store import RunFolder

    with RunFolder.acquire(run) as folder:
        folder.append(records(eager, arm, images=same)[0])
        folder.append(records(compiled, arm, images=near)[0])
    from bench.gate import measured

    cells = measured.of_run(run).cells
    assert cells["t2i/torch-compile"].fidelity.word == "CLOSE"
    assert cells["t2i/none"].fidelity.word is None
    (run / "pictures/b.png").unlink()
    assert "cannot be read" in measured.of_run(run).cells["t2i/torch-compile"].fidelity.reason
