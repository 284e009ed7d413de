"""What a pass is: something that a cell measures besides its own calls, once they are over.

A pass is a folder registered in `bench.passes`; its ``work.py`` has an object ``PASS``, which runs
in the worker. A cell asks for a pass by a value under the pass's name, which is not None or False.
What the parent does meanwhile is in ``watch.py``, if anything: a class ``WATCH``. Standard library
here, torch inside functions, valid on Python 3.10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

from bench.contract import Job
from bench.passes import PASSES
from bench.worker import pictures
from bench.worker.clock import Clock
from bench.worker.events import Report
from bench.worker.instrument import Instruments, Sample

StepEvent = Callable[..., None]


@dataclass(frozen=True)
class Context:
    """A measured cell, for a pass to go on with.

    Attributes:
        asked: what the cell says under the pass's name.
        inputs: of the measured calls.
        prepare: makes the inputs of a changed workload, outside of all timing.
    """

    asked: Any
    job: Job
    report: Report
    clock: Clock
    instruments: Instruments
    inputs: Any
    prepare: Callable[[Mapping[str, Any]], Any]

    @property
    def device(self) -> str:
        return self.job["device"]

    @property
    def workload(self) -> Mapping[str, Any]:
        return self.job["cell"]["workload"]

    @property
    def places(self) -> tuple[Path, Path]:
        """Where images go, and the run folder that their paths are relative to."""
        return Path(self.job["pictures_dir"]), Path(self.job["pictures_relative_to"])

    def measure(self, inputs: Any = None, on_step: StepEvent | None = None) -> Sample:
        """Make one call like a measured one, or with other ``inputs``; on_step hears its steps."""
        inputs = self.inputs if inputs is None else inputs
        return self.instruments.measure(
            inputs.call_kwargs(on_step=on_step or self.instruments.on_step)
        )

    def images(self) -> list[Any]:
        """Make one call like a measured one and return its images."""
        return pictures.of_output(self.measure().output)


class Pass:
    """What a worker does for a pass.

    Attributes:
        phases: each phase that it enters, the first one first, and what the worker does there: for
            progress and the sentences of failures. The worker enters the first.
        counted: fields to which it appends one item for each call, for progress.
        missing: what a reader of a cell that is not ok is told, such as "there was no sweep"; None
            tells nothing.
        any_outcome: whether it runs on cells that are not ok, too.
        equal_calls: whether it needs a task whose calls are alike.
        every_round: whether it runs in each round, and not in the first alone.
    """

    phases: ClassVar[Mapping[str, str]]
    counted: ClassVar[frozenset[str]] = frozenset()
    missing: ClassVar[str | None] = None
    any_outcome: ClassVar[bool] = False
    equal_calls: ClassVar[bool] = True
    every_round: ClassVar[bool] = True

    def run(self, context: Context) -> None:
        """Do it, reporting each thing when it is done.

        What it raises ends the pass and not the cell, whose own figures stand.
        """
        raise NotImplementedError


class Watch(Protocol):
    """What the parent does while one worker runs; made as ``WATCH(asked, device, pid, uuids)``.

    ``uuids`` returns those of the GPUs that workers see, in the order of their ``cuda:N``.

    Attributes:
        FIELDS: of the record, that the parent alone writes.
    """

    FIELDS: ClassVar[frozenset[str]]

    def enter(self, phase: str) -> None:
        """Act on a phase that the worker entered; must return at once."""
        ...

    def stop(self) -> None: ...

    def complete(self, record: dict[str, Any]) -> None:
        """Add to a record what was seen, once the worker is gone."""
        ...


def watched_fields(cell: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields that watches alone write: of built-in passes, asked for or not, and its."""
    modules = dict(asked_parts(cell, "watch"))
    for name in PASSES.built_in:
        if module := PASSES.part(name, "watch"):
            modules[name] = module
    return frozenset().union(*(module.WATCH.FIELDS for module in modules.values()))


def asked_parts(cell: Mapping[str, Any], part: str) -> Iterator[tuple[str, ModuleType]]:
    """Return (name, module) for each pass that a cell asks for and that has such a part.

    Raises:
        ImportError: the part is there and cannot be imported.
    """
    for name in PASSES.names():
        if cell.get(name) in (None, False):
            continue
        module = PASSES.part(name, part)
        if module is not None:
            yield name, module


def asked(cell: Mapping[str, Any]) -> dict[str, Pass]:
    """Return the passes that a cell asks for by their names, in the order in which they are made.

    Raises:
        ImportError: one of them cannot be imported.
    """
    return {name: module.PASS for name, module in asked_parts(cell, "work")}


def doing(cell: Mapping[str, Any]) -> dict[str, str]:
    """Return what a worker does in each phase of the passes that its cell asks for."""
    return {phase: text for each in asked(cell).values() for phase, text in each.phases.items()}


def counted(cell: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields to which a worker appends one item for each call of a pass."""
    return frozenset().union(*(each.counted for each in asked(cell).values()))
