"""What a plan will roughly cost. An estimate from a fixed table, never from this machine.

A worker's time is start + load + compile + calls x (fixed part + steps x step time). Steps are
scaled by pixels and batch, calls are those that the protocol expects of a quiet machine: halfway
between its minimum and maximum for warm-up and measurement, within the time cap. Each pass adds
what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from bench import chains
from bench.config import backends
from bench.config.catalogue import FAMILIES, family_of
from bench.config.keys import Work
from bench.config.models import shapes
from bench.contract import Cell

START_S = 4.0  # imports, shared between the cells of a round where workers are forked
COMPILED_PARTS = 2.0  # regions of the VAE and the text encoders besides those of the denoiser
WARM_CACHE_SHARE = 0.25  # of a cold compilation, when the compile cache is full
SMALL_IMAGE_SHARE = {"cpu": 0.05, "gpu": 0.5}  # small images leave a GPU idle
IMAGE_BYTES_PER_PIXEL = 1.6  # PNG of a photo-like image
RECORD_BYTES = 40_000  # a record and its log
COMPILE_CACHE_BYTES = {"embedded": 12_000_000, "sd15": 60_000_000, "sdxl": 150_000_000}


def worker_seconds(cell: Cell) -> float:
    """Return the seconds that all rounds of a cell take on a reference machine."""
    workload, device, protocol = cell["workload"], cell["device"], cell["protocol"]
    known = shapes()
    rounds_of = known.tasks[workload["task"]].rounds
    family = FAMILIES[family_of(workload["model"])]
    embedded = workload["model"].startswith("embedded:")
    kind = "cpu" if device == "cpu" or (device == "auto" and embedded) else "gpu"
    cost = family.cpu if kind == "cpu" else family.gpu
    fields = cast("Mapping[str, Any]", workload)

    def seconds(steps: int | None, height: int | None, width: int | None) -> float:
        pixels = (height or workload["height"]) * (width or workload["width"])
        scale = max(pixels / family.size**2, SMALL_IMAGE_SHARE[kind])
        taken = rounds_of(fields, steps or workload["steps"])
        return scale * sum(batch * (cost.fixed_s + n * cost.step_s) for batch, n in taken)

    call_s = seconds(None, None, None)
    warmup, calls = protocol["warmup"], protocol["calls"]
    warmup_calls = (max(warmup["min_calls"], warmup["stable_calls"]) + warmup["max_calls"]) / 2
    measured = (calls["min_calls"] + calls["max_calls"]) / 2
    measured_s = max(calls["min_calls"] * call_s, min(measured * call_s, calls["time_cap_s"]))
    if "calls_planned" in cell:
        measured_s = cell["calls_planned"] * call_s
    measured_s = max(measured_s, workload.get("iterations", 1) * call_s)
    compile_s = {
        "nothing": 0.0,
        "whole": cost.compile_s,
        "regions": cost.regional_s,
        "regions of all parts": COMPILED_PARTS * cost.regional_s,
    }[backends.traits(cell["backend"]["name"]).compiles]
    round_s = START_S + cost.load_s + warmup_calls * call_s + measured_s
    for name, each in known.passes.items():
        value = cell.get(name, each.off)
        if value != each.off:
            round_s += each.seconds(value, Work(seconds, compile_s))
    if cell["cache"] == "warm" and compile_s:
        priming_s = START_S + cost.load_s + compile_s + call_s
        return priming_s + protocol["rounds"] * (round_s + compile_s * WARM_CACHE_SHARE)
    return protocol["rounds"] * (round_s + compile_s)


def cell_bytes(cell: Cell) -> int:
    """Return the bytes that a cell leaves in the run folder: images, records, compile cache.

    A fresh compile cache is gone with its worker; a warm one stays.
    """
    workload = cell["workload"]
    pixels = workload["height"] * workload["width"] * chains.pictures(workload)
    pixels *= cell.get("calls_planned", workload.get("iterations", 1))
    compiles = backends.traits(cell["backend"]["name"]).compiles != "nothing"
    warm = compiles and cell["cache"] == "warm"
    kept = COMPILE_CACHE_BYTES[family_of(workload["model"])] if warm else 0
    return cell["protocol"]["rounds"] * (int(pixels * IMAGE_BYTES_PER_PIXEL) + RECORD_BYTES) + kept


def download_bytes(model: str, variant: str | None) -> int:
    """Return the bytes that a Hub model takes in its cache; 0 for other sources.

    Files of a variant such as fp16 hold 2 bytes a weight, plain files 4.
    """
    if not model.startswith("hub:"):
        return 0
    return FAMILIES[family_of(model)].weights * (2 if variant else 4)
