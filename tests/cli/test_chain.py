from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import api
from bench import chains as layout
from bench.cli import printed
from bench.records import frame
from tests.cli.records import GIB, cell, invoke, record, typed

OF_A_ROUND = {"outcome": "ok", "steps_requested": 8, "denoiser_batch": 4}


def chained(samples: int = 4, max_batch: int = 2, **fields: Any) -> Any:
    """Return a record of a chain: first pictures after 2 s, 1 s between rounds, measured twice."""
    asked = {
        "task": "chain",
        "name": "c",
        "samples": samples,
        "max_batch": max_batch,
        "batch": max_batch,
        "start_from": "first",
        "strength": 0.75,
        "steps": 8,
    }
    found = layout.rounds(samples, max_batch, "first")
    gaps = [1.0] * (len(found) - 1)
    total = 2.0 + sum(gaps)
    images = fields.get("images") or []
    return record(
        cell(**asked),
        [total, total],
        ttfi_s=[2.0, 2.0],
        gaps_s=[gaps, gaps],
        tbb_s=[1.0 if gaps else None] * 2,
        images_per_s=[samples / total] * 2,
        chain_rounds=[
            {
                **OF_A_ROUND,
                "round": each.number,
                "task": "image-to-image" if each.number else "text-to-image",
                "batch": each.batch,
                "steps_effective": 6 if each.number else 8,
                "denoiser_calls": 6 if each.number else 8,
                "memory": [{"meter": "rss", "scope": "host", "phase": "warmup", "bytes": GIB}],
            }
            for each in found
        ],
        lineage=[
            {
                "index": each.first + place,
                "round": each.number,
                "place": place,
                "seed": 333 + each.first + place,
                "sha256": image["sha256"],
                "parent_index": each.parents[place] if each.parents else None,
                "parent_sha256": None,
            }
            for each in found
            for place, image in zip(
                range(each.batch), images[each.first : each.first + each.batch], strict=True
            )
        ]
        if images
        else [],
        **fields,
    )


@pytest.mark.parametrize(
    ("steps", "strength", "diffusers", "script"),
    [
        (50, 0.75, "50/37/124", "50/38/126"),
        (50, 0.5, "50/25/100", "50/26/102"),
        (100, 0.5, "100/50/200", "100/51/202"),
        (200, 0.75, "200/150/500", "200/151/502"),
        (200, 0.9, "200/180/560", "200/181/562"),
        (200, 1.0, "200/200/600", "200/200/600"),
    ],
)
def test_a_plan_gives_both_counts(steps: int, strength: float, diffusers: str, script: str) -> None:
    done = invoke("chain", "--dry-run", "--steps", str(steps), "--strength", str(strength))
    assert done.exit_code == 0, done.output
    assert f"Planned steps: {diffusers} " in done.output
    assert f"Script's count: {script} " in done.output


def test_what_is_printed_of_a_chain() -> None:
    said = "\n".join(printed.of_chain(typed(chained()), Path()))
    for part in (
        "4 images of 128x128 in 2 rounds (2 + 2)",
        "Effective steps: 8/6/14 (first round, each later round, total), measured",
        "Denoiser calls: 8/6/14",
        "Script's count: 8/7/15",
        "Total: 3.000 s",
        "TTFI: 2.000 s",
        "Gaps: 1.000 s",
        "TBB: 1.000 s, the mean of 1 gaps",
        "Images per second: 1.333",
        "Round 1: image-to-image, 2 images, denoiser at batch 4, peak 1.000 GiB (rss, warm-up)",
    ):
        assert part in said, said


def test_one_round_has_no_time_between_rounds() -> None:
    said = "\n".join(printed.of_chain(typed(chained(samples=2)), Path()))
    assert "Effective steps: 8/-/8" in said
    assert "TBB: none" in said
    assert "in 1 round (2); " in said  # nothing starts from another round's images


def test_a_round_of_one_picture_is_told_so() -> None:
    said = printed.of_chain(typed(chained(samples=3, max_batch=2)), Path())
    assert any(line.startswith("Round 1: image-to-image, 1 image, ") for line in said)


def test_a_round_out_of_memory_is_named() -> None:
    made = chained()
    made["outcome"], made["reason"] = "oom", "no memory"
    made["chain_rounds"][1] = {"round": 1, "task": "image-to-image", "batch": 2}
    said = "\n".join(printed.of_chain(typed(made), Path()))
    assert "Round 1: image-to-image, 2 images, oom: not finished" in said
    assert "TTFI" not in said


def test_flags_reach_the_configuration_and_a_grid_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = []
    for index in range(4):
        Image.new("RGB", (16, 16), "red").save(tmp_path / f"{index}.png")
        images.append({"path": f"{index}.png", "seed": 333 + index, "index": index, "sha256": "a"})
    given: list[Any] = []

    class Run:
        path = tmp_path
        records = (typed(chained(images=images)),)
        summary = None

    def measure(config: Any, out: Any, *, resume: bool, ui: Any) -> Any:
        given.append((config["matrix"]["workload"][0], resume))
        return Run

    monkeypatch.setattr(api, "run", measure)
    done = invoke(
        "chain",
        *("--samples", "4", "--max-batch", "2", "--start-from", "previous", "--size", "64"),
        *("--strength", "0.5", "--scheduler", "none", "--out", str(tmp_path)),
    )
    assert done.exit_code == 0, done.output
    workload, resume = given[0]
    assert resume
    assert (workload["samples"], workload["max_batch"]) == (4, 2)
    assert (workload["start_from"], workload["size"], workload["strength"]) == (
        "previous",
        "64",
        0.5,
    )
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 300


def test_tables_show_the_two_times() -> None:
    (row,) = frame.rows([typed(chained())])
    assert (row["ttfi_s"], row["tbb_s"]) == (2.0, 1.0)
    assert row["images_per_s"] == pytest.approx(4 / 3)
