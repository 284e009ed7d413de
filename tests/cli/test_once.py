from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench import api
from bench.cli import app, once
from bench.config import make_plan, parse_config
from tests.cli.records import GIB, cell, record


class Fake:
    """Stands for `bench.api.run`: keeps the configuration and returns a record made by hand."""

    def __init__(self, folder: Path, made: Any) -> None:
        self.folder = folder
        self.made = made
        self.config: Mapping[str, Any] = {}

    def __call__(self, config: Mapping[str, Any], out: Path | None, ui: Any) -> Any:
        self.config = config
        make_plan(parse_config(config))
        fake = self

        class Run:
            path = fake.folder
            records = (fake.made,)
            summary = None

        return Run


def invoke(monkeypatch: pytest.MonkeyPatch, fake: Fake, *arguments: str) -> Any:
    monkeypatch.setattr(api, "run", fake)
    single = typer.Typer()
    single.command()(once.once)
    return CliRunner().invoke(single, list(arguments))


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    (tmp_path / "a.png").write_bytes(b"picture")
    made = record(cell(), images=[{"path": "a.png", "seed": 1, "index": 0}])
    return Fake(tmp_path, made)


def workload(fake: Fake) -> Any:
    return fake.config["matrix"]["workload"][0]


def test_defaults_are_those_of_the_script(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    result = invoke(monkeypatch, fake)
    assert result.exit_code == 0, result.output
    assert workload(fake) == {
        "name": "once",
        "task": "text-to-image",
        "model": "hub:SG161222/RealVisXL_V4.0",
        "scheduler": "EulerAncestralDiscreteScheduler",
        "steps": 30,
        "prompt": "best quality, realistic, unreal engine, 4K,a cat sitting on human lap",
        "seed": 333,
        "batch": 1,
        "extra": {},
    }
    assert fake.config["matrix"]["backend"] == [{"name": "none", "options": {}}]


def test_every_flag_reaches_the_configuration(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    flags = [
        *("--model", "embedded:sdxl", "--variant", "fp16", "--scheduler", "none", "--steps", "7"),
        *("--prompt", "p", "--negative-prompt", "n", "--seed", "5", "--batch", "2"),
        *("--height", "64", "--width", "72", "--input-image", str(picture), "--strength", "0.5"),
        *("--guidance", "3.5", "--dtype", "float16", "--device", "cpu", "--warmups", "12"),
        *("--calls", "4", "--extra-call-kwargs", '{"clip_skip": 1}'),
        *("--compiler", "torch-compile", "--compiler-config", '{"mode": "max-autotune"}'),
    ]
    result = invoke(monkeypatch, fake, *flags)
    assert result.exit_code == 0, result.output
    assert workload(fake) == {
        "name": "once",
        "task": "image-to-image",
        "model": "embedded:sdxl",
        "variant": "fp16",
        "scheduler": "none",
        "steps": 7,
        "prompt": "p",
        "negative_prompt": "n",
        "seed": 5,
        "batch": 2,
        "height": 64,
        "width": 72,
        "input_image": str(picture),
        "extra": {"clip_skip": 1},
        "strength": 0.5,
        "guidance": 3.5,
        "dtype": "float16",
    }
    assert fake.config["device"] == "cpu"
    protocol = fake.config["protocol"]
    assert protocol["warmup"] == {"min_calls": 12, "max_calls": 12}
    assert protocol["calls"] == {"min_calls": 4, "max_calls": 4}
    assert fake.config["matrix"]["backend"] == [
        {"name": "torch-compile", "options": {"mode": "max-autotune"}}
    ]


@pytest.mark.parametrize(
    ("name", "backend", "options"),
    [
        ("compile", "torch-compile", {}),
        ("compile-max-autotune", "torch-compile", {"mode": "max-autotune"}),
    ],
)
def test_the_scripts_names_for_torch_compile(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, name: str, backend: str, options: Any
) -> None:
    assert invoke(monkeypatch, fake, "--compiler", name).exit_code == 0
    assert fake.config["matrix"]["backend"] == [{"name": backend, "options": options}]


def test_the_four_lines_and_what_they_leave_out(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, tmp_path: Path
) -> None:
    target = tmp_path / "out.png"
    result = invoke(monkeypatch, fake, "--output-image", str(target))
    lines = result.stdout.splitlines()
    for wanted in (
        "Warmup time: 7.000s",
        "Inference time: 2.000s",
        "Iterations per second: 5.000",
        "Max used host memory (rss): 9.000GiB",
        "All warm-up calls: 5.000, 2.000 s",
        "The first of them takes 5.000 s",
        "Steady peak memory: 0.500GiB (rss)",
        "Outcome: ok",
    ):
        assert wanted in lines, (wanted, lines)
    assert target.read_bytes() == b"picture"


def test_cuda_memory_is_named_so_only_if_it_is() -> None:
    reading = {"meter": "torch.max_memory_allocated", "scope": "process", "phase": "warmup"}
    made = record(cell(), memory=[{**reading, "bytes": 3 * GIB}])
    assert "Max used CUDA memory : 3.000GiB" in once.report(made, 1)


def test_warmup_time_sums_every_warmup_call() -> None:
    made = record(cell(), warmup_s=[5.0, 2.0, 1.0])
    for asked in (0, 1, 2, 3):
        assert "Warmup time: 8.000s" in once.report(made, asked)
    assert "The first 2 of them take 7.000 s" in once.report(made, 2)
    assert not any(line.startswith("The first") for line in once.report(made, 3))
    assert not any(line.startswith("The first") for line in once.report(made, 0))


def test_what_is_not_ok_gets_no_figure() -> None:
    lines = once.report(record(cell(), outcome="oom", reason="out of memory"), 1)
    assert lines == ["Outcome: oom: out of memory"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--lora", "x"],
        ["--controlnet", "x"],
        ["--custom-pipeline", "x"],
        ["--cache-interval", "3"],
        ["--quantize-config", "{}"],
        ["--compiler-config", "{"],
        ["--compiler-config", "[1]"],
        ["--extra-call-kwargs", "3"],
        ["--output-image", "x.jpg"],
        ["--output-image", "/no/such/folder/x.png"],
        ["--input-image", "/no/such/picture.png"],
        ["--warmups", "-1"],
        ["--calls", "0"],
        ["--steps", "ten"],
    ],
)
def test_what_cannot_be_done_is_refused(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, flags: list[str]
) -> None:
    result = invoke(monkeypatch, fake, *flags)
    assert result.exit_code == 2
    assert fake.config == {}


def test_sources_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert once.model_source("org/name") == "path:org/name"
    assert once.model_source("org/other") == "hub:org/other"
    assert once.model_source(str(tmp_path)) == f"path:{tmp_path}"
    assert once.model_source("embedded:sdxl") == "embedded:sdxl"


@pytest.mark.parametrize(
    ("model", "picture", "task"),
    [
        ("hub:timbrooks/instruct-pix2pix", Path("a.png"), "edit"),
        ("embedded:pix2pix", None, "edit"),
        ("hub:a/b", Path("a.png"), "image-to-image"),
        ("hub:a/b", None, "text-to-image"),
    ],
)
def test_the_task_is_inferred(model: str, picture: Path | None, task: str) -> None:
    assert once.infer_task(model, picture) == task


def test_the_task_of_a_folder_is_inferred_from_its_class(tmp_path: Path) -> None:
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionInstructPix2PixPipeline"}))
    assert once.infer_task(f"path:{tmp_path}", None) == "edit"
    index.write_text("[]")
    assert once.infer_task("path:" + str(tmp_path), None) == "text-to-image"


def test_a_run_without_a_record_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_measure", lambda config, out: (None, Path("x"), 1))
    result = CliRunner().invoke(app.app, ["once"])
    assert result.exit_code == 1
