"""A chain: text-to-image, then image-to-image rounds from its pictures, in one measured call.

The image-to-image pipeline is made from the parts of the text-to-image one before the backend
prepares that, and takes over its parts as they are afterwards. So what a backend compiled or
replaced is what both call, and ``unshared`` proves it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from bench import chains
from bench.chains import Round
from bench.contract import ChainRound, Descent, Outcome
from bench.tasks.base import Run, Task
from bench.worker import evidence, failure, families, inputs, pictures, structure
from bench.worker.clock import Clock
from bench.worker.errors import Ended, SourceError
from bench.worker.instrument import Call, Instruments, Sample

TASKS = ("text-to-image", "image-to-image")


class Chain(Task):
    """Classes that do text-to-image and have a relative that does image-to-image."""

    name = "chain"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._relative: Any = None
        self._progress = Progress(run)

    @classmethod
    def pipeline_class(cls, class_name: str, denoiser_channels: int | None) -> Any:
        found = families.pipeline_class(class_name, TASKS[0], denoiser_channels)
        try:
            families.pipeline_class(class_name, TASKS[1], denoiser_channels)
        except SourceError as error:
            raise SourceError(
                f"{class_name} cannot do a chain, whose later rounds are image-to-image: {error}"
            ) from error
        return found

    @classmethod
    def check(cls, made: Any) -> Any:
        cls.pipeline_class(made.__name__, None)
        return made

    def loaded(self, pipeline: Any) -> None:
        super().loaded(pipeline)
        self._relative = make_relative(pipeline)

    def inputs(self, workload: Mapping[str, Any]) -> Any:
        return prepare_inputs(self.pipeline, self._relative, workload, self.run.device)

    def instruments(self) -> Instruments:
        return ChainInstruments(self.pipeline, self._relative, self.run.clock, self._progress)

    def judged(self, found: evidence.Judgement) -> evidence.Judgement:
        """Let a backend be active only if image-to-image calls what it changed."""
        apart = unshared(self.pipeline, self._relative, found.scope) if found.active else []
        if not apart:
            return found
        return dataclasses.replace(
            found,
            active=False,
            scope=tuple(part for part in found.scope if part not in apart),
            reason=(
                f"{self.run.job['cell']['backend']['name']}: the image-to-image rounds do not call "
                f"the {', '.join(apart)} that it compiled: they ran eager"
            ),
        )

    def steps_requested(self) -> int:
        return len(chains.of(self.workload)) * super().steps_requested()

    def null_reasons(self, sample: Sample) -> dict[str, str]:
        if sample.more["tbb_s"] is not None:
            return {}
        return {"tbb_s": "a chain of one round has no time between rounds"}

    def saved(self, images: Sequence[Any]) -> None:
        self._progress.finished(images)


def make_relative(pipeline: Any) -> Any:
    """Return the image-to-image pipeline that is made of the parts of ``pipeline``.

    Nothing is copied, cast or moved, as diffusers' own ``from_pipe`` may do.
    """
    name = type(pipeline).__name__
    config = getattr(inputs.denoiser(pipeline)[1], "config", {})
    relative = families.pipeline_class(name, TASKS[1], config.get("in_channels"))
    known: dict[str, Any] = {**dict(pipeline.config), **pipeline.components}
    if hasattr(pipeline, "watermark"):  # else it would come with a package, for one of the two
        known["add_watermarker"] = pipeline.watermark is not None
    asked = inspect.signature(relative.__init__).parameters
    given = {each: known[each] for each in asked if each in known}
    missing = [
        each
        for each, parameter in asked.items()
        if each not in ("self", *given)
        and parameter.default is inspect.Parameter.empty
        and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if missing:
        raise SourceError(
            f"{name} cannot do a chain: {relative.__name__}, which makes its later rounds, needs "
            f"{', '.join(missing)}, and this model has none."
        )
    made = relative(**given)
    made.set_progress_bar_config(disable=True)
    return made


def share(pipeline: Any, relative: Any) -> None:
    """Give ``relative`` the parts of ``pipeline`` as they are now, wrapped or compiled."""
    for name in pipeline.components:
        if hasattr(relative, name):
            # Past the pipeline's __setattr__, which asks each part for its class and its file.
            object.__setattr__(relative, name, getattr(pipeline, name))


def unshared(pipeline: Any, relative: Any, scopes: Sequence[str]) -> list[str]:
    """Return those of ``scopes`` that image-to-image does not call as text-to-image does."""
    ours, theirs = structure.of(pipeline), structure.of(relative)

    def owner(each: Any, scope: str) -> Any:
        return getattr(each, scope.partition(".")[0], None)

    return [
        scope
        for scope in scopes
        if owner(pipeline, scope) is not owner(relative, scope)
        or ours.get(scope) != theirs.get(scope)
    ]


@dataclass(frozen=True)
class ChainInputs:
    """What every call of a chain is given. Made once, outside all timing.

    Attributes:
        rounds: each with the inputs of its pipeline call, and the argument that takes the pictures
            to start from, None for text-to-image.
        arguments: none that all rounds share; a chain is given no pictures.
        warnings: what a reader of the record should know.
        control_argument: None; a chain is steered by no ControlNet.
    """

    rounds: tuple[tuple[Round, inputs.Inputs, str | None], ...]
    warnings: tuple[str, ...]
    arguments: Mapping[str, Any]
    control_argument: None = None

    def call_kwargs(self, on_step: Callable[..., None] | None = None) -> dict[str, Any]:
        """Return the arguments of one call, with generators that start at the seeds."""
        return {
            "rounds": [
                (each, made.call_kwargs(on_step), image) for each, made, image in self.rounds
            ]
        }


def prepare_inputs(
    pipeline: Any, relative: Any, workload: Mapping[str, Any], device: str
) -> ChainInputs:
    """Turn a chain's workload into the arguments of each round.

    Picture i of the chain has the seed ``seed + i``, whatever round it is made in.
    """
    rounds = []
    warnings: dict[str, None] = {}
    for each in chains.of(workload):
        changed = {
            **workload,
            "task": TASKS[min(each.number, 1)],
            "batch": each.batch,
            "seed": workload["seed"] + each.first,
            "strength": workload["strength"] if each.number else None,
        }
        if each.number == 0:
            made, image = inputs.prepare(pipeline, changed, device), None
        else:
            stand_ins = [_blank(workload) for _ in range(each.batch)]
            made = inputs.prepare(relative, changed, device, stand_ins)
            image = _image_argument(made.arguments, stand_ins, relative)
        rounds.append((each, made, image))
        warnings.update(dict.fromkeys(made.warnings))
    return ChainInputs(tuple(rounds), tuple(warnings), {})


def _blank(workload: Mapping[str, Any]) -> Any:
    from PIL import Image

    return Image.new("RGB", (workload["width"], workload["height"]))


def _image_argument(arguments: Mapping[str, Any], given: Sequence[Any], relative: Any) -> str:
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        if len(values) == len(given) and all(
            one is other for one, other in zip(values, given, strict=True)
        ):
            return name
    raise SourceError(
        f"{type(relative).__name__} cannot do the later rounds of a chain: its family hands it no "
        "list of pictures to start from."
    )


@dataclass(frozen=True)
class _Done:
    round: Round
    call: Call
    images: list[Any]


class Progress:
    """Keeps a record true to how far a chain has come.

    Rounds are reported as they end in the warm-up calls only, so that a measured call has no more
    to do than a user's. When a round fails, the rounds and images before it are kept.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._workload = run.job["cell"]["workload"]
        self._report = run.report
        self._meters = run.meters
        self._rounds: list[ChainRound] = []
        self._warmup_calls = 0
        self.classes: tuple[str, str] = ("", "")

    def begin_call(self) -> None:
        if self._report.phase == "warmup":
            self._warmup_calls += 1
            self._meters.lap("warmup")

    def begin_round(self, each: Round) -> None:
        """Note in the first call that a round begins: a killed worker has no later word."""
        if self._report.phase == "warmup" and self._warmup_calls == 1:
            self._rounds.append(self._entry(each))
            self._report.set(chain_rounds=list(self._rounds))

    def end_round(self, each: Round, denoiser_calls: int, batches: Collection[int]) -> None:
        """Note that a round ended, and how often and at what batches its denoiser was called."""
        if self._report.phase != "warmup":
            return
        entry = self._rounds[each.number]
        entry["memory"] = self._meters.lap("warmup")
        if self._warmup_calls == 1:
            entry["outcome"] = "ok"
            entry["denoiser_calls"] = denoiser_calls
            entry["denoiser_batch"] = max(batches, default=None)
            self._report.set(chain_rounds=list(self._rounds))

    def measured(self, each: Round, sample: Sample) -> None:
        if self._report.phase not in ("warmup", "steady"):
            return
        entry = self._rounds[each.number]
        entry["steps_effective"] = sample.steps_effective
        entry["denoiser_calls"] = sample.denoiser_calls
        entry["denoiser_batch"] = max(sample.denoiser_batches, default=None)

    def failed(self, each: Round, done: Sequence[Any], outcome: Outcome, reason: str) -> None:
        """Keep what there is of a chain whose round ``each`` failed."""
        if self._report.phase not in ("warmup", "steady"):
            return
        failing = self._entry(each)
        failing["outcome"], failing["reason"] = outcome, reason
        self._report.set(chain_rounds=[*self._rounds[: each.number], failing])
        if done:
            with contextlib.suppress(OSError):  # the round's failure is what has to be reported
                entries = pictures.save(done, self._workload["seed"], *self._run.places)
                self._report.set(images=entries, lineage=self.lineage(done))

    def finished(self, images: Sequence[Any]) -> None:
        self._report.set(chain_rounds=list(self._rounds), lineage=self.lineage(images))

    def lineage(self, images: Sequence[Any]) -> list[Descent]:
        """Return where each of the pictures made so far comes from, in the order of the chain."""
        digests = [pictures.digest(image) for image in images]
        found: list[Descent] = []
        for each in chains.of(self._workload):
            for place in range(each.batch):
                index = each.first + place
                if index >= len(digests):
                    return found
                parent = each.parents[place] if each.parents else None
                found.append(
                    {
                        "index": index,
                        "round": each.number,
                        "place": place,
                        "seed": self._workload["seed"] + index,
                        "sha256": digests[index],
                        "parent_index": parent,
                        "parent_sha256": None if parent is None else digests[parent],
                    }
                )
        return found

    def _entry(self, each: Round) -> ChainRound:
        return {
            "round": each.number,
            "task": "image-to-image" if each.number else "text-to-image",
            "pipeline_class": self.classes[min(each.number, 1)],
            "batch": each.batch,
            "first_index": each.first,
            "steps_requested": self._workload["steps"],
        }


