"""Every status, reason and exit code of a comparison."""

from __future__ import annotations

import copy
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


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("runs")
    return content(folder, "base"), content(folder, "new", seed=1)


@pytest.fixture
def base(contents: tuple[Any, Any]) -> Any:
    return copy.deepcopy(contents[0])


@pytest.fixture
def new(contents: tuple[Any, Any]) -> Any:
    return copy.deepcopy(contents[1])


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


def test_the_same_passes(base: Any, new: Any) -> None:
    found = compare(base, new)
    assert found.exit_code == 0
    assert found.headline.startswith("PASSED: ")
    assert {row(found, m).status for m in ("speed", "memory", "warmup")} == {"passed"}
    assert row(found, "speed").low_pct is not None
    assert row(found, "memory").change_pct == 0
    assert not found.suspects


def test_slower_is_a_regression(base: Any, tmp_path: Path) -> None:
    found = compare(base, content(tmp_path, "slow", 1.05, 1))
    assert found.exit_code == 1
    assert row(found, "speed").status == "regression"
    assert "whole interval is beyond the allowed +1 %" in row(found, "speed").reason
    assert found.suspects == ("t2i/torch-compile",)
    assert found.headline == "FAILED: 1 regression in 1 cell."
    assert (
        compare(base, content(tmp_path, "slow2", 1.05, 1), limits.parse("speed=9%")).exit_code == 0
    )


def test_faster_passes_and_too_fast_stops(base: Any, tmp_path: Path) -> None:
    assert compare(base, content(tmp_path, "fast", 0.9, 1)).exit_code == 0
    twice = content(tmp_path, "twice", 0.5, 1)
    found = compare(base, twice)
    assert found.exit_code == 3
    assert row(found, "speed").status == "implausible"
    assert found.headline.startswith("STOPPED: ")
    assert compare(base, twice, Limits(acknowledged=["t2i/torch-compile"])).exit_code == 0
    assert compare(base, twice, Limits(implausible_pct=60)).exit_code == 0
    assert "no such cell" in compare(base, twice, Limits(acknowledged=["x"])).notes[0]


def test_a_confirmation_decides(base: Any, tmp_path: Path) -> None:
    slow = content(tmp_path, "slow", 1.05, 1)
    lucky, again = content(tmp_path, "a", 1.0, 2), content(tmp_path, "b", 1.05, 3)
    saved = compare(base, slow, confirmation=(None, lucky))
    assert (saved.exit_code, saved.confirmed) == (0, True)
    assert "not confirmed" in row(saved, "speed").reason
    assert compare(base, slow, confirmation=(None, again)).exit_code == 1


def test_memory_and_warmup_are_gated(base: Any, tmp_path: Path) -> None:
    big = content(tmp_path, "big", memory=memory(int(1.03 * 2**30)))
    assert row(compare(base, big), "memory").status == "regression"
    assert compare(base, big, limits.parse("memory=5%")).exit_code == 0
    long = content(tmp_path, "long", warmup_s=[9.0, 2.0])
    assert row(compare(base, long), "warmup").status == "regression"


ALL, COUNT = "processes.*", "processes.3.counts"


def put(content_: Any, path: str, value: Any) -> None:
    *way, last = path.split(".")
    targets = [of(content_)]
    for name in way:
        if name == "*":
            targets = [each for target in targets for each in target]
        else:
            targets = [t[int(name) if isinstance(t, list) else name] for t in targets]
    for target in targets:
        target[last] = value


