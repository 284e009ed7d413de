"""One cell from start to end: load, prepare, warm up, measure, prove, and say how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import chains
from bench.contract import ImageEntry, Job, Outcome, Phase
from bench.worker import (
    between,
    chain,
    compile_cache,
    determinism,
    dynamo,
    evidence,
    failure,
    faults,
    fingerprint,
    folder,
    memory_modes,
    one_by_one,
    pictures,
    precision,
    profiling,
    repeat,
    repeats,
    structure,
    telemetry,
    warmup,
)
from bench.worker import clock as clocks
from bench.worker.events import sanitised
from bench.worker.instrument import Instruments, Sample
from bench.worker.memory import Meters
from bench.worker.sweep import Sweeper
from compilers import registry
from compilers.base import (
    BASELINE,
    Backend,
    HasRuntime,
    KeepsCompiled,
    TellsSteps,
    Traits,
    UnsupportedPipelineError,
    traits,
)

Emit = Callable[[dict[str, Any]], None]

DOING = {
    "start": "starting",
    "load": "loading the pipeline",
    "prepare": "preparing the backend",
    "warmup": "warming up",
    "steady": "measuring",
    "finish": "saving pictures",
    "telemetry": "repeating calls for telemetry",
    "settle": "ending telemetry",
    "repeat": "repeating equal calls",
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
        """Begin a phase of the contract, ``finish`` or a pass."""
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
        self.workload: Mapping[str, Any] = self.cell["workload"]
        self.report = report
        self.given_clock = clock
        self.relative: Any = None  # the image-to-image pipeline of a chain
        self.teller: chain.Teller | None = None
        self.folder: folder.Folder | None = None

    def run(self) -> tuple[Outcome, str | None]:
        """Take the cell through its phases and return how it ended."""
        asked = determinism.ask(self.cell["workload"].get("deterministic"))
        if asked is None:
            return self.phases()
        operations: list[str] = []

        def without(name: str) -> None:
            operations.append(name)
            self.report.set(deterministic={**asked, "operations": operations})

        self.report.set(deterministic={**asked, "operations": operations})
        with determinism.watched(without):
            return self.phases()

    def phases(self) -> tuple[Outcome, str | None]:
        """Load, prepare, warm up, measure, save, and make the passes that the cell asks for."""
        report = self.report
        cache_filled = compile_cache.use(Path(self.job["cache_dir"]), self.cell["cache"])
        self.set_up_torch()
        machine = fingerprint.collect(self.device)
        report.set(cache=self.cell["cache"], fingerprint=machine)
        self.clock = self.given_clock or clocks.for_device(self.device)
        self.meters = Meters(self.device)
        backend, options = self.find_backend()
        self.refuse_modes(traits(backend), options)

        if self.workload["task"] == "folder":
            self.folder = folder.Folder(self.job, self.clock)
            self.workload = self.folder.call_workload
        self.begin("load")
        pipeline = self.load()
        if self.workload.get("one_by_one"):
            one_by_one.apply(pipeline)
        self.relative = self.make_relative(pipeline)
        inputs = self.prepare_inputs(pipeline)
        self.begin("prepare")
        if isinstance(backend, HasRuntime):
            self.clock = clocks.BothRuntimes(self.clock, backend.synchronize)
            self.meters.runtime = backend
        proof = self.prepare(backend, options, pipeline)
        instruments = self.instrument(pipeline)
        instruments.calling = precision.calling(self.cell["workload"], self.device)
        instruments.between = between.action(self.cell["workload"], self.device)

        self.begin("warmup")
        with memory_modes.decoder_watch(pipeline, eager=not traits(backend).compiles) as decoder:
            warm = self.warm_up(instruments, inputs, proof.watch)
        self.read_memory("warmup")
        if isinstance(backend, KeepsCompiled):
            backend.keep(pipeline)
        if self.job["prime_only"]:
            return "ok", None
        cache, cold = proof.cache_found(self.cell["cache"], cache_filled)
        judgement = self.judge_relative(pipeline, proof.judge())
        report.set(cache=cache, backend=proof.fields(judgement, self.cell["backend"]))
        report.warn(*([cold] if cold else []), *judgement.warnings)
        calls = decoder["calls"] // len(warm.times_s) if decoder else None
        not_in_place = self.prove_modes(pipeline, instruments, calls)

        # As in a user's own loop, garbage collection stays on during the calls; what loading and
        # compiling left behind is collected once, so that no measured call pays for it.
        gc.collect()
        self.begin("steady")
        if self.folder is not None:
            ended, why = self.process(self.folder, pipeline, instruments, machine, warm)
            if ended == "ok" and judgement.reason:
                ended, why = "fallback", judgement.reason
            if ended == "ok" and self.cell.get("profile") and self.job["round"] == 0:
                report.decided(ended, why)
                self.profile(instruments, inputs)
            return ended, why
        compiled = dynamo.read_counts()
        samples, digests, defects, entries = self.measure(pipeline, instruments, inputs)
        since = dynamo.read_counts() - compiled
        self.read_memory("steady")
        report.set(compile_s=warm.times_s[0] - statistics.median(s.e2e_s for s in samples))

        report.enter("finish")
        images = pictures.of_output(samples[-1].output)
        self.save(images, input_images(inputs), control_images(inputs), entries)
        if self.teller is not None:
            self.teller.finished(images)
        invalid, doubts = faults.of_pictures(
            defects,
            warm.not_finite,
            # Only the calls of one batch have equal inputs.
            [*warm.digests, *digests[:: self.workload.get("iterations", 1)]],
        )
        invalid += faults.of_counts(samples)
        invalid += faults.of_compiling(since, proof.log.recompile_reasons())
        report.warn(*doubts, *self.sample_warnings(samples))
        if isinstance(backend, TellsSteps):
            report.set(step_kind=backend.step_kinds())
        fallback = [*([judgement.reason] if judgement.reason else []), *not_in_place]
        said = [*invalid, *fallback]
        report.warn(*said[1:])
        outcome: Outcome = "invalid" if invalid else "fallback" if fallback else "ok"
        reason = said[0] if said else None
        self.watch_from_outside(instruments, inputs, outcome, reason)
        self.repeat(instruments, inputs, outcome, reason)
        if outcome == "ok" and self.cell.get("profile") and self.job["round"] == 0:
            report.decided(outcome, reason)
            self.profile(instruments, inputs)
        self.sweep(pipeline, instruments, outcome, reason)
        return outcome, reason

    def process(
        self,
        given: folder.Folder,
        pipeline: Any,
        instruments: Instruments,
        machine: Mapping[str, Any],
        warm: _Warm,
    ) -> tuple[Outcome, str | None]:
        """Call once for each picture of a folder and report what became of them."""
        report = self.report
        given.run(pipeline, instruments, machine)
        self.read_memory("steady")
        report.enter("finish")
        fields, outcome, reason, warnings = given.summary()
        nulls = {f"stages.{stage}": why for stage, why in instruments.missing.items()}
        if "device_e2e_s" not in fields:
            fields["device_e2e_s"] = None
            nulls["device_e2e_s"] = self.clock.no_events_reason or "no device events"
        if fields["folder"]["rss_reason"]:
            nulls["folder.rss_slope_bytes_per_picture"] = fields["folder"].pop("rss_reason")
        if fields["e2e_s"]:
            fields["compile_s"] = warm.times_s[0] - fields["folder"]["median_s"]
        report.set(**fields, steps_requested=self.workload["steps"])
        report.null(nulls)
        invalid, doubts = faults.of_pictures([], warm.not_finite, warm.digests)
        report.warn(*warnings, *doubts)
        if outcome == "ok" and invalid:
            return "invalid", invalid[0]
        return outcome, reason

    def watch_from_outside(
        self, instruments: Instruments, inputs: Any, outcome: Outcome, reason: str | None
    ) -> None:
        """Repeat calls while the parent samples, if the cell asks for it and its figures are good.

        A call that fails ends the pass and not the cell, whose own figures stand.
        """
        asked = self.cell.get("telemetry")
        if asked is None:
            return
        if outcome != "ok":
            self.report.warn(f"there was no telemetry, since the cell is {outcome}")
            return
        self.report.decided(outcome, reason)
        try:
            telemetry.run(asked, lambda: len(self.call(instruments, inputs)), self.report)
        except Exception as error:  # noqa: BLE001 - the cell's own figures stand
            self.pass_ended("telemetry", error)

    def repeat(
        self, instruments: Instruments, inputs: Any, outcome: Outcome, reason: str | None
    ) -> None:
        """Compare the pictures and the memory of equal calls, if the cell asks for it."""
        calls = self.cell.get("repeat")
        if calls is None:
            return
        if outcome != "ok":
            self.report.warn(f"equal calls were not repeated, since the cell is {outcome}")
            return
        self.report.decided(outcome, reason)
        self.report.enter("repeat")
        repeater = repeat.Repeater(
            lambda: self.call(instruments, inputs),
            repeat.Held(self.device),
            self.report,
            self.cell["workload"]["seed"],
            Path(self.job["pictures_dir"]),
            Path(self.job["pictures_relative_to"]),
        )
        try:
            repeater.run(calls)
        except Exception as error:  # noqa: BLE001 - the cell's own figures stand
            self.pass_ended("repeat", error)

    def call(self, instruments: Instruments, inputs: Any) -> list[Any]:
        """Make one call like a measured one and return its pictures."""
        sample = instruments.measure(inputs.call_kwargs(on_step=instruments.on_step))
        return pictures.of_output(sample.output)

    def pass_ended(self, name: str, error: Exception) -> None:
        """Say that a pass is incomplete, and why."""
        print(failure.trace(error), file=sys.stderr, flush=True)
        outcome, why = failure.outcome_and_reason(error, DOING[name])
        self.report.warn(f"the {name} pass is incomplete ({outcome}): {why}")

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
        if self.cell["backend"]["name"] == BASELINE:
            return None if profiling.counts_work() else "operations are counted from torch 2.1 on"
        return f"work is counted once for a workload, in the cell of backend {BASELINE}"

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
        dtype = precision.computes_in(self.cell["workload"], self.device)
        return profiling.ceilings(self.device, dtype, self.clock)

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
            lambda changed: self.make_inputs(pipeline, changed),
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
        self.set_memory_limit(torch)

    def set_memory_limit(self, torch: Any) -> None:
        """Let torch reserve no more of a CUDA device than the cell may."""
        allowed = self.cell["limits"].get("device_bytes")
        if allowed is None:
            return
        if not self.device.startswith("cuda"):
            self.report.warn(f"limits.device_memory limits CUDA devices, and this is {self.device}")
            return
        total = torch.cuda.mem_get_info(self.device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), self.device)

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

    def refuse_modes(self, known: Traits, options: Any) -> None:
        """End before anything is loaded if the workload's modes cannot work here."""
        workload = self.cell["workload"]
        refusal = (
            memory_modes.refusal(workload, self.device, known, dataclasses.asdict(options))
            or precision.refusal(workload, self.device)
            or between.refusal(workload, self.device)
        )
        if refusal is not None:
            raise _EndedError(*refusal)
        precision.set_up(workload, self.device)

    def prove_modes(
        self, pipeline: Any, instruments: Instruments, decoder_calls: int | None
    ) -> list[str]:
        """Report which modes are in place after warm-up; return what is not, in sentences."""
        workload = self.cell["workload"]
        missing: list[str | None] = []
        if "memory" in workload:
            seen = memory_modes.found(pipeline, workload, self.device, decoder_calls)
            self.report.set(memory_modes=seen)
            self.report.warn(*memory_modes.warnings_of(seen))
            missing.append(memory_modes.failure_of(seen))
        if "precision" in workload:
            told = precision.found(workload, self.device, instruments.denoiser_output)
            self.report.set(precision=told)
            missing.append(precision.failure_of(told))
        return [sentence for sentence in missing if sentence]

    def load(self) -> Any:
        """Load the pipeline onto its device and report what it is."""
        from bench.worker import sources

        started = self.clock.now()
        loaded = sources.load(
            self.workload,
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

    def make_relative(self, pipeline: Any) -> Any:
        """Return the image-to-image pipeline of a chain, None for any other task."""
        if self.cell["workload"]["task"] != chains.TASK:
            return None
        return chain.make_relative(pipeline)

    def instrument(self, pipeline: Any) -> Instruments:
        """Put the probes on what is measured."""
        if self.relative is None:
            return Instruments(pipeline, self.clock)
        self.teller = chain.Teller(self.job, self.report, self.meters)
        return chain.ChainInstruments(pipeline, self.relative, self.clock, self.teller)

    def judge_relative(self, pipeline: Any, found: evidence.Judgement) -> evidence.Judgement:
        """Let a backend be active in a chain only if image-to-image calls what it changed."""
        if self.relative is None or not found.active:
            return found
        apart = chain.unshared(pipeline, self.relative, found.scope)
        if not apart:
            return found
        return dataclasses.replace(
            found,
            active=False,
            scope=tuple(part for part in found.scope if part not in apart),
            reason=(
                f"{self.cell['backend']['name']}: the image-to-image rounds do not call the "
                f"{', '.join(apart)} that it compiled: they ran eager"
            ),
        )

    def make_inputs(self, pipeline: Any, workload: Any) -> Any:
        """Turn a workload into what a call is given."""
        from bench.worker import tasks

        if self.relative is None:
            return tasks.prepare_inputs(pipeline, workload, self.device)
        return chain.prepare_inputs(pipeline, self.relative, workload, self.device)

    def prepare_inputs(self, pipeline: Any) -> Any:
        """Make what every call is given; outside all timing."""
        if self.folder is not None:
            inputs = self.folder.first_inputs(pipeline)
            if inputs is None:
                fields, outcome, reason, _ = self.folder.summary()
                self.report.set(folder=fields["folder"])
                raise _EndedError(outcome, str(reason))
        else:
            inputs = self.make_inputs(pipeline, self.workload)
        self.report.warn(*inputs.warnings)
        given = input_images(inputs)
        if given and self.folder is None:
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
        self, pipeline: Any, instruments: Instruments, inputs: Any
    ) -> tuple[list[Sample], list[list[str]], list[str], list[ImageEntry]]:
        """Call until the repeat rule ends it; return samples, each call's digests, and defects.

        Only the last sample keeps its pictures. With several iterations the calls take their
        batches in turn, each at least once, and the pictures of all are saved as they come; their
        entries are the last that is returned.
        """
        rule = self.cell["protocol"]["calls"]
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
        started = self.clock.now()
        while reason is None:
            if iterations > 1:
                inputs = self.inputs_of_batch(pipeline, len(samples) % iterations)
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
            if iterations > 1 and len(samples) <= iterations:
                entries += self.saved(images, first=len(entries))
            reason = repeats.stop_reason(
                [each.e2e_s for each in samples], self.clock.now() - started, rule
            )
        self.report.set(
            stop_reason=reason,
            steps_requested=self.steps_requested(),
            steps_effective=samples[0].steps_effective,
            denoiser_calls=samples[0].denoiser_calls,
            denoiser_batch=max(samples[0].denoiser_batches, default=None),
        )
        self.report.null(self.null_reasons(samples[0], instruments))
        return samples, digests, defects, entries

    def inputs_of_batch(self, pipeline: Any, number: int) -> Any:
        """Make the inputs of one of several batches; picture i of all has seed + i."""
        from bench.worker import tasks

        seed = self.workload["seed"] + number * self.workload["batch"]
        return tasks.prepare_inputs(pipeline, {**self.workload, "seed": seed}, self.device)

    def saved(self, images: list[Any], first: int = 0) -> list[ImageEntry]:
        """Save pictures of the cell, the first of which has the index ``first``."""
        place, root = Path(self.job["pictures_dir"]), Path(self.job["pictures_relative_to"])
        return pictures.save(images, self.workload["seed"], place, root, first)

    def steps_requested(self) -> int:
        """Return the steps that one measured call is asked for, in all of its rounds."""
        workload = self.cell["workload"]
        rounds = 1 if self.relative is None else len(chains.of(workload))
        return rounds * workload["steps"]

    def report_sample(self, sample: Sample) -> None:
        """Report one measured call at once, so that a worker that dies later loses none."""
        fields: dict[str, Any] = {
            "e2e_s": sample.e2e_s,
            "step_s": sample.step_s,
            "it_per_s": sample.it_per_s,
            "steps_per_s_e2e": self.steps_requested() / sample.e2e_s,
            "stages": sample.stages,
            **sample.more,
        }
        if sample.device_e2e_s is not None:
            fields["device_e2e_s"] = sample.device_e2e_s
        if sample.between_s is not None:
            fields["between_s"] = sample.between_s
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
        if "tbb_s" in sample.more and sample.more["tbb_s"] is None:
            reasons["tbb_s"] = "a chain of one round has no time between rounds"
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

    def save(
        self,
        images: list[Any],
        given: list[Any],
        steering: list[Any],
        entries: list[ImageEntry],
    ) -> None:
        """Save the pictures, those given too, and report them with the size they really have.

        ``entries`` are those that were saved already; if there are any, ``images`` are among them.
        """
        workload = self.workload
        place, root = Path(self.job["pictures_dir"]), Path(self.job["pictures_relative_to"])
        if given:
            self.report.set(input_images=pictures.save_inputs(given, place, root))
        if steering:
            saved = pictures.save_inputs(steering, place, root, name="control")
            self.report.set(control_images=saved)
        entries = entries or self.saved(images)
        width, height = images[0].size
        self.report.set(images=entries, output_height=height, output_width=width)
        if (height, width) != (workload["height"], workload["width"]):
            self.report.warn(
                f"the pictures are {width}x{height}, and "
                f"{workload['width']}x{workload['height']} was asked for"
            )
