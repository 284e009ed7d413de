"""``bench once``: flags to a configuration, also those of OneDiff's script, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import api
from bench.cli import flags as table
from bench.cli import onediff
from bench.config import Plan, make_plan, parse_config
from bench.passes.sweep.record import Fields as Sweep
from tests.cli import records
from tests.cli.records import GIB, cell, record, typed, typed_of

EMBEDDED = ("--model", "embedded:sdxl")


class Fake:
    """Stands for `bench.api.run`: keeps the configuration and returns a record made by hand."""

    def __init__(self, folder: Path, made: Any) -> None:
        self.path = folder
        self.records = [made]
        self.summary = None
        self.config: Mapping[str, Any] = {}
        self.planned: Plan | None = None

    def __call__(
        self, config: Mapping[str, Any], out: Path | None, *, resume: bool, ui: Any
    ) -> Any:
        assert not resume
        self.config = config
        self.planned = make_plan(parse_config(config))
        return self


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.png")
    made = typed(record(cell(), images=[{"path": "a.png", "seed": 1, "index": 0}]))
    fake = Fake(tmp_path, made)
    monkeypatch.setattr(api, "run", fake)
    return fake


def config(fake: Fake, *flags: str) -> Any:
    result = records.invoke("once", *flags)
    assert result.exit_code == 0, result.output
    return fake.config


def workload(fake: Fake, *flags: str) -> Any:
    return config(fake, *flags)["matrix"]["workload"][0]


def backend(fake: Fake, *flags: str) -> Any:
    return config(fake, *EMBEDDED, *flags)["matrix"]["backend"][0]


def test_defaults_are_those_of_the_script(fake: Fake) -> None:
    assert workload(fake) == {
        "name": "once",
        "task": "text-to-image",
        "model": "hub:SG161222/RealVisXL_V4.0",
        "scheduler": "EulerAncestralDiscreteScheduler",
        "steps": 30,
        "prompt": "best quality, realistic, unreal engine, 4K,a cat sitting on human lap",
        "seed": 333,
        "batch": 1,
    }
    assert fake.config["matrix"]["backend"] == [{"name": "none"}]
    assert "sweep" not in fake.config


def test_every_flag_reaches_the_configuration(fake: Fake, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    made = config(
        fake,
        *("--model", "embedded:sdxl", "--variant", "fp16", "--scheduler", "none", "--steps", "7"),
        *("--prompt", "p", "--negative-prompt", "n", "--seed", "5", "--batch", "2"),
        *("--height", "64", "--width", "72", "--input-image", str(image), "--strength", "0.5"),
        *("--guidance", "3.5", "--dtype", "float16", "--device", "cpu", "--warmups", "12"),
        *("--calls", "4", "--extra-call-kwargs", '{"clip_skip": 1}'),
        *("--backend", "torch-compile", "--compiler-config", '{"mode": "max-autotune"}'),
    )
    assert made["matrix"]["workload"] == [
        {
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
            "input_image": str(image),
            "extra": {"clip_skip": 1},
            "strength": 0.5,
            "guidance": 3.5,
            "dtype": "float16",
        }
    ]
    assert made["device"] == "cpu"
    protocol = made["protocol"]
    assert protocol["warmup"] == {"min_calls": 12, "max_calls": 12}
    assert protocol["calls"] == {"min_calls": 4, "max_calls": 4}
    assert made["matrix"]["backend"] == [
        {"name": "torch-compile", "options": {"mode": "max-autotune"}}
    ]


def test_the_scripts_names_for_torch_compile(fake: Fake) -> None:
    assert backend(fake, "--compiler", "compile") == {"name": "torch-compile"}
    tuned = {"name": "torch-compile", "options": {"mode": "max-autotune"}}
    assert backend(fake, "--compiler", "compile-max-autotune") == tuned
    assert backend(fake, "--backend", "compile-max-autotune", "--compiler-config", "{}") == tuned


def test_additions_reach_the_workload(fake: Fake) -> None:
    made = workload(
        fake, *EMBEDDED, "--lora", "embedded:sepia", "--lora-scale", "0.5", "--lora-unfused",
        "--controlnet", "embedded:edges", "--control-scale", "0.7",
    )  # fmt: skip
    assert made["lora"] == {"path": "embedded:sepia", "scale": 0.5, "fused": False}
    assert (made["controlnet"], made["control_scale"]) == ("embedded:edges", 0.7)
    assert made["control_image"] == "drawn:ellipse"


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("model", "embedded:sdxl", "embedded:sdxl"),
        ("model", "org/name", "path:org/name"),
        ("model", "org/other", "hub:org/other"),
        ("model", "sdxl", "sdxl"),
        ("lora", "ORG/NAME", "hub:ORG/NAME"),
        ("lora", "ORG/NAME/a.safetensors", "hub:ORG/NAME/a.safetensors"),
        ("lora", "a.safetensors", "a.safetensors"),
        ("lora", "./loras/a.safetensors", "./loras/a.safetensors"),
        ("lora", "loras/a.safetensors", "loras/a.safetensors"),
        ("lora", "/loras/b/a.safetensors", "/loras/b/a.safetensors"),
        ("controlnet", "ORG/NAME", "hub:ORG/NAME"),
        ("controlnet", "org/name", "path:org/name"),
    ],
)
def test_sources(
    flag: str, text: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert table.FLAGS[flag].read(text) == value


@pytest.mark.parametrize(
    ("model", "image", "task"),
    [
        ("hub:timbrooks/instruct-pix2pix", "a.png", "edit"),
        ("embedded:pix2pix", None, "edit"),
        ("hub:a/b", "a.png", "image-to-image"),
        ("hub:a/b", None, "text-to-image"),
        ("embedded:none-such", None, "text-to-image"),
    ],
)
def test_the_task_is_inferred(model: str, image: str | None, task: str) -> None:
    assert table.infer_task(model, image) == task


def test_the_task_of_a_folder_is_inferred_from_its_class(tmp_path: Path) -> None:
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionInstructPix2PixPipeline"}))
    assert table.infer_task(f"path:{tmp_path}") == "edit"
    index.write_text("[]")
    assert table.infer_task(f"path:{tmp_path}") == "text-to-image"


def test_deepcache_is_a_backend(fake: Fake) -> None:
    assert backend(fake, "--deepcache", "--cache_interval", "4", "--cache-block-id", "1") == {
        "name": "deepcache",
        "options": {"cache_interval": 4, "cache_block_id": 1},
    }


def test_quantising(fake: Fake, tmp_path: Path) -> None:
    def quantised(*flags: str) -> Any:
        return backend(fake, "--quantize", *flags)

    assert quantised() == {"name": "torchao", "options": {}}
    assert quantised("--quantize-config", '{"quant_type": "int8_dynamic"}')["options"] == {
        "kind": "int8"
    }
    assert quantised("--backend", "compile-max-autotune")["options"] == {
        "compile": True,
        "mode": "max-autotune",
    }
    file = tmp_path / "layers.yaml"
    file.write_text("mid_block: int8_dynamic\n'*to_out*': null\n")
    assert quantised("--quant-submodules-config-path", str(file))["options"] == {
        "modules": {"mid_block": "int8", "*to_out*": None}
    }
    file.write_text(json.dumps({"modules": {"mid_block": "int8"}, "ignores": ["time_embedding"]}))
    assert quantised("--quant-submodules-config-path", str(file))["options"] == {
        "modules": {"mid_block": "int8"},
        "ignores": ["time_embedding"],
    }
    nexfort: dict[str, Any] = {"name": "nexfort", "options": {"mode": "O2"}}
    onediff.quantise(nexfort, {}, {"a": 1})
    assert nexfort["options"] == {
        "mode": "O2",
        "quantize": {"quant_type": onediff.QUANT_TYPE, "a": 1},
    }


def test_resolutions_and_throughput_are_sweeps(fake: Fake) -> None:
    sweep = config(fake, *EMBEDDED, "--run_multiple_resolutions", "--throughput")["sweep"]
    assert sweep["steps"] == list(range(1, 100))
    assert len(sweep["size"]) == 16
    assert sweep["size"][:2] == ["1024x1024", "512x1024"]  # width x height: heights vary slowest
    chosen = ("--resolutions", "64, 64x128", "--throughput-steps", "2,4,6")
    sweep = {"size": ["64", "64x128"], "steps": [2, 4, 6], "repeats": 1}
    assert config(fake, *EMBEDDED, *chosen)["sweep"] == sweep
    assert config(fake, *EMBEDDED, *chosen, "--throughput")["sweep"] == sweep


def test_code_of_ones_own_needs_the_flag(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("")
    custom = (*EMBEDDED, "--custom-pipeline", str(tmp_path))
    result = records.invoke("once", *custom)
    assert result.exit_code == 2
    assert "not run" in result.stderr
    assert config(fake, *custom, "--allow-remote-code")["allow_remote_code"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora", "x"], "'x' is no .safetensors file"),
        (["--controlnet", "x"], "controlnet 'x' must be embedded:NAME"),
        (["--controlnet", "embedded:edges", "--control-image", "x.png"], "does not exist"),
        (["--control-image", "drawn:ellipse"], "means nothing without a 'controlnet'"),
        (["--control-scale", "2"], "means nothing without a 'controlnet'"),
        (["--lora-scale", "2"], "lora of workload 'once' needs the key 'path'"),
        (["--custom-pipeline", "x", "--allow-remote-code"], "does not exist"),
        (["--cache-interval", "3"], "cache_interval"),
        (["--deepcache", "--compiler", "compile"], "cannot be combined with --backend torch-"),
        (["--quantize-config", "{}"], "needs --quantize"),
        (["--quantize", "--backend", "tuned"], "goes with --backend none"),
        (["--compiler-config", "{"], "not JSON"),
        (["--compiler-config", "[1]"], "neither a JSON object nor a file"),
        (["--compiler-config", "none-such.json"], "neither a JSON object nor a file"),
        (["--extra-call-kwargs", "3"], "neither a JSON object nor a file"),
        (["--throughput-steps", "many"], "neither a range"),
        (["--seed", "soon"], "must be a whole number or 'random'"),
        (["--output-image", "x.jpg"], "must end in .png"),
        (["--output-image", "/no/such/folder/x.png"], "no folder /no/such/folder"),
        (["--input-image", "/no/such/picture.png"], "does not exist"),
        (["--warmups", "-1"], "--warmups"),
        (["--calls", "0"], "--calls"),
        (["--steps", "ten"], "--steps"),
    ],
)
def test_what_cannot_be_done_is_refused(fake: Fake, flags: list[str], message: str) -> None:
    result = records.invoke("once", *EMBEDDED, *flags)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert fake.planned is None


def test_the_four_lines_and_what_they_leave_out(fake: Fake, tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    result = records.invoke("once", *EMBEDDED, "--output-image", str(target), "--print-output")
    lines = result.stdout.splitlines()
    for wanted in (
        "Warmup time: 7.000s",
        "Inference time: 2.000s",
        "Iterations per second: 5.000",
        "Max used host memory (rss): 9.000GiB",
        "All warm-up calls: 5.000, 2.000 s",
        "The first of them takes 5.000 s",
        "Steady peak memory: 0.500 GiB (rss)",
        "Outcome: ok",
        f"Image: {target}",
        f"Run: {tmp_path}",
    ):
        assert wanted in lines, (wanted, lines)
    assert target.read_bytes() == (tmp_path / "a.png").read_bytes()
    assert result.output.count("38;2;255;0;0m") == 8


def test_an_image_that_cannot_be_copied_is_1_and_the_run_is_named(
    fake: Fake, tmp_path: Path
) -> None:
    (tmp_path / "a.png").unlink()
    result = records.invoke("once", *EMBEDDED, "--output-image", str(tmp_path / "out.png"))
    assert result.exit_code == 1
    assert "the image is" in result.stderr
    assert f"Run: {tmp_path}" in result.stdout


def test_a_run_without_a_record_keeps_its_exit_code(fake: Fake) -> None:
    fake.records = []
    fake.summary = type("Summary", (), {"exit_code": 1})  # type: ignore[assignment]
    assert records.invoke("once", *EMBEDDED).exit_code == 1


def test_cuda_memory_is_named_so_only_if_it_is() -> None:
    reading = {"meter": "torch.max_memory_allocated", "scope": "process", "phase": "warmup"}
    made = typed(record(cell(), memory=[{**reading, "bytes": 3 * GIB}]))
    assert "Max used CUDA memory : 3.000GiB" in list(onediff.lines(made, 1))


def test_warmup_time_sums_every_warmup_call() -> None:
    made = typed(record(cell(), warmup_s=[5.0, 2.0, 1.0]))
    for asked in (0, 1, 2, 3):
        assert "Warmup time: 8.000s" in list(onediff.lines(made, asked))
    assert "The first 2 of them take 7.000 s" in list(onediff.lines(made, 2))
    for asked in (0, 3):
        assert not any(line.startswith("The first") for line in onediff.lines(made, asked))


def test_what_is_not_ok_gets_no_figure() -> None:
    made = typed(record(cell(), outcome="oom", reason="out of memory"))
    assert list(onediff.lines(made, 1)) == ["Outcome: oom: out of memory"]


def test_lines_of_that_script() -> None:
    made = typed_of(
        {
            "sweep_size": [
                {
                    "order": 0,
                    "height": 64,
                    "width": 128,
                    "e2e_s": [0.5, 0.7, 0.6],
                    "outcome": "ok",
                    "reason": None,
                },
                {
                    "order": 1,
                    "height": 8192,
                    "width": 8,
                    "e2e_s": [],
                    "outcome": "oom",
                    "reason": "too much",
                },
            ],
            "sweep_steps": [
                {"steps": steps, "e2e_s": 0.5 + 0.1 * steps, "outcome": "ok", "reason": None}
                for steps in (5, 1, 10)
            ],
            "step_kind": ["full", "shallow", "shallow", "full"],
            "step_s": [[0.1, 0.2, 0.9], [0.3, 0.2, 0.7]],
        }
    )
    sweep = made.part(Sweep)
    assert list(onediff.resolutions(sweep)) == [
        "Test run with multiple resolutions...",
        "Running at resolution: 64x128",
        "Inference time: 0.60 seconds",
        "Running at resolution: 8192x8",
        "No inference time: oom: too much",
    ]
    lines = list(onediff.throughput(sweep))
    assert lines[0] == "Steps: 1, Inference Time: 0.60 seconds, Throughput: 1.67 steps/s"
    assert lines[-2] == "Throughput without base cost: 10.00 steps/s"
    assert lines[-1] == "Model: Inference Time = 0.1 * Steps + 0.5"
    assert list(onediff.step_kinds(made)) == [
        "Steps by kind: 2 full, 2 shallow; median 0.8000s full, 0.2000s shallow"
    ]
    assert not list(onediff.throughput(Sweep()))
