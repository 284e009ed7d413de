"""The probe sees what a denoiser computes, and takes the fastest way that keeps the picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.compiler.config as compiler_config
from torch.nn import functional

from compilers import attention
from compilers.attention import Shape

SHAPE = Shape((2, 2, 16, 8), (2, 2, 4, 8), torch.float16)


def plain(query: Any, key: Any, value: Any) -> Any:
    return functional.scaled_dot_product_attention(query, key, value)


def coarse(query: Any, key: Any, value: Any) -> Any:
    return plain(query, key, value) * 1.02


def broken(query: Any, key: Any, value: Any) -> Any:
    raise RuntimeError("no kernel for this head size\nmore")


def not_a_number(query: Any, key: Any, value: Any) -> Any:
    return plain(query, key, value) * float("nan")


def clock(seconds: dict[Any, float]) -> Any:
    """Give each candidate its time; calling shows which it is."""

    def measure(call: Any, _device: str) -> float:
        return seconds[call.func]

    return measure


def test_the_fastest_that_keeps_the_picture_is_taken() -> None:
    candidates = {
        "as-is": plain, "quick": lambda q, k, v: plain(q, k, v), "coarse": coarse,
        "broken": broken, "nan": not_a_number,
    }  # fmt: skip
    seconds = {plain: 3.0, candidates["quick"]: 2.0, coarse: 1.0, not_a_number: 0.5}
    chosen, tried = attention.probe({SHAPE: 2}, candidates, "cpu", clock(seconds))
    assert chosen == "quick"
    assert tried["quick"].seconds == 4.0
    assert "allowed" in (tried["coarse"].reason or "")
    assert tried["broken"].reason == "RuntimeError: no kernel for this head size"
    assert tried["broken"].seconds is None
    assert "inf" in (tried["nan"].reason or "")


def test_times_are_weighted_by_how_often_a_shape_occurs() -> None:
    long, short = SHAPE, Shape((2, 2, 4, 8), (2, 2, 4, 8), torch.float16)

    def other(query: Any, key: Any, value: Any) -> Any:
        return plain(query, key, value)

    times = iter([1.0, 5.0, 1.0, 0.1])  # as-is, other at the first shape; then at the second
    chosen, tried = attention.probe(
        {long: 1, short: 10}, {"as-is": plain, "other": other}, "cpu", lambda call, d: next(times)
    )
    assert (tried["as-is"].seconds, tried["other"].seconds) == (11.0, 6.0)
    assert chosen == "other"


def test_nothing_better_leaves_it_as_it_is() -> None:
    chosen, _ = attention.probe({SHAPE: 1}, {"as-is": plain}, "cpu", lambda call, device: 1.0)
    assert chosen == "as-is"


def test_what_is_hardly_faster_is_not_taken() -> None:
    def other(query: Any, key: Any, value: Any) -> Any:
        return plain(query, key, value)

    for spent, expected in ((0.98, "as-is"), (0.9, "other")):
        times = {plain: 1.0, other: spent}
        found = {"as-is": plain, "other": other}
        assert attention.probe({SHAPE: 3}, found, "cpu", clock(times))[0] == expected


def test_kernels_are_timed_with_the_host_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes 1 ms for each call and 20 ms idling, and a host that takes 3 ms."""
    host, device = [0.0], [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = 0.0

        def record(self) -> None:
            device[0] = max(device[0], host[0])
            self.at = device[0]

        def elapsed_time(self, other: Event) -> float:
            return other.at - self.at

    def spend(milliseconds: float) -> None:
        device[0] = max(device[0], host[0]) + milliseconds

    def call() -> None:
        host[0] += 3.0
        spend(1.0)

    def synchronize(_device: str) -> None:
        host[0] = max(host[0], device[0])

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: spend(cycles / 1e6))
    assert attention.seconds_of(call, "cuda:0") == pytest.approx(1e-3)


