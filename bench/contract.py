"""Names that the parent and the worker share.

Both sides import this module, the worker possibly under an old, pinned interpreter, so it uses the
standard library alone and stays valid on Python 3.10. What each figure means is written in
``docs/measurement.md``; the road a record travels, in ``docs/architecture.md``.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

SCHEMA_VERSION = 1
"""Version of the cell and record layout below; readers refuse a larger one."""

Task = Literal["text-to-image", "image-to-image", "edit"]
TASKS: tuple[Task, ...] = ("text-to-image", "image-to-image", "edit")

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

Phase = Literal["load", "prepare", "warmup", "steady"]
"""What every worker goes through and has its memory read in; ``finish`` and, if the cell has one,
``sweep`` are announced after them."""
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
    """Keys of a workload that stand in it only where they are not their default."""

    lora: str  # embedded:NAME | hub:ORG/NAME[@REV][/FILE] | safetensors file, as written
    lora_scale: float  # 1.0
    lora_fused: bool  # True: added to the weights; False: run beside them
    controlnet: str  # embedded:NAME | path:DIR | hub:ORG/NAME[@REV]
    control_image: str  # one of CONTROL_DRAWINGS, the first; or a file, as written
    control_scale: float  # 1.0
    custom_pipeline: str  # Python file, or folder with pipeline.py, as written


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
    strength: float | None  # image-to-image only
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
    content: str  # hash of what it holds; see bench.content


class Limits(TypedDict):
    timeout_s: float  # wall time of one worker
    memory_bytes: int | None  # host address-space limit of one worker


class Cell(TypedDict):
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
    # by the workload's field, such as "model" or "input_image"; absent in cells of older runs
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


class Job(TypedDict):
    """What the parent hands to a worker: a cell, and where this worker may write."""

    cell: Cell  # with the absolute paths of its inputs in its workload
    round: int
    device: str  # resolved: cpu | cuda:N | mps
    pictures_dir: str  # absolute; exists
    pictures_relative_to: str  # absolute run folder
    cache_dir: str  # absolute, private compile cache of this cell
    prime_only: bool  # fill the warm compile cache (load, prepare, one call) and stop


# Events: one JSON object a line, from the worker to the parent, over a pipe of their own.
#   {"event": "phase", "phase": "load" | "prepare" | "warmup" | "steady" | "finish" | "profile" |
#                                "sweep"}
#   {"event": "set", "fields": {record field: value, …}}        sets top-level record fields
#   {"event": "append", "fields": {record field: value, …}}     appends to top-level list fields
#   {"event": "decided", "outcome": Outcome, "reason": str | None}  how the cell ended, before its
#                                                              sweep: holds if that kills the worker
#   {"event": "end", "outcome": Outcome, "reason": str | None}  the last word of a worker
# A record is the identity fields plus every set and append so far. A worker that dies without "end"
# keeps what it had reported; the parent then decides the outcome from how the process ended.


class Record(TypedDict, total=False):
    """One line of records.jsonl: one cell in one round. Names and units as in docs/measurement.md.

    Fields that a cell did not reach are absent; a figure that could not be obtained honestly is
    None, with the reason under the same name in ``null_reasons``.
    """

    # identity, written by the parent
    schema: int
    record_id: str
    run_id: str
    cell_id: str
    name: str
    round: int
    attempt: int  # 0; each retry of the same cell and round has the next number and supersedes
    sequence: int  # order of execution within the run
    cell: Cell
    device: str
    # name; identity: hash of the packages that it was made from, None for the harness's own. None
    # for a cell that met no interpreter
    environment: dict[str, Any] | None
    started_utc: str
    ended_utc: str
    # process: start (fork | spawn), start_reason, pid, exit_code, signal, startup_s (launch to the
    # first event), wall_s, log (relative to the run folder)
    process: dict[str, Any]
    # before_bytes, after_bytes, prime_s (time to fill a warm cache; absent if it was filled)
    compile_cache: dict[str, Any]
    # start, end: the system's 1-minute load average as the measured region began and as it ended,
    # read by the parent; absent if the cell did not get there
    load_average_1m: dict[str, float] | None
    outcome: Outcome
    reason: str | None
    last_phase: str | None

    # written by the worker
    warnings: list[str]
    null_reasons: dict[str, str]
    load_s: float
    prepare_s: float
    first_call_s: float
    warmup_s: list[float]
    warmup_stable: bool
    compile_s: float | None
    cache: Literal["fresh", "warm"]
    e2e_s: list[float]
    device_e2e_s: list[float]
    step_s: list[list[float]]  # per measured call
    it_per_s: list[float | None]
    steps_per_s_e2e: list[float]
    stages: list[dict[str, float | None]]  # per measured call; keys are STAGES
    stop_reason: str  # noise_target | max_calls | time_cap
    steps_requested: int
    steps_effective: int
    denoiser_calls: int
    denoiser_batch: int
    output_height: int
    output_width: int
    pipeline_class: str
    scheduler_class: str
    model_revision: str | None
    synthetic_weights: bool
    input_sha256: (
        str  # of each input picture's raw RGB bytes, as given; several are joined by a space
    )
    input_images: list[str]  # input pictures as the pipeline got them, relative to the run folder
    control_sha256: str  # of the pictures that steered a ControlNet, as input_sha256
    control_images: list[str]  # those pictures, relative to the run folder
    # source, content, scale, fused, keys (tensors of the file), keys_used, layers (that took it),
    # layers_changed (weights that are others now, or would be), layers_changed_by_part
    lora: dict[str, Any]
    controlnet: dict[str, Any]  # source, content, parameters
    custom_pipeline: dict[str, Any]  # class, content
    additions_content: str  # "name:hash" of each of the three, joined by a space
    # "full" or "shallow" for each denoiser call of the last measured call, of backends that reuse
    # features; step_s[…][i] ends with call i + 1
    step_kind: list[str]
    backend: dict[str, Any]  # name, requested, active, scope, evidence
    memory: list[MemoryReading]
    images: list[ImageEntry]
    fingerprint: dict[str, Any]
    # by scope: calls, flops, bytes (each operator alone), weight_bytes, of one pipeline call;
    # counted in cells of backend none, since a count belongs to the workload
    work: dict[str, dict[str, int]] | None
    # matmul_flops_per_s, matmul_side, copy_bytes_per_s, copied_bytes, dtype: of this process
    ceilings: dict[str, Any] | None
    # busy_s, kernels, e2e_s, loop_clock_s, loop_kernel_s, loop_busy_s of one traced call
    device_busy: dict[str, Any] | None
    # one entry per call: steps, steps_effective, denoiser_calls, e2e_s, it_per_s, outcome, reason;
    # in sweep_steps also order, the place in the shuffle from 0. Figures are None unless "ok".
    sweep_steps_warmup: list[dict[str, Any]]
    sweep_steps: list[dict[str, Any]]
    # one entry per size: order, height, width, output_height, output_width, steps_effective,
    # denoiser_calls, first_s, second_s, e2e_s (list, the repeats), graphs and recompiles (both
    # until the second call is done), compile_cache (hits and misses), outcome, reason
    sweep_size: list[dict[str, Any]]
