"""The configurations that ship, and every command and block of YAML in docs/configuration.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.config import load_config, make_plan, schema
from bench.config.catalogue import PROTOCOLS
from tests.config.support import ROOT, plan_of

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def planned(name: str) -> Any:
    return make_plan(load_config(ROOT / "configs" / name))


def test_quickstart() -> None:
    plan = planned("quickstart.yaml")
    assert {(cell["workload"]["task"], cell["backend"]["name"]) for cell in plan.cells} == {
        (task, backend)
        for task in ("text-to-image", "image-to-image", "edit")
        for backend in ("none", "torch-compile-regional")
    }
    for cell in plan.cells:
        made = cell["workload"]
        assert made["model"].startswith("embedded:")
        assert (made["height"], made["width"], made["steps"]) == (128, 128, 10)
        assert cell["threads"] == 1
    assert plan.estimated_seconds < 300


def test_cpu_full_is_the_whole_product() -> None:
    plan = planned("cpu-full.yaml")
    combined = {
        (cell["workload"]["task"], cell["backend"]["name"], cell["workload"]["steps"])
        for cell in plan.cells
    }
    assert len(combined) == plan.count == 3 * 3 * 2
    assert {cell["device"] for cell in plan.cells} == {"cpu"}


def test_realvisxl_is_the_report() -> None:
    plan = planned("realvisxl.yaml")
    assert plan.count == 5 * 3 * 2
    assert {(cell["workload"]["model"], cell["workload"]["task"]) for cell in plan.cells} == {
        ("hub:SG161222/RealVisXL_V4.0", "text-to-image"),
        ("hub:SG161222/RealVisXL_V4.0_Lightning", "text-to-image"),
        ("hub:stabilityai/stable-diffusion-xl-base-1.0", "text-to-image"),
        ("hub:SG161222/RealVisXL_V4.0", "image-to-image"),
        ("hub:timbrooks/instruct-pix2pix", "edit"),
    }
    assert {cell["workload"]["height"] for cell in plan.cells} == {512, 1024}
    for cell in plan.cells:
        made = cell["workload"]
        assert (made["steps"], made["seed"], made["dtype"]) == (10, 333, "float16")
        assert made["scheduler"] == "EulerAncestralDiscreteScheduler"
    assert 20e9 < plan.estimated_download_bytes < 30e9


def test_synthetic_has_the_shape_of_realvisxl() -> None:
    plan, real = planned("synthetic-sdxl.yaml"), planned("realvisxl.yaml")
    assert {cell["backend"]["name"] for cell in plan.cells} == {
        cell["backend"]["name"] for cell in real.cells
    }
    for field in ("steps", "seed", "dtype", "scheduler", "height"):
        assert {cell["workload"][field] for cell in plan.cells} == {
            cell["workload"][field] for cell in real.cells
        }
    assert all(cell["workload"]["model"].startswith("synthetic:") for cell in plan.cells)


def test_gpu_sdxl_is_the_whole_proof() -> None:
    plan = planned("gpu-sdxl.yaml")
    made = [cell["workload"] for cell in plan.cells]
    assert {(each["model"], each["task"]) for each in made} == {
        ("synthetic:sdxl", "text-to-image"),
        ("synthetic:sdxl", "image-to-image"),
        ("synthetic:sd15-pix2pix", "edit"),
        ("synthetic:sdxl-pix2pix", "edit"),
    }
    for field, wanted in (
        ("height", {1024, 512}), ("dtype", {"float16", "bfloat16"}), ("steps", {10, 30}),
        ("batch", {1, 4}), ("seed", {333}),
    ):  # fmt: skip
        assert {dict(each)[field] for each in made} == wanted
    modes = {
        (cell["backend"]["name"], cell["backend"]["options"].get("mode")) for cell in plan.cells
    }
    assert modes >= {
        ("none", None),
        ("torch-compile", "default"),
        ("torch-compile", "max-autotune"),
        ("torch-compile", "reduce-overhead"),
        ("torch-compile-regional", "default"),
        ("tuned", None),
        ("tuned-fp8", None),
        ("tuned-int8", None),
        ("tuned-cache", None),
    }
    assert {cell["cache"] for cell in plan.cells} == {"fresh", "warm"}
    assert any((cell["sweep"] or {}).get("steps") for cell in plan.cells)
    for cell in plan.cells:
        assert cell["protocol"]["rounds"] >= 3
        assert cell["protocol"]["calls"]["min_calls"] >= 10
        assert cell["device"] == "cuda"
        assert cell["profile"] is True


def commands(text: str) -> list[list[str]]:
    """Return the arguments of each ``bench run`` in ``text``."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    lines = [line.lstrip("# ") for line in joined.splitlines()]
    found = []
    for line in lines:
        if re.match(r"bench run +configs/", line):
            # two spaces part a command from what it is for
            found.append(shlex.split(re.sub(r"^bench run +", "", line).split("  ")[0]))
    return found