def test_graphs_of_another_choice_are_not_found_in_the_compile_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("enable_flash_sdp", "enable_cudnn_sdp"):
        monkeypatch.setattr(torch.backends.cuda, name, lambda on: None)
    monkeypatch.setattr(torch._C, "_set_sdp_priority_order", lambda order: None, raising=False)
    tags = set()
    with compiler_config.patch(cache_key_tag=""):
        for name in ("cudnn", "flash", "efficient"):
            attention.use(name, None)
            tags.add(compiler_config.cache_key_tag)
    assert len(tags) == 3


def test_shapes_come_from_the_denoisers_own_call() -> None:
    def call() -> None:
        query, key = torch.zeros(1, 2, 6, 4), torch.zeros(1, 2, 3, 4)
        for _ in range(2):
            functional.scaled_dot_product_attention(query, key, key)
        functional.scaled_dot_product_attention(
            query, key, key, attn_mask=torch.ones(1, 1, 6, 3, dtype=torch.bool)
        )

    found = attention.watch_shapes(call)
    assert found == {Shape((1, 2, 6, 4), (1, 2, 3, 4), torch.float32): 2}


def test_what_is_not_there_is_said() -> None:
    assert attention.missing("cudnn") is None
    assert "is not installed" in (attention.missing("flash-3") or "")
    assert "is not installed" in (attention.missing("sage") or "")
    assert set(attention.cuda_candidates()) == {"as-is", *attention.SDPA}


def test_a_kernel_is_chosen_by_taking_its_rivals_away(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, bool] = {}
    for name in ("enable_flash_sdp", "enable_cudnn_sdp"):
        monkeypatch.setattr(
            torch.backends.cuda, name, lambda on, name=name: made.update({name: on})
        )
    orders: list[list[int]] = []
    monkeypatch.setattr(torch._C, "_set_sdp_priority_order", orders.append, raising=False)
    monkeypatch.setattr(torch._C, "_get_sdp_priority_order", lambda: [1, 2, 0, 3, 4], raising=False)
    with compiler_config.patch(cache_key_tag=""):
        attention.use("cudnn", None)
        assert made == {"enable_flash_sdp": False, "enable_cudnn_sdp": True}
        attention.use("efficient", None)
        assert made == {"enable_flash_sdp": False, "enable_cudnn_sdp": False}
    assert orders == [[3, 1, 2, 0, 4], [2, 1, 0, 3, 4]], "else torch would ask cuDNN's last"


def test_a_kernel_that_cannot_be_put_first_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_set_sdp_priority_order", raising=False)
    assert attention.missing("cudnn") == "this torch has no such kernel to choose"
    assert "cudnn" not in attention.cuda_candidates()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_processor_computes_what_diffusers_does(fused: bool, masked: bool) -> None:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    for cross in (None, 12):
        module = Attention(
            16, cross_attention_dim=cross, heads=4, dim_head=4, norm_num_groups=4,
            residual_connection=cross is None, rescale_output_factor=2.0,
        ).eval()  # fmt: skip
        if fused:
            module.fuse_projections()
        hidden = torch.randn(2, 16, 3, 3) if cross is None else torch.randn(2, 9, 16)
        other = None if cross is None else torch.randn(2, 5, 12)
        tokens = 9 if other is None else 5
        mask = torch.zeros(2, 1, tokens) if masked else None
        if mask is not None:
            mask[:, :, -2:] = -10000.0
        with torch.no_grad():
            expected = module(hidden, encoder_hidden_states=other, attention_mask=mask)
            module.set_processor(attention.DispatchedProcessor("native"))
            found = module(hidden, encoder_hidden_states=other, attention_mask=mask)
        assert torch.allclose(found, expected, atol=1e-6)


def test_a_use_of_another_package_replaces_the_processors() -> None:
    class Denoiser:
        processor: Any = None

        def set_attn_processor(self, processor: Any) -> None:
            self.processor = processor

    denoiser = Denoiser()
    attention.use("sage", denoiser)
    assert denoiser.processor.backend == "sage"
