"""Every command in the README and in docs/ is run, or the part of it that takes no minutes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import app
from bench.records import frame
from bench.store import RunFolder
from tests.cli.records import cell, record

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = {"show", "schema", "list"}
LONG = {"run", "once", "chain", "folder", "capacity", "doctor", "env", "gate"}
IN_ORDER = {"baseline", "compare", "history"}
"""Need what the command before them on the page has made."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            joined = block.replace("\\\n", " ")
            lines = [line.split(" #")[0].strip() for line in joined.splitlines()]
            found += [(page.name, line) for line in lines if line and not line.startswith("#")]
    return found


def verb_of(line: str) -> str | None:
    words = shlex.split(line)
    if words[0] != "bench":
        return None
    return next((word for word in words[1:] if not word.startswith("-")), "")


def is_quick(line: str) -> bool:
    return verb_of(line) in QUICK or "--help" in line or "--dry-run" in line


OURS = [line for _, line in commands() if line.startswith("bench")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A working folder that looks like a checkout in which the quickstart has run."""
    (tmp_path / "configs").mkdir()
    for file in (ROOT / "configs").glob("*.yaml"):
        (tmp_path / "configs" / file.name).write_text(file.read_text())
    with RunFolder.acquire(tmp_path / "runs" / "quickstart") as folder:
        of = cell()
        folder.write_plan({"schema": 1, "name": "quickstart", "cells": [of]}, {}, "0")
        folder.append(record(of))
    return tmp_path


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    bench = f'bench() {{ {shlex.quote(sys.executable)} -m bench.cli "$@"; }}'
    return subprocess.run(
        ["bash", "-euc", f"{bench}\n{line}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_there_are_commands_to_run() -> None:
    assert len(OURS) > 10
    assert {verb_of(line) for line in OURS} >= QUICK


@pytest.mark.parametrize(
    "line",
    [line for line in dict.fromkeys(OURS) if is_quick(line)],
)
def test_quick_commands_run(line: str, checkout: Path) -> None:
    done = shell(line, checkout)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line", [line for line in dict.fromkeys(OURS) if verb_of(line) in LONG and not is_quick(line)]
)
def test_long_commands_are_understood(line: str) -> None:
    """Parse the flags by the command's own parser, without running it."""
    verb, *arguments = shlex.split(line)[1:]
    command = app.load(verb)
    if hasattr(command, "commands"):
        verb, *arguments = arguments
        command = command.commands[verb]
    config = command.make_context(verb, arguments).params.get("config")
    assert config is None or (ROOT / config).is_file()


@pytest.mark.thorough
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_build_on_each_other_run_in_order(page: Path, checkout: Path) -> None:
    shutil.copytree(checkout / "runs/quickstart", checkout / "runs/ci-cpu")
    lines = [line for name, line in commands() if name == page.name]
    for line in [line for line in lines if verb_of(line) in IN_ORDER and "--help" not in line]:
        done = shell(line, checkout)
        assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "line", [x for x in dict.fromkeys(OURS) if verb_of(x) == "audit" and "--help" not in x]
)
def test_audits_run_on_what_ships(line: str) -> None:
    done = shell(line, ROOT)
    assert done.returncode in (0, 1), done.stderr
    assert "finding" in done.stdout.lower()


@pytest.mark.parametrize("line", dict.fromkeys(line for _, line in commands()))
def test_every_command_is_known(line: str) -> None:
    words = shlex.split(line)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # an environment variable before the command
        del words[0]
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[0] == "bench":
        assert verb_of(line) in {*app.VERBS, ""}
    elif words[0] == "python":
        assert Path(ROOT / words[1]).is_file() or words[1] == "-m"
    elif words[0] == "pytest":
        assert (ROOT / words[words.index("--bench-config") + 1]).is_file()
    elif words[0].startswith("scripts/"):
        assert os.access(ROOT / words[0], os.X_OK)
    else:
        assert words[0] in {"pip", "tar", "export"}, line


def test_results_of_a_gpu_come_back_as_the_page_says(tmp_path: Path) -> None:
    lines = [line for name, line in commands() if name == "gpu-proof.md" and "tar " in line]
    packed = tmp_path / "runs" / "gpu-proof" / "results" / "nvidia-h200" / "core-1024"
    packed.mkdir(parents=True)
    (packed / "plan.json").touch()
    (tmp_path / "reports" / "results").mkdir(parents=True)
    for line in lines:
        done = shell(line, tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports/results/nvidia-h200/core-1024/plan.json").is_file()


@pytest.mark.slow
def test_the_long_command_of_the_readme_runs(checkout: Path) -> None:
    done = shell(
        "bench once --model embedded:sdxl --steps 4 --prompt 'a red house' --output-image a.png",
        checkout,
    )
    assert done.returncode == 0, done.stderr
    assert (checkout / "a.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_readmes_python_runs(checkout: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    (checkout / "code.py").write_text(code)
    (checkout / "runs/quickstart").rename(checkout / "runs/earlier")
    done = shell(f"{shlex.quote(sys.executable)} code.py", checkout)
    assert done.returncode == 0, done.stderr
    assert "t2i/none" in done.stdout


def test_the_readmes_python_names_real_columns() -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    compile(code, "README.md", "exec")
    (names,) = re.findall(r"\[\[(.*?)\]\]", code)
    assert {name.strip('" ') for name in names.split(",")} <= set(frame.COLUMNS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in headings, anchor


def test_every_code_block_has_a_language_or_is_output() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)
        assert len(fences) % 2 == 0, page
        assert not any(fences[1::2]), f"{page}: a block is not closed"


def test_the_readme_names_every_verb() -> None:
    text = (ROOT / "README.md").read_text()
    for verb in app.VERBS:
        assert f"bench {verb}" in text, verb
