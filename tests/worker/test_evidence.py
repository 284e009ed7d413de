from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker import evidence
from bench.worker.dynamo import Counts, Ran
from bench.worker.evidence import Judgement, judge
from bench.worker.instrument import Sample, _Trace
from compilers.base import Scope


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


def test_where_runs_are_counted_they_are_the_proof_and_not_where_a_graph_was_compiled():
    both = ("text_encoder", "text_encoder_2")
    asked: dict[str, Any] = {"wanted": both, "changed": both, "entered": both, "counted": True}
    shared = {"text_encoder": Counts(graphs=3, runs=9), "text_encoder_2": Counts(runs=9)}
    assert decide(counts=shared, **asked) == Judgement(True, both)
    never = {"text_encoder": Counts(graphs=3, runs=9), "text_encoder_2": Counts(graphs=3)}
    found = decide(counts=never, **asked)
    assert not found.active
    assert "text_encoder_2, and no compiled graph was run there" in str(found.reason)
    ahead = {"prepare": Counts(graphs=2), "text_encoder": Counts(runs=1)}
    assert not decide(counts=ahead, **asked).active


@pytest.fixture
def proved() -> Iterator[evidence.Proof]:
    """A proof of real regions that are compiled for three lengths and no more."""
    import torch._dynamo

    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    with config.patch(**{name: 3}):
        yield _proof_of_two_blocks()


def _proof_of_two_blocks() -> evidence.Proof:
    import torch

    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() + 1

    torch._dynamo.reset()
    block = torch.compile(Block(), backend="eager", dynamic=False)
    made = SimpleNamespace(unet=lambda x: block(block(x)), components={})
    said = SimpleNamespace(runtime="dynamo", fallback=None)
    backend: Any = SimpleNamespace(name="regional", evidence=lambda: said)
    proof = evidence.Proof(backend, SimpleNamespace(), made)
    proof.prepared(Scope(("unet",)), ["unet"])
    return proof


def call(proof: evidence.Proof, length: int, watched: bool = False) -> Sample:
    import torch

    trace = _Trace()
    if watched:
        proof.watch.enter("unet")
    trace.open()
    with torch.no_grad():
        proof._pipeline.unet(torch.zeros(length))
    trace.close("unet")
    if watched:
        proof.watch.leave("unet")
    return Sample(None, 1.0, None, [], None, {}, None, 1, (1,), None, ran=(trace.ran,))


def test_a_shape_past_the_recompile_limit_is_eager_and_those_before_it_are_not(proved):
    for _ in range(2):
        proved.saw(call(proved, 2, watched=True))
    assert proved.judge() == Judgement(True, ("unet",))
    for length in (2, 3, 4, 4):
        sample = call(proved, length)
        assert sample.ran == ({"unet": (1, Ran(2, 0))},)
        assert proved.eager(sample) is None
    # At the limit, and after it, where torch does not even try to compile any more.
    for length in (5, 5, 6, 7):
        sample = call(proved, length)
        assert sample.ran == ({"unet": (1, Ran(0, 0))},)
        reason = str(proved.eager(sample))
        assert "unet ran eager: torch" in reason
        assert "recompile limit in forward of Block and" in reason or "in forward and" in reason
    # Up to torch 2.4 what was compiled before is dropped as well, which then has to be seen.
    sample = call(proved, 3)
    assert (proved.eager(sample) is None) == (sample.ran == ({"unet": (1, Ran(2, 0))},))


def test_a_call_that_runs_a_part_of_its_regions_eager_past_the_limit_is_eager(proved):
    proved.saw(call(proved, 2, watched=True))
    assert proved.judge().active
    half = dataclasses.replace(call(proved, 2), ran=({"unet": (2, Ran(2, 0))},))
    assert proved.eager(half) is None, "nothing says that torch gave up"
    for length in (3, 4, 5):
        call(proved, length)
    assert "unet ran 1 of 2 compiled graphs a call" in str(proved.eager(half))
    replayed = dataclasses.replace(half, ran=({"unet": (2, Ran(0, 2))},))
    assert proved.eager(replayed) is None