@pytest.mark.parametrize(
    ("side", "path", "value", "fail_on", "metric", "status", "code", "reason"),
    [
        # A missing figure is never a pass.
        ("base", f"{ALL}.memory_bytes", None, None, "memory", "not comparable", 3, "of the base"),
        ("new", f"{ALL}.memory_bytes", None, None, "memory", "not comparable", 3, "of the cand"),
        ("new", "processes.2.memory_bytes", None, None, "memory", "not comparable", 3,
         "missing in 1 of 6 processes of the candidate"),
        # Counts are exact.
        ("new", f"{COUNT}.steps_effective", 9, "counts", "steps_effective", "regression", 1, "9"),
        ("new", f"{COUNT}.denoiser_calls", 20, "counts", "denoiser_calls", "regression", 1, "20"),
        ("new", f"{COUNT}.graphs", 3, "counts", "graphs", "regression", 1, "2 before, 2 or 3 now."),
        ("new", f"{COUNT}.graphs", 1, "counts", "graphs", "regression", 1, "2 before, 2 or 1 now."),
        ("new", f"{COUNT}.graph_breaks", 1, "counts", "graph_breaks", "regression", 1, "0 before"),
        ("new", f"{COUNT}.recompiles", 2, "counts", "recompiles", "regression", 1, "0 before"),
        ("new", f"{COUNT}.output_size", "64x64", "counts", "output_size", "regression", 1, "64x64"),
        ("new", f"{COUNT}.pictures", {"333/0": "other"}, "counts", "pictures", "regression", 1,
         "images changed: seed/index 333/0."),
        ("new", f"{COUNT}.graphs", None, "counts", "graphs", "not comparable", 3,
         "missing in the candidate."),
        ("base", f"{ALL}.counts.graph_breaks", 3, "counts", "graph_breaks", "improved", 0, "fewer"),
        ("base", f"{ALL}.counts.recompiles", 3, "counts", "recompiles", "improved", 0, "fewer"),
        ("base", f"{COUNT}.recompiles", 7, "counts", "recompiles", "unclear", 3, "own processes"),
        ("base", f"{COUNT}.pictures", {"333/0": "other"}, "counts", "pictures", "not gated", 0,
         "does not repeat its images"),
        # Other work makes its time incomparable, other software its counts.
        ("new", f"{ALL}.counts.steps_effective", 5, None, "speed", "not comparable", 1,
         "steps_effective differs"),
        ("new", "fingerprint.packages", {"torch": "2.14.0", "diffusers": "0.42.1"}, "counts",
         "graphs", "not comparable", 3, "torch (2.14.0, baseline 2.13.0)"),
        # One process of six that is not ok.
        *(
            ("new", "processes.5.outcome", outcome, None, "outcome", "regression", 1,
             f"1 of 6 processes ended {outcome}: no reason given")
            for outcome in ("oom", "fallback", "invalid", "failed", "timeout")
        ),
        # Disturbances.
        ("base", "processes.0.disturbances", ["thermal slowdown (hardware) at 91 °C"], None,
         "speed", "unclear", 3, "baseline, round 1: thermal"),
        ("new", "processes.0.fingerprint_key", "elsewhere", None, "speed", "unclear", 3,
         "not measured on one machine"),
        ("new", "fingerprint.gpu.sm_clock_locked_mhz", 900, None, "speed", "unclear", 3,
         "wrong clock: gpu sm_clock_locked_mhz"),
        ("new", "fingerprint.gpu.power_limit_w", 900, None, "speed", "unclear", 3,
         "wrong clock: gpu power_limit_w"),
    ],
)  # fmt: skip
def test_one_change_has_its_status_and_reason(
    base: Any, new: Any, side: str, path: str, value: Any, fail_on: str | None, metric: str,
    status: str, code: int, reason: str,
) -> None:  # fmt: skip
    put({"base": base, "new": new}[side], path, value)
    found = compare(base, new, limits.parse(fail_on))
    assert found.exit_code == code
    assert row(found, metric).status == status
    assert reason in row(found, metric).reason


def test_what_neither_has_is_shown_and_only_stops_if_asked_for(base: Any, new: Any) -> None:
    for one in (base, new):
        each(one, lambda p: p.update(memory_bytes=None, memory_reason="a CPU has no such meter"))
    found = compare(base, new)
    assert found.exit_code == 0
    assert row(found, "memory").status == "not gated"
    assert "a CPU has no such meter" in row(found, "memory").reason
    assert compare(base, new, limits.parse("memory")).exit_code == 3


def test_a_graph_break_tells_its_reason(base: Any, new: Any) -> None:
    each(new, lambda p: p["counts"].update(graph_breaks=1))
    each(new, lambda p: p.update(graph_break_reasons=["print in forward"]))
    assert "Reason: print in forward" in row(compare(base, new, COUNTS), "graph_breaks").reason


# Like with like


def fingerprint(content_: dict[str, Any], **changes: Any) -> dict[str, Any]:
    of(content_)["fingerprint"] = {**of(content_)["fingerprint"], **changes}
    return content_


