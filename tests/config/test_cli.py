"""``bench run --dry-run`` and ``bench schema`` through the real command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench.cli.app import main
from bench.cli.terminal import disk, duration
from bench.config import Plan, load_config, make_plan
from tests.config.support import BASE, ROOT

QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


def bench(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_plan_shows_cells_count_time_and_disk(capsys: Any) -> None:
    code, out, err = bench(capsys, "run", QUICKSTART, "--dry-run")
    plan = make_plan(load_config(QUICKSTART))
    assert (code, err) == (0, "")
    for cell in plan.cells:
        assert cell["name"] in out
    assert f"{plan.count} cells x 2 rounds\n" in out
    assert re.search(r"time +about \d+ (s|min)\n", out)
    assert re.search(r"disk +about .*B in runs/quickstart\n", out)
    assert "not measured on this machine" in out
    assert "10 → 8" in out


def test_plan_as_json_is_the_whole_plan(capsys: Any) -> None:
    code, out, _ = bench(
        capsys,
        "run",
        QUICKSTART,
        "--dry-run",
        "--json",
        "--only",
        "workload=t2i",
        "--set",
        "defaults.seed=4",
    )
    assert code == 0
    assert Plan.from_json(json.loads(out)) == make_plan(
        load_config(QUICKSTART, ["defaults.seed=4"], ["workload=t2i"])
    )


def test_a_long_plan_is_cut_unless_all_of_it_is_asked_for(capsys: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BASE + f"  seed: {list(range(30))}\n")
    _, out, _ = bench(capsys, "run", str(path), "--dry-run")
    assert "… and 20 more; --all shows them" in out
    assert "seed=29" not in out
    _, out, _ = bench(capsys, "run", str(path), "--dry-run", "--all")
    assert "more;" not in out
    assert "seed=29" in out


def test_brackets_in_names_are_no_markup(capsys: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        BASE.replace("torch-compile]", "{name: torch-compile, options: {mode: max-autotune}}]")
    )
    _, out, _ = bench(capsys, "run", str(path), "--dry-run")
    assert "t2i/torch-compile[mode=max-autotune]" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/none-such.yaml"], "none-such.yaml: no such file"),
        (["configs"], "configs: is a directory"),
        ([QUICKSTART, "--set", "steps=0"], "--set steps=0: unknown key 'steps' at the top level"),
        ([QUICKSTART, "--only", "backend=x"], "--only backend=x: no cell has backend 'x'"),
    ],
)
def test_mistakes_end_with_2_and_one_line(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(ROOT)
    code, out, err = bench(capsys, "run", *arguments, "--dry-run")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_schema_is_json_schema(capsys: Any) -> None:
    code, out, _ = bench(capsys, "schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (89, "89 s"),
        (90, "2 min"),
        (1e6, "11.6 days"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (265_000, "265 kB"), (25.1e9, "25.1 GB")]
)
def test_amounts_for_people(count: int, text: str) -> None:
    assert disk(count) == text
