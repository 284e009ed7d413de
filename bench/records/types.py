"""The shape of a record as its readers see it, with its figures as properties.

Names and units are those of docs/measurement.md. A field that a cell did not reach, and a figure
that could not be obtained honestly, is None or empty; ``null_reasons`` gives the reason. Fields of
passes and tasks are declared in their own folders; see `Record.part`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from statistics import median as _median
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from msgspec import Meta, Raw, Struct, ValidationError, convert, structs
from msgspec import json as _json

from bench import modes
from bench.contract import PHASES, STAGES, Outcome
from bench.stats.order import median_interval
from compilers import registry
from compilers.base import BASELINE

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
"""Above 2^53 not every whole number is a float."""
Text = Annotated[str, Meta(max_length=1_000_000)]
RelativePath = Annotated[str, Meta(pattern=r"\A(?!/)(?!(?:[^\x00]*/)?\.\.(?:/|\Z))[^\x00]+\Z")]
"""Below the run folder."""

LOSSY = "(lossy)"
"""What a label says of a backend that changes the image on purpose."""

P = TypeVar("P", bound=Struct)


class Part(Struct, frozen=True, gc=False):
    """A piece of a record. It holds no cycles, so the search for them leaves it out."""


class Workload(Part, frozen=True):
    """What is generated; see `bench.contract.Workload`."""

    name: Text
    task: Text
    model: Text
    steps: Count
    height: Count
    width: Count
    batch: Annotated[int, Meta(ge=1)] = 1
    seed: Count = 0
    prompt: Text = ""
    dtype: Text = "float32"
    variant: Text | None = None
    scheduler: Text | None = None
    guidance: float | None = None
    image_guidance: float | None = None
    strength: float | None = None
    negative_prompt: Text | None = None
    input_image: Text | None = None
    generator: Text = "cpu"
    extra: dict[str, Any] = {}
    memory: Text = modes.NONE
    precision: Text | None = None
    between: Text = modes.NONE
    samples: Annotated[int, Meta(ge=1)] | None = None
    max_batch: Annotated[int, Meta(ge=1)] | None = None
    start_from: Text | None = None
    iterations: Annotated[int, Meta(ge=1)] = 1
    one_by_one: bool = False
    pictures: Text | None = None
    how: Text | None = None
    resize: Text | None = None
    enlarge: bool = False
    prompts: tuple[Text, ...] = ()
    models: tuple[Text, ...] = ()
    draw_seed: Count | None = None
    asked_height: Count | None = None
    asked_width: Count | None = None
    round_size: Text | None = None
    deterministic: bool | Text = False
    lora: Text | None = None
    lora_scale: float = 1.0
    lora_fused: bool = False
    controlnet: Text | None = None
    control_image: Text | None = None
    control_scale: float = 1.0
    custom_pipeline: Text | None = None

    @property
    def images_per_call(self) -> int:
        """Images of one measured call: of all rounds of a chain, else of the batch."""
        return self.samples or self.batch


class Backend(Part, frozen=True):
    """Which backend a cell asks for."""

    name: Text
    options: dict[str, Any] = {}
    environment: Text = "current"

    @property
    def place(self) -> str:
        """Its name, with the environment that it was sent to unless that is called alike."""
        alike = self.environment in ("current", self.name)
        return self.name if alike else f"{self.name}@{self.environment}"

    @property
    def label(self) -> str:
        """Its name with the options that are not its defaults, and its environment."""
        written = registry.option_label(self.name, self.options)
        return f"{written}{self.place.removeprefix(self.name)}"


class WarmupRule(Part, frozen=True):
    min_calls: Count
    max_calls: Count
    stable_calls: Count
    stable_pct: float


class RepeatRule(Part, frozen=True):
    min_calls: Count
    max_calls: Count
    noise_target_pct: float
    time_cap_s: float


class Protocol(Part, frozen=True):
    warmup: WarmupRule | None = None
    calls: RepeatRule | None = None
    rounds: Annotated[int, Meta(ge=1)] = 1


class Limits(Part, frozen=True):
    timeout_s: float | None = None
    memory_bytes: Count | None = None
    rss_bytes: Count | None = None
    device_bytes: Count | None = None


class Cell(Struct, frozen=True, dict=True):
    """One point of the matrix; equal cells of the records that were read are one object."""

    cell_id: Text
    name: Text
    workload: Workload
    backend: Backend
    cache: Literal["fresh", "warm"] = "fresh"
    protocol: Protocol = Protocol()
    device: Text = "auto"
    threads: Count = 1
    limits: Limits = Limits()

    @property
    def raw(self) -> dict[str, Any]:
        """The whole JSON object, with the keys of passes and of other packages' tasks."""
        whole: dict[str, Any] = self.__dict__["raw"]
        return whole

    @property
    def is_baseline(self) -> bool:
        return self.backend.name == BASELINE

    @cached_property
    def label(self) -> str:
        return self.backend.label


