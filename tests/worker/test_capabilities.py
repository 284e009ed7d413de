"""A pass and a task of other packages: a folder and one line of registration each, and no more."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import plugins
from bench.cli.progress import LiveDisplay
from bench.contract import PHASES
from bench.passes import PASSES
from bench.passes.base import asked, watched_fields
from bench.runner import Task, execute
from bench.runner.draft import OWN, Draft
from bench.tasks import TASKS
from tests import plugin_backend
from tests.runner import support
from tests.worker import fakes, tiny

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "adding-a-pass.md"
FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in ("pass", "task"):
        folder = plugin_backend.install(tmp_path / kind, TESTS / f"plugin_{kind}")
        monkeypatch.syspath_prepend(str(folder))
    plugins._entries.cache_clear()
    yield
    plugins._entries.cache_clear()


@pytest.fixture
def rested(cell: Any, clock: fakes.FakeClock, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("time.sleep", clock.pass_)
    return lambda pipeline=None: cell(pipeline, {"rested": 3.0})


def test_the_page_shows_the_files_of_the_example():
    shown = dict(FILE.findall(PAGE.read_text(encoding="utf-8")))
    assert {"pyproject.toml", "rested/work.py", "rested/keys.py", "rested/record.py"} <= set(shown)
    for name, text in shown.items():
        assert (TESTS / "plugin_pass" / name).read_text(encoding="utf-8") == text


def test_both_are_registered_beside_the_built_in_ones():
    assert PASSES.names() == (*PASSES.built_in, "rested")
    assert TASKS.names() == (*TASKS.built_in, "backwards")
    assert list(asked({"rested": 3.0, "profile": True, "sweep": None})) == ["profile", "rested"]


def test_a_pass_of_another_package_runs(rested, clock):
    begun = clock.time
    told = rested()
    assert (told.outcome, told.decided) == ("ok", ("ok", None))
    assert told.phases == [*PHASES, "finish", "rested"]
    assert told["rested_s"] == pytest.approx([4 * fakes.STEP_S + fakes.FIXED_S])
    assert clock.time - begun > 3.0


def test_its_failure_is_its_own(rested):
    def before(call: int) -> None:
        if call == 6:
            raise MemoryError

    told = rested({"before": before})
    assert told.outcome == "ok"
    assert told["warnings"] == [
        "the rested pass is incomplete (oom): MemoryError (while resting before one more call)"
    ]


def test_it_does_not_run_on_a_cell_that_is_not_ok(rested):
    told = rested({"decoded": float("nan")})
    assert told.outcome == "invalid"
    assert "no rested call was made, since the cell is invalid" in told["warnings"]


def test_its_phase_is_progress_and_its_calls_are_counted():
    task = Task(support.cell("a", rested=3.0), 0, 0, "cpu", None)
    out = io.StringIO()
    shown = LiveDisplay(Console(file=out, force_terminal=True, width=120), clock=lambda: 0.0)
    shown.run_started(Path("run"), 1, 0)
    shown.cell_started(task)
    shown.cell_event(task, {"event": "phase", "phase": "rested"})
    shown.cell_event(task, {"event": "append", "fields": {"rested_s": 1.0}})
    shown.close()
    assert "resting before one more call, call 1" in out.getvalue()


def test_the_parent_watches_meanwhile_and_alone_writes_what_it_saw(tmp_path):
    for name, more in (("a", {"rested": 3.0}), ("b", {})):
        plan = support.Plan([support.cell(name, **more)])
        execute(
            plan,
            tmp_path / name,
            program=support.program("good"),
            machine=support.machine(),
        )
        (record,) = support.lines(tmp_path / name)
        assert record.get("rested_phases") == (list(PHASES) if more else None)
    draft = Draft(OWN | watched_fields({"rested": 3.0}))
    forged = {"event": "set", "fields": {"rested_phases": []}}
    assert draft.feed(json.dumps(forged).encode() + b"\n") == []
    assert "were no events" in draft.warnings()[0]


@pytest.mark.thorough
def test_a_task_of_another_package_runs(tmp_path):
    model = tiny.build("sdxl", tmp_path / "model")
    told = {}
    for task, prompt in (("backwards", "a red boat"), ("text-to-image", "taob der a")):
        job = fakes.make_job(
            tmp_path / task,
            model=f"path:{model}",
            task=task,
            prompt=prompt,
            warmup={"stable_pct": 1000.0},
        )
        told[task] = fakes.run(job)
        assert (told[task].outcome, told[task].reason) == ("ok", None)
    backwards, forwards = told["backwards"], told["text-to-image"]
    assert backwards["backwards"] == {"prompt": "taob der a"}
    assert backwards["images"][0]["sha256"] == forwards["images"][0]["sha256"]


def test_a_model_that_cannot_do_it_is_refused_by_name(tmp_path):
    job = fakes.make_job(tmp_path, model="embedded:pix2pix", task="backwards")
    told = fakes.run(job)
    assert told.outcome == "failed"
    assert "cannot do backwards: it takes no height and width" in str(told.reason)
