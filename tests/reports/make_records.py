"""Runs that nobody measured: records with known effects, shaped as a worker would leave them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.records.arms import ArmGroup, group
from bench.store.load import load
from reports.analyse import Comparison, compare

FINGERPRINT = {
    "os": "Linux",
    "kernel": "6.1.0",
    "machine": "x86_64",
    "cpu": "Example CPU",
    "cpu_cores": 16,
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "diffusers": "0.42.1", "transformers": "5.23.0"},
    "environment_hash": "d68a8c895c38d5e0",
    "threads": 1,
    "cuda": None,
    "gpu": None,
    "null_reasons": {},
}


@dataclass
class Backend:
    """What a backend does to the baseline's times; ``psnr`` is of its images, None if equal."""

    name: str
    speed: float = 1.0
    compile_s: float = 0.0
    warm_compile_s: float | None = None
    psnr: float | None = None
    memory: float = 1.0
    outcome: str = "ok"
    reason: str | None = None
    lossy: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Workload:
    name: str
    task: str = "text-to-image"
    model: str = "embedded:sdxl"
    steps: int = 10
    step_s: float = 0.07
    fixed_s: float = 0.12
    size: int = 128
    prompt: str = "a big red house on grass under a blue sky"
    synthetic: bool = False
    batch: int = 1


BACKENDS = (
    Backend("none"),
    Backend("torch-compile", 1.42, 48.0, 5.6, 58.0, 1.08),
    Backend("torch-compile-regional", 1.25, 12.7, 3.1, 61.0, 1.03),
)

WORKLOADS = (
    Workload("t2i"),
    Workload("i2i", "image-to-image", prompt="a big white tower on snow at night", step_s=0.066),
    Workload("edit", "edit", "embedded:pix2pix", prompt="make it night", step_s=0.1),
)


def records(
    workloads: Sequence[Workload] = WORKLOADS,
    backends: Sequence[Backend] = BACKENDS,
    *,
    rounds: int = 3,
    calls: int = 8,
    caches: Sequence[str] = ("fresh",),
    seed: int = 0,
    between: float = 0.01,
    within: float = 0.01,
    sweep: Sequence[int] = (),
    sizes: Sequence[int] = (),
    run_id: str = "0123456789ab",
) -> list[dict[str, Any]]:
    """Return records in the order A B B A over rounds. ``between`` and ``within`` are relative."""
    rng = np.random.default_rng(seed)
    found = []
    cells = [
        (w, b, cache)
        for w in workloads
        for b in backends
        for cache in (caches if b.compile_s else ("fresh",))
    ]
    for number in range(rounds):
        for workload, backend, cache in cells if number % 2 == 0 else cells[::-1]:
            luck = float(np.exp(rng.normal(0, between)))
            found.append(
                record(
                    workload,
                    backend,
                    cache,
                    number,
                    rounds,
                    calls,
                    luck,
                    within,
                    rng,
                    sweep,
                    run_id,
                    len(found),
                )
            )
            if sizes and "e2e_s" in found[-1]:
                found[-1]["sweep_size"] = size_calls(sizes, found[-1], backend)
    return found