def test_another_machine_gates_counts_alone(base: Any, new: Any) -> None:
    fingerprint(new, cpu="CPU Y")
    each(new, lambda p: p["counts"].update(pictures={"333/0": "other"}))
    found = compare(base, new)
    assert found.exit_code == 3
    assert "another fingerprint: cpu (CPU Y, baseline CPU X)" in row(found, "speed").reason
    counted = compare(base, new, COUNTS)
    assert counted.exit_code == 0
    assert row(counted, "pictures").status == "not gated"


def test_patch_levels_and_builds_count_alike(base: Any, new: Any) -> None:
    fingerprint(new, python="3.11.9", packages={"torch": "2.13.0+cpu", "diffusers": "0.42.1"})
    assert compare(base, new, COUNTS).exit_code == 0
    assert compare(base, new).exit_code == 3
    fingerprint(new, python="3.12.9")
    assert compare(base, new, COUNTS).exit_code == 3


def test_paired_arms_may_differ_in_software_but_not_in_hardware(base: Any, new: Any) -> None:
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
        (lambda c: c["asked"]["workload"].update(scheduler="Euler"), "scheduler (Euler, baseline"),
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
    base: Any, new: Any, change: Any, message: str
) -> None:
    change(of(new))
    found = compare(base, new)
    assert found.exit_code == 3
    assert message in row(found, "cell").reason
    assert [one.metric for one in found.rows] == ["outcome", "cell"]


@pytest.mark.parametrize("cold_side", ["baseline", "candidate"])
def test_warm_against_cold_is_not_comparable_and_no_win(
    base: Any, tmp_path: Path, cold_side: str
) -> None:
    cold = content(tmp_path, "cold", 3.0, warmup_s=[])
    pair = (base, cold) if cold_side == "candidate" else (cold, base)
    found = compare(*pair)
    assert found.exit_code == 3
    assert "cold: it had no warm-up call" in row(found, "cell").reason
    unsettled = content(tmp_path, "unsettled", 3.0, warmup_stable=False)
    pair = (base, unsettled) if cold_side == "candidate" else (unsettled, base)
    assert "not warmed up" in row(compare(*pair), "cell").reason


def test_cells_without_a_partner_stop(tmp_path: Path, base: Any) -> None:
    other = content(tmp_path, "other", of=planned("none"))
    found = compare(base, other)
    assert found.exit_code == 3
    assert [one.reason for one in found.rows] == [
        "the candidate has no such cell.",
        "the baseline has no such cell; save a baseline that has it.",
    ]


# Outcomes


@pytest.mark.parametrize("outcome", ["unsupported", "unavailable", "skipped"])
def test_what_was_not_measured_is_no_pass(base: Any, new: Any, outcome: str) -> None:
    each(new, lambda p: p.update(outcome=outcome, reason="no GPU"))
    found = compare(base, new)
    assert found.exit_code == 3
    assert row(found, "outcome").reason == f"{outcome} here: no GPU"
    both = compare(new, new)
    assert both.exit_code == 3
    assert both.headline == "NOT COMPARABLE: nothing was compared."
    assert "save a baseline" in row(compare(new, base), "outcome").reason


def test_missing_rounds_are_no_pass(base: Any, new: Any) -> None:
    del of(new)["processes"][4:]
    found = compare(base, new)
    assert found.exit_code == 3
    assert row(found, "outcome").reason == "2 of 6 rounds have no record."
    of(new)["processes"].clear()
    assert "no record of this cell" in row(compare(base, new), "outcome").reason


# Disturbances


def test_a_disturbed_process_makes_figures_unclear_and_leaves_counts(
    base: Any, tmp_path: Path
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


def test_a_slowdown_halfway_is_unclear(base: Any, tmp_path: Path) -> None:
    arm = times(1.0, 1, calls=20)
    arm[2] = [*arm[2][:10], *(1.3 * t for t in arm[2][10:])]
    found = compare(base, content(tmp_path, "hot", arm=arm))
    assert found.exit_code == 3
    assert "round 3: calls became" in row(found, "speed").reason


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
def test_fidelity(base: Any, new: Any, before: Any, now: Any, code: int) -> None:
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
