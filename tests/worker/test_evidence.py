from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bench.worker import evidence
from bench.worker.dynamo import Counts
from bench.worker.evidence import Judgement, judge


def compiled(**graphs: int) -> dict[str, Counts]:
    return {
        scope.replace("__", "."): Counts(graphs=count, attempts=count)
        for scope, count in graphs.items()
    }


def decide(name: str = "good", **facts: Any) -> Judgement:
    given: dict[str, Any] = {
        "wanted": ("unet",),
        "runtime": "dynamo",
        "changed": ("unet",),
        "counts": {},
        "entered": ("unet", "vae.decode", "text_encoder"),
    }
    return judge(name, **(given | facts))


def test_graphs_prove_a_scope():
    assert decide(counts=compiled(unet=1)) == Judgement(True, ("unet",))


def test_the_baseline_needs_no_proof_but_must_not_compile():
    assert decide("none", wanted=(), changed=(), runtime="none") == Judgement(True, ())
    assert decide("none", wanted=(), counts=compiled(unet=1)).warnings


def test_a_backend_that_changed_nothing_ran_eager():
    for runtime in ("dynamo", "modules", "none"):
        found = decide(runtime=runtime, changed=())
        assert not found.active
        assert "changed nothing" in (found.reason or "")


def test_a_scope_without_graph_is_named():
    found = decide(wanted=("unet", "vae.decode"), counts=compiled(unet=2))
    assert not found.active
    assert found.scope == ("unet",)
    assert "vae.decode" in (found.reason or "")
    assert "unet is compiled" in (found.reason or "")


def test_graphs_elsewhere_prove_no_scope():
    assert not decide(counts=compiled(elsewhere=5)).active
    assert not decide(counts=compiled(text_encoder=5)).active


def test_graphs_made_while_preparing_prove_a_scope_that_changed():
    assert decide(counts=compiled(prepare=1)).active
    assert not decide(counts=compiled(prepare=1), changed=("pipeline",)).active


def test_claims_of_graphs_are_not_enough():
    assert not decide(counts={}).active


def test_changed_modules_prove_a_backend_of_that_kind():
    assert decide(runtime="modules").active
    found = decide(runtime="modules", wanted=("unet", "vae.decode"))
    assert not found.active
    assert "vae.decode" in (found.reason or "")


def test_a_scope_that_the_task_never_calls_is_a_warning():
    found = decide(wanted=("unet", "vae.encode"), counts=compiled(unet=1))
    assert found.active
    assert found.scope == ("unet",)
    assert "vae.encode" in found.warnings[0]
    assert not decide(wanted=("vae.encode",), counts=compiled(elsewhere=1)).active


def test_a_swallowed_compile_error_is_a_fallback_although_another_graph_compiled():
    found = decide(counts=compiled(unet=1), failures=["forward: BackendCompilerFailed: no"])
    assert not found.active
    assert "BackendCompilerFailed" in (found.reason or "")


def test_code_that_reached_the_recompile_limit_runs_eager():
    found = decide(counts=compiled(unet=8), limits_hit=["forward"])
    assert not found.active
    assert found.reason is not None
    assert "recompile limit in forward" in found.reason


def test_graphs_made_in_prepare_prove_no_more_scopes_than_there_are():
    both = ("unet", "vae.decode")
    alone = decide(wanted=("unet",), changed=("unet",), counts=compiled(prepare=1))
    assert alone.active
    assert "backend's word" in alone.warnings[0]
    assert not decide(wanted=both, changed=both, counts=compiled(prepare=1)).active
    assert decide(wanted=both, changed=both, counts=compiled(prepare=2)).active


def test_a_changed_pipeline_object_alone_proves_nothing():
    found = decide(wanted=(), runtime="modules", changed=("pipeline",))
    assert not found.active
    assert "no part that it calls" in str(found.reason)


def test_a_backend_that_names_no_scope_is_judged_by_what_was_seen():
    assert decide(wanted=(), counts=compiled(unet=1)).scope == ("unet",)
    assert decide(wanted=(), runtime="modules").scope == ("unet",)
    assert not decide(wanted=()).active


def test_options_that_ask_for_a_scope_must_be_proved_even_if_the_backend_forgets():
    pipeline = SimpleNamespace(transformer=object(), unet=None, text_encoder=object())
    options = SimpleNamespace(scope=("unet", "text_encoders", "vae.decode"))
    wanted = evidence.wanted_scopes(pipeline, options, ("transformer",))
    assert wanted == ("transformer", "text_encoder", "vae.decode")


def test_a_fallback_that_the_backend_admits_outweighs_what_was_seen():
    assert decide(counts=compiled(unet=1)).active
    found = decide(counts=compiled(unet=1), admitted="two of three blocks ran eager")
    assert not found.active
    assert "two of three blocks ran eager" in (found.reason or "")