def record(
    workload: Workload,
    backend: Backend,
    cache: str = "fresh",
    number: int = 0,
    rounds: int = 1,
    calls: int = 8,
    luck: float = 1.0,
    within: float = 0.01,
    rng: np.random.Generator | None = None,
    sweep: Sequence[int] = (),
    run_id: str = "0123456789ab",
    sequence: int = 0,
) -> dict[str, Any]:
    rng = rng or np.random.default_rng(0)
    cell = cell_of(workload, backend, cache, rounds)
    made: dict[str, Any] = {
        "schema": 1,
        "record_id": f"{run_id}-{cell['cell_id']}-r{number}-a0",
        "run_id": run_id,
        "cell_id": cell["cell_id"],
        "name": cell["name"],
        "round": number,
        "attempt": 0,
        "sequence": sequence,
        "cell": cell,
        "device": "cpu",
        "started_utc": "2026-11-21T05:59:27.258+00:00",
        "ended_utc": "2026-11-21T05:59:45.021+00:00",
        "process": {"wall_s": 17.7, "start": "fork", "exit_code": 0, "log": "logs/x.log"},
        "outcome": backend.outcome,
        "reason": backend.reason,
        "last_phase": "finish" if backend.outcome == "ok" else "warmup",
        "cache": cache,
        "fingerprint": FINGERPRINT,
        "load_s": 0.46,
        "pipeline_class": "StableDiffusionXLPipeline",
        "scheduler_class": "EulerDiscreteScheduler",
        "model_revision": "0ba313e473796303",
        "synthetic_weights": workload.synthetic,
        "memory": [reading("load", 0.33, backend), reading("prepare", 0.34, backend)],
        "warnings": [],
        "null_reasons": {},
        "steps_requested": workload.steps,
    }
    if backend.outcome not in ("ok", "fallback", "invalid"):
        return made
    step = workload.step_s / backend.speed * luck
    fixed = workload.fixed_s / backend.speed * luck
    # Each call has a luck of its own and each step a little more.
    noise = np.exp(rng.normal(0, within, calls))
    steps = step * noise[:, None] * np.exp(rng.normal(0, 0.02, (calls, workload.steps)))
    text, decode, post = 0.15 * fixed, 0.75 * fixed, 0.02 * fixed
    compile_s = backend.compile_s
    if cache == "warm" and backend.warm_compile_s is not None:
        compile_s = backend.warm_compile_s
    denoise = steps.sum(axis=1)
    parts = np.stack([noise * text, denoise, noise * decode, noise * post], axis=1)
    rest = noise * (fixed - text - decode - post)
    e2e = parts.sum(axis=1) + rest
    first = compile_s * float(np.exp(rng.normal(0, 0.02))) + float(e2e[0]) * 1.1
    inner = steps[:, 1:]
    made.update(
        {
            "prepare_s": 1e-5,
            "warmup_s": [first, float(e2e[0]) * 1.02, float(e2e[0])],
            "first_call_s": first,
            "warmup_stable": True,
            "compile_s": first - float(np.median(e2e)),
            "backend": {
                "name": backend.name,
                "requested": ["unet"] if backend.compile_s else [],
                "active": backend.outcome != "fallback",
                "scope": ["unet"] if backend.compile_s else [],
                "lossy": backend.lossy,
                "evidence": {
                    "runtime": "inductor",
                    "graphs": 1,
                    "graph_breaks": 0,
                    "recompiles": 0,
                },
            },
            "e2e_s": [float(v) for v in e2e],
            "step_s": [[float(v) for v in call] for call in inner],
            "it_per_s": [float(v) for v in inner.shape[1] / inner.sum(axis=1)],
            "steps_per_s_e2e": [float(v) for v in workload.steps / e2e],
            "stages": [
                {
                    "text_encode_s": float(p[0]),
                    "image_encode_s": 0.0,
                    "denoise_s": float(p[1]),
                    "vae_decode_s": float(p[2]),
                    "post_s": float(p[3]),
                    "unaccounted_s": float(r),
                }
                for p, r in zip(parts, rest, strict=True)
            ],
            "stop_reason": "max_calls",
            "steps_effective": workload.steps,
            "denoiser_calls": workload.steps,
            "denoiser_batch": 2,
            "device_e2e_s": None,
            "null_reasons": {"device_e2e_s": "a CPU has no device events"},
            "memory": [
                *made["memory"],
                reading("warmup", 0.40, backend),
                reading("steady", 0.37, backend),
            ],
            "output_height": workload.size,
            "output_width": workload.size,
            "images": [],
            "ceilings": {"matmul_flops_per_s": 4e10, "copy_bytes_per_s": 8e9, "dtype": "float32"},
            "device_busy": {
                "busy_s": 0.8 * float(np.median(e2e)),
                "loop_busy_s": 0.95 * float(np.median(inner, axis=0).sum()),
            },
        }
    )
    if backend.name == "none":
        made["work"] = {
            "unet": {
                "calls": workload.steps, "flops": 10**9 * workload.steps,
                "bytes": 5 * 10**7 * workload.steps, "weight_bytes": 10**7,
            }
        }  # fmt: skip
    if sweep:
        made["sweep_steps"] = sweep_calls(sweep, step, fixed, within, rng)
    return made