def plan_command(arguments: list[str]) -> Any:
    named: dict[str, list[str]] = {"--set": [], "--only": []}
    path, *rest = arguments
    while rest:
        option = rest.pop(0)
        if option in named:
            named[option].append(rest.pop(0))
        else:
            assert option in ("--dry-run", "--json", "--all", "--report")
    return make_plan(load_config(ROOT / path, named["--set"], named["--only"]))


ALL_COMMANDS = [
    (path.name, command)
    for path in [*CONFIGS, ROOT / "docs" / "configuration.md"]
    for command in commands(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("source", "command"), ALL_COMMANDS, ids=str)
def test_commands_in_comments_and_docs_plan(source: str, command: list[str]) -> None:
    assert plan_command(command).count >= 1


def test_there_are_commands_to_check() -> None:
    assert len([source for source, _ in ALL_COMMANDS if source == "configuration.md"]) >= 8
    assert {source for source, _ in ALL_COMMANDS} >= {path.name for path in CONFIGS}


BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
AROUND = """\
defaults: {task: text-to-image, model: embedded:sdxl, prompt: a red house}
matrix:
  backend: [none]
"""


@pytest.mark.parametrize("at", range(len(BLOCKS)))
def test_blocks_in_the_docs_plan(tmp_path: Path, at: int) -> None:
    block = BLOCKS[at]
    text = block if re.search(r"^matrix:", block, re.MULTILINE) else AROUND + block
    if re.search(r"^defaults:", block, re.MULTILINE) and text is not block:
        text = block + "matrix:\n  backend: [none]\n"
    plan = plan_of(text, tmp_path)
    count = re.search(r"# (\d+) cells?$", block, re.MULTILINE)
    if count:
        assert plan.count == int(count[1])


def test_tables_on_the_page_are_those_of_the_declarations(tmp_path: Path) -> None:
    """``python -m bench.config.schema docs/configuration.md`` writes them."""
    copy = tmp_path / "configuration.md"
    copy.write_text(PAGE, encoding="utf-8")
    schema.write_tables(copy)
    assert copy.read_text(encoding="utf-8") == PAGE
    named = re.findall(r"<!-- keys: (\w+) -->", PAGE)
    assert len(named) == len(set(named)) == 8


@pytest.mark.parametrize("name", PROTOCOLS)
def test_presets_on_the_page_are_the_presets(name: str) -> None:
    rule = PROTOCOLS[name]
    row = [
        f"`{name}`",
        f"{rule['warmup']['min_calls']} to {rule['warmup']['max_calls']}",
        f"{rule['warmup']['stable_calls']} within {rule['warmup']['stable_pct']:g} %",
        f"{rule['calls']['min_calls']} to {rule['calls']['max_calls']}",
        f"{rule['calls']['noise_target_pct']:g} %",
        f"{rule['calls']['time_cap_s']:g} s",
        f"{rule['rounds']}",
    ]
    assert f"| {' | '.join(row)} |" in PAGE
