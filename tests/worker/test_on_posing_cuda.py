"""Cells on a device that poses as CUDA (tests/posing.py): what only runs there, run here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import posing
from tests.worker import fakes, tiny

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        torch.cuda.is_available()
        or shutil.which("g++") is None
        or not hasattr(torch.library.Library, "fallback"),
        reason="needs a torch from 2.6 on, no GPU, and a C++ compiler",
    ),
]

TUNED = {
    "compile": "none", "channels_last": False, "fuse_qkv": False, "attention": "as-is",
    "scheduler": "no-sync", "cudnn_benchmark": False,
}  # fmt: skip
CELLS: dict[str, dict[str, Any]] = {
    "edit": {"model": "sd15-pix2pix", "task": "edit"},
    "edit-tuned": {"model": "sd15-pix2pix", "task": "edit", "backend": "tuned", "options": TUNED},
    "sdxl": {"model": "sdxl"},
    "sdxl-tuned": {"model": "sdxl", "backend": "tuned", "options": TUNED},
    "sdxl-graphs": {
        "model": "sdxl", "backend": "tuned", "options": {**TUNED, "alone": "cuda_graphs"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("posing")
    jobs = []
    for name, cell in CELLS.items():
        calls = 3 if name == "sdxl-graphs" else 2
        job = fakes.make_job(
            root / name,
            **{"dtype": "float16", "steps": 2, "height": 32, "width": 32, **cell},
            device="cuda:0",
            warmup={"stable_pct": 1e6, "min_calls": calls, "max_calls": calls},
            calls={"min_calls": 1, "max_calls": 1},
        )
        job["cell"]["workload"]["model"] = f"path:{upcasting(root, cell['model'])}"
        jobs.append(job)
    (root / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, "-m", "tests.posing", str(root / "jobs.json")],
        cwd=Path(posing.__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    assert len(lines) == len(CELLS), done.stderr[-4000:]
    return dict(zip(CELLS, lines, strict=True))


def upcasting(root: Path, kind: str) -> Path:
    """A model whose VAE says of itself, as published ones do, that it overflows in float16."""
    model = root / "models" / kind
    if not model.exists():
        shutil.copytree(tiny.shared(kind), model)
        config = model / "vae" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "force_upcast": True}))
    return model


@pytest.mark.parametrize("name", list(CELLS))
def test_a_cell_ends_well_and_its_record_is_filled(told, name):
    record = told[name]
    assert (record["outcome"], record["reason"]) == ("ok", None)
    graphs = record["backend"]["name"] == "tuned"
    assert set(record["null_reasons"]) == {
        "memory.nvml.process_used",
        *(["memory.torch.max_memory_allocated"] if graphs else []),
    }
    for e2e_s, device_s in zip(record["e2e_s"], record["device_e2e_s"], strict=True):
        assert device_s == pytest.approx(posing.CLOCK * e2e_s, rel=0.05)
    for steps, rate in zip(record["step_s"], record["it_per_s"], strict=True):
        assert rate == pytest.approx(len(steps) / sum(steps))
        assert sum(steps) < max(record["device_e2e_s"])
    read = {(each["meter"], each["phase"]): each["bytes"] for each in record["memory"]}
    for phase in ("load", "prepare", "warmup", "steady"):
        reserved = read["torch.max_memory_reserved", phase]
        assert 0 < read["device_used", phase] <= reserved + 1
        # A graph's pool holds memory that belongs to no tensor, so the meter does not see it.
        unseen = graphs and phase == "steady"
        assert read["torch.max_memory_allocated", phase] == (None if unseen else reserved - 1)


@pytest.mark.parametrize(("plain", "tuned"), [("edit", "edit-tuned"), ("sdxl", "sdxl-tuned")])
def test_a_tuned_call_draws_the_same_and_waits_for_its_picture_alone(told, plain, tuned):
    assert told[tuned]["images"][0]["sha256"] == told[plain]["images"][0]["sha256"]
    waits = dict(told[tuned]["waits"][-1])
    waits.pop("copy from pageable memory")  # prompt, picture and noise go up
    assert waits == {"synchronize": 2, "copy to the CPU": 1}
    waits = told[plain]["waits"][-1]
    assert waits["synchronize"] == 2, "at the borders of the call, and nowhere else"
    assert waits["copy to the CPU"] > 1, "the scheduler's own"
    graphs = told[tuned]["backend"]["evidence"]["details"]["cuda_graphs"]
    assert all(each["captures"] == 1 and not each["uncaptured"] for each in graphs.values())


def test_a_vae_is_held_only_where_its_pipeline_converts_it(told):
    said = {
        name: told[name]["backend"]["evidence"]["details"]["techniques"]["hold_vae"]
        for name in ("sdxl-tuned", "edit-tuned")
    }
    assert said == {
        "sdxl-tuned": "on",
        "edit-tuned": "left out: this pipeline converts no VAE",
    }


def test_a_decoder_that_moves_with_every_picture_is_captured_no_more(told):
    graphs = told["sdxl-graphs"]["backend"]["evidence"]["details"]["cuda_graphs"]
    assert graphs["vae.decode"] == {
        "captures": 2, "replays": 2, "uncaptured": {"its weights move from call to call": 1},
    }  # fmt: skip
    assert graphs["unet"]["uncaptured"] == {}