class ChainInstruments(Instruments):
    """The probes on both pipelines of a chain; ``measure`` runs all of its rounds.

    Args:
        relative: as ``make_relative`` made it.
    """

    def __init__(self, pipeline: Any, relative: Any, clock: Clock, progress: Progress) -> None:
        super().__init__(pipeline, clock)
        share(pipeline, relative)
        self._install_own(relative)
        self._pipelines = (pipeline, relative)
        self._progress = progress
        progress.classes = (type(pipeline).__name__, type(relative).__name__)

    def measure(self, arguments: dict[str, Any]) -> Sample:
        """Make all pictures of the chain; the sample is of all rounds together.

        Its ``more`` holds ``ttfi_s``, ``gaps_s``, ``tbb_s`` and ``images_per_s``. Marks are read
        when the chain is over, so between two rounds there is nothing but handing on pictures.

        Raises:
            Ended: a round failed; rounds and pictures before it are in the record.
        """
        rounds = arguments["rounds"]
        done: list[_Done] = []
        made: list[Any] = []
        self._progress.begin_call()
        for each, kwargs, image in rounds:
            self._progress.begin_round(each)
            if image is not None:
                parents = [made[index] for index in each.parents]
                kwargs[image] = parents if each.batch > 1 else parents[0]
            try:
                call = self.call(self._pipelines[min(each.number, 1)], kwargs)
                images = pictures.of_output(call.output)
                if len(images) != each.batch:
                    raise pictures.NoPicturesError(
                        f"the pipeline returned {len(images)} pictures for a batch of {each.batch}"
                    )
            except (Exception, SystemExit) as error:
                doing = f"making round {each.number} of a chain whose last is {len(rounds) - 1}"
                outcome, reason = failure.outcome_and_reason(error, doing)
                self._progress.failed(each, made, outcome, reason)
                raise Ended(outcome, reason) from error
            done.append(_Done(each, call, images))
            made += images
            self._progress.end_round(each, call.trace.denoiser_calls, call.trace.batches)
        samples = [self.read(each.call) for each in done]
        for each, sample in zip(done, samples, strict=True):
            self._progress.measured(each.round, sample)
        together = _together(samples, [each.call for each in done], made)
        return dataclasses.replace(together, between_s=self.pause())


