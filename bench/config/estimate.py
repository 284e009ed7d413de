"""What a plan will roughly cost. An estimate from a fixed table, never from this machine.

A worker's time is start + load + compile + calls x (fixed part + steps x step time). Steps are
scaled by pixels and batch, calls are those that the protocol expects of a quiet machine: halfway
between its minimum and maximum for warm-up and measurement, within the time cap. A sweep adds
1 + repeats calls for each step count, and for each size 2 + repeats calls and a compilation. A call
of a chain is all of its rounds. Telemetry adds its own time, and `repeat` its calls.
"""

from __future__ import annotations

from bench import chains
from bench.config.catalogue import FAMILIES, family_of
from bench.contract import CellMore, Protocol, Sweep, Workload
from compilers import registry

START_S = 4.0  # imports, shared between the cells of a round where workers are forked
WARM_CACHE_SHARE = 0.25  # of a cold compilation, when the compile cache is full
SMALL_PICTURE_SHARE = {"cpu": 0.05, "gpu": 0.5}  # small pictures leave a GPU idle
PICTURE_BYTES_PER_PIXEL = 1.6  # PNG of a photo-like picture
RECORD_BYTES = 40_000  # a record and its log
COMPILE_CACHE_BYTES = {"embedded": 12_000_000, "sd15": 60_000_000, "sdxl": 150_000_000}


def worker_seconds(
    workload: Workload,
    backend: str,
    cache: str,
    device: str,
    protocol: Protocol,
    sweep: Sweep | None = None,
    more: CellMore | None = None,
) -> float:
    """Return the seconds that all rounds of a cell take on a reference machine."""
    more = more or {}
    calls_planned = more.get("calls_planned")
    family = FAMILIES[family_of(workload["model"])]
    embedded = workload["model"].startswith("embedded:")
    kind = "cpu" if device == "cpu" or (device == "auto" and embedded) else "gpu"
    cost = family.cpu if kind == "cpu" else family.gpu

    def seconds(steps: int, height: int, width: int) -> float:
        scale = max(height * width / family.size**2, SMALL_PICTURE_SHARE[kind])
        strength = workload["strength"]
        later = steps if strength is None else chains.diffusers_steps(steps, strength)
        if workload["task"] == chains.TASK:
            taken = [(each.batch, later if each.number else steps) for each in chains.of(workload)]
        else:
            taken = [(workload["batch"], later)]
        return scale * sum(batch * (cost.fixed_s + n * cost.step_s) for batch, n in taken)

    own_size = (workload["height"], workload["width"])
    call_s = seconds(workload["steps"], *own_size)
    warmup, calls = protocol["warmup"], protocol["calls"]
    warmup_calls = (max(warmup["min_calls"], warmup["stable_calls"]) + warmup["max_calls"]) / 2
    measured = (calls["min_calls"] + calls["max_calls"]) / 2
    measured_s = max(calls["min_calls"] * call_s, min(measured * call_s, calls["time_cap_s"]))
    if calls_planned is not None:
        measured_s = calls_planned * call_s
    measured_s = max(measured_s, workload.get("iterations", 1) * call_s)
    compile_s = _compile_s(backend, cost.compile_s, cost.regional_s)
    round_s = START_S + cost.load_s + warmup_calls * call_s + measured_s
    if "telemetry" in more:
        asked = more["telemetry"]
        round_s += 2 * asked["idle_s"] + max(asked["time_s"], asked["min_calls"] * call_s)
    round_s += more.get("repeat", 0) * call_s
    if sweep is not None:
        repeats = sweep["repeats"]
        round_s += (1 + repeats) * sum(seconds(steps, *own_size) for steps in sweep["steps"])
        for size in sweep["size"]:
            call = seconds(workload["steps"], size["height"], size["width"])
            round_s += compile_s + (2 + repeats) * call
    if cache == "warm" and compile_s:
        priming_s = START_S + cost.load_s + compile_s + call_s
        return priming_s + protocol["rounds"] * (round_s + compile_s * WARM_CACHE_SHARE)
    return protocol["rounds"] * (round_s + compile_s)


def _compile_s(backend: str, whole_s: float, regional_s: float) -> float:
    regions = registry.traits_of(backend).regions
    return whole_s if regions is None else regions * regional_s


def cell_bytes(
    workload: Workload, backend: str, cache: str, rounds: int, calls_planned: int | None = None
) -> int:
    """Return the bytes that a cell leaves in the run folder: pictures, records, compile cache.

    A fresh compile cache is gone with its worker; a warm one stays.
    """
    pixels = workload["height"] * workload["width"] * chains.pictures(workload)
    pixels *= workload.get("iterations", 1) if calls_planned is None else calls_planned
    compiles = registry.traits_of(backend).compiles and cache == "warm"
    kept = COMPILE_CACHE_BYTES[family_of(workload["model"])] if compiles else 0
    return rounds * (int(pixels * PICTURE_BYTES_PER_PIXEL) + RECORD_BYTES) + kept


def download_bytes(model: str, variant: str | None) -> int:
    """Return the bytes that a Hub model takes in its cache; 0 for other sources.

    Files of a variant such as fp16 hold 2 bytes a weight, plain files 4.
    """
    if not model.startswith("hub:"):
        return 0
    return FAMILIES[family_of(model)].weights * (2 if variant else 4)
