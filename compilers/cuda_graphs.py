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

MOST_MOVES = 1
"""How often weights may move: once is an arrangement, oftener is what happens in every image."""

REASON_LENGTH = 200

Replay = Callable[[], Any]


class CaptureError(Exception):
    """A call that works cannot be captured; ``str()`` is the reason, without a full stop."""


class Recorder(Protocol):
    """Turns a function of fixed tensors into something that can be replayed."""

    def holds(self, tensor: Any) -> bool:
        """Return whether ``tensor`` lives where a replay can read it."""
        ...

    def record(self, function: Callable[[], Any]) -> tuple[Replay, Any]:
        """Return a replay of ``function`` and its result, whose tensors each replay overwrites.

        Raises:
            CaptureError: ``function`` can be called and not captured. What it raises when it is
                just called, and running out of memory, come through as they are.
        """
        ...


class CudaRecorder:
    """Captures on one device; all captures share a memory pool, and the stream that it goes by.

    Sharing is safe because replays are ordered on one stream and each result is copied out of the
    pool before the next replay begins.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None

    def holds(self, tensor: Any) -> bool:
        return bool(tensor.is_cuda)

    def record(self, function: Callable[[], Any]) -> tuple[Replay, Any]:
        import torch

        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._stream = torch.cuda.Stream()
            before = torch.cuda.current_stream()
            self._stream.wait_stream(before)
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_CALLS):
                    function()
            before.wait_stream(self._stream)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with as_if_not_capturing(), torch.cuda.graph(graph, self._pool, self._stream):
                    result = function()
            except Exception as error:
                # A capture that broke off leaves its stream the current one, and the allocator
                # still recording for its pool.
                torch.cuda.set_stream(before)
                self._pool = None
                if any("out of memory" in str(each).lower() for each in _causes(error)):
                    raise
                raise CaptureError(_cause(error)) from error
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Go from the end of a capture, which only says that it is broken, to what broke it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _cause(error: BaseException) -> str:
    first = list(_causes(error))[-1]
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    return f"{type(first).__name__}: {lines[0] if lines else 'no message'}"[:REASON_LENGTH]


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
    and by ``variant``. A call runs as it is, which ``counts`` shows, if an argument cannot be told
    apart or read by a replay, if its kind could not be captured, or if the weights keep moving: a
    replay would read where they were.

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
        self._weights = _Weights(owner)
        self._variant = variant
        self._captured: dict[Hashable, _Captured | str] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``function``, by replay where that is possible; the result is the caller's own."""
        from torch.utils import _pytree as pytree

        if self._weights.moved():
            self._captured.clear()
        leaves, structure = pytree.tree_flatten((args, kwargs))
        key, reason = self._key(leaves, structure)
        captured: _Captured | str = reason
        if key is not None:
            if key not in self._captured:
                self._captured[key] = self._capture(leaves, structure)
            elif isinstance(known := self._captured[key], _Captured):
                for static, given in zip(known.inputs, _tensors(leaves), strict=True):
                    static.copy_(given)
            captured = self._captured[key]
        if isinstance(captured, str):
            self.counts.uncaptured[captured] = self.counts.uncaptured.get(captured, 0) + 1
            return self._function(*args, **kwargs)
        captured.replay()
        self.counts.replays += 1
        return pytree.tree_unflatten(
            [leaf.clone() if _is_tensor(leaf) else leaf for leaf in captured.leaves],
            captured.structure,
        )

    def _key(self, leaves: Sequence[Any], structure: Any) -> tuple[Hashable | None, str]:
        parts: list[Hashable] = []
        if self._weights.moves > MOST_MOVES:
            return None, "its weights move from call to call"
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
        return (str(structure), tuple(parts), self._variant()), ""

    def _capture(self, leaves: Sequence[Any], structure: Any) -> _Captured | str:
        """Return what was captured, or why this kind of call cannot be."""
        from torch.utils import _pytree as pytree

        static = [leaf.clone() if _is_tensor(leaf) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(static, structure)
        try:
            replay, result = self._recorder.record(lambda: self._function(*args, **kwargs))
        except CaptureError as error:
            return f"it cannot be captured: {error}"
        results, result_structure = pytree.tree_flatten(result)
        strange = [x for x in results if not isinstance(x, (str, int, float, bool, type(None)))]
        strange = [type(x).__name__ for x in strange if not _is_tensor(x)]
        if strange:
            return f"a replay cannot return a {strange[0]}"
        self._weights.hold()
        self.counts.captures += 1
        return _Captured(_tensors(static), replay, results, result_structure)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensors(leaves: Sequence[Any]) -> list[Any]:
    return [leaf for leaf in leaves if _is_tensor(leaf)]


class _Weights:
    """Where a module's weights were when a call that reads them was captured.

    The last parameter stands for all: what moves weights (a change of device or type) moves all of
    a module's. Those that were captured are kept alive, since an allocator likes to give memory out
    again: weights that went and came back could be in each other's places, and the last in its own.

    Attributes:
        moves: how often they have moved since something was captured.
    """

    def __init__(self, owner: Any) -> None:
        self.moves = 0
        self._owner = owner
        self._held: list[Any] = []
        named = list(owner.named_parameters()) if owner is not None else []
        last: str = named[-1][0] if named else ""
        path, _, self._name = last.rpartition(".")
        self._holder = owner.get_submodule(path) if named else None

    def hold(self) -> None:
        """Note where they are, for what was captured just now."""
        if self._holder is not None:
            self._held = [weight.detach() for weight in self._owner.parameters()]

    def moved(self) -> bool:
        """Return whether they have moved since, and let go of them if so."""
        if not self._held:
            return False
        if getattr(self._holder, self._name).data_ptr() == self._held[-1].data_ptr():
            return False
        self.moves += 1
        self._held = []
        return True