class Reading(Part, frozen=True):
    """A memory peak; values of different meters are never put in one comparison."""

    meter: Text
    scope: Text
    phase: Text
    bytes: Count | None


class Image(Part, frozen=True):
    """An image of the last measured call."""

    path: RelativePath
    seed: Count = 0
    index: Count = 0
    width: Count | None = None
    height: Count | None = None
    sha256: Text = ""


class Process(Part, frozen=True):
    start: Text | None = None
    start_reason: Text | None = None
    pid: Count | None = None
    exit_code: int | None = None
    signal: Text | int | None = None
    startup_s: float | None = None
    wall_s: float | None = None
    log: RelativePath | None = None


class LoadAverage(Part, frozen=True):
    start: float | None = None
    end: float | None = None


class CompileCache(Part, frozen=True):
    before_bytes: Count | None = None
    after_bytes: Count | None = None
    prime_s: float | None = None


class MemoryLimit(Part, frozen=True):
    meter: Text | None = None
    limit_bytes: Count | None = None
    over_bytes: Count | None = None


class Environment(Part, frozen=True):
    name: Text = "current"
    identity: Text | None = None


class MemoryModes(Part, frozen=True):
    """Modes asked for, those proved active after warm-up, and why others change nothing here."""

    asked: tuple[Text, ...] = ()
    active: tuple[Text, ...] = ()
    idle: dict[Text, Text] = {}
    details: dict[Text, Any] = {}


class Precision(Part, frozen=True):
    """The precision asked for and what was set; ``denoiser_output`` are the types seen."""

    asked: Text | None = None
    weights: Text | None = None
    autocast: Text | None = None
    matmul_tf32: bool | None = None
    cudnn_tf32: bool | None = None
    denoiser_output: tuple[Text, ...] = ()


class Lora(Part, frozen=True):
    """Of the file's tensors: how many were used, by how many layers, and how many changed."""

    source: Text
    content: Text = ""
    scale: float = 1.0
    fused: bool = False
    keys: Count | None = None
    keys_used: Count | None = None
    layers: Count | None = None
    layers_changed: Count | None = None
    layers_changed_by_part: dict[Text, Count] = {}


class ControlNet(Part, frozen=True):
    source: Text
    content: Text = ""
    parameters: Count | None = None


class CustomPipeline(Part, frozen=True, rename={"class_name": "class"}):
    class_name: Text
    content: Text = ""


class Determinism(Part, frozen=True):
    """``operations`` ran and have no deterministic algorithm."""

    mode: bool | Text = False
    cublas_workspace_config: Text | None = None
    operations: tuple[Text, ...] = ()


class Evidence(Part, frozen=True):
    """Proof of what a backend did, as the worker saw it."""

    runtime: Text | None = None
    details: dict[str, Any] = {}
    graphs: Count | None = None
    graph_breaks: Count | None = None
    recompiles: Count | None = None
    graph_break_reasons: tuple[dict[str, Any], ...] = ()
    recompile_reasons: tuple[Any, ...] = ()
    compile_failures: tuple[Any, ...] = ()
    changed: tuple[Text, ...] = ()


