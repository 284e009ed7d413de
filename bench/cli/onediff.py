"""What ``bench once`` shares with OneDiff's benchmark script: how it quantises, and its lines.

The script is ``benchmarks/text_to_image.py`` of OneDiff; ``docs/onediff-options.md`` lists every
flag of it with the key of a configuration that means the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from bench.cli import printed
from bench.passes.sweep.record import Fields as Sweep
from bench.records import Record
from bench.text import gib

QUANT_TYPE = "fp8_e4m3_e4m3_dynamic"
"""What it quantises to by default."""
KINDS = {
    "int8_dynamic": "int8",
    "int8_weight_only": "int8-weights",
    "fp8_e4m3_e4m3_dynamic": "fp8",
    "fp8_e4m3_e4m3_dynamic_per_tensor": "fp8",
    "fp8_e4m3_weightonly": "fp8-weights",
}
"""Its quant_type by the kinds of the backend torchao."""
QUANTISERS = {"none": {}, "torchao": {}, "torch-compile": {"compile": True}}
"""Backends that --quantize turns into torchao, and what they add to its options."""
RULE = "=" * 39


def deepcache(backend: dict[str, Any]) -> None:
    """Make a configuration's backend that of ``--deepcache``.

    Raises:
        typer.BadParameter: another backend is asked for too.
    """
    if backend["name"] not in ("none", "deepcache"):
        raise typer.BadParameter(
            f"is a backend here and cannot be combined with --backend {backend['name']}; "
            "tuned-cache compiles and caches",
            param_hint="--deepcache",
        )
    backend["name"] = "deepcache"


def quantise(
    backend: dict[str, Any], config: Mapping[str, Any], submodules: Mapping[str, Any]
) -> None:
    """Make a configuration's backend that of ``--quantize``.

    Args:
        config: of ``--quantize-config``: {"quant_type": …} as in that script, or {"kind": …}.
        submodules: of ``--quant-submodules-config-path``: names or patterns of layers by kind,
            None for layers that stay; or {"modules": …, "ignores": […]}.

    Raises:
        typer.BadParameter: a backend that does not quantise, or an unknown type.
    """
    name, options = backend["name"], backend.setdefault("options", {})
    if name == "nexfort":
        options["quantize"] = {"quant_type": QUANT_TYPE, **config, **submodules}
        return
    if name not in QUANTISERS:
        raise typer.BadParameter(
            f"goes with --backend none, torch-compile, torchao or nexfort, not {name}",
            param_hint="--quantize",
        )
    torchao = dict(config)
    if "quant_type" in torchao:
        torchao["kind"] = _kind(torchao.pop("quant_type"))
    extra = {key: value for key, value in submodules.items() if key in ("modules", "ignores")}
    if submodules and not extra:
        extra = {"modules": submodules}
    if "modules" in extra:
        extra["modules"] = {
            layer: None if kind is None else _kind(kind) for layer, kind in extra["modules"].items()
        }
    mode = {key: value for key, value in options.items() if key == "mode"}
    backend.update(name="torchao", options={**QUANTISERS[name], **mode, **torchao, **extra})


def _kind(value: Any) -> str:
    text = value.get("quant_type") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise typer.BadParameter(f"{value!r} is no kind", param_hint="--quantize-config")
    return KINDS.get(text, text)


def lines(record: Record, warmups: int) -> Iterator[str]:
    """Yield the script's four lines, then what they leave out.

    Args:
        warmups: how many calls that script would have warmed up with.
    """
    if record.ok:
        yield f"Warmup time: {record.warmup_total_s or 0:.3f}s"
        yield RULE
        yield f"Inference time: {record.median_e2e_s:.3f}s"
        if record.median_it_per_s is not None:
            yield f"Iterations per second: {record.median_it_per_s:.3f}"
        yield _memory(record)
        yield RULE
        yield from _what_it_leaves_out(record, warmups)
        yield from step_kinds(record)
        yield from _added(record)
        yield from resolutions(record.part(Sweep))
        yield from throughput(record.part(Sweep))
    yield from printed.ending(record)


def _memory(record: Record) -> str:
    """Return the line whose figure that script takes from torch: the peak since the start."""
    for meter, label in (
        ("torch.max_memory_allocated", "Max used CUDA memory "),
        ("rss", "Max used host memory (rss)"),
    ):
        peaks = [each.bytes for each in record.memory if each.meter == meter and each.bytes]
        if peaks:
            return f"{label}: {gib(max(peaks))}GiB"
    return "Max used memory: no meter on this machine; see bench doctor"


def _what_it_leaves_out(record: Record, warmups: int) -> Iterator[str]:
    yield f"Measured calls: {', '.join(f'{time:.3f}' for time in record.e2e_s)} s"
    yield f"All warm-up calls: {', '.join(f'{time:.3f}' for time in record.warmup_s)} s"
    if 0 < warmups < len(record.warmup_s):
        # That script stops there, so this is the figure to hold against its own.
        many = f"{warmups} of them take" if warmups > 1 else "of them takes"
        yield f"The first {many} {sum(record.warmup_s[:warmups]):.3f} s"
    steps = record.steps
    yield (
        f"Steps: {steps.requested} requested, {steps.effective} effective, "
        f"{steps.denoiser_calls} denoiser calls at batch {steps.denoiser_batch}"
    )
    yield from printed.steady_memory(record)
    yield printed.compiled(record)
    if record.synthetic_weights:
        yield "Synthetic weights: times and memory are real, the image is noise"


def _added(record: Record) -> Iterator[str]:
    lora, net, own = record.lora, record.controlnet, record.custom_pipeline
    if lora:
        how = "fused" if lora.fused else "unfused"
        yield f"LoRA: {lora.source}, {how}, {lora.layers_changed} layers changed"
    if net:
        yield f"ControlNet: {net.source}, steered by {', '.join(record.control_images)}"
    if own:
        yield f"Custom pipeline: {own.class_name}"


def resolutions(sweep: Sweep) -> Iterator[str]:
    """Yield what that script prints of its resolutions, and why one has no time."""
    if sweep.sweep_size:
        yield "Test run with multiple resolutions..."
    for point in sweep.sweep_size or ():
        yield f"Running at resolution: {point.height}x{point.width}"
        if point.outcome == "ok" and point.e2e_s:
            yield f"Inference time: {statistics.median(point.e2e_s):.2f} seconds"
        else:
            yield f"No inference time: {point.outcome}: {point.reason}"


def throughput(sweep: Sweep) -> Iterator[str]:
    """Yield what that script prints of its throughput run, with the median of repeated calls."""
    times: dict[int, list[float]] = {}
    for call in sweep.sweep_steps or ():
        if call.outcome == "ok" and call.e2e_s:
            times.setdefault(call.steps, []).append(call.e2e_s)
    medians = {steps: statistics.median(times[steps]) for steps in sorted(times)}
    for steps, taken in medians.items():
        yield (
            f"Steps: {steps}, Inference Time: {taken:.2f} seconds, "
            f"Throughput: {steps / taken:.2f} steps/s"
        )
    if not medians:
        return
    rates = [steps / taken for steps, taken in medians.items()]
    yield f"Average Throughput: {statistics.fmean(rates):.2f} steps/s"
    points = [(steps, each) for steps, taken in times.items() for each in taken]
    slope, base = 0.0, 0.0
    if len(times) > 1:
        # by least squares, as that script fits
        slope, base = statistics.linear_regression(*zip(*points, strict=True))
    if slope <= 0:
        yield "Throughput without base cost: no line through these times"
        return
    yield f"Throughput without base cost: {1 / slope:.2f} steps/s"
    yield f"Model: Inference Time = {slope:.4g} * Steps + {base:.4g}"


def step_kinds(record: Record) -> Iterator[str]:
    """Yield a line on full and shallow steps, where a backend tells them apart."""
    kinds = record.step_kind
    if "shallow" not in kinds:
        return
    times: dict[str, list[float]] = {"full": [], "shallow": []}
    for call in record.step_s:
        if len(call) == len(kinds) - 1:
            # Interval i ends with step i + 1.
            for kind, taken in zip(kinds[1:], call, strict=True):
                times.setdefault(kind, []).append(taken)
    medians = ", ".join(f"{statistics.median(each):.4f}s {k}" for k, each in times.items() if each)
    shallow = kinds.count("shallow")
    yield f"Steps by kind: {len(kinds) - shallow} full, {shallow} shallow; median {medians}"
