"""Captures are told apart by what they depend on, and results outlive the next replay."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bench.worker import failure
from compilers.cuda_graphs import CaptureError, CudaRecorder, GraphedCall


class Recorder:
    """Replays as CUDA does: the same tensors in and out, new numbers in them."""

    def __init__(self) -> None:
        self.records = 0

    def holds(self, tensor: Any) -> bool:
        return bool(tensor.dtype != torch.float64)

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        from torch.utils import _pytree as pytree

        self.records += 1
        result = function()

        def replay() -> None:
            for old, new in zip(
                pytree.tree_leaves(result), pytree.tree_leaves(function()), strict=True
            ):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)

        return replay, result


def double(value: Any, *, more: dict[str, Any] | None = None, plus: int = 0) -> Any:
    extra = more["x"] if more else 0
    return {"sum": value * 2 + plus + extra}, "text"


@pytest.fixture
def graphed() -> GraphedCall:
    return GraphedCall(double, Recorder())


def test_a_replay_reads_what_this_call_was_given(graphed: GraphedCall) -> None:
    first, text = graphed(torch.ones(2), more={"x": torch.ones(2)})
    second, _ = graphed(torch.ones(2) * 5, more={"x": torch.zeros(2)})
    assert first["sum"].tolist() == [3.0, 3.0], "the first result survives the second call"
    assert second["sum"].tolist() == [10.0, 10.0]
    assert text == "text"
    assert (graphed.counts.captures, graphed.counts.replays) == (1, 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((torch.ones(2), {}), (torch.ones(3), {})),
        ((torch.ones(2), {}), (torch.ones(2, dtype=torch.float16), {})),
        ((torch.ones(2, 2), {}), (torch.ones(2, 2).T, {})),
        ((torch.ones(2), {"plus": 1}), (torch.ones(2), {"plus": 2})),
        ((torch.ones(2), {"plus": 1}), (torch.ones(2), {"plus": True})),
        ((torch.ones(2), {}), (torch.ones(2), {"more": {"x": torch.ones(2)}})),
    ],
)  # fmt: skip
def test_other_kinds_of_arguments_are_captured_apart(
    graphed: GraphedCall, first: Any, second: Any
) -> None:
    for value, more in (first, second, first, second):
        expected = double(value, **more)[0]["sum"]
        assert torch.equal(graphed(value, **more)[0]["sum"], expected)
    assert (graphed.counts.captures, graphed.counts.replays) == (2, 4)


def test_what_a_replay_cannot_read_runs_as_it_is(graphed: GraphedCall) -> None:
    elsewhere = torch.ones(2, dtype=torch.float64)
    assert graphed(elsewhere)[0]["sum"].tolist() == [2.0, 2.0]
    learning = torch.ones(2, requires_grad=True)
    assert graphed(learning)[0]["sum"].requires_grad
    call = GraphedCall(lambda value, flag: value, Recorder())
    assert call(torch.ones(1), object()).tolist() == [1.0]
    assert graphed.counts.captures == call.counts.captures == 0
    assert graphed.counts.uncaptured == {
        "an argument lives on cpu": 1,
        "an argument requires a gradient": 1,
    }
    assert call.counts.uncaptured == {"an argument is a object": 1}


def test_a_variant_is_captured_apart() -> None:
    state = {"factor": 1}
    call = GraphedCall(
        lambda value: value * state["factor"], Recorder(), variant=lambda: state["factor"]
    )
    found = []
    for factor in (1, 2, 1, 2):
        state["factor"] = factor
        found.append(call(torch.ones(1)).item())
    assert found == [1.0, 2.0, 1.0, 2.0]
    assert call.counts.captures == 2


def test_weights_that_move_are_captured_anew() -> None:
    module = torch.nn.Linear(2, 2)
    recorder = Recorder()
    call = GraphedCall(module.forward, recorder, module)
    with torch.no_grad():
        for _ in range(2):
            call(torch.ones(1, 2))
        assert recorder.records == 1
        module.bias.data = module.bias.data.clone()
        call(torch.ones(1, 2))
    assert recorder.records == 2


def test_weights_that_keep_moving_are_captured_no_more() -> None:
    module = torch.nn.Linear(2, 2)
    recorder = Recorder()
    call = GraphedCall(module.forward, recorder, module)
    with torch.no_grad():
        for _ in range(5):
            value = torch.ones(1, 2)
            assert torch.equal(call(value), module(value))
            module.to(torch.float64).to(torch.float32)
    assert recorder.records == call.counts.captures == call.counts.replays == 2
    assert call.counts.uncaptured == {"its weights move from call to call": 3}


def test_weights_that_come_back_in_other_places_are_not_taken_for_unmoved() -> None:
    """An allocator gives memory out again: two weights may change places but for the last."""
    module = torch.nn.Linear(2, 2)
    call = GraphedCall(module.forward, Recorder(), module)
    with torch.no_grad():
        call(torch.ones(1, 2))
        captured = {weight.data_ptr() for weight in module.parameters()}
        module.to(torch.float64)
        others = [torch.empty(4) for _ in range(100)] + [torch.empty(2) for _ in range(100)]
        assert not captured & {each.data_ptr() for each in others}, (
            "what a capture reads is not given out again"
        )


def test_a_result_that_cannot_be_copied_is_not_replayed() -> None:
    call = GraphedCall(lambda value: (value, object()), Recorder())
    for _ in range(2):
        assert call(torch.ones(1))[0].tolist() == [1.0]
    assert call.counts.uncaptured == {"a replay cannot return a object": 2}
    assert call.counts.captures == call.counts.replays == 0


def test_what_cannot_be_captured_runs_as_it_is_and_is_tried_once() -> None:
    class Refuses(Recorder):
        def record(self, function: Callable[[], Any]) -> Any:
            if function().shape == (3,):
                self.records += 1
                raise CaptureError("RuntimeError: it waits")
            return super().record(function)

    recorder = Refuses()
    call = GraphedCall(lambda value: value * 2, recorder)
    for size in (3, 2, 3):
        assert call(torch.ones(size)).tolist() == [2.0] * size
    assert recorder.records == 2
    assert call.counts.uncaptured == {"it cannot be captured: RuntimeError: it waits": 2}
    assert (call.counts.captures, call.counts.replays) == (1, 1)


def test_it_passes_for_the_function() -> None:
    import inspect

    call = GraphedCall(double, Recorder())
    assert list(inspect.signature(call).parameters) == ["value", "more", "plus"]
    assert functools.WRAPPER_ASSIGNMENTS[1] == "__name__"
    assert call.__name__ == "double"  # type: ignore[attr-defined]


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


class Cuda:
    """The rules of capturing that a recorder has to get right, on a machine without a GPU.

    What makes the host wait breaks a capture; its end then raises once more, leaves the capture's
    stream the current one (as ``torch.cuda.graph`` does), and never lets go of its pool.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first = self.current = Stream()
        self.capturing = False
        self.recording: set[int] = set()
        self.pools = 0
        cuda = self

        class Graph:
            replay = staticmethod(lambda: None)

        @contextlib.contextmanager
        def use(stream: Stream) -> Iterator[None]:
            before, cuda.current = cuda.current, stream
            yield
            cuda.current = before

        @contextlib.contextmanager
        def capture(graph: Graph, pool: int, stream: Stream) -> Iterator[None]:
            assert stream is not cuda.first, "the default stream cannot be captured"
            assert pool not in cuda.recording, "already recording to this pool"
            before, cuda.current, cuda.capturing = cuda.current, stream, True
            cuda.recording.add(pool)
            try:
                yield
            except RuntimeError:
                cuda.capturing = False
                raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904
            cuda.current, cuda.capturing = before, False
            cuda.recording.remove(pool)

        fakes = {
            "device": lambda name: contextlib.nullcontext(),
            "Stream": Stream,
            "stream": use,
            "current_stream": lambda: self.current,
            "set_stream": lambda stream: setattr(self, "current", stream),
            "synchronize": self.wait,
            "graph_pool_handle": self.pool,
            "CUDAGraph": Graph,
            "graph": capture,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def pool(self) -> int:
        self.pools += 1
        return self.pools

    def wait(self) -> None:
        if self.capturing:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")


def test_a_capture_that_breaks_leaves_the_next_one_as_it_would_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch)
    recorder = CudaRecorder("cuda:0")
    with pytest.raises(CaptureError) as caught:
        recorder.record(cuda.wait)
    assert str(caught.value) == (
        "RuntimeError: CUDA error: operation not permitted when stream is capturing"
    )
    assert cuda.current is cuda.first
    for _ in range(2):
        _, result = recorder.record(lambda: torch.ones(2))
        assert result.tolist() == [1.0, 1.0]
    assert cuda.pools == 2, "captures share a pool, and a broken one's is left alone"


def test_what_a_call_raises_by_itself_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch)

    def wrong() -> None:
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        CudaRecorder("cuda:0").record(wrong)


def test_running_out_of_memory_while_capturing_comes_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch)

    def large() -> None:
        if cuda.capturing:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")

    with pytest.raises(RuntimeError) as caught:
        CudaRecorder("cuda:0").record(large)
    assert failure.outcome_and_reason(caught.value, "warming up")[0] == "oom"
    assert cuda.current is cuda.first
