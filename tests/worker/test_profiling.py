"""Work against known answers, ceilings against a driven clock, traces against drawn ones."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from bench.passes.profile import work as profiling
from bench.passes.profile.work import Span

needs_counter = pytest.mark.skipif(
    not profiling.counts_work(), reason="torch 2.0 has no counter of operations"
)


def count(call: Any, scope: str = "unet") -> dict[str, Any]:
    watch = profiling.WorkWatch()
    with torch.no_grad(), watch.counting():
        watch.enter(scope)
        call()
        watch.leave(scope)
    return watch.by_scope[scope].fields()


@needs_counter
def test_a_linear_layer_is_counted_to_the_byte():
    layer = torch.nn.Linear(8, 16, bias=True)
    value = torch.randn(4, 8)
    found = count(lambda: layer(value))
    assert found == {
        "calls": 1,
        "flops": 2 * 4 * 8 * 16,
        # bias, input and weight are read, the output is written; transposing moves nothing
        "bytes": 4 * (16 + 4 * 8 + 8 * 16 + 4 * 16),
        "weight_bytes": 4 * (8 * 16 + 16),
    }


@needs_counter
def test_a_convolution_and_attention_are_counted():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    assert count(lambda: layer(torch.randn(2, 3, 7, 7)))["flops"] == 2 * 2 * 7 * 7 * 5 * 3 * 9
    query, key = torch.randn(2, 3, 10, 8), torch.randn(2, 3, 6, 8)
    attention = count(lambda: functional.scaled_dot_product_attention(query, key, key))
    assert attention["flops"] == 2 * 2 * 2 * 3 * 10 * 6 * 8


@needs_counter
def test_the_count_is_torchs_own_where_it_has_one():
    from torch.utils.flop_counter import FlopCounterMode

    from tests.worker import tiny

    model = tiny._sd_unet()

    def call() -> None:
        model(torch.randn(2, 4, 8, 8), torch.tensor(3.0), torch.randn(2, 5, 32))

    with FlopCounterMode(display=False) as reference, torch.no_grad():
        call()
    mine = count(call)["flops"]
    attention = sum(profiling_flops(model))
    assert mine == reference.get_total_flops() + attention
    assert mine > attention > 0


def profiling_flops(model: Any) -> list[int]:
    """Attention of that call: (batch 2, heads, tokens, keys, head size), which torch leaves out."""
    found = []
    for level, block in ((8, model.down_blocks[0]), (4, model.mid_block), (8, model.up_blocks[-1])):
        for attention in getattr(block, "attentions", ()):
            for transformer in attention.transformer_blocks:
                for part, keys in ((transformer.attn1, level * level), (transformer.attn2, 5)):
                    inner = part.to_q.out_features
                    found.append(2 * 2 * level * level * keys * inner * 2)
    return found


@needs_counter
def test_scopes_are_told_apart_and_the_rest_is_elsewhere():
    watch = profiling.WorkWatch()
    value = torch.ones(4, 4)
    with watch.counting():
        torch.mm(value, value)
        for scope in ("unet", "vae.decode", "unet"):
            watch.enter(scope)
            torch.mm(value, value)
            watch.leave(scope)
    each = 2 * 4**3
    assert {scope: work.flops for scope, work in watch.by_scope.items()} == {
        "elsewhere": each, "unet": 2 * each, "vae.decode": each,
    }  # fmt: skip
    assert watch.by_scope["unet"].calls == 2


class Clock:
    """Each product takes 2 ms, each copy 4 ms."""

    def __init__(self) -> None:
        self.marks = 0

    def synchronize(self) -> None:
        pass

    def mark(self) -> float:
        self.marks += 1
        pair, second = divmod(self.marks - 1, 2)
        return pair + (0.002 if pair < profiling.CEILING_CALLS else 0.004) * second

    def seconds(self, marks: list[float]) -> list[float]:
        return marks


def test_ceilings_are_what_the_clock_says(monkeypatch):
    monkeypatch.setattr(profiling, "MATRIX_SIDE", {"cpu": 16})
    monkeypatch.setattr(profiling, "COPY_BYTES", {"cpu": 4096})
    clock: Any = Clock()
    found = profiling.ceilings("cpu", "bfloat16", clock)
    assert found["matmul_flops_per_s"] == pytest.approx(2 * 16**3 / 0.002)
    assert found["copy_bytes_per_s"] == pytest.approx(2 * 4096 / 0.004)
    assert (found["matmul_side"], found["copied_bytes"], found["dtype"]) == (16, 4096, "bfloat16")


def trace(*, linked: bool = True, marks: int = 3) -> list[Span]:
    """Three steps of two overlapping kernels; the last kernel of a step ends at 1, 2 and 3 s."""
    found = []
    for step in range(3):
        for part in range(2):
            launch = 10 * step + part
            found.append(Span("cudaLaunchKernel", False, 0.1 * step, 0.1 * step + 0.01, launch))
            start, end = step + 0.4 * part, step + (0.5 if part == 0 else 1.0)
            found.append(Span("gemm", True, start, end, launch if linked else -1))
        if step < marks:
            found.append(Span(profiling.STEP_MARK, False, 0.1 * step + 0.05, 0.1 * step + 0.05, 0))
    found.append(Span(profiling.STEP_MARK, True, 0.0, 3.0, 0))
    found.append(Span("aten::mm", False, 0.0, 0.3, 5))
    return found


def test_the_loop_is_cut_out_between_the_ends_of_kernels():
    found = profiling.read_trace(trace())
    assert found["kernels"] == 6
    assert found["busy_s"] == pytest.approx(3.0)
    assert found["loop_kernel_s"] == pytest.approx(2.0)
    assert found["loop_busy_s"] == pytest.approx(2.0)


def test_gaps_are_not_busy():
    events = [
        Span("k", True, 0.0, 1.0, 1),
        Span("k", True, 0.5, 0.7, 2),
        Span("k", True, 2.0, 2.5, 3),
    ]
    assert profiling.read_trace(events)["busy_s"] == pytest.approx(1.5)


@pytest.mark.parametrize("events", [trace(linked=False), trace(marks=1), []])
def test_a_trace_that_cannot_be_matched_gives_no_loop(events):
    found = profiling.read_trace(events)
    assert found["loop_kernel_s"] is found["loop_busy_s"] is None


def test_a_kernel_of_inductors_counts_though_its_launch_is_called_like_it():
    name = "triton_poi_fused_add_0"
    for marked in (False, None):
        events = [
            Span(name, False, 0.0, 0.1, 0, marked),
            Span(name, True, 0.2, 1.2, 1, marked),
            Span("bench: step", False, 0.0, 0.0, 0, None if marked is None else True),
            Span("bench: step", True, 0.0, 9.0, 0, None if marked is None else True),
        ]
        found = profiling.read_trace(events)
        assert (found["kernels"], found["busy_s"]) == (1, pytest.approx(1.0))


def test_a_traced_call_keeps_its_own_clock():
    sample = SimpleNamespace(e2e_s=4.0, step_s=[1.0, 1.5])

    def measure(mark: Any) -> Any:
        for _ in range(3):
            mark()
        return sample

    found = profiling.device_busy(measure, lambda _trace: trace(linked=False))
    assert (found["e2e_s"], found["loop_clock_s"]) == (4.0, 2.5)
    assert found["kernels"] == 6
    assert found["loop_kernel_s"] is None


def test_a_trace_without_a_kernel_is_no_idle_device():
    sample = SimpleNamespace(e2e_s=4.0, step_s=[1.0, 1.5])
    with pytest.raises(RuntimeError, match="saw no kernel"):
        profiling.device_busy(lambda mark: sample)


def test_a_real_trace_has_the_marks():
    from torch.profiler import ProfilerActivity, profile, record_function

    with profile(activities=[ProfilerActivity.CPU]) as trace_:
        for _ in range(2):
            with record_function(profiling.STEP_MARK):
                torch.ones(3).sum()
    events = profiling.spans(trace_)
    marks = [event for event in events if event.name == profiling.STEP_MARK]
    assert len(marks) == 2
    assert {event.marked for event in marks} <= {True, None}
    assert not any(event.marked for event in events if event.name.startswith("aten::"))
    assert not any(event.on_device for event in events)
    assert marks[0].end <= marks[1].start


def by_hand(module: torch.nn.Module, call: Callable[[], Any]) -> int:
    """Operations by the formulas on paper, from each layer's own shapes as ``call`` meets them."""
    total = 0
    hooks = []

    def convolution(layer: Any, _given: Any, made: Any) -> None:
        nonlocal total
        side = layer.kernel_size[0] * layer.kernel_size[1]
        total += 2 * made.numel() * layer.in_channels // layer.groups * side

    def linear(layer: Any, _given: Any, made: Any) -> None:
        nonlocal total
        total += 2 * made.numel() * layer.in_features

    def attention(layer: Any, given: Any, more: Any, _made: Any) -> None:
        nonlocal total
        hidden = given[0] if given else more["hidden_states"]
        batch, tokens = hidden.shape[0], hidden.shape[1]
        if hidden.dim() == 4:
            tokens = hidden.shape[2] * hidden.shape[3]
        other = more.get("encoder_hidden_states")
        keys = tokens if other is None else other.shape[1]
        width = getattr(layer, "inner_dim", None) or layer.embed_dim
        # Scores and their sum over values, a multiply and an add each.
        total += 2 * 2 * batch * tokens * keys * width

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            hooks.append(layer.register_forward_hook(convolution))
        elif isinstance(layer, torch.nn.Linear):
            hooks.append(layer.register_forward_hook(linear))
        elif type(layer).__name__ in ("Attention", "CLIPAttention"):
            hooks.append(layer.register_forward_hook(attention, with_kwargs=True))
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.thorough
@needs_counter
@pytest.mark.parametrize(
    ("name", "batch"), [("sdxl", 2), ("sdxl-small", 8), ("sdxl-pix2pix-small", 3),
                        ("sd15-pix2pix-small", 3)],
)  # fmt: skip
def test_whole_parts_are_counted_as_on_paper(name, batch):
    from bench.worker.sources import synthetic

    parts = synthetic.on_meta(name)
    unet, vae, encoder = parts["unet"], parts["vae"], parts["text_encoder"]
    side = unet.config.sample_size

    def meta(*shape: int, **more: Any) -> torch.Tensor:
        return torch.empty(shape, device="meta", **more)

    more: dict[str, Any] = {}
    if unet.config.addition_embed_type is not None:
        pooled = unet.config.projection_class_embeddings_input_dim
        pooled -= 6 * unet.config.addition_time_embed_dim
        more["added_cond_kwargs"] = {"text_embeds": meta(batch, pooled), "time_ids": meta(batch, 6)}
    calls = [
        (unet, lambda: unet(meta(batch, unet.config.in_channels, side, side), meta(),
                            meta(batch, 77, unet.config.cross_attention_dim), **more)),
        (vae, lambda: vae.decode(meta(1, 4, side, side))),
        (vae, lambda: vae.encode(meta(1, 3, 8 * side, 8 * side))),
        (encoder, lambda: encoder(meta(1, 77, dtype=torch.long))),
    ]  # fmt: skip
    found = []
    for module, call in calls:
        watch = profiling.WorkWatch()
        with torch.no_grad(), watch.counting():
            call()
        counted = watch.by_scope[profiling.ELSEWHERE].flops
        assert counted == by_hand(module, call)
        found.append(counted)
    if name == "sdxl":
        # The published model, guided, at 1024 pixels: 6.76 TFLOP a picture and step.
        assert found[0] == pytest.approx(13.5225e12, rel=1e-4)
