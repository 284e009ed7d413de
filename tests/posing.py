"""Tensors of the CPU that pose as CUDA ones, so that what only runs on CUDA runs in tests.

    python -m tests.posing JOBS.json    a list of jobs -> one JSON object a line

Honest in: which tensor is on which device (mixing raises), what makes the host wait (counted, and
an error while capturing), replays (the same operators on the same memory, results overwritten),
events (unreadable before a synchronise; the device's clock runs ``CLOCK`` times as fast as the
host's, so that a time from the wrong clock shows), allocated memory and its peak. Not in: speed,
streams that overlap, kernels' numbers, torch.compile. A process that poses is of no further use.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch.utils import _pytree as pytree

CLOCK = 2.0
TOTAL_BYTES = 2**37
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
extern "C" void pose() {
  static c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> guard;
  c10::impl::device_guard_impl_registry[(size_t)c10::DeviceType::CUDA].store(&guard);
}
"""

aten = torch.ops.aten
COPIES = ("_to_copy", "copy_")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
WAITING = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "_unique2")


class State:
    """What the device that is not there has done."""

    waits: ClassVar[Counter[str]] = Counter()
    capturing: Any = None
    stream: Any = None
    synchronised_at = 0.0
    allocated = 0
    peak = 0
    graphs = 0
    alive: ClassVar[dict[int, int]] = {}


def wait(what: str) -> None:
    """Count what makes the host wait; refuse it while capturing, as CUDA does."""
    if State.capturing is not None:
        State.capturing.broken = True
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
    State.waits[what] += 1
    State.synchronised_at = time.perf_counter()


