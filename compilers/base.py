"""What a backend is: the protocol, and the small values that it returns.

Standard library alone, valid on Python 3.10: the parent imports it to validate options, the worker
under whatever interpreter the backend needs. torch is imported inside a backend's methods only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

BASELINE = "none"
"""The backend that changes nothing: every speedup is taken against it."""

CACHE_VARIABLE = "BENCH_COMPILE_CACHE"
"""Environment variable with a folder of the cell's own compile cache, empty or warm."""


class UnsupportedPipelineError(Exception):
    """Raised by ``prepare`` for a pipeline that the backend cannot work on.

    The cell ends ``unsupported``; the message is a sentence for the user, with the reason.
    """


@dataclass(frozen=True)
class NoOptions:
    """The options of a backend that has none."""


def _graph_modes(options: Mapping[str, Any]) -> bool:
    return options.get("mode") in ("reduce-overhead", "max-autotune")


@dataclass(frozen=True)
class Traits:
    """What is known of a backend before anything is loaded; a class attribute ``traits`` of it.

    Attributes:
        compiles: "whole" for the denoiser as one, "regions" for its repeated blocks, "regions of
            all parts" for those of the other parts besides, or "nothing": for estimates.
        holds_weights: why weights cannot move between calls, as half a sentence; None if they can.
        breaks_on_swaps: whether a graph breaks where a layer's weights are swapped in and out.
        replaces_attention: whether it sets attention processors of its own.
        replays_graphs: whether it replays CUDA graphs with the given options.
    """

    compiles: Literal["whole", "regions", "regions of all parts", "nothing"] = "whole"
    holds_weights: str | None = None
    breaks_on_swaps: bool = False
    replaces_attention: bool = False
    replays_graphs: Callable[[Mapping[str, Any]], bool] = _graph_modes


@dataclass(frozen=True)
class Verdict:
    """The answer of a probe.

    Attributes:
        supported: whether the backend can work on the device.
        reason: why not, in a sentence for the user.
        lacking: whether that is for want of a package that works, which another environment could
            have: the cell ends ``unavailable``, else ``unsupported``.
    """

    supported: bool
    reason: str | None = None
    lacking: bool = False


def lacking(reason: str) -> Verdict:
    """Return the answer of a probe that misses a package, or has one that does not work."""
    return Verdict(False, reason, lacking=True)


@dataclass(frozen=True)
class Scope:
    """What ``prepare`` compiled, by the names in ``bench.contract.SCOPES``."""

    compiled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What the backend itself can show. The worker adds what it observed from outside.

    Attributes:
        details: anything worth storing with the record; JSON values only.
        runtime: "dynamo" if torch.compile does the work, so that the worker's own counters of
            graphs, breaks and recompiles are the proof; "modules" if the backend replaces or wraps
            modules, so that the changed types are the proof; "none" for a backend that is meant to
            change nothing.
        lossy: whether the options in use change the picture on purpose, where the backend as such
            does not.
        fallback: what ran as if the backend were not there, in a sentence, if the backend knows
            better than what can be seen from outside; the cell ends ``fallback``.
        brought_bytes: compiled code that the backend loaded from elsewhere than the cell's compile
            cache, so that a fresh cache is not called one.
    """

    runtime: str
    details: dict[str, Any] = field(default_factory=dict)
    lossy: bool = False
    fallback: str | None = None
    brought_bytes: int = 0


@runtime_checkable
class Backend(Protocol):
    """One compiler. Register an instance or class under the entry-point group ``bench.backends``.

    It may have `Traits` besides, as ``traits``.

    Attributes:
        name: what a configuration calls it.
        options: a frozen dataclass; configurations are validated against its fields and types.
        environment: "current", or the locked interpreter that it needs.
        lossy: whether it changes the picture on purpose (quantisation, step caching).
    """

    name: str
    options: type
    environment: str
    lossy: bool

    def probe(self, device: str) -> Verdict:
        """Say whether this backend can work on ``device``, before any model is loaded."""
        ...

    def prepare(self, pipeline: Any, options: Any) -> Scope:
        """Change ``pipeline`` in place and return what was compiled; may compile lazily.

        Raises ``UnsupportedPipelineError`` for a pipeline it cannot work on, or any other exception
        to fail the cell; the message reaches the record.
        """
        ...

    def evidence(self) -> Evidence:
        """Proof, asked for after the measured calls."""
        ...


@runtime_checkable
class HasRuntime(Protocol):
    """A backend whose work torch cannot wait for or weigh: both are asked of it as well."""

    def synchronize(self) -> None:
        """Wait until its runtime has done all it was given; called at the borders of each span."""
        ...

    def memory_used(self) -> tuple[str, int | None, str | None]:
        """Return its meter's name, the bytes that the whole device holds now, and why not if None.

        The name is the backend's own, so that the value is compared with no other meter's.
        """
        ...


@runtime_checkable
class KeepsCompiled(Protocol):
    """A backend that saves what it compiled to the folder in the variable ``CACHE_VARIABLE``."""

    def keep(self, pipeline: Any) -> None:
        """Save it; called once, after warm-up, outside all timing."""
        ...


@runtime_checkable
class TellsSteps(Protocol):
    """A backend whose denoiser calls differ in kind, since some reuse what others computed."""

    def step_kinds(self) -> list[str]:
        """Return "full" or "shallow" for each denoiser call of the last generation.

        Empty if every call ran whole because nothing is reused.
        """
        ...
