"""What a call has to do, what the device can do, and how busy it was: passes of their own.

Nothing here runs within a measured call. Work is counted on the pipeline as diffusers wrote it;
ceilings are measured on the device with the workload's own type, never looked up.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.passes.base import Context, Pass
from bench.worker import failure, precision
from bench.worker.clock import Clock
from bench.worker.instrument import Sample
from compilers.base import BASELINE

ELSEWHERE = "elsewhere"

MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}
COPY_BYTES = {"cuda": 2**31, "cpu": 2**27}
"""Far beyond a cache: the last level of a GPU holds some 60 MB, of a CPU some 30."""
CEILING_CALLS = 10

STEP_MARK = "bench: step"
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")
"""How the driver's calls that start something on the device begin."""
TRITON = "triton_"
"""How the kernels that Inductor writes are called."""
LINKED = 0.95
"""Share of device events whose launch must be found for a loop to be cut out of a trace."""


class ProfilePass(Pass):
    """Counts work, measures ceilings and traces a call; what fails is said and ends nothing."""

    phases = {"profile": "profiling"}
    equal_calls = False
    every_round = False

    def run(self, context: Context) -> None:
        dtype = precision.computes_in(context.workload, context.device)
        on_cuda = context.device.startswith("cuda")
        parts: list[tuple[str, str | None, Callable[[], Any]]] = [
            ("work", _why_not_count(context), lambda: count_work(context)),
            ("ceilings", None, lambda: ceilings(context.device, dtype, context.clock)),
            (
                "device_busy",
                None if on_cuda else "only CUDA devices can be traced",
                lambda: device_busy(lambda mark: _marked_call(context, mark)),
            ),
        ]
        nulls: dict[str, str] = {}
        for name, why_not, find in parts:
            found: Any = None
            try:
                found = None if why_not else find()
            except Exception as error:  # noqa: BLE001 - the cell's own figures stand
                failure.log(error)
                why_not = f"{type(error).__name__}: {error}".splitlines()[0]
            context.report.set(**{name: found})
            if why_not:
                nulls[name] = why_not
        context.report.null(nulls)


def _why_not_count(context: Context) -> str | None:
    if context.job["cell"]["backend"]["name"] == BASELINE:
        return None if counts_work() else "operations are counted from torch 2.1 on"
    return f"work is counted once for a workload, in the cell of backend {BASELINE}"


def count_work(context: Context) -> dict[str, Any]:
    watch = WorkWatch()
    context.instruments.watch = watch
    try:
        with watch.counting():
            context.measure()
    finally:
        context.instruments.watch = None
    return {scope: work.fields() for scope, work in watch.by_scope.items()}


def _marked_call(context: Context, mark: Callable[[], None]) -> Sample:
    def on_step(*arguments: Any, **more: Any) -> None:
        context.instruments.on_step(*arguments, **more)
        mark()

    return context.measure(on_step=on_step)


@dataclass
class Work:
    """What one part of a pipeline did in one call of the pipeline.

    Attributes:
        calls: of this part.
        flops: floating-point operations of matrix products, convolutions and attention; a multiply
            and an add are two.
        bytes: read and written by each operator as if alone, nothing kept in a cache or fused.
        weight_bytes: of distinct weights that were read: the least that any way must read.
    """

    calls: int = 0
    flops: int = 0
    bytes: int = 0
    weights: dict[int, int] = field(default_factory=dict)

    def fields(self) -> dict[str, int]:
        return {
            "calls": self.calls,
            "flops": self.flops,
            "bytes": self.bytes,
            "weight_bytes": sum(self.weights.values()),
        }


def counts_work() -> bool:
    """Say whether this torch has the formulas that counting needs (2.1 or newer)."""
    return importlib.util.find_spec("torch.utils.flop_counter") is not None


class WorkWatch:
    """Credits each operator to the scope in which it runs; a ``Watch`` of the borders.

    Formulas are those of ``torch.utils.flop_counter``. Use ``counting()`` around a call.

    Raises:
        ImportError: this torch counts no operations (2.1 or newer does).
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        self.by_scope: dict[str, Work] = {}
        self._stack = [ELSEWHERE]
        self._formulas: dict[Any, Any] = {**flop_registry, **_cpu_attention()}

    def enter(self, scope: str) -> None:
        self._stack.append(scope)
        self.by_scope.setdefault(scope, Work()).calls += 1

    def leave(self, scope: str) -> None:
        if self._stack[-1] == scope:
            self._stack.pop()

    def counting(self) -> contextlib.AbstractContextManager[Any]:
        from torch.utils._python_dispatch import TorchDispatchMode

        note = self._note

        class Mode(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
            def __torch_dispatch__(
                self, function: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                result = function(*args, **(kwargs or {}))
                note(function, args, kwargs or {}, result)
                return result

        return Mode()

    def _note(self, function: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        import torch

        work = self.by_scope.setdefault(self._stack[-1], Work())
        formula = self._formulas.get(function._overloadpacket)
        if formula is not None:
            work.flops += int(formula(*args, **kwargs, out_val=result))
        read, written = list(_tensors((args, kwargs))), list(_tensors(result))
        for tensor in read:
            if isinstance(tensor, torch.nn.Parameter):
                work.weights[tensor.data_ptr()] = _bytes(tensor)
        if _moves_nothing(function, read, written):
            return
        work.bytes += sum(_bytes(tensor) for tensor in (*read, *written))


def _cpu_attention() -> dict[Any, Any]:
    """Return the one kernel of attention that torch's own list lacks."""
    import torch

    packet = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

    def flops(query: Any, key: Any, value: Any, *_args: Any, **_more: Any) -> int:
        batch, heads, tokens, size = query.shape
        return int(2 * batch * heads * tokens * key.shape[-2] * (size + value.shape[-1]))

    return {} if packet is None else {packet: flops}


