"""``tuned``: everything that torch and diffusers offer, put together; and its lossy relatives.

The order matters. Weights are arranged first, small regions are compiled (little to compile), whole
calls are captured as CUDA graphs (one launch for each call), and the scheduler never makes the host
wait, so that the device always has the next step queued. ``docs/making-sdxl-fast.md`` takes each
technique alone.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compilers import attention, inductor, quantise, scheduling
from compilers.base import Evidence, Scope, Traits, UnsupportedPipelineError, Verdict
from compilers.cuda_graphs import CudaRecorder, GraphedCall
from compilers.scopes import denoiser_name, denoiser_of, resolve_scope
from compilers.step_cache import DeepFeatures

REGIONS = ("BasicTransformerBlock", "ResnetBlock2D", "CLIPEncoderLayer", "T5Block")
"""Classes of blocks that pipelines repeat; a denoiser's own ``_repeated_blocks`` come on top."""

RECOMPILES = 64
"""One region's code is compiled for each of its shapes; torch's own limit of 8 is soon reached."""

TUNING = {
    "autotune": ["max_autotune"],
    "coordinate_descent": ["coordinate_descent_tuning", "coordinate_descent_check_all_directions"],
}
"""What of Inductor's settings each option switches on."""

ARTIFACTS = "artifacts.bin"

Technique = Literal[
    "compile",
    "cuda_graphs",
    "channels_last",
    "fuse_qkv",
    "attention",
    "scheduler",
    "hold_vae",
    "cudnn_benchmark",
]

OFF: dict[str, Any] = {
    "compile": "none",
    "cuda_graphs": False,
    "channels_last": False,
    "fuse_qkv": False,
    "attention": "as-is",
    "scheduler": "as-is",
    "hold_vae": False,
    "cudnn_benchmark": False,
}
"""How each technique is switched off."""


@dataclass(frozen=True)
class TunedOptions:
    """Each technique can be switched off, or measured alone by switching off the others.

    Attributes:
        parts: what to work on, by scope; parts that a pipeline lacks are left out.
        compile: ``regional`` compiles repeated blocks, ``whole`` each part as one, ``none`` not.
        autotune: let Inductor time its matrix products; minutes of warm-up for often little gain.
        coordinate_descent: let Inductor tune each kernel's launch further; warm-up likewise.
        cuda_graphs: replay each part's call as one CUDA graph.
        channels_last: put convolution weights in channels-last memory format.
        fuse_qkv: fuse the attention projections.
        attention: ``probe`` times the kernels that are present at this pipeline's own shapes and
            takes the fastest that keeps the image; or the name of one.
        scheduler: ``no-sync`` removes waits of the host and changes no bit; ``fused`` besides takes
            a step in fewer kernels.
        hold_vae: keep the decoder in the precision that it decodes in, instead of converting all of
            its weights there and back for each image.
        cudnn_benchmark: let cuDNN choose convolution algorithms by timing them.
        ship_cache: keep what was compiled as one file beside the cell's compile cache.
        alone: keep this technique as it is set, and switch off all others.
        cache_file: such a file of another run or machine to start from. It is code: take it from
            nobody you would not take a program from.
    """

    parts: tuple[inductor.ScopeName, ...] = ("unet", "vae.decode", "text_encoders")
    compile: Literal["regional", "whole", "none"] = "regional"
    autotune: bool = False
    coordinate_descent: bool = False
    cuda_graphs: bool = True
    channels_last: bool = True
    fuse_qkv: bool = True
    attention: attention.AttentionChoice = "probe"
    scheduler: scheduling.StepKind = "fused"
    hold_vae: bool = True
    cudnn_benchmark: bool = True
    ship_cache: bool = True
    alone: Technique | None = None
    cache_file: str | None = None


@dataclass(frozen=True)
class TunedEightBitOptions(TunedOptions):
    """Adds which layers to quantise.

    Attributes:
        min_features: linear layers with fewer features on a side keep their precision.
    """

    min_features: int = 512


@dataclass(frozen=True)
class TunedCacheOptions(TunedOptions):
    """Adds how often deep features are computed. ``compile: whole`` is not among the choices.

    Attributes:
        interval: one call of the UNet in this many computes its deep features.
    """

    compile: Literal["regional", "none"] = "regional"
    interval: int = 3

    def __post_init__(self) -> None:
        if self.interval < 2:
            raise ValueError("interval must be 2 or more: at 1, nothing is reused")


