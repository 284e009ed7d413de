"""Scheduler steps that never make the host wait for the device, and ones in fewer kernels.

Where diffusers (0.29 to 0.42) waits with a scheduler of the Euler family on CUDA, by its sources:

- ``step`` of the ancestral kind draws noise with a generator on the CPU and uploads it from
  pageable memory: one wait at **each step**;
- ``set_timesteps`` uploads the sigmas and reads them back: once an image, behind all of the text
  encoders' work;
- ``index_for_timestep`` searches on the device and reads the answer: once an image, in pipelines
  that do not say where they begin (InstructPix2Pix).

Sigmas themselves are kept on the CPU and become kernel arguments, which needs no wait.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable
from typing import Any, Literal

StepKind = Literal["as-is", "no-sync", "fused"]

SCHEDULE = ("num_inference_steps", "timesteps", "sigmas", "_step_index", "_begin_index")
"""What ``set_timesteps`` of the Euler family sets."""

FAMILY = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")


def apply(scheduler: Any, kind: StepKind) -> dict[str, str]:
    """Change ``scheduler`` in place and say what was done, or why not, by technique.

    ``no-sync`` gives the same numbers to the last bit. ``fused`` besides takes each step in two or
    three kernels instead of six and more, and rounds less on the way.
    """
    notes: dict[str, str] = {}
    if kind == "as-is":
        return notes
    name = type(scheduler).__name__
    if name not in FAMILY:
        why = f"left out: {name} is not among {', '.join(FAMILY)}"
        return {"scheduler_no_sync": why} | ({"scheduler_fused": why} if kind == "fused" else {})
    _keep_schedules(scheduler)
    _find_steps_on_host(scheduler)
    _upload_without_waiting(scheduler)
    notes["scheduler_no_sync"] = "on"
    if kind == "fused":
        prediction = scheduler.config.prediction_type
        if prediction == "epsilon":
            _fuse(scheduler, ancestral="Ancestral" in name)
            notes["scheduler_fused"] = "on"
        else:
            notes["scheduler_fused"] = f"left out: for epsilon prediction, and this is {prediction}"
    return notes


def upload_noise(
    shape: Any,
    generator: Any = None,
    device: Any = None,
    dtype: Any = None,
    layout: Any = None,
) -> Any:
    """Draw as diffusers' ``randn_tensor`` does, and upload from pinned memory without waiting.

    The host goes on while the copy is queued, behind the work that the device still has.
    """
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    first = generator[0] if isinstance(generator, list) and generator else generator
    target = torch.device(device or "cpu")
    if target.type != "cuda" or first is None or first.device.type != "cpu":
        return randn_tensor(shape, generator=generator, device=device, dtype=dtype, layout=layout)
    drawn = randn_tensor(
        shape, generator=generator, device=torch.device("cpu"), dtype=dtype, layout=layout
    )
    return drawn.pin_memory().to(target, non_blocking=True)


def _keep_schedules(scheduler: Any) -> None:
    """Compute each schedule once: it depends on nothing but its arguments."""
    original = scheduler.set_timesteps
    kept: dict[Any, dict[str, Any]] = {}

    @functools.wraps(original)
    def set_timesteps(
        num_inference_steps: int | None = None, device: Any = None, **more: Any
    ) -> None:
        if any(value is not None for value in more.values()):
            original(num_inference_steps, device=device, **more)
            return
        key = (num_inference_steps, str(device))
        if key not in kept:
            original(num_inference_steps, device=device)
            kept[key] = {name: getattr(scheduler, name) for name in SCHEDULE}
        for name, value in kept[key].items():
            setattr(scheduler, name, value)

    scheduler.set_timesteps = set_timesteps


def _find_steps_on_host(scheduler: Any) -> None:
    """Tell a timestep's place by its place in memory; only a stranger's is searched for."""
    original = scheduler.index_for_timestep
    values = _OfLast(lambda timesteps: timesteps.tolist())

    @functools.wraps(original)
    def index_for_timestep(timestep: Any, schedule_timesteps: Any = None) -> int:
        timesteps = scheduler.timesteps
        if schedule_timesteps is not None or not _is_view(timestep, timesteps):
            return int(original(timestep, schedule_timesteps))
        known = values.of(timesteps)
        value = known[timestep.storage_offset() - timesteps.storage_offset()]
        equal = [place for place, other in enumerate(known) if other == value]
        return equal[1] if len(equal) > 1 else equal[0]

    scheduler.index_for_timestep = index_for_timestep


class _OfLast:
    """Keeps what was derived from the object that was asked about last."""

    def __init__(self, derive: Callable[[Any], Any]) -> None:
        self._derive = derive
        self._asked: Any = None
        self._derived: Any = None

    def of(self, asked: Any) -> Any:
        if asked is not self._asked:
            self._asked, self._derived = asked, self._derive(asked)
        return self._derived


def _is_view(timestep: Any, timesteps: Any) -> bool:
    storage = getattr(timestep, "untyped_storage", None)
    return bool(
        storage is not None
        and timestep.dim() == 0
        and storage().data_ptr() == timesteps.untyped_storage().data_ptr()
    )


def _upload_without_waiting(scheduler: Any) -> None:
    """Let ``step`` draw through ``upload_noise``; diffusers' own module stays as it is."""
    method = scheduler.step
    function = method.__func__
    if "randn_tensor" not in function.__globals__:
        return
    own = types.FunctionType(
        function.__code__,
        {**function.__globals__, "randn_tensor": upload_noise},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    scheduler.step = _bound(own, scheduler, method)


def _bound(function: Callable[..., Any], scheduler: Any, method: Any) -> Callable[..., Any]:
    @functools.wraps(method)
    def step(*args: Any, **kwargs: Any) -> Any:
        return function(scheduler, *args, **kwargs)

    return step


def _fuse(scheduler: Any, *, ancestral: bool) -> None:
    """Take steps by the sum that they come to.

    With x0 = x - s·e, the derivative (x - x0)/s is e itself, so a step is x + dt·e, and for the
    ancestral kind + u·noise; dt and u are numbers known on the host.
    """
    original = scheduler.step
    numbers = _OfLast(lambda sigmas: _coefficients(sigmas, ancestral))

    @functools.wraps(original)
    def step(
        model_output: Any,
        timestep: Any,
        sample: Any,
        *args: Any,
        generator: Any = None,
        return_dict: bool = True,
        **more: Any,
    ) -> Any:
        import torch

        if args or return_dict or any(more.values()):  # churn, or a caller with other habits
            return original(
                model_output,
                timestep,
                sample,
                *args,
                generator=generator,
                return_dict=return_dict,
                **more,
            )
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        sigma, dt, up = numbers.of(scheduler.sigmas)[scheduler.step_index]
        sample = sample.to(torch.float32)
        previous = torch.add(sample, model_output, alpha=dt)
        if ancestral:
            noise = upload_noise(
                model_output.shape,
                generator=generator,
                device=model_output.device,
                dtype=model_output.dtype,
            )
            previous = torch.add(previous, noise, alpha=up)
        scheduler._step_index += 1
        return (
            previous.to(model_output.dtype),
            torch.sub(sample, model_output, alpha=sigma),
        )

    scheduler.step = step


def _coefficients(sigmas: Any, ancestral: bool) -> list[tuple[float, float, float]]:
    """Return (sigma, dt, up) for each step, computed as diffusers does, in single precision."""
    steps = []
    for here, after in itertools.pairwise(sigmas):
        if ancestral:
            up = (after**2 * (here**2 - after**2) / here**2) ** 0.5
            down = (after**2 - up**2) ** 0.5
        else:
            up, down = here * 0, after
        steps.append((float(here), float(down - here), float(up)))
    return steps
