"""Words of memory modes and precisions: their order, and what contradicts what."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import modes
from compilers import registry


@given(st.permutations(modes.MEMORY), st.integers(0, len(modes.MEMORY)))
def test_modes_have_one_text_in_whatever_order_they_are_written(names, count):
    text = modes.joined(names[:count], modes.MEMORY)
    assert modes.parts(text) == tuple(name for name in modes.MEMORY if name in names[:count])
    assert modes.joined(list(reversed(names[:count])), modes.MEMORY) == text


@given(st.sets(st.sampled_from(modes.MEMORY)))
def test_an_offload_is_applied_last(names):
    asked = modes.parts(modes.joined(sorted(names), modes.MEMORY))
    places = [at for at, name in enumerate(asked) if name in modes.OFFLOADS]
    assert places == list(range(len(asked) - len(places), len(asked)))


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        (["none", "gc"], "stands alone"),
        (["gc", "gc"], "twice"),
        (["sweep"], "unknown mode 'sweep'"),
    ],
)
def test_what_is_no_set_of_modes_is_refused(given_, why):
    with pytest.raises(ValueError, match=why):
        modes.joined(given_, modes.BETWEEN)


def test_any_two_offloads_exclude_each_other():
    for one, other in itertools.combinations(modes.OFFLOADS, 2):
        assert "keep one" in str(modes.contradiction(f"vae-tiling+{one}+{other}"))
        assert modes.contradiction(f"vae-tiling+{one}") is None


def test_xformers_and_slicing_exclude_each_other():
    assert "xformers win" in str(modes.contradiction("attention-slicing+xformers"))
    # what img2img-pipeline asked for, and what really ran there
    assert modes.contradiction("xformers+sequential-offload") is None


@pytest.mark.parametrize(
    ("memory", "backend", "options", "against"),
    [
        ("model-offload", "none", {}, None),
        ("sequential-offload", "none", {}, None),
        ("model-offload", "torch-compile", {"mode": "default"}, None),
        ("model-offload", "torch-compile", {"mode": "reduce-overhead"}, "CUDA graph"),
        ("model-offload", "torch-compile-regional", {"mode": "max-autotune"}, "CUDA graph"),
        ("group-offload", "tuned", {"cuda_graphs": True}, "CUDA graph"),
        ("group-offload", "tuned", {"cuda_graphs": False}, None),
        ("sequential-offload", "tuned-fp8", {"cuda_graphs": False}, "every single layer"),
        ("sequential-offload", "torch-compile", {"mode": "default"}, "every single layer"),
        ("sequential-offload", "torchao", {}, "every single layer"),
        ("model-offload", "oneflow", {}, "weights of its own"),
        ("model-offload", "stable-fast", {}, "freezes"),
        ("vae-tiling", "torch-compile", {"mode": "reduce-overhead"}, None),
        ("attention-slicing", "xformers", {}, "replaced"),
        (None, "torch-compile", {"mode": "reduce-overhead"}, None),
    ],
)
def test_modes_that_a_backend_cannot_work_under(memory, backend, options, against):
    found = modes.with_backend(memory, registry.traits(backend), options)
    assert found is None if against is None else against in str(found)


@pytest.mark.parametrize(
    ("workload", "word"),
    [
        ({"dtype": "float16"}, "fp16"),
        ({"dtype": "bfloat16"}, "bf16"),
        ({"dtype": "float32"}, "float32"),
        ({"dtype": "float32", "precision": "tf32"}, "tf32"),
    ],
)
def test_the_word_of_a_precision(workload, word):
    assert modes.precision_of(workload) == word


def test_facts_name_what_is_not_at_its_default():
    made = {"dtype": "float32", "memory": "vae-tiling", "between": "gc"}
    assert modes.facts(made) == ["memory vae-tiling", "between gc"]
    assert modes.facts({"dtype": "float16"}) == []
