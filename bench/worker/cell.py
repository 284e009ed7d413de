"""One cell from start to end: load, prepare, warm up, measure, prove, and say how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract import Job, Outcome, Phase
from bench.worker import clock as clocks
from bench.worker import (
    compile_cache,
    dynamo,
    evidence,
    failure,
    faults,
    fingerprint,
    pictures,
    profiling,
    repeats,
    structure,
    warmup,
)
from bench.worker.events import sanitised
from bench.worker.instrument import Instruments, Sample
from bench.worker.memory import Meters
from bench.worker.sweep import Sweeper
from compilers import registry
from compilers.base import Backend, HasRuntime, KeepsCompiled, TellsSteps, UnsupportedPipelineError

Emit = Callable[[dict[str, Any]], None]

DOING = {
    "start": "starting",
    "load": "loading the pipeline",
    "prepare": "preparing the backend",
    "warmup": "warming up",
    "steady": "measuring",
    "finish": "saving pictures",
    "profile": "profiling",
    "sweep": "sweeping",
}


def run_job(job: Job, emit: Emit, clock: clocks.Clock | None = None) -> None:
    """Run one job and report it as the events of ``bench.contract``, the last of which is ``end``.

    Whatever a pipeline, a backend or the machine does becomes an outcome with a sentence; the
    traceback goes to standard error, which is the cell's log.

    Args:
        clock: what to measure with; by default the clock of the job's device.
    """
    report = Report(sanitised(emit))
    try:
        outcome, reason = _Cell(job, report, clock).run()
    except _EndedError as ended:
        outcome, reason = ended.outcome, str(ended)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - all of them are outcomes
        outcome, reason = failure.outcome_and_reason(error, DOING[report.phase])
        print(failure.trace(error), file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # a parent that is gone needs no last word
        report.end(outcome, reason)


def input_images(inputs: Any) -> list[Any]:
    """Return the pictures that every call starts from; none for text-to-image."""
    given = inputs.arguments.get("image")
    if given is None or inputs.control_argument == "image":
        return []
    return given if isinstance(given, list) else [given]


def control_images(inputs: Any) -> list[Any]:
    """Return the pictures that steer a ControlNet; none without one."""
    if inputs.control_argument is None:
        return []
    given = inputs.arguments[inputs.control_argument]
    return given if isinstance(given, list) else [given]


class _EndedError(Exception):
    """Ends a cell early, with an outcome and a sentence."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Report:
    """What a worker tells its parent, field by field.

    Attributes:
        phase: the phase that was entered last; "start" before the first.
    """

    def __init__(self, emit: Emit) -> None:
        self.phase = "start"
        self._emit = emit
        self._warnings: set[str] = set()
        self._null_reasons: dict[str, str] = {}

    def enter(self, phase: str) -> None:
        """Begin a phase of the contract, ``finish`` or ``sweep``."""
        self.phase = phase
        self._emit({"event": "phase", "phase": phase})

    def set(self, **fields: Any) -> None:
        """Set top-level fields of the record."""
        self._emit({"event": "set", "fields": fields})

    def append(self, **fields: Any) -> None:
        """Append one item to each of these lists of the record."""
        self._emit({"event": "append", "fields": fields})

    def warn(self, *texts: str) -> None:
        """Add warnings, each once."""
        for text in texts:
            if text not in self._warnings:
                self._warnings.add(text)
                self.append(warnings=failure.redacted(text))

    def null(self, reasons: dict[str, str]) -> None:
        """Say why fields are None."""
        if not reasons.items() <= self._null_reasons.items():
            self._null_reasons.update(reasons)
            self.set(null_reasons=dict(self._null_reasons))

    def decided(self, outcome: Outcome, reason: str | None) -> None:
        """Say how the cell ended, before a sweep that may be the end of this process."""
        said = failure.redacted(reason) if reason is not None else None
        self._emit({"event": "decided", "outcome": outcome, "reason": said})

    def end(self, outcome: Outcome, reason: str | None) -> None:
        """Say the last word."""
        said = failure.redacted(reason) if reason is not None else None
        self._emit({"event": "end", "outcome": outcome, "reason": said})


