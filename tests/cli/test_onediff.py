"""Flags of OneDiff's script in bench once: what they become, and that script's lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.cli import onediff
from tests.cli.records import cell, record
from tests.cli.test_once import Fake, invoke, workload

EMBEDDED = ("--model", "embedded:sdxl")


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.png")
    return Fake(tmp_path, record(cell(), images=[{"path": "a.png", "seed": 1, "index": 0}]))


def config(monkeypatch: pytest.MonkeyPatch, fake: Fake, *flags: str) -> Any:
    result = invoke(monkeypatch, fake, *EMBEDDED, *flags)
    assert result.exit_code == 0, result.output
    return fake.config


def refusal(monkeypatch: pytest.MonkeyPatch, fake: Fake, *flags: str) -> str:
    result = invoke(monkeypatch, fake, *EMBEDDED, *flags)
    assert result.exit_code == 2
    return " ".join(result.output.replace("│", " ").split())


def test_additions_reach_the_workload(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    config(
        monkeypatch, fake, "--lora", "embedded:sepia", "--lora-scale", "0.5", "--lora-unfused",
        "--controlnet", "embedded:edges", "--control-scale", "0.7",
    )  # fmt: skip
    made = workload(fake)
    assert made["lora"] == {"path": "embedded:sepia", "scale": 0.5, "fused": False}
    assert (made["controlnet"], made["control_scale"]) == ("embedded:edges", 0.7)
    assert made["control_image"] == "drawn:ellipse"


def test_hub_names_are_understood(tmp_path: Path) -> None:
    assert onediff.lora("ORG/NAME", 1.0, True)["path"] == "hub:ORG/NAME"
    assert onediff.lora("ORG/NAME/a.safetensors", 1.0, True)["path"] == (
        "hub:ORG/NAME/a.safetensors"
    )
    assert onediff.lora("a.safetensors", 1.0, True)["path"] == "a.safetensors"
    assert onediff.lora("./loras/a.safetensors", 1.0, True)["path"] == "./loras/a.safetensors"
    assert onediff.lora("loras/a.safetensors", 1.0, True)["path"] == "loras/a.safetensors"
    assert onediff.lora("/loras/b/a.safetensors", 1.0, True)["path"] == "/loras/b/a.safetensors"
    assert onediff.controlnet("ORG/NAME") == "hub:ORG/NAME"
    assert onediff.controlnet(str(tmp_path)) == f"path:{tmp_path}"


def test_deepcache_is_a_backend(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    made = config(
        monkeypatch, fake, "--deepcache", "--cache_interval", "4", "--cache-block-id", "1"
    )
    assert made["matrix"]["backend"] == [
        {
            "name": "deepcache",
            "options": {"cache_interval": 4, "cache_block_id": 1},
        }
    ]
    said = refusal(monkeypatch, fake, "--deepcache", "--compiler", "compile")
    assert "cannot be combined with --compiler torch-compile" in said


def test_quantising(monkeypatch: pytest.MonkeyPatch, fake: Fake, tmp_path: Path) -> None:
    def backend(*flags: str) -> Any:
        return config(monkeypatch, fake, "--quantize", *flags)["matrix"]["backend"][0]

    assert backend() == {"name": "torchao", "options": {}}
    assert backend("--quantize-config", '{"quant_type": "int8_dynamic"}')["options"] == {
        "kind": "int8"
    }
    assert backend("--compiler", "compile-max-autotune")["options"] == {
        "compile": True,
        "mode": "max-autotune",
    }
    file = tmp_path / "layers.yaml"
    file.write_text("mid_block: int8_dynamic\n'*to_out*': null\n")
    assert backend("--quant-submodules-config-path", str(file))["options"] == {
        "modules": {"mid_block": "int8", "*to_out*": None}
    }
    file.write_text(json.dumps({"modules": {"mid_block": "int8"}, "ignores": ["time_embedding"]}))
    assert backend("--quant-submodules-config-path", str(file))["options"] == {
        "modules": {"mid_block": "int8"},
        "ignores": ["time_embedding"],
    }
    nexfort = onediff.quantise("nexfort", {"mode": "O2"}, {}, {"a": 1})
    assert nexfort[1]["quantize"] == {"quant_type": onediff.QUANT_TYPE, "a": 1}
    assert "needs --quantize" in refusal(monkeypatch, fake, "--quantize-config", "{}")
    assert "goes with --compiler none" in refusal(
        monkeypatch, fake, "--quantize", "--compiler", "tuned"
    )


def test_resolutions_and_throughput_are_sweeps(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    sweep = config(monkeypatch, fake, "--run_multiple_resolutions", "--throughput")["sweep"]
    assert sweep["steps"] == list(range(1, 100))
    assert len(sweep["size"]) == 16
    assert sweep["size"][:2] == ["1024x1024", "512x1024"]  # width x height: heights vary slowest
    sweep = config(monkeypatch, fake, "--resolutions", "64, 64x128", "--throughput-steps", "2,4,6")
    assert sweep["sweep"] == {"size": ["64", "64x128"], "steps": [2, 4, 6], "repeats": 1}
    assert config(monkeypatch, fake)["sweep"] is None
    assert "neither a range" in refusal(monkeypatch, fake, "--throughput-steps", "many")


def test_code_of_ones_own_needs_the_flag(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.py").write_text("")
    result = invoke(monkeypatch, fake, *EMBEDDED, "--custom-pipeline", str(tmp_path))
    assert result.exit_code != 0
    assert "not run" in str(result.exception)
    made = config(monkeypatch, fake, "--custom-pipeline", str(tmp_path), "--allow-remote-code")
    assert made["allow_remote_code"] is True


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--control-image", "x.png"), "needs --controlnet"),
        (("--controlnet", "embedded:edges", "--control-image", "x.png"), "there is no file x.png"),
        (("--compiler-config", "none-such.json"), "neither a JSON object nor a file"),
        (("--compiler-config", "{"), "not JSON"),
    ],
)
def test_nonsense(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, flags: tuple[str, ...], said: str
) -> None:
    assert said in refusal(monkeypatch, fake, *flags)


def test_a_picture_in_the_terminal(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    result = invoke(monkeypatch, fake, *EMBEDDED, "--print-output")
    assert result.output.count("38;2;255;0;0m") == 8


def test_lines_of_that_script() -> None:
    made: Any = {
        "sweep_size": [
            {"height": 64, "width": 128, "e2e_s": [0.5, 0.7, 0.6], "outcome": "ok", "reason": None},
            {"height": 8192, "width": 8, "e2e_s": [], "outcome": "oom", "reason": "too much"},
        ],
        "sweep_steps": [
            {"steps": steps, "e2e_s": 0.5 + 0.1 * steps, "outcome": "ok", "reason": None}
            for steps in (5, 1, 10)
        ],
        "step_kind": ["full", "shallow", "shallow", "full"],
        "step_s": [[0.1, 0.2, 0.9], [0.3, 0.2, 0.7]],
    }
    assert list(onediff.resolution_lines(made)) == [
        "Test run with multiple resolutions...",
        "Running at resolution: 64x128",
        "Inference time: 0.60 seconds",
        "Running at resolution: 8192x8",
        "No inference time: oom: too much",
    ]
    lines = list(onediff.throughput_lines(made))
    assert lines[0] == "Steps: 1, Inference Time: 0.60 seconds, Throughput: 1.67 steps/s"
    assert lines[-2] == "Throughput without base cost: 10.00 steps/s"
    assert lines[-1] == "Model: Inference Time = 0.1 * Steps + 0.5"
    assert list(onediff.step_kind_lines(made)) == [
        "Steps by kind: 2 full, 2 shallow; median 0.8000s full, 0.2000s shallow"
    ]
    assert not list(onediff.throughput_lines({}))