class Tuned:
    """The techniques together. What a device or pipeline cannot have is left out, with the reason.

    Attributes:
        before_denoiser: for relatives: called with the denoiser's arguments before each call of it.
    """

    name = "tuned"
    options: type = TunedOptions
    environment = "current"
    traits = Traits(
        compiles="regions of all parts",
        breaks_on_swaps=True,
        replays_graphs=lambda options: bool(options.get("cuda_graphs", True)),
    )
    lossy = False

    def __init__(self) -> None:
        self._techniques: dict[str, str] = {}
        self._details: dict[str, Any] = {}
        self._graphs: dict[str, GraphedCall] = {}
        self._compiles = True
        self._ship: Callable[[], None] | None = None
        self._held: _HeldDecoder | None = None
        self.before_denoiser: Callable[..., None] | None = None

    def probe(self, device: str) -> Verdict:
        """Return whether Inductor works on ``device``."""
        return inductor.probe(device)

    def prepare(self, pipeline: Any, options: Any) -> Scope:
        """Change ``pipeline`` in place; all of it compiles and is captured at its first call."""
        if options.alone is not None:
            others = {name: off for name, off in OFF.items() if name != options.alone}
            options = dataclasses.replace(options, **others)
        parts = _parts_of(pipeline, options.parts)
        device = str(getattr(pipeline, "device", "cpu"))
        on_cuda = device.startswith("cuda")
        self._compiles = options.compile != "none"
        self._load_cache(options, on_cuda)
        # Before what else listens to the scheduler: a schedule that is kept is not computed again.
        scheduler = getattr(pipeline, "scheduler", None)
        if scheduler is not None:
            self._techniques.update(scheduling.apply(scheduler, options.scheduler))
        self._arrange(pipeline, parts, options)
        self.change_denoiser(pipeline, options)
        if options.hold_vae and "vae.decode" in parts:
            self._held = _HeldDecoder(pipeline.vae)
        if options.cudnn_benchmark:
            self._note_cuda("cudnn_benchmark", on_cuda)
            if on_cuda:
                import torch

                torch.backends.cudnn.benchmark = True
        self._wrap(pipeline, parts, options, device)
        return Scope(self._claimed(pipeline, parts, options))

    def change_denoiser(self, pipeline: Any, options: Any) -> None:
        """For relatives that change the image: called between arranging and compiling."""

    def denoiser_variant(self) -> Any:
        """For relatives: on what else the work of the denoiser's call depends."""
        return None

    def evidence(self) -> Evidence:
        """Return which techniques are on, which were left out and why, and what the graphs did."""
        if self._ship is not None:
            self._ship()
        graphs = {name: dataclasses.asdict(each.counts) for name, each in self._graphs.items()}
        if self._held is not None:
            self._techniques["hold_vae"] = self._held.outcome()
        if self._graphs:
            self._techniques["cuda_graphs"] = _graph_status(self._graphs)
        details = {"techniques": dict(self._techniques), "cuda_graphs": graphs, **self._details}
        return Evidence(
            runtime="dynamo" if self._compiles else "modules",
            details=details,
            brought_bytes=self._details.get("cache_loaded_bytes", 0),
        )

    def _note_cuda(self, technique: str, on_cuda: bool) -> None:
        self._techniques[technique] = "on" if on_cuda else "left out: it needs CUDA"

    def _arrange(self, pipeline: Any, parts: tuple[str, ...], options: Any) -> None:
        denoiser = denoiser_name(pipeline)
        if options.fuse_qkv and denoiser in parts:
            asked = inductor.InductorOptions(fuse_qkv=True)
            try:
                inductor.arrange_weights(pipeline, (str(denoiser),), asked)
                self._techniques["fuse_qkv"] = "on"
            except (UnsupportedPipelineError, ValueError) as error:
                self._techniques["fuse_qkv"] = f"left out: {error}"
        if options.channels_last:
            inductor.arrange_weights(pipeline, parts, inductor.InductorOptions(channels_last=True))
            self._techniques["channels_last"] = "on"

    def _wrap(self, pipeline: Any, parts: tuple[str, ...], options: Any, device: str) -> None:
        """Compile each part and put a graph around its call."""
        on_cuda = device.startswith("cuda")
        recorder = CudaRecorder(device) if on_cuda and options.cuda_graphs else None
        if options.cuda_graphs:
            self._note_cuda("cuda_graphs", on_cuda)
        arguments = self._compile_arguments(options, on_cuda)
        regions = _regions_of(pipeline)
        for part in parts:
            owner_name, _, method = part.partition(".")
            owner = getattr(pipeline, owner_name)
            weights = getattr(owner, "decoder", owner) if method == "decode" else owner
            name = method or "forward"
            is_denoiser = part == denoiser_name(pipeline)
            written = getattr(owner, name)
            if options.compile == "regional":
                self._compile_regions(part, weights, regions, arguments)
            elif options.compile == "whole":
                import torch

                setattr(owner, name, torch.compile(written, **arguments))
            if recorder is not None:
                variant = self.denoiser_variant if is_denoiser else lambda: None
                graphed = GraphedCall(getattr(owner, name), recorder, weights, variant)
                self._graphs[part] = graphed
                setattr(owner, name, _plain(graphed, drops=_unused_arguments(owner, method)))
            if is_denoiser:
                self._guide(owner, written, options.attention, device)

    def _compile_arguments(self, options: Any, on_cuda: bool) -> dict[str, Any]:
        """Return the arguments of torch.compile: each shape for itself, tuned as asked."""
        if not self._compiles:
            return {}
        import torch._dynamo

        config: Any = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
        setattr(config, limit, max(getattr(config, limit), RECOMPILES))
        self._techniques["compile"] = options.compile
        tuning: dict[str, Any] = {}
        for wanted, settings in TUNING.items():
            if getattr(options, wanted):
                self._note_cuda(wanted, on_cuda)
                tuning.update(dict.fromkeys(settings, True) if on_cuda else {})
        return {"dynamic": False, **({"options": tuning} if tuning else {})}

    def _compile_regions(
        self, part: str, module: Any, regions: set[str], arguments: dict[str, Any]
    ) -> None:
        inside = [each for each in module.modules() if type(each).__name__ in regions]
        if not inside:
            raise UnsupportedPipelineError(
                f"{part}: {type(module).__name__} has none of the blocks "
                f"{', '.join(sorted(regions))}; use compile: whole, or take it out of parts"
            )
        for region in inside:
            region.compile(**arguments)
        self._details.setdefault("regions", {})[part] = len(inside)

    def _guide(self, denoiser: Any, written: Any, choice: str, device: str) -> None:
        """Put around the denoiser what happens once before, and what before each of its calls."""
        inner = denoiser.forward
        pending = []
        if choice != "as-is":
            technique = f"attention {choice}"
            self._note_cuda(technique, device.startswith("cuda"))
            if device.startswith("cuda"):
                if choice == "probe":
                    pending.append(technique)
                elif why := attention.missing(choice):
                    self._techniques[technique] = f"left out: {why}"
                else:
                    attention.use(choice, denoiser)

        if not pending and self.before_denoiser is None:
            return

        @functools.wraps(inner)
        def guided(*args: Any, **kwargs: Any) -> Any:
            if self.before_denoiser is not None:
                self.before_denoiser(*args, **kwargs)
            if pending:
                call = functools.partial(written, *args, **kwargs)
                self._choose_attention(pending.pop(), denoiser, device, call)
            return inner(*args, **kwargs)

        denoiser.forward = guided

    def _choose_attention(
        self,
        technique: str,
        denoiser: Any,
        device: str,
        call: Callable[[], Any],
    ) -> None:
        with attention.eager():
            shapes = attention.watch_shapes(call)
        chosen, tried = attention.probe(
            shapes, attention.cuda_candidates(), device, attention.seconds_of
        )
        self._techniques[technique] = f"on: {chosen}"
        self._details["attention"] = {
            "chosen": chosen,
            "tried": {
                name: {"seconds": done.seconds, "error": done.error, "reason": done.reason}
                for name, done in tried.items()
            },
        }
        if chosen != "as-is":
            attention.use(chosen, denoiser)

    def _claimed(self, pipeline: Any, parts: tuple[str, ...], options: Any) -> tuple[str, ...]:
        """Return the parts that can be proved: compiled, captured, or with changed weights."""
        if self._compiles or self._graphs:
            return parts
        arranged = {denoiser_name(pipeline)} if self._techniques.get("fuse_qkv") == "on" else set()
        if options.channels_last:
            arranged |= {denoiser_name(pipeline), "vae.decode"}
        return tuple(part for part in parts if part in arranged)

    def _load_cache(self, options: Any, on_cuda: bool) -> None:
        """Start from what was compiled before, and arrange that it is kept afterwards."""
        import torch

        compiler: Any = getattr(torch, "compiler", None)
        if not self._compiles or not (options.ship_cache or options.cache_file is not None):
            return
        if not hasattr(compiler, "save_cache_artifacts"):
            self._techniques["ship_cache"] = "left out: this torch cannot save its compile cache"
            return
        folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        kept = Path(folder).parent / ARTIFACTS if folder else None
        source = Path(options.cache_file) if options.cache_file is not None else kept
        if options.cache_file is not None and not Path(options.cache_file).is_file():
            raise FileNotFoundError(f"cache_file: there is no file {options.cache_file}")
        if source is not None and source.is_file() and not _holds_graphs(folder):
            self._load_artifacts(source, on_cuda, asked=options.cache_file is not None)
        if options.ship_cache and kept is not None:
            self._techniques["ship_cache"] = "on"
            self._ship = functools.partial(self._save_cache, kept)
            atexit.register(self._ship)

    def _load_artifacts(self, source: Path, on_cuda: bool, *, asked: bool) -> None:
        import torch

        compiler: Any = torch.compiler
        loaded = compiler.load_cache_artifacts(source.read_bytes())
        if loaded is None and asked:
            raise ValueError(
                f"cache_file: {source} is no compile cache that torch {torch.__version__} "
                "can read: it was cut off, or saved by another version"
            )
        if loaded is None:
            self._techniques["cache_loaded"] = "nothing: this torch cannot read what was kept"
        elif on_cuda:
            self._techniques["cache_loaded"] = "on"
            self._details["cache_loaded_bytes"] = source.stat().st_size
        else:
            # Found again are graphs and their code, not what the C++ compiler made of it.
            self._techniques["cache_loaded"] = "graphs alone: C++ kernels are compiled anew"

    def _save_cache(self, target: Path) -> None:
        import torch

        if "cache_saved_bytes" in self._details or not target.parent.is_dir():
            return
        compiler: Any = torch.compiler
        saved = compiler.save_cache_artifacts()
        if saved is not None:
            part = target.with_suffix(".part")
            part.write_bytes(saved[0])
            part.replace(target)
            self._details["cache_saved_bytes"] = len(saved[0])