class ActiveBackend(Part, frozen=True):
    """The backend as the worker found it after warm-up."""

    active: bool | None = None
    lossy: bool = False
    requested: tuple[Text, ...] = ()
    scope: tuple[Text, ...] = ()
    evidence: Evidence = Evidence()


class Stages(Part, frozen=True):
    """Seconds of one call by stage."""

    text_encode_s: float | None = None
    image_encode_s: float | None = None
    denoise_s: float | None = None
    vae_decode_s: float | None = None
    post_s: float | None = None
    unaccounted_s: float | None = None

    @property
    def seconds(self) -> tuple[float | None, ...]:
        """In the order of `bench.contract.STAGES`."""
        return tuple([getattr(self, name) for name in STAGES])


class Steps(NamedTuple):
    """Three numbers, always, and the largest batch that the denoiser was given."""

    requested: int | None
    effective: int | None
    denoiser_calls: int | None
    denoiser_batch: int | None

    def __str__(self) -> str:
        text = f"{self.requested} steps"
        if self.effective is not None and self.effective != self.requested:
            text += f", {self.effective} effective"
        if self.denoiser_calls is not None and self.denoiser_calls != self.effective:
            text += f", {self.denoiser_calls} denoiser calls"
        if self.denoiser_batch is not None:
            text += f", denoiser batch {self.denoiser_batch}"
        return text