class Posing(torch.Tensor):
    """A tensor that says it is on cuda:0; ``inner`` has the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=torch.device("cuda", 0),
        )  # fmt: skip

    def __init__(self, inner: Any) -> None:
        self._hold(inner)

    def _hold(self, inner: Any) -> None:
        self.inner = inner
        storage = inner.untyped_storage()
        key = storage._cdata
        if key not in State.alive:
            State.allocated += storage.nbytes()
            State.peak = max(State.peak, State.allocated)
        State.alive[key] = State.alive.get(key, 0) + 1
        self._let_go = weakref.finalize(self, _let_go, key, storage.nbytes())
        self._let_go.atexit = False

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self._let_go()
        self._hold(value.inner)

    def data_ptr(self) -> int:
        return int(self.inner.data_ptr())

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def tolist(self) -> Any:
        wait("tolist")
        return self.inner.tolist()

    def __repr__(self, *_: Any, **__: Any) -> str:
        wait("print")
        return f"Posing({self.inner!r})"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(function, args, kwargs or {})


def _let_go(key: int, size: int) -> None:
    State.alive[key] -= 1
    if not State.alive[key]:
        State.allocated -= size
        del State.alive[key]


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the numbers, and note what CUDA would have done."""
    name = function._overloadpacket.__name__
    if name == "_fused_sdp_choice":
        return 0  # the way that is written in plain operators
    flat, spec = pytree.tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, torch.Tensor)]
    asked = kwargs.get("device")
    here = any(isinstance(each, Posing) for each in tensors) or not tensors
    on_cuda = here if asked is None else torch.device(asked).type == "cuda"
    if name in COPIES:
        target = args[0] if name == "copy_" else None
        on_cuda = on_cuda if target is None else isinstance(target, Posing)
        _copying(args[1] if name == "copy_" else args[0], on_cuda)
    elif name in INDEXING:
        kinds = [each for each in args[1] if each is not None]
        if any(each.dtype in (torch.bool, torch.uint8) for each in kinds):
            wait("mask as an index")
    elif any(each.dim() and not isinstance(each, Posing) for each in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device ({name})")
    if name in WAITING:
        wait(name)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs.pop("pin_memory", None)
    flat, spec = pytree.tree_flatten((args, kwargs))
    owners = {id(each.inner): each for each in flat if isinstance(each, Posing)}
    bare = [each.inner if isinstance(each, Posing) else each for each in flat]
    plain_args, plain_kwargs = pytree.tree_unflatten(bare, spec)
    result = function(*plain_args, **plain_kwargs)
    leaves, shape = pytree.tree_flatten(result)
    if State.capturing is not None:
        made = [each for each in leaves if isinstance(each, torch.Tensor)]
        State.capturing.tape.append((function, plain_args, plain_kwargs, made))
    if on_cuda:
        leaves = [
            (owners[id(each)] if id(each) in owners else Posing(each))
            if isinstance(each, torch.Tensor)
            else each
            for each in leaves
        ]
    return pytree.tree_unflatten(leaves, shape)


def _copying(source: Any, on_cuda: bool) -> None:
    if isinstance(source, Posing) and not on_cuda:
        wait("copy to the CPU")
    elif on_cuda and isinstance(source, torch.Tensor) and not isinstance(source, Posing):
        wait("copy from pageable memory")


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


class Using:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.before, State.stream = State.stream, self.stream

    def __exit__(self, *_: object) -> None:
        State.stream = self.before


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        assert State.capturing is None, "a clock's event within a capture"
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        assert max(self.at, other.at) <= State.synchronised_at, "read before a synchronise"
        return (other.at - self.at) * 1000 * CLOCK


class Graph:
    def __init__(self) -> None:
        self.tape: list[Any] = []
        self.broken = False

    def replay(self) -> None:
        for function, args, kwargs, made in self.tape:
            again = [
                each
                for each in pytree.tree_leaves(function(*args, **kwargs))
                if isinstance(each, torch.Tensor)
            ]
            for old, new in zip(made, again, strict=True):
                if old is not new and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Capture:
    """``torch.cuda.graph``, which leaves its stream the current one when its end raises."""

    def __init__(self, graph: Graph, pool: object, stream: Stream) -> None:
        self.graph, self.use = graph, Using(stream)

    def __enter__(self) -> None:
        self.use.__enter__()
        State.capturing = self.graph

    def __exit__(self, *_: object) -> None:
        State.capturing = None
        if self.graph.broken:
            raise RuntimeError("operation failed due to a previous error during capture")
        State.graphs += 1
        self.use.__exit__()


def pose() -> None:
    """Pose from now on."""
    torch.set_grad_enabled(False)
    _guard()
    pose.library = torch.library.Library("_", "IMPL")  # type: ignore[attr-defined]
    pose.library.fallback(  # type: ignore[attr-defined]
        lambda function, *args, **kwargs: run(function, args, kwargs), "CUDA"
    )
    pose.aten = torch.library.Library("aten", "IMPL")  # type: ignore[attr-defined]
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        space, _, operator = name.partition("::")
        packet, _, overload = operator.partition(".")
        function = getattr(getattr(aten, packet, None), overload or "default", None)
        if space != "aten" or function is None:
            continue
        arguments = function._schema.arguments
        makes = any(a.name == "device" for a in arguments) and not any(
            "Tensor" in str(a.type) for a in arguments
        )
        if operator in COPIES or (makes and "sparse" not in packet and packet[0] != "_"):
            pose.aten.impl(operator, _through(function), "CUDA")  # type: ignore[attr-defined]
    first = State.stream = Stream()
    properties = SimpleNamespace(
        name="NVIDIA H200", total_memory=TOTAL_BYTES, major=9, minor=0, uuid="0"
    )
    fakes: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: Using(State.stream),
        "synchronize": lambda device=None: wait("synchronize"),
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "is_current_stream_capturing": lambda: State.capturing is not None,
        "Stream": Stream,
        "stream": Using,
        "current_stream": lambda: State.stream,
        "default_stream": lambda: first,
        "set_stream": lambda stream: setattr(State, "stream", stream),
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": Capture,
        "graph_pool_handle": object,
        "max_memory_allocated": lambda device=None: State.peak,
        "max_memory_reserved": lambda device=None: State.peak + 1,
        "mem_get_info": lambda device=None: (TOTAL_BYTES - State.allocated - 2, TOTAL_BYTES),
        "reset_peak_memory_stats": lambda device=None: setattr(State, "peak", State.allocated),
        "empty_cache": lambda: None,
        "memory_snapshot": lambda: [
            {"segment_pool_id": (0, 1), "total_size": 1, "allocated_size": 0}
            for _ in range(State.graphs)
        ],
    }
    for name, fake in fakes.items():
        setattr(torch.cuda, name, fake)
    compatible = torch._has_compatible_shallow_copy_type
    torch._has_compatible_shallow_copy_type = lambda a, b: (
        isinstance(a, Posing) == isinstance(b, Posing) and compatible(a, b)
    )


def _through(function: Any) -> Any:
    return lambda *args, **kwargs: run(function, args, kwargs)


def _guard() -> None:
    """Register a device guard that does nothing: torch without CUDA has none for it."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "guard.cpp", Path(folder) / "guard.so"
        source.write_text(GUARD)
        here = Path(torch.__file__).parent
        subprocess.run(
            ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{here}/include", str(source),
             "-o", str(made), f"-L{here}/lib", "-lc10"],
            check=True, capture_output=True,
        )  # fmt: skip
        ctypes.CDLL(str(made)).pose()


def _one(job: Any) -> None:
    from bench.worker.instrument import Instruments
    from tests.worker import fakes

    during: list[dict[str, int]] = []
    call = Instruments.call

    def watched(self: Any, *args: Any) -> Any:
        before = Counter(State.waits)
        found = call(self, *args)
        during.append(dict(State.waits - before))
        return found

    Instruments.call = watched  # type: ignore[method-assign]
    told = fakes.run(job)
    print(json.dumps({**told, "outcome": told.outcome, "reason": told.reason, "waits": during}))


def main(path: str) -> None:
    """Run jobs, each in a process of its own."""
    import diffusers

    from compilers import inductor
    from compilers.base import Verdict

    # What is imported later would look for a CUDA that is really there.
    diffusers.StableDiffusionInstructPix2PixPipeline, diffusers.StableDiffusionXLPipeline
    pose()
    inductor.probe = lambda device: Verdict(True)
    for job in json.loads(Path(path).read_text()):
        if os.fork() == 0:
            try:
                _one(job)
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1])