def _together(samples: Sequence[Sample], calls: Sequence[Call], made: list[Any]) -> Sample:
    """Return the sample of a whole chain from those of its rounds."""
    e2e_s = calls[-1].ended - calls[0].started
    gaps_s = [after.ended - before.ended for before, after in itertools.pairwise(calls)]
    stages = {name: _sum([sample.stages[name] for sample in samples]) for name in samples[0].stages}
    known = math.fsum(
        value for name, value in stages.items() if value is not None and name != "unaccounted_s"
    )
    stages["unaccounted_s"] = e2e_s - known
    step_s = [interval for sample in samples for interval in sample.step_s]
    between_s = math.fsum(step_s)
    batches = {batch for sample in samples for batch in sample.denoiser_batches}
    return Sample(
        output=SimpleNamespace(images=made),
        e2e_s=e2e_s,
        device_e2e_s=_sum([sample.device_e2e_s for sample in samples]),
        step_s=step_s,
        it_per_s=len(step_s) / between_s if between_s > 0 else None,
        stages=stages,
        steps_effective=_whole([sample.steps_effective for sample in samples]),
        denoiser_calls=_whole([sample.denoiser_calls for sample in samples]),
        denoiser_batches=tuple(sorted(batches)),
        step_source=samples[0].step_source,
        ran=tuple(call for sample in samples for call in sample.ran),
        more={
            "ttfi_s": calls[0].ended - calls[0].started,
            "gaps_s": gaps_s,
            "tbb_s": math.fsum(gaps_s) / len(gaps_s) if gaps_s else None,
            "images_per_s": len(made) / e2e_s,
        },
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def _whole(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


TASK = Chain