class TunedEightBit(Tuned):
    """Adds eight-bit matrix products in the denoiser."""

    options: type = TunedEightBitOptions
    lossy = True
    precision: quantise.Precision

    def probe(self, device: str) -> Verdict:
        """Return whether torchao and Inductor work on ``device``."""
        verdict = quantise.probe(self.precision, device)
        return inductor.probe(device) if verdict.supported else verdict

    def change_denoiser(self, pipeline: Any, options: Any) -> None:
        """Quantise the denoiser's large linear layers."""
        denoiser = denoiser_of(pipeline)
        if denoiser is None:
            raise UnsupportedPipelineError(f"{type(pipeline).__name__} has no denoiser to quantise")
        regions = _regions_of(pipeline)
        compiled = {
            name for name, part in denoiser.named_modules() if type(part).__name__ in regions
        }
        count = quantise.quantise(
            denoiser,
            self.precision,
            options.min_features,
            within=compiled if options.compile == "regional" else None,
        )
        self._techniques[self.precision] = "on"
        self._details["quantised_layers"] = count


class TunedFp8(TunedEightBit):
    """``tuned`` with fp8 weights and activations."""

    name = "tuned-fp8"
    precision: quantise.Precision = "fp8"


class TunedInt8(TunedEightBit):
    """``tuned`` with int8 weights and activations."""

    name = "tuned-int8"
    precision: quantise.Precision = "int8"


