"""What ``bench once`` understands of OneDiff's benchmark script: its flags and its lines.

The script is ``benchmarks/text_to_image.py`` of OneDiff; ``docs/onediff-options.md`` lists every
flag of it with the key of a configuration that means the same.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from bench.contract import CONTROL_DRAWINGS, Record

SIDES = (1024, 512, 768, 256)
"""Heights and widths of its run of several resolutions, each with each, in its order."""
THROUGHPUT_STEPS = range(1, 100)
"""Step counts of its throughput run."""
QUANT_TYPE = "fp8_e4m3_e4m3_dynamic"
"""What it quantises to if it is not told."""
KINDS = {
    "int8_dynamic": "int8",
    "int8_weight_only": "int8-weights",
    "fp8_e4m3_e4m3_dynamic": "fp8",
    "fp8_e4m3_e4m3_dynamic_per_tensor": "fp8",
    "fp8_e4m3_weightonly": "fp8-weights",
}
"""Its quant_type by the kinds of the backend torchao."""
QUANTISERS = {"none": {}, "torchao": {}, "torch-compile": {"compile": True}}
"""Compilers that --quantize turns into the backend torchao, and what they add to its options."""
TERMINAL_WIDTH = 80


def lora(text: str, scale: float, fused: bool) -> dict[str, Any]:
    """Return a workload's ``lora``: a file, embedded:NAME, or ORG/NAME[/FILE] on the Hub.

    Raises:
        typer.BadParameter: none of these.
    """
    known = text.startswith(("embedded:", "hub:", ".", "/", "~")) or Path(text).exists()
    slashes = text.count("/")
    named = slashes >= 2 if text.endswith(".safetensors") else slashes == 1
    if named and not known:
        text = f"hub:{text}"
    elif not known and not text.endswith(".safetensors"):
        raise typer.BadParameter(
            f"{text} is no .safetensors file, embedded:NAME or ORG/NAME", param_hint="--lora"
        )
    return {"path": text, "scale": scale, "fused": fused}


def controlnet(text: str) -> str:
    """Return a workload's ``controlnet``: an existing folder is ``path:``, ORG/NAME is ``hub:``.

    Raises:
        typer.BadParameter: neither, and no source is named.
    """
    if text.startswith(("embedded:", "hub:", "path:")):
        return text
    if Path(text).is_dir():
        return f"path:{text}"
    if text.count("/") != 1:
        raise typer.BadParameter(
            f"{text} is no folder, embedded:NAME or ORG/NAME", param_hint="--controlnet"
        )
    return f"hub:{text}"


def control_image(text: str) -> str:
    """Return a workload's ``control_image``; a file must be there.

    Raises:
        typer.BadParameter: there is no such file.
    """
    if text not in CONTROL_DRAWINGS and not Path(text).is_file():
        known = ", ".join(CONTROL_DRAWINGS)
        raise typer.BadParameter(
            f"there is no file {text}; drawn ones are {known}", param_hint="--control-image"
        )
    return text


def settings(option: str, text: str | None) -> dict[str, Any]:
    """Read a mapping from a flag: JSON, or the name of a JSON or YAML file.

    Raises:
        typer.BadParameter: neither, or something else than a mapping.
    """
    if text is None:
        return {}
    written = text
    if not text.lstrip().startswith("{"):
        try:
            written = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeError, ValueError) as error:
            raise typer.BadParameter(
                f"{text} is neither a JSON object nor a file that can be read: {error}",
                param_hint=option,
            ) from None
    try:
        value = json.loads(written) if written is text else yaml.safe_load(written)
    except (ValueError, yaml.YAMLError) as error:
        line = str(error).splitlines()[0]
        raise typer.BadParameter(f"not JSON or YAML: {line}", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter('needs a mapping such as {"a": 1}', param_hint=option)
    return value


def deepcache(backend: str, **options: int | None) -> tuple[str, dict[str, Any]]:
    """Return the backend and options of ``--deepcache``; what is None keeps its default.

    Raises:
        typer.BadParameter: another compiler is asked for too.
    """
    if backend not in ("none", "deepcache"):
        raise typer.BadParameter(
            f"is a backend here and cannot be combined with --compiler {backend}; tuned-cache "
            "compiles and caches",
            param_hint="--deepcache",
        )
    return "deepcache", {name: value for name, value in options.items() if value is not None}


def quantise(
    backend: str, options: dict[str, Any], config: dict[str, Any], submodules: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the backend and options of ``--quantize``.

    Args:
        backend: that ``--compiler`` asks for, with its ``options``.
        config: of ``--quantize-config``: {"quant_type": …} as in that script, or {"kind": …}.
        submodules: of ``--quant-submodules-config-path``: names or patterns of layers by kind,
            None for layers that stay; or {"modules": …, "ignores": […]}.

    Raises:
        typer.BadParameter: a compiler that does not quantise, or an unknown type.
    """
    if backend == "nexfort":
        asked: dict[str, Any] = {"quant_type": QUANT_TYPE, **config}
        return backend, {**options, "quantize": {**asked, **submodules}}
    if backend not in QUANTISERS:
        raise typer.BadParameter(
            f"goes with --compiler none, compile, torchao or nexfort, not {backend}",
            param_hint="--quantize",
        )
    own = dict(config)
    if "quant_type" in own:
        own["kind"] = _kind(own.pop("quant_type"))
    extra = {key: value for key, value in submodules.items() if key in ("modules", "ignores")}
    if submodules and not extra:
        extra = {"modules": submodules}
    if "modules" in extra:
        extra["modules"] = {
            name: None if kind is None else _kind(kind) for name, kind in extra["modules"].items()
        }
    mode = {key: value for key, value in options.items() if key == "mode"}
    return "torchao", {**QUANTISERS[backend], **mode, **own, **extra}