@dataclass
class _Warm:
    """What warm-up leaves behind.

    Attributes:
        times_s: every call.
        not_finite: whether any call decoded NaN or infinity.
        digests: of each call's pictures.
    """

    times_s: list[float]
    not_finite: bool
    digests: list[list[str]]


class _Cell:
    def __init__(self, job: Job, report: Report, clock: clocks.Clock | None) -> None:
        self.job = job
        self.cell = job["cell"]
        self.device = job["device"]
        self.report = report
        self.given_clock = clock

    def run(self) -> tuple[Outcome, str | None]:
        """Take the cell through its phases and return how it ended."""
        report = self.report
        cache_filled = compile_cache.use(Path(self.job["cache_dir"]), self.cell["cache"])
        self.set_up_torch()
        report.set(cache=self.cell["cache"], fingerprint=fingerprint.collect(self.device))
        self.clock = self.given_clock or clocks.for_device(self.device)
        self.meters = Meters(self.device)
        backend, options = self.find_backend()

        self.begin("load")
        pipeline = self.load()
        inputs = self.prepare_inputs(pipeline)
        self.begin("prepare")
        if isinstance(backend, HasRuntime):
            self.clock = clocks.BothRuntimes(self.clock, backend.synchronize)
            self.meters.runtime = backend
        proof = self.prepare(backend, options, pipeline)
        instruments = Instruments(pipeline, self.clock)

        self.begin("warmup")
        warm = self.warm_up(instruments, inputs, proof.watch)
        self.read_memory("warmup")
        if isinstance(backend, KeepsCompiled):
            backend.keep(pipeline)
        if self.job["prime_only"]:
            return "ok", None
        cache, cold = proof.cache_found(self.cell["cache"], cache_filled)
        judgement = proof.judge()
        report.set(cache=cache, backend=proof.fields(judgement, self.cell["backend"]))
        report.warn(*([cold] if cold else []), *judgement.warnings)

        # As in a user's own loop, garbage collection stays on during the calls; what loading and
        # compiling left behind is collected once, so that no measured call pays for it.
        gc.collect()
        self.begin("steady")
        compiled = dynamo.read_counts()
        samples, digests, defects = self.measure(instruments, inputs)
        since = dynamo.read_counts() - compiled
        self.read_memory("steady")
        report.set(compile_s=warm.times_s[0] - statistics.median(s.e2e_s for s in samples))

        report.enter("finish")
        images = pictures.of_output(samples[-1].output)
        self.save(images, input_images(inputs), control_images(inputs))
        invalid, doubts = faults.of_pictures(
            defects,
            warm.not_finite,
            [*warm.digests, *digests],
        )
        invalid += faults.of_counts(samples)
        invalid += faults.of_compiling(since, proof.log.recompile_reasons())
        report.warn(*doubts, *self.sample_warnings(samples))
        if isinstance(backend, TellsSteps):
            report.set(step_kind=backend.step_kinds())
        fallback = [judgement.reason] if judgement.reason else []
        said = [*invalid, *fallback]
        report.warn(*said[1:])
        outcome: Outcome = "invalid" if invalid else "fallback" if fallback else "ok"
        reason = said[0] if said else None
        if outcome == "ok" and self.cell.get("profile") and self.job["round"] == 0:
            report.decided(outcome, reason)
            self.profile(instruments, inputs)
        self.sweep(pipeline, instruments, outcome, reason)
        return outcome, reason

    def profile(self, instruments: Instruments, inputs: Any) -> None:
        """Count work, measure ceilings and trace a call; what fails is said and ends nothing."""
        report = self.report
        report.enter("profile")
        nulls: dict[str, str] = {}
        passes: list[tuple[str, str | None, Callable[[], Any]]] = [
            ("work", self.no_work_reason(), lambda: self.count_work(instruments, inputs)),
            ("ceilings", None, self.find_ceilings),
            (
                "device_busy",
                None if self.device.startswith("cuda") else "only CUDA devices can be traced",
                lambda: self.trace(instruments, inputs),
            ),
        ]
        for name, why_not, find in passes:
            found: Any = None
            try:
                found = None if why_not else find()
            except Exception as error:  # noqa: BLE001 - the cell's own figures stand
                print(failure.trace(error), file=sys.stderr, flush=True)
                why_not = f"{type(error).__name__}: {error}".splitlines()[0]
            report.set(**{name: found})
            if why_not:
                nulls[name] = why_not
        report.null(nulls)

    def no_work_reason(self) -> str | None:
        """Say why this cell's work is not counted."""
        if self.cell["backend"]["name"] == "none":
            return None if profiling.counts_work() else "operations are counted from torch 2.1 on"
        return "work is counted once for a workload, in the cell of backend none"

    def count_work(self, instruments: Instruments, inputs: Any) -> dict[str, Any]:
        """Count the operations of one call by scope."""
        watch = profiling.WorkWatch()
        instruments.watch = watch
        try:
            with watch.counting():
                instruments.measure(inputs.call_kwargs(on_step=instruments.on_step))
        finally:
            instruments.watch = None
        return {scope: work.fields() for scope, work in watch.by_scope.items()}

    def find_ceilings(self) -> dict[str, Any]:
        """Measure what the device can reach."""
        return profiling.ceilings(self.device, self.cell["workload"]["dtype"], self.clock)

    def trace(self, instruments: Instruments, inputs: Any) -> dict[str, Any]:
        """Trace one call."""

        def measure(mark: Callable[[], None]) -> Sample:
            def on_step(*arguments: Any, **more: Any) -> None:
                instruments.on_step(*arguments, **more)
                mark()

            return instruments.measure(inputs.call_kwargs(on_step=on_step))

        return profiling.device_busy(measure)

    def sweep(
        self, pipeline: Any, instruments: Instruments, outcome: Outcome, reason: str | None
    ) -> None:
        """Measure other step counts and sizes, if the cell asks for it and its figures are good."""
        from bench.worker import tasks

        asked = self.cell.get("sweep")
        if asked is None:
            return
        if outcome != "ok":
            self.report.warn(f"there was no sweep, since the cell is {outcome}")
            return
        self.report.decided(outcome, reason)
        self.report.enter("sweep")
        workload = self.cell["workload"]
        Sweeper(
            instruments,
            workload,
            lambda changed: tasks.prepare_inputs(pipeline, changed, self.device),
            self.report.append,
            self.device,
        ).run(asked, f"{workload['seed']}/{self.job['round']}")

    def begin(self, phase: Phase) -> None:
        """Enter a phase and forget the memory peaks of the one before."""
        self.report.enter(phase)
        self.meters.start()

    def read_memory(self, phase: Phase) -> None:
        """Report the peaks of the phase that ends."""
        for reading in self.meters.read(phase):
            self.report.append(memory=reading)
        self.report.null(self.meters.null_reasons)

    def set_up_torch(self) -> None:
        """Set threads and the current device."""
        import torch

        threads = self.cell["threads"]
        torch.set_num_threads(threads)
        # torch refuses a second time, and torch 2.0 even ends the process.
        if torch.get_num_interop_threads() != threads:
            with contextlib.suppress(RuntimeError):
                torch.set_num_interop_threads(threads)
        if self.device.startswith("cuda"):
            torch.cuda.set_device(self.device)

    def find_backend(self) -> tuple[Backend, Any]:
        """Return the backend, which supports the device, and its options."""
        choice = self.cell["backend"]
        try:
            backend = registry.get(choice["name"])
            options = registry.make_options(backend, choice["options"])
        except registry.BackendError as error:
            raise _EndedError("failed", str(error)) from error
        verdict = backend.probe(self.device)
        if not verdict.supported:
            raise _EndedError(
                "unavailable" if verdict.lacking else "unsupported",
                f"{backend.name}: {verdict.reason or 'its probe gives no reason'}",
            )
        return backend, options

    def load(self) -> Any:
        """Load the pipeline onto its device and report what it is."""
        from bench.worker import sources

        started = self.clock.now()
        loaded = sources.load(
            self.cell["workload"],
            self.device,
            allow_remote_code=self.cell["allow_remote_code"],
        )
        self.clock.synchronize()
        load_s = self.clock.now() - started - loaded.download_s
        pipeline: Any = loaded.pipeline
        self.report.set(
            load_s=load_s,
            pipeline_class=type(pipeline).__name__,
            scheduler_class=type(getattr(pipeline, "scheduler", None)).__name__,
            model_revision=loaded.revision,
            synthetic_weights=loaded.synthetic,
            **loaded.fields,
        )
        self.report.warn(*loaded.notes)
        if self.device == "cpu" and self.cell["workload"]["dtype"] == "float16":
            self.report.warn(
                "float16 is emulated on a CPU, many times slower than float32: set dtype: float32"
            )
        self.read_memory("load")
        return pipeline

    def prepare_inputs(self, pipeline: Any) -> Any:
        """Make what every call is given; outside all timing."""
        from bench.worker import tasks

        inputs = tasks.prepare_inputs(pipeline, self.cell["workload"], self.device)
        self.report.warn(*inputs.warnings)
        given = input_images(inputs)
        if given:
            self.report.set(input_sha256=" ".join(pictures.digest(picture) for picture in given))
        steering = control_images(inputs)
        if steering:
            self.report.set(control_sha256=" ".join(pictures.digest(each) for each in steering))
        return inputs

    def prepare(self, backend: Backend, options: Any, pipeline: Any) -> evidence.Proof:
        """Let the backend change the pipeline, and keep what it changed."""
        before = structure.of(pipeline)
        proof = evidence.Proof(backend, options, pipeline)
        proof.watch.enter(evidence.PREPARE)
        started = self.clock.now()
        try:
            scope = backend.prepare(pipeline, options)
        except UnsupportedPipelineError as error:
            raise _EndedError("unsupported", f"{backend.name}: {error}") from error
        self.clock.synchronize()
        self.report.set(prepare_s=self.clock.now() - started)
        proof.watch.leave(evidence.PREPARE)
        self.read_memory("prepare")
        proof.prepared(scope, structure.changed_scopes(before, structure.of(pipeline)))
        return proof

    def warm_up(self, instruments: Instruments, inputs: Any, watch: dynamo.ScopeWatch) -> _Warm:
        """Call until the calls are stable; when priming a cache, once."""
        rule = self.cell["protocol"]["warmup"]
        warm = _Warm([], False, [])
        decoded: list[Any] = []
        instruments.inspect = decoded.append
        instruments.watch = watch
        while not warmup.is_over(warm.times_s, rule):
            sample = instruments.measure(inputs.call_kwargs(on_step=instruments.on_step))
            warm.times_s.append(sample.e2e_s)
            self.report.append(warmup_s=sample.e2e_s)
            warm.digests.append([pictures.digest(i) for i in pictures.of_output(sample.output)])
            # Every call: what is replayed from the second on need not be what the first one did.
            warm.not_finite |= not all(pictures.is_finite(tensor) for tensor in decoded)
            decoded.clear()
            if len(warm.times_s) == 1:
                self.report.set(first_call_s=sample.e2e_s)
            if self.job["prime_only"]:
                break
        instruments.inspect = None
        instruments.watch = None
        watch.settle()
        stable = warmup.is_stable(warm.times_s, rule)
        self.report.set(warmup_stable=stable)
        if not stable:
            self.report.warn(warmup.unstable_warning(warm.times_s, rule))
        return warm

    def measure(
        self, instruments: Instruments, inputs: Any
    ) -> tuple[list[Sample], list[list[str]], list[str]]:
        """Call until the repeat rule ends it; return samples, each call's digests, and defects.

        Only the last sample keeps its pictures.
        """
        rule = self.cell["protocol"]["calls"]
        samples: list[Sample] = []
        digests: list[list[str]] = []
        defects: list[str] = []
        reason: str | None = None
        started = self.clock.now()
        while reason is None:
            sample = instruments.measure(inputs.call_kwargs(on_step=instruments.on_step))
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
            self.report_sample(sample)
            reason = repeats.stop_reason(
                [each.e2e_s for each in samples], self.clock.now() - started, rule
            )
        self.report.set(
            stop_reason=reason,
            steps_requested=self.cell["workload"]["steps"],
            steps_effective=samples[0].steps_effective,
            denoiser_calls=samples[0].denoiser_calls,
            denoiser_batch=max(samples[0].denoiser_batches, default=None),
        )
        self.report.null(self.null_reasons(samples[0], instruments))
        return samples, digests, defects

    def report_sample(self, sample: Sample) -> None:
        """Report one measured call at once, so that a worker that dies later loses none."""
        fields: dict[str, Any] = {
            "e2e_s": sample.e2e_s,
            "step_s": sample.step_s,
            "it_per_s": sample.it_per_s,
            "steps_per_s_e2e": self.cell["workload"]["steps"] / sample.e2e_s,
            "stages": sample.stages,
        }
        if sample.device_e2e_s is not None:
            fields["device_e2e_s"] = sample.device_e2e_s
        self.report.append(**fields)

    def null_reasons(self, sample: Sample, instruments: Instruments) -> dict[str, str]:
        """Say why figures of the measured calls are None."""
        reasons = {f"stages.{stage}": reason for stage, reason in instruments.missing.items()}
        if sample.device_e2e_s is None:
            self.report.set(device_e2e_s=None)
            reasons["device_e2e_s"] = self.clock.no_events_reason or "no device events"
        if sample.it_per_s is None:
            reasons["it_per_s"] = "a call with fewer than two step events has no interval"
        if sample.steps_effective is None:
            reasons["steps_effective"] = "the pipeline's scheduler took no step"
        if sample.denoiser_calls is None:
            reasons["denoiser_calls"] = instruments.missing["denoise_s"]
        if not sample.denoiser_batches:
            reasons["denoiser_batch"] = "no batch size could be seen in the denoiser's arguments"
        return reasons

    def sample_warnings(self, samples: list[Sample]) -> list[str]:
        """Return what a reader of these samples should know."""
        found = faults.of_stages([s.stages for s in samples], [s.e2e_s for s in samples])
        batches = samples[0].denoiser_batches
        if len(batches) > 1:
            sizes = ", ".join(str(size) for size in batches)
            found.append(f"the denoiser's batch was {sizes} within one call; the largest is given")
        if samples[0].step_source == "scheduler":
            found.append(
                "this pipeline has no step callback: step times are the ends of scheduler steps"
            )
        return found

    def save(self, images: list[Any], given: list[Any], steering: list[Any]) -> None:
        """Save the pictures, those given too, and report them with the size they really have."""
        workload = self.cell["workload"]
        folder, root = Path(self.job["pictures_dir"]), Path(self.job["pictures_relative_to"])
        if given:
            self.report.set(input_images=pictures.save_inputs(given, folder, root))
        if steering:
            saved = pictures.save_inputs(steering, folder, root, name="control")
            self.report.set(control_images=saved)
        entries = pictures.save(images, workload["seed"], folder, root)
        width, height = images[0].size
        self.report.set(images=entries, output_height=height, output_width=width)
        if (height, width) != (workload["height"], workload["width"]):
            self.report.warn(
                f"the pictures are {width}x{height}, and "
                f"{workload['width']}x{workload['height']} was asked for"
            )
