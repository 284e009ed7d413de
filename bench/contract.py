"""Names that the parent and the worker share.

Both sides import this module, the worker possibly under an old, pinned interpreter, so it uses the
standard library alone and stays valid on Python 3.10. What each figure means is written in
``docs/measurement.md``; the road a record travels, in ``docs/architecture.md``.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

SCHEMA_VERSION = 1
"""Version of the cell and record layout below; readers refuse a larger one."""

Task = Literal["text-to-image", "image-to-image", "edit", "chain", "folder"]
TASKS: tuple[Task, ...] = ("text-to-image", "image-to-image", "edit", "chain", "folder")

BASELINE = "none"
"""The backend that changes nothing, against which every speedup is taken."""

Outcome = Literal[
    "ok",
    "oom",
    "unsupported",
    "unavailable",
    "fallback",
    "invalid",
    "failed",
    "timeout",
    "skipped",
]
OUTCOMES: tuple[Outcome, ...] = (
    "ok",
    "oom",
    "unsupported",
    "unavailable",
    "fallback",
    "invalid",
    "failed",
    "timeout",
    "skipped",
)
"""Every way a cell can end. All are results and are stored; only ``ok`` enters averages."""

Phase = Literal["load", "prepare", "warmup", "steady", "telemetry"]
"""What every worker goes through and has its memory read in; ``finish`` and the passes that a cell
asks for are announced after them. In ``telemetry`` it is the parent that reads."""
PHASES: tuple[Phase, ...] = ("load", "prepare", "warmup", "steady")

Meter = Literal[
    "torch.max_memory_allocated",
    "torch.max_memory_reserved",
    "nvml.process_used",
    "device_used",
    "rss",
    "oneflow.device_used",
]

Perceptual = Literal["lpips", "clip_score"]
"""Metrics of pictures that need weights; computed after a run, if those are there."""
PERCEPTUAL: tuple[Perceptual, ...] = ("lpips", "clip_score")

STAGES: tuple[str, ...] = (
    "text_encode_s",
    "image_encode_s",
    "denoise_s",
    "vae_decode_s",
    "post_s",
    "unaccounted_s",
)

SCOPES: tuple[str, ...] = (
    "unet",
    "transformer",
    "vae.encode",
    "vae.decode",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
)
"""What a backend can compile, by the name under which the pipeline calls it."""


CONTROL_DRAWINGS: tuple[str, ...] = ("drawn:edges", "drawn:ellipse")
"""Control images that are drawn, the default first; anything else is a file."""


class WorkloadMore(TypedDict, total=False):
    """Keys that stand in a workload only where they differ from their default.

    So a cell that does not use them is the cell that it was before there were such keys.
    """

    # task folder; pictures and how always, the others where they are written
    pictures: str  # folder or file, as written
    resize: Literal["fit", "pad"]
    enlarge: bool
    prompts: list[str]  # drawn from for each picture; prompt is "" then
    models: list[str]  # drawn from for each picture; this cell has those of its own model
    draw_seed: int
    how: Literal["image-to-image", "edit"]  # what is done to each picture
    iterations: int  # batches; picture i of all of them has seed + i
    one_by_one: bool  # models take the pictures of a batch one at a time: equal bytes in any batch
    lora: str  # embedded:NAME | hub:ORG/NAME[@REV][/FILE] | safetensors file, as written
    lora_scale: float  # 1.0
    lora_fused: bool  # True: added to the weights; False: run beside them
    controlnet: str  # embedded:NAME | path:DIR | hub:ORG/NAME[@REV]
    control_image: str  # one of CONTROL_DRAWINGS, the first; or a file, as written
    control_scale: float  # 1.0
    custom_pipeline: str  # Python file, or folder with pipeline.py, as written
    # Of a size that was rounded: as it was asked for, and how; height and width are what was made
    # of it.
    asked_height: int
    asked_width: int
    round_size: Literal["down", "nearest"]
    memory: str  # memory modes joined by "+", in the order of bench.modes.MEMORY
    precision: Literal["fp32", "autocast", "tf32"]  # fp16 and bf16 are just a dtype
    between: str  # what is done between calls, joined by "+", of bench.modes.BETWEEN
    deterministic: bool | Literal["strict"]  # default False
    # chain only, and then all three; `batch` is the number of pictures of its largest round
    samples: int  # pictures of the whole chain
    max_batch: int  # pictures of a round
    start_from: Literal["first", "previous"]  # whose pictures image-to-image rounds start from


class Workload(WorkloadMore):
    """What is generated; two cells may be compared only if all of it but ``name`` is equal."""

    name: str
    task: Task
    model: str  # hub:ORG/NAME[@revision] | path:DIR | embedded:NAME | synthetic:ARCH
    variant: str | None
    scheduler: str | None  # diffusers class name; None keeps the model's own
    steps: int
    guidance: float | None  # None keeps the pipeline's own default
    image_guidance: float | None  # edit only
    strength: float | None  # image-to-image and chain only
    height: int
    width: int
    batch: int
    seed: int  # picture i of a batch has seed + i
    prompt: str
    negative_prompt: str | None
    input_image: str | None  # file, as written; None draws a scene of the asked size
    dtype: Literal["float32", "float16", "bfloat16"]
    generator: Literal["cpu", "device"]  # where noise is drawn; cpu gives every backend equal noise
    extra: dict[str, Any]  # further arguments of the pipeline call


class BackendChoice(TypedDict):
    """Which backend a cell asks for; ``options`` are already validated by its ``options`` type."""

    name: str
    options: dict[str, Any]
    environment: str  # "current" or the name of a locked interpreter


class WarmupRule(TypedDict):
    """Warm-up ends once ``stable_calls`` consecutive calls lie within ``stable_pct`` per cent."""

    min_calls: int
    max_calls: int
    stable_calls: int
    stable_pct: float


class RepeatRule(TypedDict):
    """Measured calls end at the noise target, not before ``min_calls``, or at a cap."""

    min_calls: int
    max_calls: int
    noise_target_pct: float  # relative half-width of the median's 95 % interval
    time_cap_s: float


class Protocol(TypedDict):
    warmup: WarmupRule
    calls: RepeatRule
    rounds: int  # separate processes per cell


class Telemetry(TypedDict):
    """A pass that the parent samples from outside; times in seconds."""

    period_s: float  # between samples
    time_s: float  # of calls, at least
    min_calls: int
    idle_s: float  # before the first call and after the last one


class SweepSize(TypedDict):
    height: int
    width: int


class Sweep(TypedDict):
    """What is measured besides, in the same process, after the cell's own calls."""

    steps: list[int]  # at least 3 different ones, or none
    size: list[SweepSize]  # in this order
    repeats: int  # measured calls of each step count and of each size