def sweep_calls(
    steps: Sequence[int], step_s: float, fixed_s: float, within: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    order = [n for n in steps for _ in range(3)]
    rng.shuffle(order)
    return [
        {
            "order": i,
            "steps": int(n),
            "denoiser_calls": int(n),
            "steps_effective": int(n),
            "it_per_s": 1 / step_s,
            "outcome": "ok",
            "reason": None,
            "e2e_s": float((fixed_s + n * step_s) * np.exp(rng.normal(0, within))),
        }
        for i, n in enumerate(order)
    ]


def size_calls(
    sizes: Sequence[int], made: dict[str, Any], backend: Backend
) -> list[dict[str, Any]]:
    """Squares of these sides; a backend that compiles does so anew at each but its own."""
    asked = made["cell"]["workload"]
    base = float(np.median(made["e2e_s"]))
    found = []
    for order, side in enumerate(sizes):
        steady = base * (side / asked["width"]) ** 2
        anew = backend.compile_s if side != asked["width"] else 0.0
        found.append(
            {
                "order": order,
                "height": side,
                "width": side,
                "output_height": side,
                "output_width": side,
                "first_s": steady + anew,
                "second_s": steady * 1.05,
                "e2e_s": [steady] * 3,
                "graphs": 1 if anew else 0,
                "recompiles": 1 if anew else 0,
                "outcome": "ok",
                "reason": None,
            }
        )
    return found


def reading(phase: str, gib: float, backend: Backend) -> dict[str, Any]:
    return {
        "meter": "rss",
        "scope": "host",
        "phase": phase,
        "bytes": int(gib * backend.memory * 1024**3),
    }


def cell_of(workload: Workload, backend: Backend, cache: str, rounds: int) -> dict[str, Any]:
    name = f"{workload.name}/{backend.name}" + ("/warm" if cache == "warm" else "")
    told = json.dumps([workload.__dict__, backend.name, backend.options, cache], sort_keys=True)
    cell_id = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {
        "schema": 1,
        "cell_id": cell_id,
        "name": name,
        "workload": {
            "name": workload.name,
            "task": workload.task,
            "model": workload.model,
            "variant": None,
            "scheduler": None,
            "steps": workload.steps,
            "guidance": None,
            "image_guidance": None,
            "strength": None,
            "height": workload.size,
            "width": workload.size,
            "batch": workload.batch,
            "seed": 333,
            "prompt": workload.prompt,
            "negative_prompt": None,
            "input_image": None,
            "dtype": "float32",
            "generator": "cpu",
            "extra": {},
        },
        "backend": {"name": backend.name, "options": backend.options, "environment": "current"},
        "cache": cache,
        "protocol": {
            "warmup": {"min_calls": 2, "max_calls": 4, "stable_calls": 2, "stable_pct": 10.0},
            "calls": {"min_calls": 3, "max_calls": 8, "noise_target_pct": 5.0, "time_cap_s": 60.0},
            "rounds": rounds,
        },
        "device": "auto",
        "threads": 1,
        "limits": {"timeout_s": 1800.0, "memory_bytes": None},
        "allow_remote_code": False,
    }


def groups(*runs: Path) -> list[ArmGroup]:
    """Return what a report reads of runs."""
    return group(load(runs))


def compared(*runs: Path) -> list[Comparison]:
    """Return what a report makes of runs."""
    return compare(groups(*runs))


def write_run(path: Path, made: Sequence[dict[str, Any]]) -> Path:
    """Write records as the run folder ``path``, with a plan of their cells."""
    path.mkdir(parents=True, exist_ok=True)
    cells = {record["cell_id"]: record["cell"] for record in made}
    plan = {
        "schema": 1,
        "run_id": made[0]["run_id"] if made else "0",
        "created_utc": "2026-11-21T05:59:27+00:00",
        "planned_utc": "2026-11-21T05:59:27+00:00",
        "bench_version": "0.1.0",
        "host": {"system": "Linux", "cpu": "Example CPU", "torch": "2.13.0"},
        "plan": {
            "schema": 1,
            "name": path.name,
            "count": len(cells),
            "cells": list(cells.values()),
        },
    }
    (path / "plan.json").write_text(json.dumps(plan))
    lines = (json.dumps(record, separators=(",", ":")) for record in made)
    (path / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return path


def add_pictures(
    path: Path, made: Sequence[dict[str, Any]], backends: Sequence[Backend] = BACKENDS
) -> None:
    """Draw an image for each record that ended ok, off the baseline's by the backend's PSNR."""
    psnr = {backend.name: backend.psnr for backend in backends}
    for record in made:
        if record["outcome"] != "ok":
            continue
        asked = record["cell"]["workload"]
        base = _scene(asked["width"], asked["prompt"])
        off = psnr.get(record["cell"]["backend"]["name"])
        if off is not None:
            rng = np.random.default_rng(7)
            base = base + rng.normal(0, 255 / 10 ** (off / 20), base.shape)
        pixels = np.clip(np.rint(base), 0, 255).astype(np.uint8)
        folder = record["name"].replace("/", "-")
        shown = f"pictures/{folder}/r{record['round']}/seed_333_00000.png"
        file = path / shown
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        record["images"] = [
            {
                "path": shown,
                "seed": 333,
                "index": 0,
                "width": asked["width"],
                "height": asked["height"],
                "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            }
        ]


def _scene(size: int, text: str) -> Any:
    """A sky, a ground and a house, in colours that the prompt decides."""
    hues = np.frombuffer(hashlib.sha256(text.encode()).digest()[:9], np.uint8).reshape(3, 3)
    sky, ground, house = hues.astype(float)
    y, x = np.mgrid[0:size, 0:size] / size
    picture = np.where((y < 0.6)[..., None], sky * (0.6 + 0.4 * y[..., None]), ground)
    inside = (abs(x - 0.5) < 0.2) & (y > 0.35) & (y < 0.75)
    return np.where(inside[..., None], house, picture)