def _tensors(value: Any) -> Iterable[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _moves_nothing(function: Any, read: Sequence[Any], written: Sequence[Any]) -> bool:
    """Say whether an operator only looks at memory anew, or only asks for some."""
    if not read and function._overloadpacket.__name__.startswith("empty"):
        return True
    if function._schema.is_mutable:
        return False
    known = {tensor.untyped_storage().data_ptr() for tensor in read}
    return all(tensor.untyped_storage().data_ptr() in known for tensor in written)


def ceilings(device: str, dtype: str, clock: Clock) -> dict[str, Any]:
    """Measure what the device reaches at its best: a matrix product and a copy.

    Numbers are random: on zeros a device draws less power and runs faster than it ever would.

    Args:
        dtype: of the workload; of the matrix product.

    Returns:
        matmul_flops_per_s, matmul_side, copy_bytes_per_s (read plus written), copied_bytes, dtype.
    """
    import torch

    kind = device.split(":")[0]
    side = MATRIX_SIDE.get(kind, MATRIX_SIDE["cpu"])
    size = COPY_BYTES.get(kind, COPY_BYTES["cpu"])
    generator = torch.Generator(device).manual_seed(0)
    a, b = (
        torch.randn(side, side, generator=generator, device=device).to(getattr(torch, dtype))
        for _ in range(2)
    )
    seconds = _median_seconds(functools.partial(torch.mm, a, b, out=torch.empty_like(a)), clock)
    del a, b
    source = torch.randn(size // 4, generator=generator, device=device)
    target = torch.empty_like(source)
    copying = _median_seconds(lambda: target.copy_(source), clock)
    return {
        "matmul_flops_per_s": 2 * side**3 / seconds,
        "matmul_side": side,
        "copy_bytes_per_s": 2 * size / copying,
        "copied_bytes": size,
        "dtype": dtype,
    }


def _median_seconds(work: Callable[[], Any], clock: Clock) -> float:
    for _ in range(3):
        work()
    clock.synchronize()
    times = []
    for _ in range(CEILING_CALLS):
        marks = [clock.mark()]
        work()
        marks.append(clock.mark())
        clock.synchronize()
        first, last = clock.seconds(marks)
        times.append(last - first)
    return statistics.median(times)


@dataclass(frozen=True)
class Span:
    """One event of a trace, in seconds.

    Attributes:
        launch: links a device event to what started it.
        marked: whether it is a range that a program marks, which appears on the device too and is
            no work there; None if this torch does not tell.
    """

    name: str
    on_device: bool
    start: float
    end: float
    launch: int
    marked: bool | None = None


def device_busy(
    measure: Callable[[Callable[[], None]], Any],
    spans_of: Callable[[Any], list[Span]] | None = None,
) -> dict[str, Any]:
    """Trace one call on CUDA and return how long the device computed.

    Args:
        measure: makes the call; is given what to call at each step, and returns the call's Sample.
        spans_of: reads a finished profile; another one is for tests.

    Returns:
        ``busy_s`` (time in which at least one kernel or copy ran), ``kernels``, ``e2e_s`` and
        ``loop_clock_s`` of this call, which tracing slows down, and of its denoising loop from the
        first step event to the last ``loop_kernel_s`` (between the ends of the last kernels before)
        and ``loop_busy_s``; the last two None if launches cannot be matched.

    Raises:
        RuntimeError: the profiler saw nothing on the device, as where its counters are locked.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    def mark() -> None:
        with record_function(STEP_MARK):
            pass

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        sample = measure(mark)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    found = read_trace((spans_of or spans)(trace))
    if not found["kernels"]:
        raise RuntimeError("torch's profiler saw no kernel on the device")
    return {
        **found,
        "e2e_s": sample.e2e_s,
        "loop_clock_s": math.fsum(sample.step_s),
    }


def spans(trace: Any) -> list[Span]:
    found = []
    for event in trace.events():
        on_device = "CPU" not in str(event.device_type)
        times = event.time_range
        marked = getattr(event, "is_user_annotation", None)
        start, end = times.start / 1e6, times.end / 1e6
        found.append(Span(event.name, on_device, start, end, int(event.id), marked))
    return found


def read_trace(events: Sequence[Span]) -> dict[str, Any]:
    """Return the figures of ``device_busy`` that come from a trace."""
    host = [event for event in events if not event.on_device]
    # Only where torch does not tell marked ranges: Inductor's launches are ranges on the host that
    # are called like their kernels.
    names = {event.name for event in host if not event.name.startswith(TRITON)}
    device = [
        event
        for event in events
        if event.on_device and not (event.name in names if event.marked is None else event.marked)
    ]
    found: dict[str, Any] = {
        "busy_s": _covered([(event.start, event.end) for event in device]),
        "kernels": len(device),
        "loop_kernel_s": None,
        "loop_busy_s": None,
    }
    launched = {event.launch: event.start for event in host if event.name.startswith(LAUNCHES)}
    marks = sorted(event.start for event in host if event.name == STEP_MARK)
    linked = [event for event in device if event.launch in launched]
    if len(marks) < 2 or len(linked) < LINKED * max(len(device), 1):
        return found
    ends = [
        max((e.end for e in linked if launched[e.launch] < mark), default=None)
        for mark in (marks[0], marks[-1])
    ]
    if ends[0] is None or ends[1] is None:
        return found
    first, last = ends[0], ends[1]
    inside = [
        (max(event.start, first), min(event.end, last))
        for event in device
        if event.end > first and event.start < last
    ]
    found.update(loop_kernel_s=last - first, loop_busy_s=_covered(inside))
    return found


def _covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


PASS = ProfilePass()