FOLDER_INPUTS: tuple[str, ...] = ("model", "controlnet")
"""Inputs that a workload writes as ``path:DIR``; the others are bare paths."""


class GivenFile(TypedDict):
    """What a workload names by a path; ``workload`` keeps the path as it was written."""

    path: str  # absolute, where the plan was made
    content: str  # hash of what it holds; see bench.content and bench.folder


class LimitsMore(TypedDict, total=False):
    """Limits that a cell has only where they are set; they are part of its identity."""

    rss_bytes: int  # resident memory of one worker, watched from outside
    device_bytes: int  # what torch may reserve on a CUDA device


class Limits(LimitsMore):
    timeout_s: float  # wall time of one worker
    memory_bytes: int | None  # host address-space limit of one worker


class CellMore(TypedDict, total=False):
    """Keys that stand in a cell only where they have a meaning."""

    calls_planned: int  # task folder: pictures that fall to this cell
    telemetry: Telemetry
    repeat: int  # calls of the pass that compares pictures and memory


class Cell(CellMore):
    """One point of the matrix: everything that a worker is told."""

    schema: int
    cell_id: str  # hash of all that can change a figure; see bench.config
    name: str  # readable and unique within the plan
    workload: Workload
    backend: BackendChoice
    cache: Literal["fresh", "warm"]  # compile cache
    protocol: Protocol
    sweep: Sweep | None  # absent in cells of runs that were started before there were sweeps
    profile: bool  # absent is false: count work, measure ceilings and trace a call besides
    # by the workload's field: model, input_image, pictures and the like; absent in older runs
    inputs: dict[str, GivenFile]
    device: str  # auto | cpu | cuda[:N] | mps
    threads: int  # CPU threads of torch
    limits: Limits
    allow_remote_code: bool


