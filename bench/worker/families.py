"""Which pipeline class does a task with a model, and why another one does not.

The tasks drive any diffusers pipeline whose ``__call__`` has the usual names, so most models need
no code. A pipeline with habits of its own gets a *family* through the entry-point group
``bench.families``::

    # pyproject.toml of your package
    [project.entry-points."bench.families"]
    my-family = "my_package:MyFamily"

    # my_package.py
    class MyFamily:
        name = "my-family"

        def claims(self, class_name, task):
            return class_name == "MyPipeline" and task == "text-to-image"

        def pipeline_class(self, class_name, task, denoiser_channels):
            return MyPipeline  # its from_pretrained() is called on the model's folder

        def arguments(self, pipeline, workload, images):
            return {"text": [workload["prompt"]] * workload["batch"], "size": workload["width"]}
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.tasks import TASKS
from bench.worker.errors import SourceError, nearest, one_line

if TYPE_CHECKING:
    from bench.tasks.base import Task

GROUP = "bench.families"

_VIDEO = ("num_frames", "video", "video_length", "frames", "num_video_frames")
_AUDIO = ("audio_length_in_s", "audio_end_in_s", "audio_duration", "audio")


@runtime_checkable
class Family(Protocol):
    """How one kind of pipeline does a task.

    Attributes:
        name: the entry point's name.
    """

    name: str

    def claims(self, class_name: str, task: str) -> bool:
        """Return whether this family does ``task`` with ``class_name``.

        ``class_name`` is what a folder's ``model_index.json`` names, or the loaded class.
        """
        ...

    def pipeline_class(self, class_name: str, task: str, denoiser_channels: int | None) -> Any:
        """Return the class to load: it has ``from_pretrained``.

        ``denoiser_channels`` are the input channels of the UNet or transformer, where known.

        Raises SourceError with the reason if the task cannot be done.
        """
        ...

    def arguments(
        self, pipeline: Any, workload: Mapping[str, Any], images: Sequence[Any] | None
    ) -> dict[str, Any]:
        """Return the arguments of one call, without generators, callback and output type.

        ``images`` are PIL images of the asked size, one for each image of the batch; None for
        text-to-image. Raises SourceError.
        """
        ...


def claiming(class_name: str, task: str) -> Family | None:
    """Return the family that claims a class; None leaves it to the task itself."""
    return next((family for family in _families() if family.claims(class_name, task)), None)


def work_of(task: str) -> type[Task]:
    """Return how a worker does ``task``."""
    try:
        part = TASKS.part(task, "work")
    except KeyError:
        part = None
    if part is None:
        raise SourceError(f"no task is called {task!r}; there are: {', '.join(TASKS.names())}.")
    work: type[Task] = part.TASK
    return work


def pipeline_class(class_name: str, task: str, denoiser_channels: int | None) -> Any:
    """Return the class that does ``task`` with a model whose ``model_index.json`` names a class."""
    family = claiming(class_name, task)
    if family is not None:
        return family.pipeline_class(class_name, task, denoiser_channels)
    return work_of(task).pipeline_class(class_name, denoiser_channels)


def check(made: Any, task: type[Task]) -> Any:
    """Return a pipeline class; raise SourceError with the reason if it cannot do ``task``."""
    reason = why_not(made, task)
    if reason is not None:
        raise SourceError(f"{made.__name__} cannot do {task.name}: {reason}.")
    return made


def why_not(made: Any, task: type[Task]) -> str | None:
    """Return why a pipeline class cannot do ``task``; None if it can."""
    taken = parameters(made)
    name = made.__name__
    if any(each in taken for each in _VIDEO):
        return "it makes video"
    if any(each in taken for each in _AUDIO):
        return "it makes sound"
    if "prompt" not in taken:
        return "it takes no prompt"
    if "Prior" in name:
        return "it makes embeddings for another pipeline, not pictures"
    if "Control" in name or "Adapter" in name:
        return "it needs a control picture, which a workload does not have"
    if "Inpaint" in name or "mask_image" in taken:
        return "it needs a mask, which a workload does not have"
    missing = [
        each
        for each, parameter in taken.items()
        if parameter.default is inspect.Parameter.empty and each not in ("prompt", "image")
    ]
    if missing:
        return f"its call needs {', '.join(missing)}, which a workload does not have"
    return task.why_not(name, taken)


def parameters(made: Any) -> dict[str, inspect.Parameter]:
    """Return the named parameters of a class's call; ``**kwargs`` would swallow anything."""
    return {
        name: parameter
        for name, parameter in inspect.signature(made.__call__).parameters.items()
        if name != "self"
        and parameter.kind
        in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }


def diffusers_class(class_name: str) -> Any:
    """Return a pipeline class of diffusers. Raises SourceError: there is none of this name."""
    import diffusers

    pipelines = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    found = getattr(diffusers, class_name, None) if class_name in pipelines else None
    if found is None:
        raise SourceError(
            f"diffusers {diffusers.__version__} has no pipeline {class_name}"
            f"{nearest(class_name, pipelines)}, and no installed package brings it "
            f"(entry-point group {GROUP})."
        )
    return found


def sibling(class_name: str, infix: str) -> Any | None:
    """Return ``X<infix>Pipeline`` for ``XPipeline``: relatives are named alike in diffusers."""
    import diffusers

    return getattr(diffusers, re.sub(r"Pipeline$", f"{infix}Pipeline", class_name), None)


@functools.lru_cache(maxsize=1)
def _families() -> tuple[Family, ...]:
    found: list[Family] = []
    for entry in metadata.entry_points(group=GROUP):
        try:
            found.append(entry.load()())
        except Exception as error:
            raise SourceError(
                f"the pipeline family {entry.name!r} ({entry.value}) cannot be loaded: "
                f"{one_line(error)}"
            ) from error
    return tuple(found)
