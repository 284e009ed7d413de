"""Looking at a pipeline call from outside its compiled regions.

Borders are wrapped where the pipeline calls them, after the backend has done its work, so that no
compiled region ever contains a probe. During a call a border costs one entry in a list; everything
else happens after the call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.contract import STAGES
from bench.worker.clock import Clock
from bench.worker.dynamo import Ran, executed
from compilers.scopes import denoiser_name, text_encoder_names

PROMPT_METHODS = ("encode_prompt", "_encode_prompt")
AUTOENCODERS = ("vae", "movq", "vqgan")
RUNGE_KUTTA_EVALUATIONS = 4
LATENT_ARGUMENTS = ("sample", "hidden_states", "x")

Event = tuple[str, str, float]
"""(kind, stage, seconds); kind is enter, exit, denoiser, callback or step."""


class Watch(Protocol):
    """Told when a scope that can be compiled is entered and left."""

    def enter(self, scope: str) -> None: ...

    def leave(self, scope: str) -> None: ...


@dataclass(frozen=True)
class Sample:
    """One call, as seen from outside.

    Attributes:
        output: what the pipeline returned.
        e2e_s: host seconds from before the call to after the device is done.
        device_e2e_s: the same span from device events; None without them.
        step_s: seconds between consecutive step events of this call.
        it_per_s: (callbacks - 1) / (last - first); None with fewer than two.
        stages: seconds by stage; None where this pipeline has no such border.
        steps_effective: steps that the scheduler took from one noise level to the next; None if it
            was not seen.
        denoiser_calls: calls of the denoiser; None if the pipeline has none to look at.
        denoiser_batches: distinct batch sizes of those calls, sorted.
        step_source: "callback", or "scheduler" where the pipeline offers no callback.
        between_s: host seconds of what was done after the call; None if nothing was.
        ran: for each pipeline call: by scope, how often it was entered and what it ran compiled.
        more: further fields of the record, the value of this call for each.
    """

    output: Any
    e2e_s: float
    device_e2e_s: float | None
    step_s: list[float]
    it_per_s: float | None
    stages: dict[str, float | None]
    steps_effective: int | None
    denoiser_calls: int | None
    denoiser_batches: tuple[int, ...]
    step_source: str | None
    between_s: float | None = None
    ran: tuple[dict[str, tuple[int, Ran]], ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Trace:
    events: list[tuple[str, str, Any]] = field(default_factory=list)
    levels: list[Any] = field(default_factory=list)
    batches: set[int] = field(default_factory=set)
    denoiser_calls: int = 0
    begun: bool = False
    opened: list[Ran] = field(default_factory=list)
    ran: dict[str, tuple[int, Ran]] = field(default_factory=dict)

    def open(self) -> None:
        self.opened.append(executed())

    def close(self, scope: str) -> None:
        now, before = executed(), self.opened.pop()
        entries, ran = self.ran.get(scope, (0, Ran(0, 0)))
        self.ran[scope] = (
            entries + 1,
            Ran(
                ran.graphs + now.graphs - before.graphs, ran.replays + now.replays - before.replays
            ),
        )


@dataclass(frozen=True)
class Call:
    """One call that is over and whose marks have not been read yet.

    Attributes:
        output: what the pipeline returned.
        started, ended: host seconds on the clock's own time line, synchronised.
    """

    output: Any
    started: float
    ended: float
    trace: _Trace
    first: Any
    last: Any


class Instruments:
    """The probes on one pipeline.

    Attributes:
        watch: told about scopes when set; None while measuring.
        inspect: called with the decoded pictures before they become PIL images, when set.
        missing: stage -> why it cannot be seen in this pipeline.
        calling: returns the context that each call runs in.
        between: done after each call, outside its time, when set.
        eager: says of a call why its backend was not active in it; None if it was.
        denoiser_output: types of what the scheduler was given; looked at while ``watch`` is set.
    """

    def __init__(self, pipeline: Any, clock: Clock) -> None:
        self.watch: Watch | None = None
        self.inspect: Callable[[Any], None] | None = None
        self.missing: dict[str, str] = {}
        self.calling: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        self.between: Callable[[], None] | None = None
        self.eager: Callable[[Sample], str | None] = lambda _sample: None
        self.denoiser_output: set[str] = set()
        self._pipeline = pipeline
        self._clock = clock
        self._trace = _Trace()
        self._callbacks_seen = False
        self._install()

    def on_step(self, *_arguments: Any, **_more: Any) -> None:
        """Note a step event: the callback to hand to the pipeline."""
        self._callbacks_seen = True
        self._trace.events.append(("callback", "", self._clock.mark()))

    def measure(self, arguments: dict[str, Any]) -> Sample:
        """Call the pipeline once, synchronised at both ends.

        Raises whatever the pipeline raises.
        """
        sample = self.read(self.call(self._pipeline, arguments))
        return dataclasses.replace(sample, between_s=self.pause())

    def call(self, pipeline: Any, arguments: dict[str, Any]) -> Call:
        """Call ``pipeline``, which is bordered by these instruments; synchronised at both ends."""
        clock, trace = self._clock, _Trace()
        self._trace = trace
        clock.synchronize()
        started = clock.now()
        first = clock.mark()
        with self.calling():
            output = pipeline(**arguments)
        last = clock.mark()
        clock.synchronize()
        return Call(output, started, clock.now(), trace, first, last)

    def read(self, call: Call) -> Sample:
        """Turn what was noted during a call into its figures."""
        clock, trace = self._clock, call.trace
        e2e_s = call.ended - call.started
        times = clock.seconds([call.first, *(mark for _, _, mark in trace.events), call.last])
        events = [
            (kind, stage, at)
            for (kind, stage, _), at in zip(trace.events, times[1:-1], strict=True)
        ]
        steps, source = step_times(events)
        return Sample(
            output=call.output,
            e2e_s=e2e_s,
            device_e2e_s=times[-1] - times[0] if clock.device_events else None,
            step_s=[b - a for a, b in itertools.pairwise(steps)],
            it_per_s=iterations_per_second(steps),
            stages=stage_seconds(events, e2e_s, self.missing),
            steps_effective=self._steps_effective(trace.levels),
            denoiser_calls=None if "denoise_s" in self.missing else trace.denoiser_calls,
            denoiser_batches=tuple(sorted(trace.batches)),
            step_source=source,
            ran=(trace.ran,),
        )

    def pause(self) -> float | None:
        """Do what is done between calls, and return how long the device and the host took."""
        if self.between is None:
            return None
        started = self._clock.now()
        self.between()
        self._clock.synchronize()
        return self._clock.now() - started

    def _steps_effective(self, levels: Sequence[Any]) -> int | None:
        if not levels:
            return None
        scheduler = self._pipeline.scheduler
        # PNDM begins with Runge-Kutta steps unless told not to.
        prk = getattr(scheduler, "prk_timesteps", None)
        return effective_steps(
            [(_plain_level(level), at) for level, at in levels],
            getattr(scheduler, "order", 1),
            0 if prk is None else len(prk),
        )

    def _install(self) -> None:
        pipeline = self._pipeline
        denoiser = denoiser_name(pipeline)
        if denoiser is None:
            self.missing["denoise_s"] = "the pipeline has neither a unet nor a transformer"
        else:
            wrap_calls(pipeline, denoiser, *self._denoiser_borders(denoiser))
            if getattr(pipeline, "controlnet", None) is not None:
                # It runs first in each step, so denoising begins with it.
                wrap_calls(pipeline, "controlnet", self._begin_denoising, lambda: None)

        encoders = text_encoder_names(pipeline)
        for name in encoders:
            wrap_calls(pipeline, name, *self._borders("text_encode_s", name))
        own = self._install_own(pipeline)
        if not (encoders or "text_encode_s" in own):
            self.missing["text_encode_s"] = "the pipeline has no text encoder"

        autoencoder = next(
            (name for name in AUTOENCODERS if getattr(pipeline, name, None) is not None), None
        )
        for method, stage in (("encode", "image_encode_s"), ("decode", "vae_decode_s")):
            owner = getattr(pipeline, autoencoder, None) if autoencoder else None
            if callable(getattr(owner, method, None)):
                self._wrap_method(owner, method, stage, f"{autoencoder}.{method}")
            else:
                self.missing[stage] = f"the pipeline has no autoencoder with {method}()"
        if getattr(pipeline, "image_encoder", None) is not None:
            wrap_calls(pipeline, "image_encoder", *self._borders("image_encode_s", None))

        if "post_s" not in own:
            self.missing["post_s"] = "the pipeline has no image_processor.postprocess"

        if callable(getattr(getattr(pipeline, "scheduler", None), "step", None)):
            self._wrap_scheduler(pipeline.scheduler)

    def _install_own(self, pipeline: Any) -> set[str]:
        """Border what belongs to the pipeline object itself; return the stages found there."""
        found = set()
        for name in PROMPT_METHODS:
            if callable(getattr(pipeline, name, None)):
                self._wrap_method(pipeline, name, "text_encode_s", None)
                found.add("text_encode_s")
        processor = getattr(pipeline, "image_processor", None)
        if callable(getattr(processor, "postprocess", None)):
            self._wrap_method(processor, "postprocess", "post_s", None, inspects=True)
            found.add("post_s")
        return found

    def _borders(
        self, stage: str, scope: str | None
    ) -> tuple[Callable[..., None], Callable[[], None]]:
        def enter(_args: Any, _kwargs: Any) -> None:
            if scope is not None:
                self._trace.open()
                if self.watch is not None:
                    self.watch.enter(scope)
            self._trace.events.append(("enter", stage, self._clock.mark()))

        def leave() -> None:
            self._trace.events.append(("exit", stage, self._clock.mark()))
            if scope is not None:
                self._trace.close(scope)
                if self.watch is not None:
                    self.watch.leave(scope)

        return enter, leave

    def _begin_denoising(self, *_arguments: Any) -> None:
        if not self._trace.begun:
            self._trace.begun = True
            self._trace.events.append(("denoiser", "denoise_s", self._clock.mark()))

    def _denoiser_borders(self, scope: str) -> tuple[Callable[..., None], Callable[[], None]]:
        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            trace = self._trace
            self._begin_denoising()
            trace.denoiser_calls += 1
            batch = _batch_size(args, kwargs)
            if batch is not None:
                trace.batches.add(batch)
            trace.open()
            if self.watch is not None:
                self.watch.enter(scope)

        def leave() -> None:
            self._trace.close(scope)
            if self.watch is not None:
                self.watch.leave(scope)

        return enter, leave

    def _wrap_method(
        self, owner: Any, name: str, stage: str, scope: str | None, inspects: bool = False
    ) -> None:
        method = getattr(owner, name)
        enter, leave = self._borders(stage, scope)

        @functools.wraps(method)
        def bordered(*args: Any, **kwargs: Any) -> Any:
            if inspects and self.inspect is not None:
                self.inspect(args[0] if args else next(iter(kwargs.values()), None))
            enter(args, kwargs)
            result = method(*args, **kwargs)
            leave()
            return result

        setattr(owner, name, bordered)

    def _wrap_scheduler(self, scheduler: Any) -> None:
        step = scheduler.step

        # Pipelines ask inspect.signature(scheduler.step) which arguments it takes: wraps keeps it.
        @functools.wraps(step)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            trace = self._trace
            if self.watch is not None:
                given = args[0] if args else kwargs.get("model_output")
                self.denoiser_output.add(str(getattr(given, "dtype", None)).replace("torch.", ""))
            # Rounded timesteps can collide (Karras sigmas), so a scheduler's own count goes along.
            level = args[1] if len(args) > 1 else kwargs.get("timestep")
            trace.levels.append((level, getattr(scheduler, "step_index", None)))
            if not self._callbacks_seen:
                trace.events.append(("step", "", self._clock.mark()))
            return result

        scheduler.step = stepped


def wrap_calls(
    owner: Any,
    name: str,
    enter: Callable[[tuple[Any, ...], dict[str, Any]], None],
    leave: Callable[[], None],
) -> None:
    """Call ``enter`` before and ``leave`` after each call of ``owner.name``, a module or callable.

    Three ways, since each kind of module has another outside. Hooks of an eager module, and of the
    module that ``torch.compile`` returns, run outside the graph. Hooks of a module compiled in
    place by ``module.compile()`` are traced into the graph, so there the compiled call itself is
    wrapped. Whatever takes no hooks is replaced by a stand-in that forwards everything.
    """
    module = getattr(owner, name)
    compiled = getattr(module, "__dict__", {}).get("_compiled_call_impl")
    if compiled is not None:

        @functools.wraps(compiled)
        def counted(*args: Any, **kwargs: Any) -> Any:
            enter(args, kwargs)
            result = compiled(*args, **kwargs)
            leave()
            return result

        module._compiled_call_impl = counted
        return
    try:
        module.register_forward_pre_hook(
            lambda _module, args, kwargs: enter(args, kwargs), with_kwargs=True
        )
        module.register_forward_hook(lambda _module, _args, _output: leave())
    except (AttributeError, TypeError, RuntimeError):
        # Past the pipeline's __setattr__, which would write the stand-in into its configuration.
        object.__setattr__(owner, name, _StandIn(module, enter, leave))


class _StandIn:
    """Forwards everything to a callable object and borders its calls; passes for its class."""

    def __init__(self, target: Any, enter: Callable[..., None], leave: Callable[[], None]) -> None:
        object.__setattr__(self, "_stand_in", (target, enter, leave))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        target, enter, leave = object.__getattribute__(self, "_stand_in")
        enter(args, kwargs)
        result = target(*args, **kwargs)
        leave()
        return result

    def __getattribute__(self, name: str) -> Any:
        # Everything, __class__ included, so that isinstance sees the target.
        return getattr(object.__getattribute__(self, "_stand_in")[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_stand_in")[0], name, value)


def step_times(events: Sequence[Event]) -> tuple[list[float], str | None]:
    """Return the times of the step events of one call, and where they come from.

    Callbacks of the pipeline where there are any, else the ends of the scheduler's steps.
    """
    for kind, source in (("callback", "callback"), ("step", "scheduler")):
        times = [at for found, _, at in events if found == kind]
        if times:
            return times, source
    return [], None


def iterations_per_second(steps: Sequence[float]) -> float | None:
    """Return (callbacks - 1) / (last - first), or None with fewer than two."""
    if len(steps) < 2 or steps[-1] <= steps[0]:
        return None
    return (len(steps) - 1) / (steps[-1] - steps[0])


def effective_steps(levels: Sequence[Any], order: int, runge_kutta: int = 0) -> int:
    """Return how many steps the scheduler really took, from the place of each in its schedule.

    A place is (timestep, the scheduler's own step index or None), and distinct places count. The
    solvers of order two (Heun, KDPM2) take ``order`` evaluations a step, so the number of
    evaluations divided by the order bounds it too. Of the first ``runge_kutta`` evaluations every
    four are one step, two of them at a level half-way (Liu et al., "Pseudo Numerical Methods for
    Diffusion Models on Manifolds").
    """
    first, rest = levels[:runge_kutta], levels[runge_kutta:]
    return math.ceil(len(first) / RUNGE_KUTTA_EVALUATIONS) + min(
        len(set(rest)), math.ceil(len(rest) / max(order, 1))
    )


def stage_seconds(
    events: Sequence[Event], e2e_s: float, missing: dict[str, str]
) -> dict[str, float | None]:
    """Return seconds by stage, and ``unaccounted_s`` = e2e - their sum.

    Only the outermost of nested borders counts. Denoising lasts from the first call of the
    denoiser to the last step event, less any other stage in between. A stage that was not entered
    took 0; one whose border this pipeline lacks is None.
    """
    spans: list[tuple[str, float, float]] = []
    depth, opened = 0, 0.0
    for kind, stage, at in events:
        if kind == "enter":
            if depth == 0:
                opened = at
            depth += 1
        elif kind == "exit":
            depth -= 1
            if depth == 0:
                spans.append((stage, opened, at))
    stages: dict[str, float | None] = {}
    for name in STAGES:
        if name in missing:
            stages[name] = None
        elif name == "denoise_s":
            stages[name] = _denoise_seconds(events, spans)
        elif name != "unaccounted_s":
            stages[name] = math.fsum(end - start for stage, start, end in spans if stage == name)
    known = math.fsum(value for value in stages.values() if value is not None)
    stages["unaccounted_s"] = e2e_s - known
    return stages


def _denoise_seconds(
    events: Sequence[Event], spans: Sequence[tuple[str, float, float]]
) -> float | None:
    first = next((at for kind, _, at in events if kind == "denoiser"), None)
    steps, _ = step_times(events)
    if first is None or not steps:
        return None
    last = steps[-1]
    inside = sum(max(0.0, min(last, end) - max(first, start)) for _, start, end in spans)
    return max(0.0, last - first - inside)


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    latents = (
        args[0]
        if args
        else next((kwargs[name] for name in LATENT_ARGUMENTS if name in kwargs), None)
    )
    shape = getattr(latents, "shape", None)
    if shape is not None and len(shape) > 0:
        return int(shape[0])
    return len(latents) if isinstance(latents, (list, tuple)) else None


def _plain_level(level: Any) -> Any:
    value = level.tolist() if hasattr(level, "tolist") else level
    return tuple(value) if isinstance(value, list) else value
