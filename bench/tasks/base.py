"""What a task is in the worker: which pipelines do it, how they are called, what is kept of a call.

A task is a folder registered in `bench.tasks`; its ``work.py`` has a class ``TASK``. `Task` is the
ordinary case, one pipeline call from one workload; a task overrides what it does differently.
Standard library here, torch inside functions, valid on Python 3.10.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.contract import ImageEntry, Job, Outcome, Phase
from bench.worker import dynamo, evidence, families, faults, inputs, pictures, repeats
from bench.worker.clock import Clock
from bench.worker.events import Report
from bench.worker.instrument import Instruments, Sample
from bench.worker.memory import Meters


@dataclass
class Run:
    """One cell under way, and what reports of it go through.

    Attributes:
        machine: its fingerprint.
    """

    job: Job
    report: Report
    clock: Clock
    meters: Meters
    machine: Mapping[str, Any]

    @property
    def device(self) -> str:
        return self.job["device"]

    @property
    def places(self) -> tuple[Path, Path]:
        """Where images go, and the run folder that their paths are relative to."""
        return Path(self.job["pictures_dir"]), Path(self.job["pictures_relative_to"])

    def begin(self, phase: Phase) -> None:
        """Enter a phase and forget the memory peaks of the one before."""
        self.report.enter(phase)
        self.meters.start()

    def read_memory(self, phase: Phase) -> None:
        """Report the peaks of the phase that ends."""
        for reading in self.meters.read(phase):
            self.report.append(memory=reading)
        self.report.null(self.meters.null_reasons)


@dataclass
class Warm:
    """What warm-up leaves behind.

    Attributes:
        times_s: every call.
        not_finite: whether any call decoded NaN or infinity.
        digests: of each call's images.
    """

    times_s: list[float]
    not_finite: bool
    digests: list[list[str]]


@dataclass(frozen=True)
class Measured:
    """How the measured calls went: the outcome as far as they decide it, and the reasons."""

    outcome: Outcome
    reasons: list[str]


class Task:
    """One cell's task.

    Attributes:
        name: as registered.
        takes_image: whether calls start from an image.
        equal_calls: whether measured calls are alike, so that a pass may make more of them.
        controlnet_infix: what diffusers puts before ``Pipeline`` in the class that takes a
            ControlNet; None if there is none.
        workload: what is loaded and called: the cell's own, unless the task changes it.
    """

    name: ClassVar[str]
    takes_image: ClassVar[bool] = True
    equal_calls: ClassVar[bool] = True
    controlnet_infix: ClassVar[str | None] = "ControlNet"

    # ------------------------------------------------------------------ which pipelines

    @classmethod
    def pipeline_class(cls, class_name: str, denoiser_channels: int | None) -> Any:
        """Return the class that does this with a model made for ``class_name``."""
        return cls.check(families.diffusers_class(class_name))

    @classmethod
    def why_not(cls, name: str, parameters: Mapping[str, Any]) -> str | None:
        """Return why a class of images with these call parameters does not fit; None if it does."""
        raise NotImplementedError

    @classmethod
    def check(cls, made: Any) -> Any:
        return families.check(made, cls)

    @classmethod
    def continues(cls, results: Path, cell_id: str) -> bool:
        """Return whether a worker continues what an interrupted one left; asked by the parent."""
        return False

    # --------------------------------------------------------------- from load to warm-up

    def __init__(self, run: Run) -> None:
        self.run = run
        self.workload: Mapping[str, Any] = run.job["cell"]["workload"]
        self.pipeline: Any = None

    def loaded(self, pipeline: Any) -> None:
        """Take the loaded pipeline, before a backend changes it."""
        self.pipeline = pipeline

    def inputs(self, workload: Mapping[str, Any]) -> Any:
        """Return what a call of ``workload`` is given."""
        return inputs.prepare(self.pipeline, workload, self.run.device)

    def first_inputs(self) -> Any:
        """Return what warm-up and measured calls are given, and report it; outside all timing."""
        made = self.inputs(self.workload)
        self._report_inputs(made, input_images(made))
        return made

    def _report_inputs(self, made: Any, given: Sequence[Any]) -> None:
        report = self.run.report
        report.warn(*made.warnings)
        if given:
            report.set(input_sha256=" ".join(pictures.digest(image) for image in given))
        steering = control_images(made)
        if steering:
            report.set(control_sha256=" ".join(pictures.digest(each) for each in steering))

    def instruments(self) -> Instruments:
        return Instruments(self.pipeline, self.run.clock)

    def judged(self, found: evidence.Judgement) -> evidence.Judgement:
        """Return the judgement of the backend, changed if this task calls something else."""
        return found

    # -------------------------------------------------------------------- measured calls

    def measure(
        self, instruments: Instruments, made: Any, warm: Warm, proof: evidence.Proof
    ) -> Measured:
        """Make the measured calls, report them and save their images."""
        report = self.run.report
        compiled = dynamo.read_counts()
        samples, digests, defects, entries = self._calls(instruments, made)
        since = dynamo.read_counts() - compiled
        self.run.read_memory("steady")
        report.set(compile_s=warm.times_s[0] - statistics.median(s.e2e_s for s in samples))

        report.enter("finish")
        images = pictures.of_output(samples[-1].output)
        self._save(images, made, entries)
        self.saved(images)
        invalid, doubts = faults.of_pictures(
            defects,
            warm.not_finite,
            # Only the calls of one batch have equal inputs.
            [*warm.digests, *digests[:: self.workload.get("iterations", 1)]],
        )
        invalid += faults.of_counts(samples)
        invalid += faults.of_compiling(since, proof.log.recompile_reasons())
        report.warn(*doubts, *faults.of_stages(samples), *faults.of_steps(samples[0]))
        eager = [reason for reason in map(instruments.eager, samples) if reason][:1]
        outcome: Outcome = "invalid" if invalid else "fallback" if eager else "ok"
        return Measured(outcome, invalid + eager)

    def saved(self, images: Sequence[Any]) -> None:
        """Report what else is known of images that were saved."""

    def steps_requested(self) -> int:
        """Return the steps that one measured call is asked for."""
        return int(self.workload["steps"])

    def null_reasons(self, sample: Sample) -> dict[str, str]:
        """Return why figures of this task alone are None."""
        return {}

    def _calls(
        self, instruments: Instruments, made: Any
    ) -> tuple[list[Sample], list[list[str]], list[str], list[ImageEntry]]:
        """Call until the repeat rule ends it; return samples, each call's digests, and defects.

        Only the last sample keeps its images. With several iterations the calls take their batches
        in turn, each at least once, and the images of all are saved as they come; their entries are
        the last that is returned.
        """
        clock = self.run.clock
        rule = self.run.job["cell"]["protocol"]["calls"]
        iterations = self.workload.get("iterations", 1)
        if iterations > 1:
            rule = {
                **rule,
                "min_calls": max(rule["min_calls"], iterations),
                "max_calls": max(rule["max_calls"], iterations),
            }
        entries: list[ImageEntry] = []
        samples: list[Sample] = []
        digests: list[list[str]] = []
        defects: list[str] = []
        reason: str | None = None
        started = clock.now()
        while reason is None:
            if iterations > 1:
                batch = len(samples) % iterations
                seed = self.workload["seed"] + batch * self.workload["batch"]
                made = self.inputs({**self.workload, "seed": seed})
            sample = instruments.measure(made.call_kwargs(on_step=instruments.on_step))
            if samples:
                samples[-1] = dataclasses.replace(samples[-1], output=None)
            samples.append(sample)
            images = pictures.of_output(sample.output)
            digests.append([pictures.digest(image) for image in images])
            defects += [
                f"picture {index} of measured call {len(samples)} is {defect}"
                for index, image in enumerate(images)
                if (defect := pictures.defect(image))
            ]
            self._report_sample(sample)
            if iterations > 1 and len(samples) <= iterations:
                entries += self._written(images, first=len(entries))
            reason = repeats.stop_reason(
                [each.e2e_s for each in samples], clock.now() - started, rule
            )
        self.run.report.set(
            stop_reason=reason,
            steps_requested=self.steps_requested(),
            steps_effective=samples[0].steps_effective,
            denoiser_calls=samples[0].denoiser_calls,
            denoiser_batch=max(samples[0].denoiser_batches, default=None),
        )
        self._report_nulls(samples[0], instruments)
        return samples, digests, defects, entries

    def _report_sample(self, sample: Sample) -> None:
        """Report one measured call at once, so that a worker that dies later loses none."""
        fields: dict[str, Any] = {
            "e2e_s": sample.e2e_s,
            "step_s": sample.step_s,
            "it_per_s": sample.it_per_s,
            "steps_per_s_e2e": self.steps_requested() / sample.e2e_s,
            "stages": sample.stages,
            **sample.more,
        }
        for name in ("device_e2e_s", "between_s"):
            if getattr(sample, name) is not None:
                fields[name] = getattr(sample, name)
        self.run.report.append(**fields)

    def _report_nulls(self, sample: Sample, instruments: Instruments) -> None:
        reasons = {f"stages.{stage}": reason for stage, reason in instruments.missing.items()}
        if sample.device_e2e_s is None:
            self.run.report.set(device_e2e_s=None)
            reasons["device_e2e_s"] = self.run.clock.no_events_reason or "no device events"
        if sample.it_per_s is None:
            reasons["it_per_s"] = "a call with fewer than two step events has no interval"
        if sample.steps_effective is None:
            reasons["steps_effective"] = "the pipeline's scheduler took no step"
        if sample.denoiser_calls is None:
            reasons["denoiser_calls"] = instruments.missing["denoise_s"]
        reasons |= self.null_reasons(sample)
        if not sample.denoiser_batches:
            reasons["denoiser_batch"] = "no batch size could be seen in the denoiser's arguments"
        self.run.report.null(reasons)

    def _written(self, images: Sequence[Any], first: int = 0) -> list[ImageEntry]:
        """Save images of the cell, the first of which has the index ``first``."""
        return pictures.save(images, self.workload["seed"], *self.run.places, first)

    def _save(self, images: Sequence[Any], made: Any, entries: list[ImageEntry]) -> None:
        """Save the images, those given too, and report them with the size they really have.

        ``entries`` are those that were saved already; if there are any, ``images`` are among them.
        """
        report, workload = self.run.report, self.workload
        given, steering = input_images(made), control_images(made)
        if given:
            report.set(input_images=pictures.save_inputs(given, *self.run.places))
        if steering:
            saved = pictures.save_inputs(steering, *self.run.places, name="control")
            report.set(control_images=saved)
        entries = entries or self._written(images)
        width, height = images[0].size
        report.set(images=entries, output_height=height, output_width=width)
        if (height, width) != (workload["height"], workload["width"]):
            report.warn(
                f"the pictures are {width}x{height}, and "
                f"{workload['width']}x{workload['height']} was asked for"
            )


def input_images(made: Any) -> list[Any]:
    """Return the images that every call starts from; none for text-to-image."""
    given = made.arguments.get("image")
    if given is None or made.control_argument == "image":
        return []
    return given if isinstance(given, list) else [given]


def control_images(made: Any) -> list[Any]:
    """Return the images that steer a ControlNet; none without one."""
    if made.control_argument is None:
        return []
    given = made.arguments[made.control_argument]
    return given if isinstance(given, list) else [given]