class Record(Struct, frozen=True, kw_only=True, dict=True, eq=False,
             rename={"cell_json": "cell", "fingerprint_json": "fingerprint"}):  # fmt: skip
    """One line of records.jsonl: one cell in one round. Get one from `bench.records.read`."""

    schema: int
    record_id: Text
    cell_id: Text
    round: Count
    outcome: Outcome
    cell_json: Raw
    fingerprint_json: Raw = Raw(b"{}")
    run_id: Text = ""
    name: Text = ""
    attempt: Count = 0
    sequence: Count = 0
    device: Text | None = None
    environment: Environment | None = None
    started_utc: Text | None = None
    ended_utc: Text | None = None
    process: Process = Process()
    compile_cache: CompileCache = CompileCache()
    load_average_1m: LoadAverage | None = None
    reason: Text | None = None
    last_phase: Text | None = None
    memory_limit: MemoryLimit = MemoryLimit()
    dominated_by: Text | None = None
    warnings: tuple[Text, ...] = ()
    null_reasons: dict[str, Text] = {}
    load_s: float | None = None
    prepare_s: float | None = None
    first_call_s: float | None = None
    warmup_s: tuple[Seconds, ...] = ()
    warmup_stable: bool | None = None
    compile_s: float | None = None
    cache: Literal["fresh", "warm"] | None = None
    e2e_s: tuple[Seconds, ...] = ()
    device_e2e_s: tuple[Seconds, ...] | None = None
    step_s: tuple[tuple[float, ...], ...] = ()
    it_per_s: tuple[float | None, ...] = ()
    steps_per_s_e2e: tuple[Seconds, ...] = ()
    stages: tuple[Stages, ...] = ()
    stop_reason: Text | None = None
    steps_requested: Count | None = None
    steps_effective: Count | None = None
    denoiser_calls: Count | None = None
    denoiser_batch: Count | None = None
    output_height: Count | None = None
    output_width: Count | None = None
    between_s: tuple[float, ...] = ()
    memory_modes: MemoryModes | None = None
    precision: Precision | None = None
    pipeline_class: Text | None = None
    scheduler_class: Text | None = None
    model_revision: Text | None = None
    synthetic_weights: bool | None = None
    input_sha256: Text | None = None
    input_images: tuple[RelativePath, ...] = ()
    control_sha256: Text | None = None
    control_images: tuple[RelativePath, ...] = ()
    lora: Lora | None = None
    controlnet: ControlNet | None = None
    custom_pipeline: CustomPipeline | None = None
    additions_content: Text | None = None
    step_kind: tuple[Text, ...] = ()
    backend: ActiveBackend = ActiveBackend()
    memory: tuple[Reading, ...] = ()
    images: tuple[Image, ...] = ()
    deterministic: Determinism = Determinism()

    def __post_init__(self) -> None:
        # Raw text is a view of its whole line, which would stay in memory.
        self.__dict__["cell"] = _shared_cell(bytes(self.cell_json))
        self.__dict__["fingerprint"] = _shared_fingerprint(bytes(self.fingerprint_json))
        structs.force_setattr(self, "cell_json", _EMPTY)
        structs.force_setattr(self, "fingerprint_json", _EMPTY)
        if not self.name:
            structs.force_setattr(self, "name", self.cell.name)

    @property
    def cell(self) -> Cell:
        found: Cell = self.__dict__["cell"]
        return found

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The machine and its software; equal ones of the records that were read are one object."""
        found: dict[str, Any] = self.__dict__["fingerprint"]
        return found

    def part(self, kind: type[P]) -> P:
        """Return the fields that a pass or task declared in its ``record.py`` as ``kind``."""
        return kind(**{name: getattr(self, name) for name in kind.__struct_fields__})

    # ------------------------------------------------------------- what it is of

    @property
    def workload(self) -> Workload:
        return self.cell.workload

    @property
    def is_baseline(self) -> bool:
        return self.cell.is_baseline

    @property
    def ok(self) -> bool:
        """Whether its figures count."""
        return self.outcome == "ok" and bool(self.e2e_s)

    @property
    def actual_device(self) -> str:
        """The device that it ran on, as far as is known."""
        return self.device or self.cell.device

    @property
    def actual_cache(self) -> str:
        return self.cache or self.cell.cache

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its images in pixels, as made, else as asked for."""
        asked = self.workload
        return self.output_height or asked.height, self.output_width or asked.width

    @property
    def steps(self) -> Steps:
        requested = self.workload.steps if self.steps_requested is None else self.steps_requested
        return Steps(requested, self.steps_effective, self.denoiser_calls, self.denoiser_batch)

    @property
    def synthetic(self) -> bool:
        return bool(self.synthetic_weights) or self.workload.model.startswith("synthetic:")

    @property
    def busy(self) -> str | None:
        """One sentence if the load average exceeds the worker's threads by more than 1.

        The parent, the launcher and the system itself take less. A worker that has just compiled
        may have raised it itself: compilers use processes of their own, and the average remembers a
        minute.
        """
        load = self.load_average_1m
        start = load.start if load else None
        threads = self.cell.threads
        if start is None or start <= threads + 1:
            return None
        compiled = ", if it was not this cell's own compiling"
        return (
            f"Other work was likely on this machine: its load average was {start:.1f} when "
            f"measuring began, and this cell uses {threads} thread{'' if threads == 1 else 's'}"
            f"{compiled if self.backend.evidence.graphs else ''}."
        )

    # ----------------------------------------------------------------- figures

    @property
    def median_e2e_s(self) -> float | None:
        return median(self.e2e_s) if self.ok else None

    @property
    def e2e_interval_s(self) -> tuple[float, float] | None:
        """The 95 % interval of the median; None below six calls."""
        return median_interval(self.e2e_s) if self.ok else None

    @property
    def rates(self) -> tuple[float, ...]:
        """``it_per_s`` of the calls that have one."""
        return tuple([rate for rate in self.it_per_s if rate])

    @property
    def median_it_per_s(self) -> float | None:
        return median(self.it_per_s)

    @property
    def step_intervals_s(self) -> tuple[float, ...]:
        """Of all measured calls together."""
        return tuple(chain.from_iterable(self.step_s))

    @property
    def warmup_total_s(self) -> float | None:
        return sum(self.warmup_s) if self.warmup_s else None

    @property
    def peaks(self) -> dict[tuple[str, str], int]:
        """Bytes by (meter, phase); the meter as `meter` names it."""
        return {
            (self.meter(reading), reading.phase): reading.bytes
            for reading in self.memory
            if reading.bytes is not None and reading.phase in PHASES
        }

    def meter(self, reading: Reading) -> str:
        """Return what a reading may be compared with: its meter, and for ``rss`` more than that.

        A forked process shares pages with its template and counts fewer of them than a fresh
        interpreter does, so a spawned one has a meter of its own.
        """
        spawned = (reading.meter, self.process.start) == ("rss", "spawn")
        return f"{reading.meter} (spawned)" if spawned else reading.meter

    def step_trace(self) -> Iterator[tuple[float, float, float]]:
        """Yield (median, smallest, largest) over calls for each interval between steps."""
        longest = max(map(len, self.step_s), default=0)
        whole = [call for call in self.step_s if len(call) == longest]
        return ((_median(at), min(at), max(at)) for at in zip(*whole, strict=True))


