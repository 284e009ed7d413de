"""The passes of a whole cell on a fake pipeline: equal calls, differences with place, leaks."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from bench.contract import PHASES
from bench.passes.repeat import work as repeat
from bench.passes.repeat.judge import judge
from bench.passes.telemetry import work as telemetry
from bench.worker import determinism
from tests.cli.records import FIELDS, typed_of
from tests.worker import fakes

MIB = 2**20


@pytest.fixture
def clock():
    return fakes.FakeClock()


class Memory:
    """A meter that is told what to say."""

    def __init__(self, grows=0, reason=None):
        self.meter, self.how, self.reason = "rss", "as told", reason
        self.held = 100 * MIB
        self.grows = grows

    def read(self):
        self.held += self.grows
        return None if self.reason else self.held


def run(monkeypatch, root, clock, pipeline, memory=None, **cell):
    fakes.give(monkeypatch, pipeline)
    monkeypatch.setattr(repeat, "Held", lambda device: memory or Memory())
    job = fakes.make_job(root)
    job["cell"].update(cell)
    return fakes.run(job, clock), job


def judged(told, job, root):
    return judge([typed_of(told, cell=job["cell"], name="test", outcome=told.outcome)], root)


def test_equal_calls_are_equal_and_hold_no_more(tmp_path, monkeypatch, clock):
    told, job = run(monkeypatch, tmp_path, clock, fakes.FakePipeline(clock), repeat=12)
    assert told.outcome == "ok"
    assert told.phases == [*PHASES, "finish", "repeat"]
    assert told.decided == ("ok", None)
    assert len(told["e2e_s"]) == 3
    assert len(told["repeat"]) == 12
    assert set(told) <= FIELDS
    json.dumps(told, allow_nan=False)
    one = judged(told, job, tmp_path)
    assert (one.equal_within, one.equal_between, one.found) == (True, None, False)
    assert one.processes[0].leak.verdict == "none"


def test_a_planted_leak_is_found_with_its_size(tmp_path, monkeypatch, clock):
    pipeline = fakes.FakePipeline(clock)
    told, job = run(monkeypatch, tmp_path, clock, pipeline, Memory(grows=MIB), repeat=20)
    one = judged(told, job, tmp_path)
    assert one.found
    assert one.processes[0].leak.verdict == "leak"
    assert one.processes[0].leak.bytes_per_call == MIB


def test_a_picture_that_changes_is_found_with_its_place(tmp_path, monkeypatch, clock):
    calls = iter(range(1000))

    def picture():
        data = np.asarray(fakes.colourful()).copy()
        if next(calls) % 5 == 4:
            data[10:12, 20:24, 1] ^= 7
        return Image.fromarray(data)

    pipeline = fakes.FakePipeline(clock, picture=picture)
    told, job = run(monkeypatch, tmp_path, clock, pipeline, repeat=10)
    one = judged(told, job, tmp_path)
    (found,) = one.differences
    assert (one.equal_within, one.processes[0].equal, found.calls) == (False, 8, 2)
    assert (found.box, found.max_abs) == ((20, 10, 23, 11), 7)
    assert found.share == pytest.approx(8 / 64**2)
    assert np.count_nonzero(found.map) == 8


def test_pictures_of_another_size_are_said(tmp_path, monkeypatch, clock):
    sides = iter([64] * 6 + [32] * 100)
    pipeline = fakes.FakePipeline(
        clock, picture=lambda: fakes.colourful().resize([next(sides)] * 2)
    )
    told, job = run(monkeypatch, tmp_path, clock, pipeline, repeat=3)
    (entry,) = told["repeat_about"]["differences"]
    assert (entry["other_sizes"] > 0, entry["map"]) == (True, None)
    assert "size" in judged(told, job, tmp_path).differences[0].why


def test_a_call_that_fails_ends_the_pass_alone(tmp_path, monkeypatch, clock):
    def before(call):
        if call == 9:
            raise MemoryError

    pipeline = fakes.FakePipeline(clock, before=before)
    told, job = run(monkeypatch, tmp_path, clock, pipeline, repeat=20)
    assert told.outcome == "ok"
    assert len(told["repeat"]) == 3
    assert any("the repeat pass is incomplete (oom)" in text for text in told["warnings"])
    assert not judged(told, job, tmp_path).complete


def test_memory_that_cannot_be_read_is_null_with_the_reason(tmp_path, monkeypatch, clock):
    memory = Memory(reason="no meter here")
    told, job = run(monkeypatch, tmp_path, clock, fakes.FakePipeline(clock), memory, repeat=3)
    assert told["null_reasons"]["repeat.memory_bytes"] == "no meter here"
    assert judged(told, job, tmp_path).processes[0].leak is None


def test_this_process_holds_something_and_what_it_frees_goes():
    held = repeat.Held("cpu")
    before = held.read()
    block = bytearray(64 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    during = held.read()
    del block
    assert during - before > 60 * MIB
    assert held.read() - before < 8 * MIB


def test_without_proc_resident_memory_is_not_known(tmp_path):
    held = repeat.Held("cpu", tmp_path / "nothing")
    assert held.read() is None
    assert "resident size" in held.reason


def test_telemetry_idles_calls_and_settles(tmp_path, monkeypatch, clock):
    asked = {"period_s": 0.1, "time_s": 1.0, "min_calls": 3, "idle_s": 0.5}
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        clock.pass_(seconds)

    monkeypatch.setattr(telemetry.run, "__defaults__", (clock.now, sleep))
    told, _ = run(monkeypatch, tmp_path, clock, fakes.FakePipeline(clock), telemetry=asked)
    assert told.phases == [*PHASES, "finish", "telemetry", "settle"]
    assert slept == [0.5, 0.5, 0.2]
    call_s = 4 * fakes.STEP_S + fakes.FIXED_S
    calls = told["telemetry_calls"]
    assert calls[0][0] - told["telemetry_begun_s"] == pytest.approx(0.5)
    assert len(calls) == 5
    assert all(end - begin == pytest.approx(call_s) and n == 1 for begin, end, n in calls)
    assert len(told["e2e_s"]) == 3


def test_slow_calls_still_number_three(tmp_path, clock):
    told = fakes.Told()
    told.enter = told.phases.append
    told.set = lambda **fields: told.update(fields)
    told.append = lambda **fields: told["telemetry_calls"].append(fields["telemetry_calls"])

    def call():
        clock.pass_(10.0)
        return 2

    asked = {"period_s": 0.1, "time_s": 1.0, "min_calls": 3, "idle_s": 0.5}
    telemetry.run(asked, call, told, clock.now, clock.pass_)
    assert [end - begin for begin, end, _ in told["telemetry_calls"]] == [10.0] * 3


@pytest.mark.parametrize("cell", [{"repeat": 3}, {"telemetry": {"period_s": 0.1}}])
def test_a_cell_that_is_not_ok_makes_no_pass(tmp_path, monkeypatch, clock, cell):
    black = lambda: Image.new("RGB", (64, 64))  # noqa: E731
    told, _ = run(monkeypatch, tmp_path, clock, fakes.FakePipeline(clock, picture=black), **cell)
    assert told.outcome == "invalid"
    assert told.phases == [*PHASES, "finish"]
    assert any("since the cell is invalid" in text for text in told["warnings"])


class TestDeterministic:
    @pytest.fixture(autouse=True)
    def _undone(self, monkeypatch):
        import torch

        monkeypatch.setenv(determinism.WORKSPACE, "before")
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
        yield
        torch.use_deterministic_algorithms(False)

    def job(self, root, mode):
        return fakes.make_job(root, deterministic=mode)

    def test_operations_without_one_are_named_once(self, tmp_path, monkeypatch, clock):
        import torch

        def before(call):
            torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))
            warnings.warn("something else", UserWarning, stacklevel=1)

        fakes.give(monkeypatch, fakes.FakePipeline(clock, before=before))
        with pytest.warns(UserWarning, match="something else"):
            told = fakes.run(self.job(tmp_path, True), clock)
        assert told.outcome == "ok"
        assert told["deterministic"] == {
            "mode": True,
            "cublas_workspace_config": ":4096:8",
            "operations": ["put_"],
        }
        assert torch.are_deterministic_algorithms_enabled()

    def test_strict_fails_the_cell_and_names_it(self, tmp_path, monkeypatch, clock):
        import torch

        pipeline = fakes.FakePipeline(
            clock,
            before=lambda call: torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0])),
        )
        fakes.give(monkeypatch, pipeline)
        told = fakes.run(self.job(tmp_path, "strict"), clock)
        assert told.outcome == "failed"
        assert "put_" in told.reason

    def test_nothing_is_asked_for_by_default(self, monkeypatch):
        import torch

        assert determinism.ask(None) is None
        assert determinism.ask(False) is None
        assert not torch.are_deterministic_algorithms_enabled()
