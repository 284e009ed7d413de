"""Devices, schedule, draft, ending, forecast, secrets: known answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contract import OUTCOMES
from bench.runner import host, lane
from bench.runner.devices import (
    DeviceError,
    Gpu,
    Machine,
    Unsupported,
    find_gpus,
    parse_nvidia_smi,
    torch_build,
    visible,
)
from bench.runner.draft import MAX_LINE_BYTES, Draft, finite
from bench.runner.ending import Exit, conclude, oom_kills, read_tail
from bench.runner.forecast import UNKNOWN_S, Forecast
from bench.runner.lane import folder_bytes
from bench.runner.schedule import assign_devices, folder_names, lanes, order
from bench.store import Entry
from bench.worker.events import Report
from tests.runner import doubles
from tests.runner.support import cell, machine

A, B, C = (Gpu(n, f"GPU-{n}{n}{n}", 2**30, "1") for n in "abc")


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, [A, B, C]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [C]),
        ("2,0", [C, A]),
        (" 1 , 2 ", [B, C]),
        ("0,7,1", [A]),
        ("0,-1,1", [A]),
        ("GPU-b", [B]),
        ("GPU-", []),
        ("GPU-c,GPU-a", [C, A]),
        ("1,1", []),
    ],
)
def test_cuda_visible_devices(setting, seen):
    assert list(visible([A, B, C], setting)) == seen


def test_a_mig_slice_is_taken_at_its_word():
    (gpu,) = visible([A], "MIG-0123")
    assert gpu.uuid == "MIG-0123"


@pytest.mark.parametrize(
    ("gpus", "cuda", "apple", "requested", "device"),
    [
        (0, "", False, "auto", "cpu"),
        (2, "12.4", False, "auto", "cuda:0"),
        (2, "", False, "auto", "cpu"),
        (0, "", True, "auto", "mps"),
        (2, "12.4", False, "cuda", "cuda:0"),
        (2, "12.4", False, "cuda:1", "cuda:1"),
        (2, "12.4", False, "cpu", "cpu"),
        (0, "", True, "mps", "mps"),
        (2, "12.4", False, "cuda:2", "only cuda:0 to cuda:1 are visible"),
        (1, "12.4", False, "cuda:1", "only cuda:0 is visible"),
        (1, "", False, "cuda", "built without CUDA"),
        (0, "12.4", False, "cuda", "no GPU is visible"),
        (0, "", False, "mps", "no Mac"),
    ],
)
def test_a_device_is_resolved_or_refused(gpus, cuda, apple, requested, device):
    found = [A, B][:gpus]
    resolved = Machine({}, gpus=found, torch_cuda=cuda, apple=apple).resolve(requested)
    if isinstance(resolved, Unsupported):
        assert device in resolved.reason
    else:
        assert resolved == device


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cuda:0,1"])
def test_what_is_no_device_is_an_error(name):
    with pytest.raises(DeviceError, match="is not a device"):
        machine(2).resolve(name)


def test_hidden_gpus_are_the_reason():
    hidden = Machine({"CUDA_VISIBLE_DEVICES": ""}, gpus=[A], torch_cuda="12", apple=False)
    refused = hidden.resolve("cuda:0")
    assert isinstance(refused, Unsupported)
    assert "CUDA_VISIBLE_DEVICES is ''" in refused.reason
    assert hidden.resolve("auto") == "cpu"


def test_nvidia_smi_is_read():
    text = "NVIDIA H200, GPU-1234, 143771, 570.1\nOld, with comma, GPU-5, [N/A], 570.1\n"
    assert parse_nvidia_smi(text) == [Gpu("NVIDIA H200", "GPU-1234", 143771 * 2**20, "570.1")]
    assert parse_nvidia_smi("X, GPU-5, [N/A], 1")[0].memory_bytes is None


def test_the_drivers_own_files_are_the_last_source(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    file = tmp_path / "driver/nvidia/gpus/0000:01:00.0/information"
    file.parent.mkdir(parents=True)
    file.write_text("Model: \t\t NVIDIA T4\nIRQ:   33\nGPU UUID: \t GPU-77\n")
    assert find_gpus(tmp_path) == [Gpu("NVIDIA T4", "GPU-77", None, None)]
    assert find_gpus(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("cuda: Optional[str] = '12.4'\nhip: Optional[str] = None\n", "12.4"),
        ("cuda = '11.8'\n", "11.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.1'\n", "6.1"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", ""),
    ],
)
def test_torchs_build_is_read_without_importing_it(tmp_path, monkeypatch, text, build):
    import importlib.machinery
    import importlib.util

    (tmp_path / "version.py").write_text(text)
    spec = importlib.machinery.ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert torch_build() == build
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert torch_build() == ""


def test_the_host_names_what_changed_and_keeps_uuids_to_itself():
    here = host.describe(Machine({}, gpus=[A], torch_cuda="12", apple=False))
    assert "GPU-aaa" not in json.dumps(here)
    assert host.differences(here, here) == []
    assert host.differences(here, {**here, "torch": "0.1"}) == [f"torch: {here['torch']} → 0.1"]
    assert host.differences({"old": 1}, {}) == ["old: 1 → None"]


# Schedule


def _entry(name: str, outcome: str = "ok", device: str = "cpu", round_: int = 0) -> Entry:
    return Entry(1, 0, 1, name, round_, 0, name, outcome, device, 1.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_every_cell_runs_once_in_each_round(rounds):
    cells = [cell(f"c{i}", cell_id=f"c{i}", rounds=n) for i, n in enumerate(rounds)]
    tasks = order(cells, {c["cell_id"]: "cpu" for c in cells}, {}, ())
    keys = [task.key for task in tasks]
    assert sorted(keys) == sorted((f"c{i}", r) for i, n in enumerate(rounds) for r in range(n))
    assert [r for _, r in keys] == sorted(r for _, r in keys)


def test_a_free_gpu_goes_to_a_workload_not_to_a_cell():
    cells = [cell(f"w{i}-{b}", cell_id=f"{i}{b}", device="cuda") for i in range(3) for b in "nt"]
    for each in cells:
        each["workload"]["name"] = each["workload"]["prompt"] = each["name"][:2]
    both = ["cuda:0", "cuda:1"]
    chosen = assign_devices(cells, machine(2), both, {})
    assert [chosen[c["cell_id"]] for c in cells] == [f"cuda:{i}" for i in (0, 0, 1, 1, 0, 0)]
    measured = {("0n", 0): _entry("0n", device="cuda:1")}
    again = assign_devices(cells, machine(2), both, measured)
    assert again["0n"] == again["0t"] == "cuda:1"


def test_a_cell_that_names_its_device_gets_it():
    cells = [cell("a", cell_id="a", device="cuda:1"), cell("b", cell_id="b", device="cpu")]
    assert assign_devices(cells, machine(2), ["cuda:0"], {}) == {"a": "cuda:1", "b": "cpu"}


def test_one_gpu_is_one_lane_and_two_are_two_and_the_host_waits():
    cells = [
        cell(n, cell_id=n, device=d)
        for n, d in [("a", "cuda:0"), ("b", "cpu"), ("c", "cuda:1"), ("d", "cuda:9")]
    ]
    tasks = order(cells, assign_devices(cells, machine(2), (), {}), {}, ())
    first, second = lanes(tasks)
    assert {name: [t.cell["name"] for t in ts] for name, ts in first.items()} == {
        "cuda:0": ["a"],
        "cuda:1": ["c"],
    }
    assert [t.cell["name"] for t in second["host"]] == ["b", "d"]
    assert [[list(stage) for stage in lanes(tasks[:2])], lanes([])] == [[["host"]], []]


def test_file_names_are_unique_whatever_cells_are_called():
    names = ["t2i / none", "t2i - none", "T2I none", "../../etc/passwd", "…", "x" * 300, "x" * 301]
    cells = [cell(n, cell_id=f"{i:016x}") for i, n in enumerate(names)]
    files = folder_names(cells, [])
    assert len({f.lower() for f in files.values()}) == len(names)
    assert all(len(f) < 130 and "/" not in f and not f.startswith(".") for f in files.values())
    assert files[f"{0:016x}"] == "t2i-none"


# Draft

EVENT = b'{"event": "append", "fields": {"e2e_s": 0.5}}\n'


@settings(deadline=None)
@given(st.data())
def test_events_may_arrive_in_any_pieces(data):
    stream = EVENT * 5 + b'{"event": "phase", "phase": "steady"}\n' + EVENT
    draft, position = Draft(), 0
    while position < len(stream):
        size = data.draw(st.integers(1, 40))
        draft.feed(stream[position : position + size])
        position += size
    assert draft.fields == {"e2e_s": [0.5] * 6}
    assert (draft.phase, draft.events, draft.warnings()) == ("steady", 7, [])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_garbage_breaks_a_draft(garbage):
    draft = Draft()
    draft.feed(garbage + b"\n" + EVENT)
    assert draft.fields == {"e2e_s": [0.5]}


def test_an_endless_line_is_given_up_without_keeping_it():
    draft = Draft()
    for _ in range(MAX_LINE_BYTES // 2**20 + 3):
        draft.feed(b"x" * 2**20)
    draft.feed(b"\n" + EVENT)
    assert draft.fields == {"e2e_s": [0.5]}
    assert draft.warnings()[0].startswith("1 line(s)")


def test_deep_nesting_is_garbage_too():
    draft = Draft()
    draft.feed(b"[" * 100_000 + b"\n")
    assert len(draft.warnings()) == 1


def test_not_a_number_becomes_none_with_its_reason():
    clean = finite({"a": [1.0, float("inf")], "b": {"c": float("nan")}, "null_reasons": {"a": "x"}})
    assert clean["a"] == [1.0, None]
    assert clean["b"] == {"c": None}
    assert clean["null_reasons"]["a"] == "x"
    assert "not a finite" in clean["null_reasons"]["b"]


# Ending


def _conclude(
    *,
    outcome: str | None = None,
    phase: str | None = "warmup",
    end: Exit | None = None,
    timeout_s: float | None = None,
    kills: int | None = None,
    tail: str = "",
    limited: bool = False,
) -> tuple[str, str | None]:
    draft = Draft()
    draft.phase, draft.outcome = phase, outcome
    draft.fields = {**doubles.COMPLETE, "e2e_s": [0.1]}
    verdict = conclude(
        draft,
        end or Exit(code=0),
        timeout_s=timeout_s,
        oom_kills=kills,
        tail=tail,
        memory_limited=limited,
    )
    return verdict.outcome, verdict.reason


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_workers_last_word_counts(outcome):
    assert _conclude(outcome=outcome, end=Exit(signal=11))[0] == outcome


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"end": Exit(signal=9), "kills": 1}, "(oom): killed by the kernel"),
        ({"timeout_s": 5.0}, "(timeout): no end within the time limit of 5 s: during sweep"),
    ],
)
def test_a_sweep_that_kills_its_worker_leaves_the_cell_as_it_was(ending, words):
    draft = Draft()
    draft.feed(
        b'{"event": "decided", "outcome": "ok", "reason": null}\n'
        b'{"event": "phase", "phase": "sweep"}\n'
    )
    draft.fields = {**doubles.COMPLETE, "e2e_s": [0.1]}
    given = {"end": Exit(), "timeout_s": None, "kills": None} | ending
    verdict = conclude(
        draft,
        given["end"],
        timeout_s=given["timeout_s"],
        oom_kills=given["kills"],
        tail="",
        memory_limited=False,
    )
    assert (verdict.outcome, verdict.reason) == ("ok", None)
    (warning,) = verdict.warnings
    assert warning.startswith("the sweep is incomplete")
    assert words in warning


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"e2e_s": None}, "e2e_s is missing"),
        ({"e2e_s": []}, "e2e_s is missing"),
        ({"e2e_s": [0.1, None]}, "e2e_s holds what is no time"),
        ({"e2e_s": [-1.0]}, "e2e_s holds what is no time"),
        ({"backend": None}, "backend is missing"),
        ({"backend": {"active": False}}, "its field backend does not say that the backend was"),
        ({"backend": None, "fingerprint": {}}, "fingerprint, backend are missing"),
    ],
)
@pytest.mark.parametrize("kind", ["end", "decided"])
def test_ok_is_concluded_from_a_complete_record_alone(kind, fields, why):
    draft = Draft()
    draft.fields = {**doubles.COMPLETE, "e2e_s": [0.1], **fields}
    draft.feed(b'{"event": "%s", "outcome": "ok", "reason": null}\n' % kind.encode())
    given: Any = {"timeout_s": None, "oom_kills": None, "tail": "", "memory_limited": False}
    verdict = conclude(draft, Exit(code=0), **given)
    assert verdict.outcome == "failed"
    assert str(verdict.reason).startswith(f"the worker said ok, but {why}")
    assert conclude(draft, Exit(code=0), **given, priming=True).outcome == "ok"


@pytest.mark.parametrize(("entries", "missing"), [(1, None), (MAX_LINE_BYTES // 5, "3 of its 4")])
def test_an_event_that_did_not_arrive_is_counted(entries, missing):
    draft = Draft()

    def send(event: dict[str, Any]) -> None:
        line = json.dumps(event).encode() + b"\n"
        for start in range(0, len(line), 2**22):
            draft.feed(line[start : start + 2**22])

    told = Report(send)
    told.set(**doubles.COMPLETE)
    told.append(e2e_s=0.1)
    draft.feed(b"a library's line\n")
    told.set(step_s=[[0.1]] * entries)
    told.append(e2e_s=0.1)
    told.end("ok", None)
    assert draft.missing() == (missing and f"{missing} events arrived")


def test_the_last_word_counts_more_than_what_was_decided_before_the_sweep():
    draft = Draft()
    draft.feed(b'{"event": "decided", "outcome": "ok", "reason": null}\n')
    draft.feed(b'{"event": "end", "outcome": "ok", "reason": null}\n')
    assert draft.events == 2
    assert draft.warnings() == []


def test_the_kernels_count_tells_its_kill_from_others():
    killed = Exit(signal=9)
    assert _conclude(end=killed, kills=1) == (
        "oom",
        "killed by the kernel for lack of memory during warmup",
    )
    assert _conclude(end=killed, kills=0)[0] == "failed"
    assert _conclude(end=killed, kills=None)[0] == "failed"
    assert _conclude(end=Exit(signal=15), kills=1)[0] == "failed"


def test_before_the_first_phase():
    outcome, reason = _conclude(phase=None, end=Exit(code=1), tail="ModuleNotFoundError: no\n")
    assert outcome == "failed"
    assert reason == (
        "ended with status 1 and no result before its first phase; "
        "its last words: ModuleNotFoundError: no"
    )


def test_memory_words_need_a_failure():
    assert _conclude(end=Exit(code=1), tail="MemoryError\n")[0] == "oom"
    assert _conclude(end=Exit(code=0), tail="warning: out of memory soon\n")[0] == "failed"


def test_kernel_counters_are_read_where_they_are(tmp_path):
    assert oom_kills(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("pgfault 7\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/a/b\n0::/c\n")
    for path, text in [
        ("sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill 10\n"),
        ("sys/fs/cgroup/c/memory.events", "oom 1\noom_kill 100\noom_group_kill 0\n"),
    ]:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    assert oom_kills(tmp_path) == 113


def test_only_the_end_of_a_log_is_read(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100_000 + b"\nlast \xff word")
    tail = read_tail(path)
    assert len(tail) < 10_000
    assert tail.endswith("last \\xff word")
    assert read_tail(tmp_path / "none") == ""


# Forecast


def test_a_forecast_learns():
    none, compiled = cell("n", cell_id="n"), cell("c", cell_id="c")
    compiled["backend"] = {"name": "torch-compile", "options": {}, "environment": "current"}
    other = cell("o", cell_id="o")
    forecast = Forecast(lambda c: 100.0 if c["cell_id"] == "c" else 10.0)
    assert forecast.left([none, compiled], []) == 110.0
    forecast.learn(none, 20.0)
    assert forecast.expected(none) == 20.0
    assert forecast.expected(other) == 20.0
    assert forecast.expected(compiled) == 200.0
    forecast.learn(compiled, 50.0)
    assert forecast.expected(other) == 20.0
    assert forecast.left([none], [(compiled, 30.0)]) == 40.0
    assert forecast.left([], [(compiled, 300.0)]) == 0.0
    assert Forecast().expected(none) == UNKNOWN_S


def test_folder_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"1")
    assert folder_bytes(tmp_path) == 6


@pytest.mark.parametrize(
    ("task", "cell_id", "continued"),
    [
        ("folder", "c", True),
        ("folder", "d", False),
        ("text-to-image", "c", False),
        ("x", "c", False),
    ],
)
def test_only_a_task_that_can_continues_what_its_cell_left(tmp_path, task, cell_id, continued):
    (tmp_path / "rows.jsonl").write_text('{"cell_id": "c"}\n')
    left = cell("a", cell_id=cell_id)
    left["workload"]["task"] = task
    assert lane._continued(left, tmp_path) is continued
