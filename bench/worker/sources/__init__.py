"""Where a pipeline comes from: ``hub:``, ``path:``, ``embedded:`` and ``synthetic:``.

``load`` turns a workload's ``model`` into a pipeline that stands ready on its device. Everything
that can go wrong on the way becomes a ``SourceError`` whose message is one or two sentences for the
user; no message holds a token.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench import content, modes
from bench.worker import families, memory_modes
from bench.worker.errors import SourceError, nearest, one_line

KINDS = ("hub", "path", "embedded", "synthetic")
ADDITIONS = ("lora", "controlnet", "custom_pipeline")


@dataclass(frozen=True)
class Loaded:
    """A pipeline on its device.

    Attributes:
        pipeline: a diffusers pipeline in the workload's dtype, without progress bar.
        revision: what identifies the weights: a hub commit, ``folder-`` and a fingerprint of the
            files, or the version of the recipe that made them.
        synthetic: whether the weights are random.
        notes: sentences worth keeping with the record's warnings.
        download_s: seconds spent fetching files, which is no part of ``load_s``.
        fields: record fields of what was added to the model.
    """

    pipeline: Any
    revision: str | None
    synthetic: bool
    notes: tuple[str, ...] = ()
    download_s: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)


def load(workload: Mapping[str, Any], device: str, *, allow_remote_code: bool) -> Loaded:
    """Load ``workload["model"]`` for ``workload["task"]`` onto ``device``, in its memory modes."""
    import torch

    kind, separator, rest = workload["model"].partition(":")
    rest = rest.strip()
    if not separator or kind not in KINDS or not rest:
        raise SourceError(
            f"model {workload['model']!r} names no source: write hub:ORG/NAME, path:DIR, "
            "embedded:NAME or synthetic:ARCH."
        )
    dtype = getattr(torch, workload["dtype"])
    # What is offloaded must never be on the device as a whole.
    built_on = "cpu" if modes.offload(workload.get("memory")) else device
    if kind == "hub":
        from bench.worker.sources import hub

        loaded = hub.load(rest, workload, dtype, allow_remote_code=allow_remote_code)
    elif kind == "path":
        from bench.worker.sources import path

        loaded = path.load(rest, workload, dtype, allow_remote_code=allow_remote_code)
    elif kind == "synthetic":
        from bench.worker.sources import synthetic

        loaded = synthetic.load(rest, workload["task"], dtype, built_on)
    else:
        loaded = _load_embedded(rest, workload["task"], dtype, built_on)
    if any(workload.get(key) is not None for key in ADDITIONS):
        from bench.worker.sources import additions

        added = additions.add(loaded.pipeline, workload, allow_remote_code=allow_remote_code)
        loaded = dataclasses.replace(
            loaded,
            pipeline=added.pipeline,
            notes=(*loaded.notes, *added.notes),
            download_s=loaded.download_s + added.download_s,
            fields=added.fields,
        )
    pipeline = loaded.pipeline
    if workload["scheduler"] is not None:
        swap_scheduler(pipeline, workload["scheduler"])
    pipeline.set_progress_bar_config(disable=True)
    notes = memory_modes.place(pipeline, workload, device)
    if loaded.synthetic and built_on != device:
        notes.append(
            "the random weights were drawn on the CPU, since they are offloaded: the pictures are "
            "not those of a pipeline that was drawn on the device"
        )
    return dataclasses.replace(loaded, notes=(*loaded.notes, *notes))


def swap_scheduler(pipeline: Any, name: str) -> None:
    """Replace the pipeline's scheduler by the diffusers class ``name``, keeping its settings."""
    import diffusers

    known = [known for known in dir(diffusers) if known.endswith("Scheduler")]
    known = [known for known in known if not known.startswith("Flax")]
    if name not in known:
        raise SourceError(
            f"scheduler {name!r} is no scheduler of diffusers {diffusers.__version__}"
            f"{nearest(name, known)}."
        )
    current = getattr(pipeline, "scheduler", None)
    if current is None:
        raise SourceError(
            f"{type(pipeline).__name__} has no scheduler of its own to replace by {name}: "
            "leave out scheduler."
        )
    if name == type(current).__name__:
        return
    if name.startswith("FlowMatch") != type(current).__name__.startswith("FlowMatch"):
        raise SourceError(
            f"scheduler {name} does not fit {type(pipeline).__name__}: its "
            f"{type(current).__name__} marks a model that was trained "
            f"{'with' if type(current).__name__.startswith('FlowMatch') else 'without'} "
            "flow matching, and pictures would be noise."
        )
    made = getattr(diffusers, name)
    settings: dict[str, Any] = {}
    parameters = inspect.signature(made.__init__).parameters
    if "clip_sample" in parameters and "clip_sample" not in current.config:
        # Such as DDIM's: right for pixels within ±1, and spoils latents, which lie beyond.
        settings["clip_sample"] = False
    try:
        pipeline.scheduler = made.from_config(current.config, **settings)
    except (ImportError, TypeError, ValueError, NotImplementedError) as error:
        raise SourceError(
            f"scheduler {name} cannot be made from the settings of this model's "
            f"{type(current).__name__}: {one_line(error)}"
        ) from error


def _load_embedded(name: str, task: str, dtype: Any, device: str) -> Loaded:
    from bench.worker.sources import embedded

    declared, channels = {
        "pix2pix": ("StableDiffusionInstructPix2PixPipeline", 8),
    }.get(name, ("StableDiffusionXLPipeline", 4))
    pipeline_class = families.pipeline_class(declared, task, channels)
    pipeline = embedded.load(name, pipeline_class, dtype, device)
    folders = (embedded.ASSETS / name, embedded.ASSETS / "vae")
    return Loaded(pipeline, "-".join(content.of_folder(each) for each in folders), False)
