from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker import dynamo
from bench.worker.dynamo import Counts


class TestWatch:
    def test_what_compiles_is_credited_to_the_innermost_scope(self, monkeypatch):
        now = Counts()
        monkeypatch.setattr(dynamo, "read_counts", lambda: now)
        watch = dynamo.ScopeWatch()

        def compile_(graphs: int) -> None:
            nonlocal now
            now = dataclasses.replace(now, graphs=now.graphs + graphs)

        compile_(1)
        watch.enter("unet")
        compile_(2)
        watch.enter("text_encoder")
        compile_(4)
        watch.leave("text_encoder")
        compile_(8)
        watch.leave("unet")
        compile_(16)
        watch.settle()
        graphs = {scope: counts.graphs for scope, counts in watch.by_scope.items()}
        assert graphs == {"elsewhere": 17, "unet": 10, "text_encoder": 4}
        assert watch.entered == {"unet", "text_encoder"}
        assert watch.total().graphs == 31

    def test_counters_that_were_reset_never_count_backwards(self, monkeypatch):
        values = iter([Counts(9, 9, 9, 9), Counts(1, 0, 1, 0), Counts(2, 0, 2, 0)])
        monkeypatch.setattr(dynamo, "read_counts", lambda: next(values))
        watch = dynamo.ScopeWatch()
        watch.settle()
        watch.settle()
        assert watch.total() == Counts(1, 0, 1, 0)


class TestCompilerLog:
    def metrics(self, monkeypatch: pytest.MonkeyPatch, *entries: dict[str, Any]) -> Any:
        log = dynamo.CompilerLog()
        made = [SimpleNamespace(co_name="forward", **entry) for entry in entries]
        old = [SimpleNamespace(co_name="old", fail_type="X", fail_reason="x")] * log._metrics
        monkeypatch.setattr(dynamo, "_compilation_metrics", lambda: [*old, *made])
        return log

    def test_errors_that_only_skip_a_frame_are_no_failures(self, monkeypatch):
        log = self.metrics(
            monkeypatch,
            {"fail_type": "Unsupported", "fail_reason": "a print"},
            {"fail_type": None, "fail_reason": None},
            {"fail_type": "BackendCompilerFailed", "fail_reason": "no code\nat line 3"},
        )
        assert log.failures() == ["forward: BackendCompilerFailed: no code"]

    def test_the_recompile_limit_is_recognised(self, monkeypatch):
        log = self.metrics(
            monkeypatch,
            {"fail_type": "Unsupported", "fail_reason": "Dynamo recompile limit exceeded\n x"},
        )
        assert log.limits_hit() == ["forward"]
        assert log.failures() == []

    def test_what_older_torches_tell_in_their_log_alone(self, monkeypatch):
        monkeypatch.setattr(dynamo, "_metrics_tell", lambda name: False)
        told = logging.getLogger("torch._dynamo.convert_frame")
        dynamo.CompilerLog()
        told.error("WON'T CONVERT before /x.py line 1\nValueError: of an earlier cell")
        told.warning(
            "torch._dynamo hit config.cache_size_limit (8)\n   function: 'before' (/x.py:1)"
        )
        log = dynamo.CompilerLog()
        told.error("something else")
        assert (log.failures(), log.limits_hit()) == ([], [])
        told.error(
            "WON'T CONVERT forward /x.py line 207 \ndue to: \nTraceback (most recent call last):\n"
            '  File "/x.py", line 202, in compiler\nRuntimeError: no code\n\n'
            "torch._dynamo.exc.BackendCompilerFailed: compiler raised RuntimeError: no code\n\n"
            "Set torch._dynamo.config.verbose=True for more information\n"
        )
        assert log.failures() == [
            "forward: BackendCompilerFailed: compiler raised RuntimeError: no code"
        ]
        told.warning(
            "torch._dynamo hit config.cache_size_limit (%d)\n   function: %s\n   reasons:  x\n",
            2,
            "'decode' (/x.py:1032)",
        )
        assert log.limits_hit() == ["decode"]

    def test_older_torches_tell_by_failed_guards_why_they_compiled_again(self, monkeypatch):
        guards: dict[Any, list[str | None]] = {compile("1", "x.py", "eval"): ["an old one"]}
        monkeypatch.setattr(dynamo, "_guard_failures", lambda: guards)
        log = dynamo.CompilerLog()
        (reasons,) = guards.values()
        assert log.recompile_reasons() == []
        reasons += ["sizes mismatch # in forward", None]
        assert log.recompile_reasons() == ["<module>: sizes mismatch", "<module>: a guard"]

    def test_a_torch_without_a_compilation_log_gives_none(self, monkeypatch):
        log = self.metrics(monkeypatch)
        assert (log.failures(), log.limits_hit(), log.recompile_reasons()) == ([], [], [])


def test_real_counters_see_graphs_breaks_and_recompiles():
    import torch
    import torch._dynamo

    torch._dynamo.reset()
    before = dynamo.read_counts()
    log = dynamo.CompilerLog()

    def work(x: Any, n: int) -> Any:
        x = x * 2
        torch._dynamo.graph_break()
        return x + n

    compiled_work = torch.compile(work, backend="eager", dynamic=False)
    compiled_work(torch.ones(2), 1)
    first = dynamo.read_counts() - before
    assert first.graphs == 2
    assert first.graph_breaks == 1
    assert first.recompiles == 0
    compiled_work(torch.ones(3), 2)
    second = dynamo.read_counts() - before - first
    assert second.graphs >= 1
    assert second.recompiles >= 1
    assert sum(entry["count"] for entry in log.graph_breaks()) >= 1
    assert any("work" in reason for reason in log.recompile_reasons())


@pytest.mark.thorough
def test_reading_the_counters_loads_no_compiler():
    import subprocess
    import sys

    code = (
        "import torch, sys; before = 'torch._dynamo' in sys.modules\n"
        "from bench.worker import dynamo\n"
        "dynamo.ScopeWatch().settle(); dynamo.CompilerLog().graph_breaks()\n"
        "assert ('torch._dynamo' in sys.modules) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
