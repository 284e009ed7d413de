"""Tables as people publish them, made from laws that hold; and errors to plant in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]

MODELS = ("stabilityai/stable-diffusion-xl-base-1.0", "SG161222/RealVisXL_V4.0",
          "runwayml/stable-diffusion-v1-5", "acme/tiny-unet", "black-forest-labs/FLUX.1-dev",
          "timbrooks/instruct-pix2pix", "acme/wide-net-2b")  # fmt: skip
BACKENDS = ("torch-compile", "nexfort", "oneflow", "tensorrt", "deepcache")
GPUS = ("NVIDIA A100 40GB", "RTX 4090", "NVIDIA L4 24GB", "H100 80GB", "")


@dataclass
class Made:
    """A made table: rows by our names, and which rows an error was planted in."""

    rows: list[Row]
    planted: list[int] = field(default_factory=list)
    check: str = ""
    decimals: dict[str, int] = field(default_factory=dict)


def jitter(rng: random.Random, noise: float) -> float:
    return max(0.5, 1 + rng.gauss(0, noise))


def arms(rng: random.Random, *, models: int | None = None, noise: float | None = None) -> Made:
    """A comparison: networks × sizes × a baseline and other backends, one row each."""
    noise = rng.choice([0.0, 0.002, 0.005, 0.01]) if noise is None else noise
    count = models or rng.randint(1, 3)
    sizes = rng.choice([[512], [1024], [512, 1024], [512, 768, 1024]])
    backends = ["none", *rng.sample(BACKENDS, rng.randint(1, 3))]
    gpu = rng.choice(GPUS)
    claimed = rng.choice([10, 20, 25, 30, 50])
    tasks = rng.choice([["t2i"], ["t2i"], ["t2i", "i2i"]])
    rows: list[Row] = []
    speed = {backend: rng.uniform(1.0, 2.8) for backend in backends[1:]} | {"none": 1.0}
    saves = {backend: rng.uniform(0.8, 1.0) for backend in backends[1:]} | {"none": 1.0}
    more = {backend: rng.uniform(0.9, 1.2) for backend in backends[1:]} | {"none": 1.0}
    warm = {backend: rng.uniform(20, 900) for backend in backends[1:]} | {"none": 2.0}
    for model in rng.sample(MODELS, count):
        rate = rng.uniform(6, 14) if "xl" in model.lower() else rng.uniform(4, 12)
        weights, per_pixel = rng.uniform(3, 7), rng.uniform(1, 5)
        equivalents = rng.uniform(1.2, 6)
        for task in tasks:
            for size in sizes:
                area = (size / 1024) ** 2
                step = area**0.9 / rate
                fixed = equivalents / rate * area**0.8 * (1.1 if task == "i2i" else 1.0)
                for backend in backends:
                    own = step / speed[backend]
                    rows.append(
                        {
                            "model": model, "task": task, "backend": backend, "height": size,
                            "width": size, "steps": claimed, "gpu": gpu,
                            "warmup_s": warm[backend] * jitter(rng, 0.1),
                            "e2e_s": (fixed * saves[backend] + claimed * own) * jitter(rng, noise),
                            "it_per_s": 1 / own * jitter(rng, noise),
                            "peak_gib": (weights + per_pixel * area) * more[backend],
                            "meter": "torch.max_memory_allocated",
                        }
                    )  # fmt: skip
    return Made(rows, decimals={"warmup_s": 3, "e2e_s": 3, "it_per_s": 3, "peak_gib": 3})


def sweep(rng: random.Random, *, noise: float | None = None) -> Made:
    """Step counts × backends of one network."""
    noise = rng.choice([0.0, 0.002, 0.005, 0.01, 0.02]) if noise is None else noise
    steps = sorted(rng.sample([1, 2, 4, 5, 8, 10, 15, 20, 25, 30, 40, 50, 75, 100],
                              rng.randint(5, 10)))  # fmt: skip
    backends = ["none", *rng.sample(BACKENDS, rng.randint(0, 2))]
    rate = rng.uniform(3, 30)
    fixed = rng.uniform(0.05, 0.5)
    with_rate = rng.random() < 0.5
    rows = []
    for backend in backends:
        own = rate * (1 if backend == "none" else rng.uniform(1.1, 2.5))
        for n in steps:
            row: Row = {
                "model": "acme/tiny-unet", "backend": backend, "steps": n, "height": 512,
                "width": 512, "e2e_s": (fixed + n / own) * jitter(rng, noise),
            }  # fmt: skip
            if with_rate:
                row["it_per_s"] = own * jitter(rng, noise)
            rows.append(row)
    return Made(rows, decimals={"e2e_s": 3, "it_per_s": 2})


def batches(rng: random.Random, *, noise: float | None = None) -> Made:
    """Batch generation: a first batch with all steps, further ones with steps × strength."""
    noise = rng.choice([0.0, 0.002, 0.005]) if noise is None else noise
    count = rng.choice([2, 3, 4, 5])
    call = rng.uniform(0.05, 0.5)
    fixed, saving = rng.uniform(0.3, 2), rng.uniform(0, 0.15)
    rows = []
    chosen = [(n, s) for n in (20, 40, 50, 100, 200) for s in (0.5, 0.6, 0.75, 0.9, 1.0)]
    for n, strength in rng.sample(chosen, rng.randint(5, 12)):
        slow = jitter(rng, noise)
        first = (fixed + n * call) * slow
        ran = int(n * strength + 1e-9)
        gap = (0.3 * fixed + ran * call) * slow
        rows.append(
            {
                "gpu": "NVIDIA A100 40GB", "scheduler": "ddim", "samples": count * 3, "batch": 3,
                "n_batches": count, "height": 512, "width": 512, "strength": strength, "steps": n,
                "total_s": first + (count - 1) * gap + saving * count * 3, "first_s": first,
                "gap_s": gap,
            }
        )  # fmt: skip
    return Made(rows, decimals={"total_s": 2, "first_s": 2, "gap_s": 2, "strength": 2})


def memory(rng: random.Random, *, noise: float | None = None) -> Made:
    """Memory of one network at several sizes."""
    noise = rng.choice([0.0, 0.005, 0.01, 0.02]) if noise is None else noise
    base, slope = rng.uniform(1.5, 6), rng.uniform(3, 25)
    shapes = [(w, h) for w in (256, 384, 512, 640, 768, 896, 1024, 1280) for h in (256, 512, 768)]
    rows = [
        {"model": "acme/wide-net-2b", "width": w, "height": h,
         "peak_gib": (base + slope * w * h / 1e6) * jitter(rng, noise)}
        for w, h in rng.sample(shapes, rng.randint(5, 14))
    ]  # fmt: skip
    return Made(rows, decimals={"peak_gib": rng.choice([1, 2, 3])})


def speedups(rng: random.Random, *, noise: float | None = None) -> Made:
    """Times, and what they are against the baseline."""
    rows: list[Row] = []
    percent = rng.random() < 0.5
    for model in rng.sample(MODELS, rng.randint(1, 3)):
        base = rng.uniform(1, 8)
        for backend in ("eager", *rng.sample(BACKENDS, rng.randint(2, 4))):
            time = base if backend == "eager" else base / rng.uniform(1.05, 3)
            row: Row = {"model": model, "backend": backend, "steps": 30, "e2e_s": time}
            if percent:
                row["change_pct"] = 100 * (base - time) / base
            else:
                row["speedup"] = base / time
            rows.append(row)
    return Made(rows, decimals={"e2e_s": 3, "speedup": 2, "change_pct": 1})


def strengths(rng: random.Random, *, noise: float | None = None) -> Made:
    """Image-to-image at several strengths, by schedulers that call once or twice for a step.

    The rate counts steps, as progress bars of diffusers do, or calls of the denoiser.
    """
    noise = rng.choice([0.0, 0.002, 0.005, 0.01]) if noise is None else noise
    call = rng.uniform(0.03, 0.3)
    fixed = rng.uniform(1.2, 5) * call
    schedulers = rng.sample(
        ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "DDIMScheduler", "PNDMScheduler",
         "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"], rng.randint(1, 3),
    )  # fmt: skip
    by_calls, with_rate = rng.random() < 0.5, rng.random() < 0.6
    backends = ["none", *rng.sample(BACKENDS, rng.randint(0, 2))]
    speed = {backend: rng.uniform(1.0, 2.5) for backend in backends[1:]} | {"none": 1.0}
    rows = []
    for scheduler in schedulers:
        twice = "Heun" in scheduler or "KDPM2" in scheduler
        for steps in rng.sample([10, 20, 30, 40, 50], rng.randint(1, 3)):
            for strength in rng.sample([0.3, 0.4, 0.5, 0.6, 0.75, 0.8, 1.0], rng.randint(2, 4)):
                for backend in backends:
                    ran = int(steps * strength + 1e-9)
                    calls = 2 * ran - 1 if twice else ran + 1 if "PNDM" in scheduler else ran
                    loop = calls * call / speed[backend]
                    row: Row = {
                        "model": "acme/wide-net-2b", "task": "i2i", "backend": backend,
                        "scheduler": scheduler, "steps": steps, "strength": strength,
                        "height": 768, "width": 768, "e2e_s": (fixed + loop) * jitter(rng, noise),
                    }  # fmt: skip
                    if with_rate:
                        row["it_per_s"] = (calls if by_calls else ran) / loop * jitter(rng, noise)
                    rows.append(row)
    return Made(rows, decimals={"e2e_s": 3, "it_per_s": 2, "strength": 2})


CLEAN: tuple[Callable[..., Made], ...] = (arms, sweep, batches, memory, speedups, strengths)


# ---- planting ----


def wrong_steps_in_a_row(rng: random.Random) -> Made:
    made = arms(rng, noise=rng.choice([0.002, 0.005, 0.01]))
    while len(made.rows) < 4:
        made = arms(rng, noise=0.005)
    i = rng.randrange(len(made.rows))
    row = made.rows[i]
    ran = row["steps"] * rng.choice([2, 3]) if rng.random() < 0.6 else max(2, row["steps"] // 3)
    row["e2e_s"] += (ran - row["steps"]) / row["it_per_s"]
    return _planted(made, [i], "implied-steps")


def wrong_steps_in_a_network(rng: random.Random) -> Made:
    made = arms(rng, models=2, noise=rng.choice([0.0, 0.005, 0.01]))
    for row in made.rows:
        row["steps"] = 10
    model = made.rows[-1]["model"]
    at = [i for i, row in enumerate(made.rows) if row["model"] == model]
    for i, row in enumerate(made.rows):
        claimed = 10
        base = row["e2e_s"] * row["it_per_s"]
        equivalents = 2.5 if base < claimed else min(max(base - claimed, 1.5), 5)
        row["e2e_s"] = ((30 if i in at else claimed) + equivalents) / row["it_per_s"]
    return _planted(made, at, "implied-steps")


def negative_fixed_cost(rng: random.Random) -> Made:
    made = arms(rng)
    i = rng.randrange(len(made.rows))
    row = made.rows[i]
    row["e2e_s"] = rng.uniform(0.3, 0.8) * row["steps"] / row["it_per_s"]
    return _planted(made, [i], "implied-steps")


def gaps_by_batches(rng: random.Random) -> Made:
    made = batches(rng)
    for row in made.rows:
        row["gap_s"] *= (row["n_batches"] - 1) / row["n_batches"]
    return _planted(made, list(range(len(made.rows))), "wrong-divisor")


def slow_batch_row(rng: random.Random) -> Made:
    made = batches(rng)
    while len(made.rows) < 6:
        made = batches(rng)
    i = rng.randrange(len(made.rows))
    factor = rng.uniform(1.12, 1.4)
    for name in ("total_s", "first_s", "gap_s"):
        made.rows[i][name] *= factor
    return _planted(made, [i], "slow-row")


def stride_overshoot(rng: random.Random) -> Made:
    made = batches(rng)
    while len(made.rows) < 6:
        made = batches(rng)
    first = sorted(made.rows, key=lambda row: row["steps"])
    call = (first[-1]["first_s"] - first[0]["first_s"]) / (first[-1]["steps"] - first[0]["steps"])
    fixed = first[0]["first_s"] - first[0]["steps"] * call
    row = dict(made.rows[0]) | {"steps": 150, "strength": 0.5}
    row["first_s"] = fixed + 167 * call
    row["gap_s"] = 0.3 * fixed + 75 * call
    row["total_s"] = row["first_s"] + (row["n_batches"] - 1) * row["gap_s"]
    made.rows.append(row)
    return _planted(made, [len(made.rows) - 1], "implied-steps")


def slow_sweep_row(rng: random.Random) -> Made:
    made = sweep(rng, noise=rng.choice([0.0, 0.002, 0.005, 0.01]))
    inner = [i for i, row in enumerate(made.rows) if 4 <= row["steps"] <= 75]
    i = rng.choice(inner)
    factor = rng.uniform(1.2, 1.5)
    made.rows[i]["e2e_s"] *= factor
    if "it_per_s" in made.rows[i]:
        made.rows[i]["it_per_s"] /= factor
    return _planted(made, [i], "slow-row")


def mixed_meters(rng: random.Random) -> Made:
    made = arms(rng)
    other = next(row["backend"] for row in made.rows if row["backend"] != "none")
    at = [i for i, row in enumerate(made.rows) if row["backend"] == other]
    for i in at:
        made.rows[i]["meter"] = "nvidia-smi"
    return _planted(made, at, "mixed-meters")


def copied_warmup(rng: random.Random) -> Made:
    made = arms(rng, models=2)
    others = [i for i, row in enumerate(made.rows) if row["backend"] != "none"]
    a, b = rng.sample(others, 2)
    made.rows[b]["warmup_s"] = made.rows[a]["warmup_s"] = max(made.rows[a]["warmup_s"], 100.003)
    return _planted(made, [a, b], "copied-cell")


def copied_quality(rng: random.Random) -> Made:
    made = arms(rng, models=2)
    for row in made.rows:
        row["lpips"] = rng.uniform(0.01, 0.4)
    a, b = rng.sample(range(len(made.rows)), 2)
    while all(made.rows[a][n] == made.rows[b][n] for n in ("model", "task", "height")):
        a, b = rng.sample(range(len(made.rows)), 2)
    made.rows[b]["lpips"] = made.rows[a]["lpips"]
    made.decimals["lpips"] = 7
    return _planted(made, [a, b], "copied-cell")


def shared_label(rng: random.Random) -> Made:
    made = arms(rng, models=2)
    for i, row in enumerate(made.rows):
        row["image_label"] = f"{row['backend']}_{row['height']}_{i}"
    a, b = rng.sample(range(len(made.rows)), 2)
    made.rows[b]["image_label"] = made.rows[a]["image_label"]
    return _planted(made, [a, b], "copied-cell")


def memory_off(rng: random.Random) -> Made:
    made = memory(rng, noise=rng.choice([0.0, 0.005]))
    while len(made.rows) < 6:
        made = memory(rng, noise=0.005)
    i = rng.randrange(1, len(made.rows))
    made.rows[i]["peak_gib"] *= rng.uniform(1.35, 1.6)
    return _planted(made, [i], "memory-line")


def fid_of_one(rng: random.Random) -> Made:
    made = arms(rng)
    at = [i for i, row in enumerate(made.rows) if row["backend"] != "none"]
    for row in made.rows:
        row["n_images"] = 1
        row["fid"] = rng.uniform(3, 40)
    return _planted(made, at, "sample-size")


def moved_baseline(rng: random.Random) -> Made:
    made = speedups(rng)
    at = [
        i for i, row in enumerate(made.rows)
        if row["backend"] != "eager" and made.rows[i - 1]["backend"] != "eager"
    ]  # fmt: skip
    i = rng.choice(at)
    row, before = made.rows[i], made.rows[i - 1]
    while abs(before["e2e_s"] / row["e2e_s"] - 1) < 0.1:
        row["e2e_s"] *= 0.85
    if "speedup" in row:
        row["speedup"] = before["e2e_s"] / row["e2e_s"]
    else:
        row["change_pct"] = 100 * (before["e2e_s"] - row["e2e_s"]) / before["e2e_s"]
    return _planted(made, [i], "moved-baseline")


def average_of_ratios(rng: random.Random) -> Made:
    made = speedups(rng)
    while "speedup" not in made.rows[0] or len({r["model"] for r in made.rows}) < 2:
        made = speedups(rng)
    rated = [row for row in made.rows if row["backend"] != "eager"]
    rated[0]["e2e_s"] *= 0.35
    base = next(r for r in made.rows if r["model"] == rated[0]["model"])
    rated[0]["speedup"] = base["e2e_s"] / rated[0]["e2e_s"]
    for row in made.rows:
        if row["backend"] == "eager":
            row["speedup"] = None
    mean = sum(row["speedup"] for row in rated) / len(rated)
    made.rows.append({"model": "Average", "speedup": mean})
    return _planted(made, [], "average-of-ratios")


def too_good(rng: random.Random) -> Made:
    made = arms(rng, models=1)
    for row in made.rows:
        row["model"] = "stabilityai/stable-diffusion-xl-base-1.0"
        area = (row["height"] / 1024) ** 2
        row["it_per_s"] = (300 if row["backend"] != "none" else 150) / area
        row["e2e_s"] = (row["steps"] + 2.5) / row["it_per_s"]
    at = [i for i, row in enumerate(made.rows) if row["height"] in (512, 1024)]
    return _planted(made, at, "plausibility")


def unequal(field_: str, values: tuple[Any, Any]) -> Callable[[random.Random], Made]:
    def plant(rng: random.Random) -> Made:
        made = arms(rng)
        at = [i for i, row in enumerate(made.rows) if row["backend"] != "none"]
        for i, row in enumerate(made.rows):
            row[field_] = values[1] if i in at else values[0]
        if field_ == "steps":
            for row in made.rows:
                row["e2e_s"] = (row["steps"] + 2.5) / row["it_per_s"]
        return _planted(made, at, "unequal-arms")

    plant.__name__ = f"unequal_{field_}"
    return plant


def wrong_mean(rng: random.Random) -> Made:
    rows = []
    for name in ("a", "b", "c", "d"):
        runs = rng.randint(3, 20)
        mean = rng.uniform(0.5, 5)
        rows.append({"name": name, "runs": runs, "mean_s": mean, "total_s": mean * runs})
    i = rng.randrange(4)
    rows[i]["mean_s"] = rows[i]["total_s"] / (rows[i]["runs"] - 1)
    made = Made(rows, decimals={"mean_s": 4, "total_s": 3})
    return _planted(made, [i], "wrong-divisor")


def rate_by_requested(rng: random.Random) -> Made:
    rows = []
    for i, strength in enumerate((0.3, 0.5, 0.6, 0.8)):
        ran = int(30 * strength)
        time = 0.3 + ran * 0.1
        rows.append({"model": "acme/tiny-unet", "task": "i2i", "backend": "none", "steps": 30,
                     "strength": strength, "e2e_s": time * jitter(rng, 0.005),
                     "height": 512 + 64 * i, "width": 512})  # fmt: skip
        rows[-1]["it_per_s"] = 30 / round(rows[-1]["e2e_s"], 3)
    made = Made(rows, decimals={"e2e_s": 3, "it_per_s": 2})
    return _planted(made, [0, 1, 2, 3], "effective-steps")


PLANTED: tuple[Callable[[random.Random], Made], ...] = (
    wrong_steps_in_a_row, wrong_steps_in_a_network, negative_fixed_cost, gaps_by_batches,
    slow_batch_row, stride_overshoot, slow_sweep_row, mixed_meters, copied_warmup, copied_quality,
    shared_label, memory_off, fid_of_one, moved_baseline, average_of_ratios, too_good,
    unequal("steps", (20, 30)), unequal("torch", ("2.1.0", "2.3.0")),
    unequal("scheduler", ("EulerDiscreteScheduler", "DDIMScheduler")), unequal("warmups", (1, 3)),
    unequal("dtype", ("float32", "float16")), wrong_mean, rate_by_requested,
)  # fmt: skip


def _planted(made: Made, rows: Sequence[int], check: str) -> Made:
    made.planted, made.check = list(rows), check
    return made


# ---- writing ----

NAMES: dict[str, tuple[str, ...]] = {
    "e2e_s": ("inference_s", "e2e_s", "Latency (s)", "Inference time [s]", "end-to-end (s)"),
    "it_per_s": ("iter_per_s", "it/s", "Iterations per second", "it_per_s"),
    "peak_gib": ("peak_mem_gib", "Peak VRAM (GiB)", "max memory (GiB)"),
    "warmup_s": ("warmup_s", "Warm-up (s)", "Warmup time (s)"),
    "steps": ("steps", "num_inference_steps", "Steps", "steps_claimed"),
    "model": ("model", "Model", "network"),
    "backend": ("backend", "Compiler", "compiler"),
    "gpu": ("gpu", "GPU"),
    "total_s": ("total_s", "Total (s)"),
    "first_s": ("TTFI_s", "first_batch_s"),
    "gap_s": ("TBB_s", "time between batches (s)"),
    "speedup": ("speedup", "Speedup", "Speed-up"),
    "change_pct": ("Improvement (%)", "change_pct"),
}


def header(rng: random.Random, name: str) -> str:
    return rng.choice(NAMES.get(name, (name,)))


def cells(made: Made, scale: dict[str, float] | None = None) -> list[list[str]]:
    names = columns(made)
    return [[_cell(row.get(name), made.decimals.get(name)) for name in names] for row in made.rows]


def columns(made: Made) -> list[str]:
    return list(dict.fromkeys(name for row in made.rows for name in row))


def _cell(value: Any, decimals: int | None) -> str:
    if value is None:
        return ""
    return f"{value:.{decimals}f}" if decimals is not None else str(value)


def as_csv(made: Made, rng: random.Random) -> str:
    lines = [[header(rng, name) for name in columns(made)], *cells(made)]
    return "\n".join(",".join(line) for line in lines) + "\n"


def as_markdown(made: Made, rng: random.Random, *, comma: bool = False) -> str:
    heads = [header(rng, name) for name in columns(made)]
    body = cells(made)
    if comma:
        numeric = set(made.decimals)
        body = [
            [c.replace(".", ",") if name in numeric else c
             for name, c in zip(columns(made), line, strict=True)]
            for line in body
        ]  # fmt: skip
    lines = [heads, ["---"] * len(heads), *body]
    return "# Results\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
