"""``bench folder``: flags to a configuration, and what is printed of a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import api, folder
from bench.config import make_plan, parse_config
from tests.cli import records
from tests.cli.records import cell, record, typed

SAID = {
    "rows": "rows.jsonl",
    "pictures": 3,
    "ok": 2,
    "failed": 1,
    "carried": 1,
    "median_s": 0.25,
    "images_per_s": 3.5,
    "rss_start_bytes": 100 * 1024**2,
    "rss_end_bytes": 101 * 1024**2,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what calls the verb; ``run.asked`` is the configuration and the keywords of it."""
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / folder.ROWS).write_text(
        '{"cell_id": "c"}\n'
        '{"picture": "a.png", "outcome": "ok", "reason": null}\n'
        '{"picture": "b.png", "outcome": "failed", "reason": "torn"}\n'
    )

    def measure(config: Any, out: Any, *, ui: Any, **more: Any) -> Any:
        make_plan(parse_config(config))
        invoke.asked = (config, out, more)
        made = typed(record(cell(), folder=SAID))
        return type("Run", (), {"path": tmp_path, "records": [made], "summary": None})

    def invoke(*arguments: str) -> Any:
        return records.invoke("folder", str(tmp_path), *arguments)

    monkeypatch.setattr(api, "run", measure)
    return invoke


def test_flags_become_a_folder(run: Any, tmp_path: Path) -> None:
    done = run("--prompt", "make it night", "--model", "embedded:pix2pix", "--size", "64x32")
    assert done.exit_code == 0, done.output
    config, out, more = run.asked
    (workload,) = config["matrix"]["workload"]
    assert workload == {
        "name": "folder",
        "task": "folder",
        "pictures": str(tmp_path),
        "model": "embedded:pix2pix",
        "prompt": "make it night",
        "steps": 10,
        "size": "64x32",
        "resize": "fit",
        "seed": 333,
        "draw_seed": 0,
    }
    assert (out, more) == (None, {"resume": False})


def test_several_prompts_and_models_are_drawn_from_and_a_named_run_is_continued(
    run: Any, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    models = ("--model", "embedded:sdxl", "--model", "embedded:pix2pix")
    done = run("--prompt", "a", "--prompt", "b", *models, "--out", str(place), "--seed", "random")
    assert done.exit_code == 0, done.output
    config, out, more = run.asked
    (workload,) = config["matrix"]["workload"]
    assert workload["prompts"] == ["a", "b"]
    assert workload["models"] == ["embedded:sdxl", "embedded:pix2pix"]
    assert workload["seed"] == "random"
    assert (out, more) == (place, {"resume": True})


def test_what_is_printed(run: Any) -> None:
    told = run("--prompt", "a").output
    for line in (
        "Images: 3, 2 ok, 1 failed",
        "Time per image: 0.250 s (median); 3.50 images a second with reading and saving",
        "Host memory: 100 MiB at the first image, 101 at the last",
        "Resumed: 1 images were done before",
        "  failed: b.png: torn",
        "Outcome: ok",
    ):
        assert line in told.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "say what to draw"), (("--prompt", "a", "--seed", "soon"), "must be a whole number")],
)
def test_wrong_flags_are_refused(run: Any, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