def median(values: Any) -> float | None:
    """Return the median of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return _median(known) if known else None


class _Gpu(Part, frozen=True):
    name: Text | None = None
    uuid_hash: Text | None = None
    driver: Text | None = None
    memory_bytes: Count | None = None


class _Fingerprint(Part, frozen=True):
    """Of a fingerprint, what readers take by name; all of it is compared."""

    python: Text | None = None
    packages: dict[Text, Text | None] = {}
    cuda: Text | None = None
    gpu: _Gpu | None = None
    environment_hash: Text | None = None
    null_reasons: dict[Text, Text] = {}


DEEPEST = 50
"""Objects and lists within one another in a cell or fingerprint; ours take 5."""

_EMPTY = Raw(b"")
_cell_decoder = _json.Decoder(Cell)
_any_decoder = _json.Decoder(dict[str, Any])
_CELLS: dict[bytes, Cell] = {}
_FINGERPRINTS: dict[bytes, dict[str, Any]] = {}


def _shared_cell(data: bytes) -> Cell:
    found = _CELLS.get(data)
    if found is None:
        try:
            found = _cell_decoder.decode(data)
        except ValidationError as error:
            raise _within("cell", error) from None
        found.__dict__["raw"] = _plain(data)
        _CELLS[data] = found
    return found


def _shared_fingerprint(data: bytes) -> dict[str, Any]:
    found = _FINGERPRINTS.get(data)
    if found is None:
        try:
            found = _plain(data)
        except ValidationError as error:
            raise _within("fingerprint", error) from None
        check_fingerprint(found)
        _FINGERPRINTS[data] = found
    return found


def check_fingerprint(fingerprint: dict[str, Any]) -> None:
    """Raise ValueError if a part of a fingerprint that readers look into is of another type."""
    try:
        convert(fingerprint, _Fingerprint)
    except ValidationError as error:
        raise _within("fingerprint", error) from None


def _within(name: str, error: ValidationError) -> ValidationError:
    """Return an error of a field with text of its own, with that field's name."""
    message, _, place = str(error).partition(" - at `$")
    return ValidationError(f"{message} - at `$.{name}{place or '`'}")


def _plain(data: bytes) -> dict[str, Any]:
    """Return a JSON object that no later walk through it can fail at."""
    value = _any_decoder.decode(data)
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Raise RecursionError if JSON nests deeper than `DEEPEST`."""
    inner: list[Any] = [value]
    for _ in range(DEEPEST):
        inner = [
            each
            for outer in inner
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, dict | list)
        ]
        if not inner:
            return
    raise RecursionError


def cell_of(plan_cell: dict[str, Any]) -> Cell:
    """Return a cell of a plan as records have theirs.

    Raises:
        msgspec.ValidationError: it is none.
    """
    text = json.dumps(plan_cell, ensure_ascii=False, separators=(",", ":"))
    return _shared_cell(text.encode(errors="replace"))