class TunedCache(Tuned):
    """``tuned`` with deep features reused between steps."""

    name = "tuned-cache"
    options: type = TunedCacheOptions
    lossy = True

    def __init__(self) -> None:
        super().__init__()
        self._features: DeepFeatures | None = None

    def change_denoiser(self, pipeline: Any, options: Any) -> None:
        """Wrap the UNet's inner blocks."""
        unet = getattr(pipeline, "unet", None)
        features = DeepFeatures(unet, pipeline.scheduler, options.interval)

        def begin(*args: Any, **kwargs: Any) -> None:
            features.begin_call(args[0] if args else kwargs["sample"])

        self._features, self.before_denoiser = features, begin
        self._techniques["step_cache"] = "on"

    def denoiser_variant(self) -> Any:
        """A call that reuses does other work than one that computes."""
        return self._features is not None and self._features.reusing

    def step_kinds(self) -> list[str]:
        """Return "full" or "shallow" for each denoiser call of the last generation."""
        reused = [] if self._features is None else self._features.reused
        return ["shallow" if each else "full" for each in reused]


def _graph_status(graphs: dict[str, GraphedCall]) -> str:
    """Return of the parts whose calls ran as they are why they did."""
    why = [
        f"{reason} ({part}, {calls} calls)"
        for part, graphed in graphs.items()
        for reason, calls in graphed.counts.uncaptured.items()
    ]
    return "on" if not why else f"on, but {'; '.join(why)}"


