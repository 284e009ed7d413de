"""Whole calls as CUDA graphs: captured once for each kind of arguments, replayed from then on.

torch.compile's own graphs cover what it compiles as one region. A capture around a call covers all
of it, whatever is compiled inside, so that small regions (little to compile) and one launch a call
go together.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

WARM_CALLS = 2
"""Calls before a capture: the first compiles and lets cuDNN choose, the second finds all of it."""

Replay = Callable[[], Any]


class Recorder(Protocol):
    """Turns a function of fixed tensors into something that can be replayed."""

    def holds(self, tensor: Any) -> bool:
        """Say whether ``tensor`` lives where a replay can read it."""
        ...

    def record(self, function: Callable[[], Any]) -> tuple[Replay, Any]:
        """Return a replay of ``function`` and its result, whose tensors each replay overwrites."""
        ...


class CudaRecorder:
    """Captures on one device; all captures share a memory pool.

    Sharing is safe because replays are ordered on one stream and each result is copied out of the
    pool before the next replay begins.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._pool: Any = None

    def holds(self, tensor: Any) -> bool:
        return bool(tensor.is_cuda)

    def record(self, function: Callable[[], Any]) -> tuple[Replay, Any]:
        import torch

        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_CALLS):
                    function()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with as_if_not_capturing(), torch.cuda.graph(graph, pool=self._pool, stream=stream):
                result = function()
        return graph.replay, result


@contextlib.contextmanager
def as_if_not_capturing() -> Iterator[None]:
    """Let Python code that asks whether a stream captures be told no, so that it does as before.

    transformers (5.x) asks, and builds an attention mask while capturing that it leaves out
    otherwise: what was compiled in the calls before would be compiled anew, inside of the capture,
    and a replay would do other work than the call that it stands for.
    """
    import torch

    original = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: False
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = original


@dataclass
class Counts:
    """What became of the calls.

    Attributes:
        captures: kinds of arguments that were captured.
        replays: calls that were answered by a replay.
        uncaptured: reason -> calls that ran as they are.
    """

    captures: int = 0
    replays: int = 0
    uncaptured: dict[str, int] = field(default_factory=dict)


@dataclass
class _Captured:
    inputs: list[Any]
    replay: Replay
    leaves: list[Any]
    structure: Any


class GraphedCall:
    """Stands in for ``function`` and replays it.

    Arguments may be nested in tuples, lists, dicts and result objects that torch's pytree knows.
    Calls are told apart by shape, layout and type of each tensor, by the value of everything else,
    and by ``variant``. A call with an argument that cannot be told apart or read by a replay runs
    as it is, which ``counts`` shows.

    Args:
        function: what to call; must always do the same work for the same kind of arguments.
        owner: module whose weights ``function`` reads: when they move, captures are made anew.
        variant: further state on which the work depends.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        recorder: Recorder,
        owner: Any = None,
        variant: Callable[[], Hashable] = lambda: None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.counts = Counts()
        self._function = function
        self._recorder = recorder
        self._weights = _last_parameter(owner)
        self._variant = variant
        self._captured: dict[Hashable, _Captured] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``function``, by replay where that is possible; the result is the caller's own."""
        from torch.utils import _pytree as pytree

        leaves, structure = pytree.tree_flatten((args, kwargs))
        key, reason = self._key(leaves, structure)
        if key is None:
            self.counts.uncaptured[reason] = self.counts.uncaptured.get(reason, 0) + 1
            return self._function(*args, **kwargs)
        captured = self._captured.get(key)
        if captured is None:
            captured = self._capture(leaves, structure)
            self._captured[key] = captured
            self.counts.captures += 1
        else:
            for static, given in zip(captured.inputs, _tensors(leaves), strict=True):
                static.copy_(given)
        captured.replay()
        self.counts.replays += 1
        return pytree.tree_unflatten(
            [leaf.clone() if _is_tensor(leaf) else leaf for leaf in captured.leaves],
            captured.structure,
        )

    def _key(self, leaves: Sequence[Any], structure: Any) -> tuple[Hashable | None, str]:
        parts: list[Hashable] = []
        for leaf in leaves:
            if _is_tensor(leaf):
                if not self._recorder.holds(leaf):
                    return None, f"an argument lives on {leaf.device}"
                if leaf.requires_grad:
                    return None, "an argument requires a gradient"
                parts.append((tuple(leaf.shape), leaf.stride(), leaf.dtype))
            elif isinstance(leaf, (str, int, float, bool, type(None))):
                parts.append((type(leaf), leaf))
            else:
                return None, f"an argument is a {type(leaf).__name__}"
        address = None if self._weights is None else self._weights().data_ptr()
        return (str(structure), tuple(parts), address, self._variant()), ""

    def _capture(self, leaves: Sequence[Any], structure: Any) -> _Captured:
        from torch.utils import _pytree as pytree

        static = [leaf.clone() if _is_tensor(leaf) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(static, structure)
        replay, result = self._recorder.record(lambda: self._function(*args, **kwargs))
        results, result_structure = pytree.tree_flatten(result)
        strange = [x for x in results if not isinstance(x, (str, int, float, bool, type(None)))]
        strange = [type(x).__name__ for x in strange if not _is_tensor(x)]
        if strange:
            raise TypeError(f"a replay cannot return a {strange[0]}")
        return _Captured(_tensors(static), replay, results, result_structure)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensors(leaves: Sequence[Any]) -> list[Any]:
    return [leaf for leaf in leaves if _is_tensor(leaf)]


def _last_parameter(owner: Any) -> Callable[[], Any] | None:
    """Return how to read the last parameter of ``owner``, whose address tells if weights moved.

    One is enough: what moves weights (a change of device or type) moves all of a module's.
    """
    named = list(owner.named_parameters()) if owner is not None else []
    if not named:
        return None
    path, _, name = named[-1][0].rpartition(".")
    holder = owner.get_submodule(path)
    return lambda: getattr(holder, name)
