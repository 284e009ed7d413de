"""A pipeline whose every duration is known, the clock that it moves, and jobs to run it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.worker import tiny

STEP_S = 0.010
ENCODE_S = 0.080
IMAGE_ENCODE_S = 0.0
DECODE_S = 0.090
POST_S = 0.020
OTHER_S = 0.010
FIXED_S = ENCODE_S + DECODE_S + POST_S + OTHER_S


class FakeClock:
    """Time that only passes when told."""

    def __init__(self, device_events: bool = False) -> None:
        self.time = 1000.0
        self.device_events = device_events
        self.no_events_reason = None if device_events else "a fake has no device events"
        self.synchronised = 0

    def now(self) -> float:
        return self.time

    def mark(self) -> float:
        return self.time

    def synchronize(self) -> None:
        self.synchronised += 1

    def seconds(self, marks: Any) -> list[float]:
        return list(marks)

    def pass_(self, seconds: float) -> None:
        self.time += seconds


class FakeLatents:
    """As much of a tensor as a batch size needs."""

    def __init__(self, batch: int) -> None:
        self.shape = (batch, 4, 8, 8)


class FakeUnet:
    def __init__(self, clock: FakeClock, seconds: float = STEP_S) -> None:
        self.clock = clock
        self.seconds = seconds
        self.config = {"in_channels": 4}

    def forward(self, sample: Any, timestep: Any, **more: Any) -> tuple[Any]:
        self.clock.pass_(self.seconds)
        return (sample,)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any]:
        return self.forward(*args, **kwargs)


class FakeVae:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def encode(self, image: Any) -> Any:
        self.clock.pass_(IMAGE_ENCODE_S)
        return image

    def decode(self, latents: Any, return_dict: bool = True) -> Any:
        self.clock.pass_(DECODE_S)
        return (latents,)


class FakeTextEncoder:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def __call__(self, ids: Any) -> Any:
        self.clock.pass_(ENCODE_S)
        return ids


class FakeScheduler:
    """Steps once a level; ``levels`` turns a number of steps into the timesteps of its calls."""

    order = 1

    def __init__(self, levels: Callable[[int], list[float]] | None = None, order: int = 1) -> None:
        self.levels = levels or (lambda steps: [float(steps - i) for i in range(steps)])
        self.order = order

    def step(self, output: Any, timestep: Any, sample: Any, eta: float = 0.0) -> Any:
        return sample


def heun(steps: int) -> list[float]:
    """Each level but the first twice, as diffusers' HeunDiscreteScheduler does."""
    return [float(steps)] + [float(steps - i) for i in range(1, steps) for _ in range(2)]


class FakePostprocessor:
    def __init__(self, clock: FakeClock, picture: Callable[[], Any]) -> None:
        self.clock = clock
        self.picture = picture

    def postprocess(self, image: Any, output_type: str = "pil") -> list[Any]:
        self.clock.pass_(POST_S)
        return [self.picture()]


def colourful(seed: int = 0) -> Image.Image:
    data = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(data)


class FakePipeline:
    """The order of work of a diffusers pipeline: 10 ms a step, 200 ms besides."""

    def __init__(
        self,
        clock: FakeClock,
        *,
        scheduler: Any = None,
        batch: int = 2,
        callbacks: bool = True,
        extra_s: Callable[[int], float] = lambda call: 0.0,
        picture: Callable[[], Any] = colourful,
        decoded: Any = 0.0,
        before: Callable[[int], None] = lambda call: None,
    ) -> None:
        self.clock = clock
        self.unet = FakeUnet(clock)
        self.vae = FakeVae(clock)
        self.text_encoder = FakeTextEncoder(clock)
        self.scheduler = scheduler or FakeScheduler()
        self.image_processor = FakePostprocessor(clock, picture)
        self.batch = batch
        self.callbacks = callbacks
        self.extra_s = extra_s
        self.decoded = decoded
        self.before = before
        self.calls = 0

    def encode_prompt(self, prompt: str) -> Any:
        return self.text_encoder(prompt)

    def __call__(self, steps: int, on_step: Callable[[], None] | None = None) -> Any:
        self.calls += 1
        self.before(self.calls)
        self.clock.pass_(self.extra_s(self.calls))
        self.encode_prompt("a red house")
        self.clock.pass_(OTHER_S)
        sample = FakeLatents(self.batch)
        for timestep in self.scheduler.levels(steps):
            output = self.unet(sample, timestep, encoder_hidden_states=None)[0]
            sample = self.scheduler.step(output, timestep, sample)
            if on_step is not None and self.callbacks:
                on_step()
        self.vae.decode(sample, return_dict=False)
        images = self.image_processor.postprocess(self.decoded, output_type="pil")
        return SimpleNamespace(images=images)