def _kind(value: Any) -> str:
    text = value.get("quant_type") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise typer.BadParameter(f"{value!r} is no kind", param_hint="--quantize-config")
    return KINDS.get(text, text)


def sizes(text: str | None) -> list[str]:
    """Return the sizes of a run of several resolutions, as a sweep's ``size`` takes them.

    Args:
        text: such as ``512,768x1024`` (width x height); None is that script's sixteen.
    """
    if text is None:
        return [f"{width}x{height}" for height in SIDES for width in SIDES]
    return [each.strip() for each in text.split(",") if each.strip()]


def step_counts(text: str | None) -> list[int]:
    """Return the step counts of a throughput run, such as ``1-99`` or ``5,10,20``.

    Raises:
        typer.BadParameter: something else.
    """
    if text is None:
        return list(THROUGHPUT_STEPS)
    try:
        if "-" in text:
            first, last = (int(each) for each in text.split("-"))
            return list(range(first, last + 1))
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text} is neither a range such as 1-99 nor a list such as 5,10,20",
            param_hint="--throughput-steps",
        ) from None


def resolution_lines(record: Record) -> Iterator[str]:
    """Yield what that script prints of its resolutions, and why one has no time."""
    points = record.get("sweep_size") or []
    if points:
        yield "Test run with multiple resolutions..."
    for point in points:
        yield f"Running at resolution: {point['height']}x{point['width']}"
        times = point["e2e_s"]
        if point["outcome"] == "ok" and times:
            yield f"Inference time: {statistics.median(times):.2f} seconds"
        else:
            yield f"No inference time: {point['outcome']}: {point['reason']}"


def throughput_lines(record: Record) -> Iterator[str]:
    """Yield what that script prints of its throughput run, with the median of repeated calls."""
    times: dict[int, list[float]] = {}
    for call in record.get("sweep_steps") or []:
        if call["outcome"] == "ok" and call["e2e_s"]:
            times.setdefault(call["steps"], []).append(call["e2e_s"])
    rates = []
    for steps in sorted(times):
        taken = statistics.median(times[steps])
        rates.append(steps / taken)
        yield (
            f"Steps: {steps}, Inference Time: {taken:.2f} seconds, "
            f"Throughput: {steps / taken:.2f} steps/s"
        )
    if not rates:
        return
    yield f"Average Throughput: {statistics.fmean(rates):.2f} steps/s"
    fit = _line(times)
    if fit is None:
        yield "Throughput without base cost: no line through these times"
        return
    slope, base = fit
    yield f"Throughput without base cost: {1 / slope:.2f} steps/s"
    yield f"Model: Inference Time = {slope:.4g} * Steps + {base:.4g}"


def _line(times: dict[int, list[float]]) -> tuple[float, float] | None:
    """Return (seconds per step, fixed seconds) by least squares, as that script fits."""
    points = [(steps, each) for steps, own in times.items() for each in own]
    if len(times) < 2:
        return None
    slope, base = statistics.linear_regression(*zip(*points, strict=True))
    return (slope, base) if slope > 0 else None


def in_terminal(file: Path) -> list[str]:
    """Return a picture as lines of coloured half blocks, at most `TERMINAL_WIDTH` wide."""
    from PIL import Image

    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    width = min(TERMINAL_WIDTH, picture.width)
    height = max(2, round(picture.height * width / picture.width / 2) * 2)
    pixels = picture.resize((width, height)).load()
    assert pixels is not None
    lines = []
    for y in range(0, height, 2):
        cells = []
        for x in range(width):
            upper, lower = _colour(pixels[x, y]), _colour(pixels[x, y + 1])
            cells.append(f"\x1b[38;2;{upper}m\x1b[48;2;{lower}m\u2580")
        lines.append("".join(cells) + "\x1b[0m")
    return lines


def _colour(pixel: Any) -> str:
    return ";".join(str(channel) for channel in pixel)


def step_kind_lines(record: Record) -> Sequence[str]:
    """Return a line on full and shallow steps, where a backend tells them apart."""
    kinds = record.get("step_kind") or []
    if "shallow" not in kinds:
        return []
    found = _medians_by_kind(kinds, record.get("step_s") or [])
    said = ", ".join(f"{found[kind]:.4f}s {kind}" for kind in ("full", "shallow") if kind in found)
    shallow = kinds.count("shallow")
    return [f"Steps by kind: {len(kinds) - shallow} full, {shallow} shallow; median {said}"]


def _medians_by_kind(kinds: Sequence[str], calls: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return median seconds of full and of shallow steps; interval i ends with step i + 1."""
    times: dict[str, list[float]] = {}
    for call in calls:
        if len(call) == len(kinds) - 1:
            for kind, took in zip(kinds[1:], call, strict=True):
                times.setdefault(kind, []).append(took)
    return {kind: statistics.median(own) for kind, own in times.items()}
