"""Captures do what the calls before them did, on one stream, whatever libraries ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from compilers.cuda_graphs import CudaRecorder, as_if_not_capturing


class Cuda:
    """Streams, and a capture that runs its work and remembers where."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.captured_on: list[Any] = []
        self.warmed_on: list[Any] = []
        self.capturing = False
        outer = self

        class Stream:
            def wait_stream(self, other: Any) -> None:
                pass

        @contextlib.contextmanager
        def stream(given: Any) -> Iterator[None]:
            outer.warmed_on.append(given)
            yield

        @contextlib.contextmanager
        def graph(_graph: Any, pool: Any = None, stream: Any = None) -> Iterator[None]:
            outer.captured_on.append((pool, stream))
            outer.capturing = True
            try:
                yield
            finally:
                outer.capturing = False

        class Graph:
            def replay(self) -> None:
                pass

        for name, stand_in in {
            "Stream": Stream,
            "stream": stream,
            "graph": graph,
            "CUDAGraph": Graph,
            "device": lambda _device: contextlib.nullcontext(),
            "current_stream": Stream,
            "set_stream": lambda _stream: None,
            "synchronize": lambda: None,
            "graph_pool_handle": object,
            "is_current_stream_capturing": lambda: outer.capturing,
        }.items():
            patch.setattr(torch.cuda, name, stand_in)


def test_what_asks_whether_a_stream_captures_does_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch)
    told = []

    def call() -> None:
        told.append((cuda.capturing, torch.cuda.is_current_stream_capturing()))

    CudaRecorder("cuda:0").record(call)
    assert told == [(False, False), (False, False), (True, False)]
    cuda.capturing = True
    assert torch.cuda.is_current_stream_capturing(), "others are told the truth again"


def test_text_encoders_of_transformers_build_no_mask_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one, compiled layers would be compiled anew inside of the capture."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    model = CLIPTextModel(CLIPTextConfig(**sizes, num_hidden_layers=1, vocab_size=64)).eval()
    (layer,) = (part for part in model.modules() if type(part).__name__ == "CLIPEncoderLayer")
    masks: list[Any] = []
    layer.register_forward_pre_hook(
        lambda _layer, args, kwargs: masks.append(kwargs.get("attention_mask", [*args, None][1])),
        with_kwargs=True,
    )
    tokens = torch.zeros(1, 5, dtype=torch.long)
    before = model(tokens).last_hidden_state
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with as_if_not_capturing():
        captured = model(tokens).last_hidden_state
    assert (masks[0] is None) == (masks[1] is None)
    assert torch.equal(before, captured)


def test_all_captures_share_a_stream_as_they_share_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives memory of a pool to one stream; with another, captures would share nothing."""
    cuda = Cuda(monkeypatch)
    recorder = CudaRecorder("cuda:0")
    for _ in range(3):
        recorder.record(lambda: None)
    assert len(set(cuda.captured_on)) == 1
    assert {id(stream) for stream in cuda.warmed_on} == {id(cuda.captured_on[0][1])}
