"""Whether a backend really works in this interpreter, by using it.

``python -m bench.worker.check BACKEND [--device DEVICE] [--options JSON] [--out FILE]`` lets the
backend's own ``prepare`` have a small denoiser with random weights, runs it over a few
steps, compares what comes out with what the same weights gave before, and applies the proof of
activity that measured cells are held to. An import that works proves none of that.

The answer is one JSON object, in FILE or alone on standard output; what libraries print goes to
standard error. The exit status is 0 if the backend works. A library that ends the process leaves no
answer, and its own last words.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.worker import clock as clocks
from bench.worker import compile_cache, evidence, failure, structure, template
from bench.worker.instrument import Instruments
from compilers import packages, registry
from compilers.base import Backend, UnsupportedPipelineError

STEPS = 4
CALLS = 2
TOLERANCE = 0.01
TOLERANCE_LOSSY = 0.5
"""Largest difference allowed, as a share of the largest value that the eager denoiser gives."""

DISTRIBUTIONS = (
    "torch",
    "diffusers",
    "transformers",
    "triton",
    "nexfort",
    "onediff",
    "onediffx",
    "oneflow",
    "stable-fast",
    "DeepCache",
    "torchao",
    "xformers",
    "tensorrt",
    "torch-tensorrt",
)


SMALL = {"min_features": 32}
"""Options that spare layers as small as all of the checked denoiser's are, and what checks them."""


class TinyPipeline:
    """A denoiser and a scheduler, called as diffusers' pipelines call theirs.

    A call returns what the denoiser said in each step, a tensor of shape (steps, 1, 4, 8, 8): the
    latents are mostly the noise that they began as, and would hide a wrong denoiser.
    """

    def __init__(self, device: str) -> None:
        import torch
        from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

        torch.manual_seed(0)
        self.unet: Any = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=8,
        )
        self.unet.to(device).eval()
        self.scheduler: Any = EulerDiscreteScheduler()
        self.device = torch.device(device)
        self._latents = torch.randn(1, 4, 8, 8).to(device)
        self._text = torch.randn(1, 7, 32).to(device)

    @property
    def components(self) -> dict[str, Any]:
        return {"unet": self.unet, "scheduler": self.scheduler}

    def __call__(self, steps: int) -> Any:
        import torch

        with torch.no_grad():
            self.scheduler.set_timesteps(steps, device=self.device)
            latents = self._latents * self.scheduler.init_noise_sigma
            said = []
            for timestep in self.scheduler.timesteps:
                scaled = self.scheduler.scale_model_input(latents, timestep)
                noise = self.unet(
                    scaled, timestep, encoder_hidden_states=self._text, return_dict=False
                )[0]
                said.append(noise.clone())  # a compiler may reuse its output's memory
                latents = self.scheduler.step(noise, timestep, latents, return_dict=False)[0]
        return torch.stack(said)


def check(name: str, device: str, options: dict[str, Any], cache_dir: Path) -> dict[str, Any]:
    """Use backend ``name`` on ``device`` and return the answer, ``ok`` or with a ``reason``.

    ``max_abs_diff`` is in units of the denoiser's output, ``first_call_s`` includes compiling.
    """
    answer: dict[str, Any] = {
        "backend": name,
        "ok": False,
        "reason": None,
        "device": device,
        "max_abs_diff": None,
        "tolerance": None,
        "first_call_s": None,
        "prepare_s": None,
        "lossy": None,
        "evidence": None,
        "versions": installed_versions(),
    }
    doing = "starting"
    try:
        compile_cache.use(cache_dir, "fresh")
        device = answer["device"] = resolved(device)
        backend = registry.get(name)
        answer["lossy"] = backend.lossy
        known = {field.name for field in dataclasses.fields(backend.options)}
        small = {key: value for key, value in SMALL.items() if key in known}
        chosen = registry.make_options(backend, {**small, **options})
        doing = "probing"
        verdict = backend.probe(device)
        if not verdict.supported:
            answer["reason"] = verdict.reason or "its probe gives no reason"
            return answer
        doing = "using the backend"
        answer.update(_used(backend, chosen, device))
        answer["ok"] = answer["reason"] is None
    except (registry.BackendError, UnsupportedPipelineError) as error:
        answer["reason"] = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the answer is why it does not work
        answer["reason"] = failure.sentence(error, doing)
        failure.log(error)
    return answer


def resolved(device: str) -> str:
    """Return the device that ``auto`` stands for, else ``device``, as workers are given it."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if device == "cuda" else device


def installed_versions() -> dict[str, str]:
    """Return Python's version and those of the packages at work that are installed."""
    found = {name: packages.version_of(name) for name in DISTRIBUTIONS}
    return {"python": platform.python_version()} | {k: v for k, v in found.items() if v is not None}


def _used(backend: Backend, options: Any, device: str) -> dict[str, Any]:
    pipeline = TinyPipeline(device)
    clock = clocks.for_device(device)
    expected = pipeline(STEPS).float().cpu()
    before = structure.of(pipeline)
    proof = evidence.Proof(backend, options, pipeline)
    proof.watch.enter(evidence.PREPARE)
    started = clock.now()
    scope = backend.prepare(pipeline, options)
    clock.synchronize()
    prepare_s = clock.now() - started
    proof.watch.leave(evidence.PREPARE)
    proof.prepared(scope, structure.changed_scopes(before, structure.of(pipeline)))
    instruments = Instruments(pipeline, clock)
    instruments.watch = proof.watch
    # The second call too: what is replayed need not be what the first one did.
    samples = [instruments.measure({"steps": STEPS}) for _ in range(CALLS)]
    proof.watch.settle()
    judgement = proof.judge()
    choice: Any = {"name": backend.name, "options": {}, "environment": backend.environment}
    fields = proof.fields(judgement, choice)
    difference = max(float((s.output.float().cpu() - expected).abs().max()) for s in samples)
    share = TOLERANCE_LOSSY if fields["lossy"] else TOLERANCE
    tolerance = share * float(expected.abs().max())
    reason = judgement.reason
    if reason is None and not difference <= tolerance:
        seen = f"{difference:.3g}" if math.isfinite(difference) else "NaN or infinity"
        reason = f"the output differs from eager by {seen}; {tolerance:.3g} is allowed"
    return {
        "reason": reason,
        "max_abs_diff": difference if math.isfinite(difference) else None,
        "tolerance": tolerance,
        "first_call_s": samples[0].e2e_s,
        "prepare_s": prepare_s,
        "lossy": fields["lossy"],
        "evidence": {"active": fields["active"], "scope": fields["scope"], **fields["evidence"]},
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.worker.check", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("backend")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--options", default="{}", help="the backend's options as a JSON object")
    parser.add_argument("--out", type=Path, help="file for the answer; standard output without it")
    given = parser.parse_args(arguments)
    try:
        options = json.loads(given.options)
    except ValueError as error:
        parser.error(f"--options is not JSON: {error}")
    if not isinstance(options, dict):
        parser.error(f"--options must be a JSON object, not {type(options).__name__}")
    # Libraries may print while they work; the answer goes out alone.
    stdout = os.dup(1)
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="bench-check-", ignore_cleanup_errors=True) as folder:
        answer = check(given.backend, given.device, options, Path(folder))
    text = json.dumps(answer, indent=2) + "\n"
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    else:
        os.write(stdout, text.encode())
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    template.leave_working_folder()
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # past a compiler's threads and a device library's destructors
