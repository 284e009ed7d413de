"""One cell from start to end: load, prepare, warm up, measure, prove, and say how it ended."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract import Job, Outcome
from bench.passes.base import Context, Pass, asked
from bench.tasks.base import Run, Task, Warm
from bench.worker import (
    between,
    compile_cache,
    determinism,
    evidence,
    failure,
    families,
    fingerprint,
    memory_modes,
    one_by_one,
    pictures,
    precision,
    structure,
    warmup,
)
from bench.worker import clock as clocks
from bench.worker.errors import Ended
from bench.worker.events import Emit, Report, sanitised
from bench.worker.instrument import Instruments
from bench.worker.memory import Meters
from compilers import registry
from compilers.base import (
    Backend,
    HasRuntime,
    KeepsCompiled,
    TellsSteps,
    UnsupportedPipelineError,
)

DOING = {
    "start": "starting",
    "load": "loading the pipeline",
    "prepare": "preparing the backend",
    "warmup": "warming up",
    "steady": "measuring",
    "finish": "saving pictures",
}
"""What the worker does in the phases that every cell has; passes add theirs."""


def run_job(job: Job, emit: Emit, clock: clocks.Clock | None = None) -> None:
    """Run one job and report it as the events of ``bench.contract``, the last of which is ``end``.

    Whatever a pipeline, a backend or the machine does becomes an outcome with a sentence; the
    traceback goes to standard error, which is the cell's log.

    Args:
        clock: what to measure with; by default the clock of the job's device.
    """
    report = Report(sanitised(emit))
    cell = _Cell(job, report, clock)
    try:
        outcome, reason = cell.run()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - all of them are outcomes
        outcome, reason = failure.outcome_and_reason(error, cell.doing[report.phase])
        if not isinstance(error, Ended) or error.__cause__ is not None:
            failure.log(error)
    with contextlib.suppress(OSError):  # a parent that is gone needs no last word
        report.end(outcome, reason)


class _Cell:
    def __init__(self, job: Job, report: Report, clock: clocks.Clock | None) -> None:
        self.job = job
        self.cell = job["cell"]
        self.device = job["device"]
        self.workload: Mapping[str, Any] = self.cell["workload"]
        self.report = report
        self.given_clock = clock
        self.passes: dict[str, Pass] = {}
        self.doing = dict(DOING)

    def run(self) -> tuple[Outcome, str | None]:
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
        report = self.report
        cache_filled = compile_cache.use(Path(self.job["cache_dir"]), self.cell["cache"])
        self.set_up_torch()
        machine = fingerprint.collect(self.device)
        report.set(cache=self.cell["cache"], fingerprint=machine)
        clock = self.given_clock or clocks.for_device(self.device)
        backend, options = self.find_backend()
        self.refuse_modes()
        self.passes = asked(self.cell)
        for each in self.passes.values():
            self.doing.update(each.phases)
        self.bench = bench = Run(self.job, report, clock, Meters(self.device), machine)
        task = families.work_of(self.workload["task"])(bench)

        bench.begin("load")
        task.loaded(self.load(task))
        inputs = task.first_inputs()
        bench.begin("prepare")
        if isinstance(backend, HasRuntime):
            bench.clock = clocks.BothRuntimes(clock, backend.synchronize)
            bench.meters.runtime = backend
        proof = self.prepare(backend, options, task.pipeline)
        instruments = task.instruments()
        instruments.calling = precision.calling(self.workload, self.device)
        instruments.between = between.action(self.workload, self.device)

        bench.begin("warmup")
        eager = registry.traits(backend.name).compiles == "nothing"
        with memory_modes.decoder_watch(task.pipeline, eager=eager) as decoder:
            warm = self.warm_up(instruments, inputs, proof)
        bench.read_memory("warmup")
        if isinstance(backend, KeepsCompiled):
            backend.keep(task.pipeline)
        if self.job["prime_only"]:
            return "ok", None
        cache, cold = proof.cache_found(self.cell["cache"], cache_filled)
        judgement = task.judged(proof.judge())
        instruments.eager = proof.eager
        report.set(cache=cache, backend=proof.fields(judgement, self.cell["backend"]))
        report.warn(*([cold] if cold else []), *judgement.warnings)
        calls = decoder["calls"] // len(warm.times_s) if decoder else None
        fallback = [
            *([judgement.reason] if judgement.reason else []),
            *self.prove_modes(task.pipeline, instruments, calls),
        ]

        # As in a user's own loop, garbage collection stays on during the calls; what loading and
        # compiling left behind is collected once, so that no measured call pays for it.
        gc.collect()
        bench.begin("steady")
        measured = task.measure(instruments, inputs, warm, proof)
        if isinstance(backend, TellsSteps):
            report.set(step_kind=backend.step_kinds())
        reasons = [*measured.reasons, *fallback]
        report.warn(*reasons[1:])
        outcome: Outcome = "fallback" if measured.outcome == "ok" and fallback else measured.outcome
        reason = reasons[0] if reasons else None
        self.make_passes(task, instruments, inputs, outcome, reason)
        return outcome, reason

    def make_passes(
        self,
        task: Task,
        instruments: Instruments,
        inputs: Any,
        outcome: Outcome,
        reason: str | None,
    ) -> None:
        """Make the passes that the cell asks for; one that fails ends itself and not the cell."""
        report = self.report
        for name, each in self.passes.items():
            if each.equal_calls and not task.equal_calls:
                continue
            if self.job["round"] and not each.every_round:
                continue
            if outcome != "ok" and not each.any_outcome:
                if each.missing is not None:
                    report.warn(f"{each.missing}, since the cell is {outcome}")
                continue
            report.decided(outcome, reason)
            phase, doing = next(iter(each.phases.items()))
            report.enter(phase)
            try:
                each.run(
                    Context(
                        asked=self.cell[name],  # type: ignore[literal-required]
                        job=self.job,
                        report=report,
                        clock=self.bench.clock,
                        instruments=instruments,
                        inputs=inputs,
                        prepare=task.inputs,
                    )
                )
            except Exception as error:  # noqa: BLE001 - the cell's own figures stand
                failure.log(error)
                ended, why = failure.outcome_and_reason(error, doing)
                report.warn(f"the {name} pass is incomplete ({ended}): {why}")

    def set_up_torch(self) -> None:
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
            raise Ended("failed", str(error)) from error
        verdict = backend.probe(self.device)
        if not verdict.supported:
            raise Ended(
                "unavailable" if verdict.lacking else "unsupported",
                f"{backend.name}: {verdict.reason or 'its probe gives no reason'}",
            )
        return backend, options

    def refuse_modes(self) -> None:
        """End before anything is loaded if the workload's modes cannot work here."""
        workload, backend = self.cell["workload"], self.cell["backend"]
        refusal = (
            memory_modes.refusal(workload, self.device, backend["name"], backend["options"])
            or precision.refusal(workload, self.device)
            or between.refusal(workload, self.device)
        )
        if refusal is not None:
            raise Ended(*refusal)
        precision.set_up(workload, self.device)

    def prove_modes(
        self, pipeline: Any, instruments: Instruments, decoder_calls: int | None
    ) -> list[str]:
        """Report which modes are in place after warm-up; return what is not, in sentences."""
        workload = self.workload
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

    def load(self, task: Task) -> Any:
        from bench.worker import sources

        clock = self.bench.clock
        started = clock.now()
        loaded = sources.load(
            task.workload,
            self.device,
            allow_remote_code=self.cell["allow_remote_code"],
        )
        clock.synchronize()
        load_s = clock.now() - started - loaded.download_s
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
        self.bench.read_memory("load")
        if self.workload.get("one_by_one"):
            one_by_one.apply(pipeline)
        return pipeline

    def prepare(self, backend: Backend, options: Any, pipeline: Any) -> evidence.Proof:
        """Let the backend change the pipeline, and keep what it changed."""
        before = structure.of(pipeline)
        proof = evidence.Proof(backend, options, pipeline)
        proof.watch.enter(evidence.PREPARE)
        started = self.bench.clock.now()
        try:
            scope = backend.prepare(pipeline, options)
        except UnsupportedPipelineError as error:
            raise Ended("unsupported", f"{backend.name}: {error}") from error
        self.bench.clock.synchronize()
        self.report.set(prepare_s=self.bench.clock.now() - started)
        proof.watch.leave(evidence.PREPARE)
        self.bench.read_memory("prepare")
        proof.prepared(scope, structure.changed_scopes(before, structure.of(pipeline)))
        return proof

    def warm_up(self, instruments: Instruments, inputs: Any, proof: evidence.Proof) -> Warm:
        """Call until the calls are stable; when priming a cache, once."""
        rule = self.cell["protocol"]["warmup"]
        warm = Warm([], False, [])
        decoded: list[Any] = []
        instruments.inspect = decoded.append
        instruments.watch = proof.watch
        while not warmup.is_over(warm.times_s, rule):
            sample = instruments.measure(inputs.call_kwargs(on_step=instruments.on_step))
            proof.saw(sample)
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
        proof.watch.settle()
        stable = warmup.is_stable(warm.times_s, rule)
        self.report.set(warmup_stable=stable)
        if not stable:
            self.report.warn(warmup.unstable_warning(warm.times_s, rule))
        return warm