class MemoryReading(TypedDict):
    """A peak. Values of different meters are never put in one comparison."""

    meter: Meter
    scope: Literal["process", "device", "host"]
    phase: Phase
    bytes: int | None  # None with the reason in Record["null_reasons"]


class ImageEntry(TypedDict):
    path: str  # relative to the run folder
    seed: int
    index: int
    width: int
    height: int
    sha256: str  # of the raw RGB bytes, not of the file


class ChainRound(TypedDict, total=False):
    """One pipeline call of a chain; figures of a round that failed are absent."""

    round: int  # 0 is text-to-image, the others are image-to-image
    task: Literal["text-to-image", "image-to-image"]
    pipeline_class: str
    batch: int  # pictures
    first_index: int  # of its pictures in the chain
    steps_requested: int
    steps_effective: int | None
    denoiser_calls: int | None
    denoiser_batch: int | None
    # peaks of this round in the last warm-up call that reached it; phase is "warmup"
    memory: list[MemoryReading]
    outcome: Outcome
    reason: str | None


class Descent(TypedDict):
    """Where a picture of a chain comes from."""

    index: int  # in the chain
    round: int
    place: int  # in its round
    seed: int
    sha256: str  # as in ImageEntry
    parent_index: int | None  # of the picture that it started from; None in round 0
    parent_sha256: str | None


class Job(TypedDict):
    """What the parent hands to a worker: a cell, and where this worker may write."""

    cell: Cell  # with the absolute paths of its inputs in its workload
    round: int
    device: str  # resolved: cpu | cuda:N | mps
    pictures_dir: str  # absolute; exists
    pictures_relative_to: str  # absolute run folder
    cache_dir: str  # absolute, private compile cache of this cell
    prime_only: bool  # fill the warm compile cache (load, prepare, one call) and stop


REQUIRED_OF_OK: tuple[str, ...] = ("fingerprint", "backend", "e2e_s")
"""Fields of a record without which its outcome cannot be ``ok``; none of them is empty then."""

# Events: one JSON object a line, from the worker to the parent, over a pipe of their own.
#   {"event": "phase", "phase": "load" | "prepare" | "warmup" | "steady" | "finish" |
#                                "telemetry" | "settle" | "repeat" | "profile" | "sweep"}
#   {"event": "set", "fields": {record field: value, …}}        sets top-level record fields
#   {"event": "append", "fields": {record field: value, …}}     appends to top-level list fields
#   {"event": "decided", "outcome": Outcome, "reason": str | None}  how the cell ended, before its
#                                                              sweep: holds if that kills the worker
#   {"event": "end", "outcome": Outcome, "reason": str | None, "events": int}  the last word of a
#                                          worker, and how many events it sent before, if it says
# A record is the identity fields plus every set and append so far. A worker that dies without "end"
# keeps what it had reported; the parent then decides the outcome from how the process ended.

Record = dict[str, Any]
"""What the parent stores of a cell in one round; `bench.records.types` has the fields."""

OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "memoryerror",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "insufficient memory",
    "failed to allocate memory",
    "unable to allocate",
    "unable to mmap",
    "bad_alloc",
    "status_alloc_failed",
    "cudaerrormemoryallocation",
    "resource_exhausted",
    "(os error 12)",
)
"""What allocators say, in lower case: of the system, C++, torch, CUDA, cuBLAS, safetensors."""
LOG = "BENCH_LOG"
"""Environment variable: the file in which what this process prints ends up."""