def _regions_of(pipeline: Any) -> set[str]:
    """Return the names of the classes that are compiled as regions."""
    return {*REGIONS, *(getattr(denoiser_of(pipeline), "_repeated_blocks", None) or ())}


def _unused_arguments(owner: Any, method: str) -> tuple[str, ...]:
    """Pipelines hand ``decode`` their generator, which this class takes and never draws from."""
    return ("generator",) if (type(owner).__name__, method) == ("AutoencoderKL", "decode") else ()


def _plain(graphed: GraphedCall, drops: tuple[str, ...]) -> Callable[..., Any]:
    """A function, as libraries expect where there was one before."""

    @functools.wraps(graphed)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in drops:
            kwargs.pop(name, None)
        return graphed(*args, **kwargs)

    return call


def _parts_of(pipeline: Any, asked: tuple[str, ...]) -> tuple[str, ...]:
    parts: list[str] = []
    for name in asked:
        try:
            parts.extend(resolve_scope(pipeline, (name,)))
        except UnsupportedPipelineError:
            continue
    if not parts:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} has none of the parts {', '.join(asked)}"
        )
    return tuple(dict.fromkeys(parts))


class _HeldDecoder:
    """Keeps the decoding half of a VAE in the precision in which its pipeline decodes.

    Pipelines whose VAE overflows in float16 convert all of its weights to float32 for each image
    and back. The first time that a pipeline does so, the decoding half goes along and stays; the
    other half still follows every time, so what pipelines ask the VAE for its type stays true. Not
    all pipelines do: some decode in float16 with a VAE of the same kind, which stays as it is then.
    One in bfloat16 is decoded in it, whatever a pipeline does in between.

    Attributes:
        left_out: why there is nothing to hold, or None.
        asked: whether the pipeline has converted it.
    """

    def __init__(self, vae: Any) -> None:
        import torch

        self.left_out: str | None = None
        self.asked = False
        config = getattr(vae, "config", None)
        halves = ("encoder", "quant_conv", "decoder", "post_quant_conv")
        if not getattr(config, "force_upcast", False) or not all(hasattr(vae, h) for h in halves):
            self.left_out = "left out: nothing converts this VAE"
        elif vae.dtype == torch.float32:
            self.left_out = "left out: this VAE is in float32 already"
        if self.left_out is not None:
            return
        overflows = vae.dtype == torch.float16
        encoding, decoding = (
            [part for part in (getattr(vae, name) for name in names) if part is not None]
            for names in (halves[:2], halves[2:])
        )

        def to(*args: Any, **kwargs: Any) -> Any:
            wanted = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.dtype)]
            converts = wanted == [torch.float32] and not self.asked
            self.asked = self.asked or bool(wanted)
            for part in encoding:
                part.to(*args, **kwargs)
            if wanted and not (converts and overflows):
                args = tuple(each for each in args if not isinstance(each, torch.dtype))
                kwargs = {k: v for k, v in kwargs.items() if not isinstance(v, torch.dtype)}
            for part in decoding if args or kwargs else ():
                part.to(*args, **kwargs)
            return vae

        vae.to = to

    def outcome(self) -> str:
        """Return what became of it."""
        if self.left_out is not None:
            return self.left_out
        return "on" if self.asked else "left out: this pipeline converts no VAE"


def _holds_graphs(folder: str | None) -> bool:
    return folder is not None and any(Path(folder).glob("fxgraph/*"))
