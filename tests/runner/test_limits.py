"""Limits of memory, and cells that are skipped since a smaller one ran out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.runner import RunnerError, execute
from bench.runner.budget import blind, fields, over, resident_bytes
from bench.runner.dominance import Dominance
from bench.runner.draft import Draft
from tests.runner.support import Plan, cell, lines, machine, program

GIB = 2**30
LIMITS: Any = {"timeout_s": 60.0, "memory_bytes": None, "rss_bytes": 2 * GIB}


def sized(
    name: str,
    batch: int,
    side: int,
    *,
    law: tuple[float, float, float] = (1e9, 1e4, 0),
    **more: Any,
) -> Any:
    made: Any = cell(name, extra={"law": law}, limits=LIMITS, **more)
    made["workload"] |= {"batch": batch, "height": side, "width": side}
    made["cell_id"] = f"{batch:08x}{side:08x}"
    return made


def drawn(bytes_: int, meter: str = "rss", outcome: str | None = "ok") -> Draft:
    draft = Draft()
    draft.fields["memory"] = [{"meter": meter, "phase": "warmup", "bytes": bytes_}]
    draft.outcome = outcome
    draft.phase = "steady"
    return draft


def test_a_worker_over_its_limit_is_ended_at_once(tmp_path):
    limited: Any = cell("a", limits={**LIMITS, "rss_bytes": 200 * 2**20})
    execute(Plan([limited]), tmp_path / "run", program=program("hungry"), machine=machine())
    (record,) = lines(tmp_path / "run")
    assert record["outcome"] == "oom"
    assert "over the limit of 0.1953 GiB" in record["reason"]
    assert "meter rss" in record["reason"]
    assert "ended during load" in record["reason"]
    seen = record["memory_limit"]["over_bytes"]
    assert 200 * 2**20 < seen < 400 * 2**20
    assert record["memory_limit"]["limit_bytes"] == 200 * 2**20


def test_a_peak_that_nobody_saw_counts_too():
    said = over(LIMITS, None, drawn(2 * GIB + 1))
    assert said is not None
    assert "and was ended" not in said
    assert over(LIMITS, None, drawn(2 * GIB)) is None
    assert over(LIMITS, None, drawn(3 * GIB, "torch.max_memory_allocated")) is None


def test_torchs_own_refusal_names_the_limit():
    limits: Any = {"timeout_s": 1.0, "memory_bytes": None, "device_bytes": 8 * GIB}
    draft = drawn(GIB, "torch.max_memory_reserved", "oom")
    draft.reason = "OutOfMemoryError: tried to allocate 2 GiB"
    said = over(limits, None, draft)
    assert said == (
        "out of memory under the limit of 8 GiB by the meter torch.max_memory_reserved: "
        "OutOfMemoryError: tried to allocate 2 GiB"
    )
    assert fields(limits, None, draft)["memory_limit"]["over_bytes"] is None


def test_a_cell_without_a_limit_has_no_such_field():
    assert fields({"timeout_s": 1.0, "memory_bytes": None}, None, drawn(GIB)) == {}


def test_a_system_without_proc_refuses_a_limit(tmp_path, monkeypatch):
    limited: Any = cell("a", limits=LIMITS)
    assert blind([limited], tmp_path) is not None
    assert blind([cell("b")], tmp_path) is None
    assert resident_bytes(1, tmp_path) is None
    monkeypatch.setattr("bench.runner.budget.blind", lambda _: "no /proc here.")
    with pytest.raises(RunnerError, match="no /proc"):
        execute(Plan([limited]), tmp_path / "run", program=program("good"), machine=machine())


def grid() -> list[Any]:
    return [sized(f"b{b}s{s}", b, s) for b in (1, 4, 16) for s in (64, 256)]


def outcomes(run: Path) -> dict[str, str]:
    return {record["name"]: record["outcome"] for record in lines(run)}


def test_what_asks_for_more_is_skipped_and_says_so(tmp_path):
    run = tmp_path / "run"
    execute(Plan(grid()), run, program=program("lawful"), machine=machine())
    # 1e9 + 1e4 x 65536 x 4 is over 2 GiB, and so is none of the smaller ones
    assert outcomes(run) == {
        "b1s64": "ok", "b1s256": "ok", "b4s64": "ok", "b4s256": "oom", "b16s64": "ok",
        "b16s256": "skipped",
    }  # fmt: skip
    known = {record["name"]: record for record in lines(run)}
    skipped = known["b16s256"]
    assert skipped["dominated_by"] == known["b4s256"]["record_id"]
    assert known["b4s256"]["record_id"] in skipped["reason"]
    assert "batch 16 at 256x256 asks for more than batch 4 at 256x256" in skipped["reason"]


def test_it_can_be_run_anyway(tmp_path):
    run = tmp_path / "run"
    execute(Plan(grid()), run, program=program("lawful"), machine=machine(), skip_dominated=False)
    assert outcomes(run)["b16s256"] == "oom"


def test_a_later_run_remembers_what_ran_out(tmp_path):
    run = tmp_path / "run"
    cells = grid()
    execute(Plan(cells[:4]), run, program=program("lawful"), machine=machine())
    execute(Plan(cells), run, resume=True, program=program("lawful"), machine=machine())
    assert outcomes(run)["b16s256"] == "skipped"
    # tried again, and with it what it had decided
    execute(Plan(cells), run, retry=("oom", "skipped"), program=program("good"), machine=machine())
    assert outcomes(run)["b16s256"] == "ok"


def test_only_what_is_alike_is_dominated():
    known = Dominance()
    small = sized("a", 4, 256)
    known.ran_out(small, "cpu", "r1")
    wide = sized("b", 4, 256)
    wide["workload"] |= {"height": 128, "width": 1024}
    assert known.smaller(wide, "cpu") is None
    assert known.smaller(sized("c", 4, 256), "cpu") is None
    assert known.smaller(sized("d", 5, 256), "cuda:0") is None
    more = sized("e", 5, 256)
    found = known.smaller(more, "cpu")
    assert found is not None
    assert found.record_id == "r1"
    for change in ({"dtype": "float16"}, {"steps": 5}, {"memory": "model-offload"}):
        assert known.smaller({**more, "workload": {**more["workload"], **change}}, "cpu") is None
    assert known.smaller({**more, "limits": {**LIMITS, "rss_bytes": 4 * GIB}}, "cpu") is None
    assert known.smaller({**more, "limits": {**LIMITS, "timeout_s": 5.0}}, "cpu") is not None
    another = {**more, "workload": {**more["workload"], "seed": 5, "name": "other"}}
    assert known.smaller(another, "cpu") is not None
    assert Dominance(use=False).smaller(more, "cpu") is None