class FakeInputs:
    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.warnings: list[str] = []
        self.arguments: dict[str, Any] = {}
        self.control_argument: str | None = None

    def call_kwargs(self, *, on_step: Callable[..., None]) -> dict[str, Any]:
        return {"steps": self.steps, "on_step": on_step}


def make_job(root: Path, **changes: Any) -> Any:
    """Return a job; ``changes`` go to the workload, or by these names to the cell and the job.

    backend, options, cache, profile, warmup, calls, threads, device and prime_only.
    """
    warmup = {"min_calls": 2, "max_calls": 5, "stable_calls": 2, "stable_pct": 5.0}
    calls = {"min_calls": 3, "max_calls": 3, "noise_target_pct": 1.0, "time_cap_s": 600.0}
    device = changes.pop("device", "cpu")
    prime_only = changes.pop("prime_only", False)
    cell = {
        "schema": 1,
        "cell_id": "0123456789abcdef",
        "name": "test",
        "backend": {
            "name": changes.pop("backend", "none"),
            "options": changes.pop("options", {}),
            "environment": "current",
        },
        "cache": changes.pop("cache", "fresh"),
        "profile": changes.pop("profile", False),
        "protocol": {
            "warmup": warmup | changes.pop("warmup", {}),
            "calls": calls | changes.pop("calls", {}),
            "rounds": 1,
        },
        "device": device,
        "threads": changes.pop("threads", 1),
        "limits": {"timeout_s": 60.0, "memory_bytes": None},
        "allow_remote_code": False,
        "workload": tiny.workload(
            **{"name": "test", "model": "embedded:test", "steps": 4, "seed": 333, **changes}
        ),
    }
    pictures = root / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    return {
        "cell": cell,
        "round": 0,
        "device": device,
        "pictures_dir": str(pictures),
        "pictures_relative_to": str(root),
        "cache_dir": str(root / "cache"),
        "prime_only": prime_only,
    }


class Told(dict[str, Any]):
    """The record that a worker's events add up to, as the parent builds it."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[str] = []
        self.outcome: str | None = None
        self.reason: str | None = None
        self.decided: tuple[str, str | None] | None = None
        self.ends = 0

    def __call__(self, event: dict[str, Any]) -> None:
        assert self.ends == 0, f"an event after the end: {event}"
        kind = event["event"]
        if kind == "phase":
            self.phases.append(event["phase"])
        elif kind == "set":
            self.update(event["fields"])
        elif kind == "append":
            for key, value in event["fields"].items():
                self.setdefault(key, []).append(value)
        elif kind == "decided":
            self.decided = (event["outcome"], event["reason"])
        else:
            assert kind == "end"
            self.ends += 1
            self.outcome, self.reason = event["outcome"], event["reason"]


def run(job: Any, clock: FakeClock | None = None) -> Told:
    """Run a job in this process and return what it told."""
    from bench.worker.cell import run_job

    told = Told()
    run_job(job, told, clock)
    assert told.ends == 1
    return told


def give(monkeypatch: pytest.MonkeyPatch, pipeline: Any, *, steps: int = 4) -> None:
    """Make workers load ``pipeline`` and call it with ``steps``; an exception is raised instead."""

    def load(workload: Any, device: str, *, allow_remote_code: bool) -> Any:
        if isinstance(pipeline, BaseException):
            raise pipeline
        return SimpleNamespace(
            pipeline=pipeline,
            revision=None,
            synthetic=False,
            notes=(),
            download_s=0.0,
            fields={},
        )

    monkeypatch.setattr("bench.worker.sources.load", load)
    give_inputs(monkeypatch, lambda *_: FakeInputs(steps))


def give_inputs(monkeypatch: pytest.MonkeyPatch, prepare: Callable[..., Any]) -> None:
    """Make workers turn workloads into inputs by ``prepare``."""
    monkeypatch.setattr("bench.worker.inputs.prepare", prepare)
