"""``bench capacity`` where memory follows a law: the edges that it must find are computed."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import api
from bench.capacity import findings, trials
from bench.runner import execute
from tests.cli import records
from tests.runner.support import lines, machine, program

GIB = 2**30
LAWS = [(5e8, 2500.0, 0.0), (4e8, 9000.0, 3e-3), (1.6e9, 700.0, 2e-3)]


def invoke(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, does: str = "lawful", **how: Any
) -> Any:
    doubled = partial(execute, program=program(does), machine=machine(), **how)
    monkeypatch.setattr(api, "execute", doubled)
    return records.invoke("capacity", *arguments)


def fits(law: tuple[float, float, float], batch: int, side: int, limit: float = GIB * 2) -> bool:
    pixels = side * side
    return int(law[0] + law[1] * pixels * batch + law[2] * pixels**2 * batch) <= limit


def flags(out: Path, law: tuple[float, float, float], *more: str) -> list[str]:
    return [
        "--model", "embedded:sdxl", "--limit", "2GiB", "--device", "cpu", "--out", str(out),
        "--set", f"defaults.extra={{law: {list(law)}}}", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_it_finds_the_edges_of_a_law_that_it_has_not_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, law: tuple[float, float, float]
) -> None:
    out = tmp_path / "run"
    result = invoke(monkeypatch, *flags(out, law))
    assert result.exit_code == 0, result.output
    batch = max(b for b in range(1, 257) if fits(law, b, 128))
    side = max(s for s in range(64, 4097, 8) if fits(law, 1, s))
    if batch < 256:
        edge = f"largest batch at 128x128: {batch}; {batch + 1} ran out of memory\n"
    else:
        edge = "largest batch at 128x128: at least 256"
    assert edge in result.output
    assert f"largest size at batch 1: {side}x{side}; {side + 8}x{side + 8} ran" in result.output
    measured = lines(out)
    assert (
        len({record["process"].get("pid") for record in measured if record["outcome"] != "skipped"})
        > 5
    )
    tried = [(r["cell"]["workload"]["batch"], r["cell"]["workload"]["height"]) for r in measured]
    assert len(tried) == len(set(tried))
    assert sum(r["outcome"] != "skipped" for r in measured) <= 26
    found = findings.capacities(trials.of_record(record) for record in measured)
    assert len(found) == 1
    fitted = found[0].law
    assert fitted is not None
    assert fitted.form == ("quadratic" if law[2] else "linear")
    assert fitted.constant_bytes == pytest.approx(law[0], rel=0.01)
    assert fitted.per_pixel_bytes == pytest.approx(law[1], rel=0.02)
    # and says right what was never tried
    for card in found[0].cards:
        assert fits(law, card.batch, 128, card.usable_bytes)
        assert not fits(law, int(card.batch * 1.01) + 2, 128, card.usable_bytes)
        assert card.side is not None
        assert fits(law, 1, int(card.side[0] * 0.99), card.usable_bytes)
        assert not fits(law, 1, int(card.side[0] * 1.01) + 16, card.usable_bytes)


def test_sizes_of_another_shape_have_their_own_edge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sides are counted here, with the shape's own rounding; report and command say the same."""
    out = tmp_path / "run"
    more = ("--aspect", "16:9", "--multiple", "64", "--report")
    result = invoke(monkeypatch, *flags(out, LAWS[1], *more))
    assert result.exit_code == 0, result.output

    def wide(height: int) -> int:
        return max(1, int(height * 16 / 9 / 64 + 0.5)) * 64

    def bytes_at(height: int) -> float:
        pixels = height * wide(height)
        return LAWS[1][0] + LAWS[1][1] * pixels + LAWS[1][2] * pixels**2

    def largest(limit: float) -> int:
        return max(h for h in range(64, 9000, 64) if bytes_at(h) <= limit)

    most = largest(2 * GIB)
    edge = f"largest size at batch 1: {wide(most)}x{most}; {wide(most + 64)}x{most + 64} ran out of"
    assert f"{edge} memory\n" in result.output
    card = largest(16 * GIB)
    (line,) = [line for line in result.output.splitlines() if "  16 GiB" in line]
    assert f" {wide(card)}x{card} " in line
    page = (out / "REPORT.md").read_text()
    assert f"{edge[1:]} memory." in page
    assert f"| {wide(card)}x{card} |" in page


def test_an_interrupted_search_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = invoke(monkeypatch, *flags(out, LAWS[0], "--what", "batch"))
    assert first.exit_code == 0, first.output
    kept = (out / "records.jsonl").read_bytes().splitlines(keepends=True)
    # as if it had been killed in the middle of a record
    (out / "records.jsonl").write_bytes(b"".join(kept[:6]) + kept[6][:40])
    again = invoke(monkeypatch, *flags(out, LAWS[0], "--what", "batch"))
    assert again.exit_code == 0, again.output
    assert (out / "records.jsonl").read_bytes().startswith(b"".join(kept[:6]))
    head = re.search(r"largest batch.*", first.output)
    assert head is not None
    assert head[0] in again.output
    third = invoke(monkeypatch, *flags(out, LAWS[0], "--what", "batch"), does="segfault")
    assert third.exit_code == 0, third.output
    assert head[0] in third.output


def test_another_limit_is_another_search_in_the_same_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    invoke(monkeypatch, *flags(out, LAWS[0], "--what", "batch"))
    smaller = invoke(monkeypatch, *flags(out, LAWS[0], "--what", "batch", "--limit", "1GiB"))
    batch = max(b for b in range(1, 257) if fits(LAWS[0], b, 128, GIB))
    assert f"largest batch at 128x128: {batch};" in smaller.output
    assert "\nsdxl: limit 1 GiB, meter rss" in smaller.output


def test_a_trial_that_fails_otherwise_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = invoke(monkeypatch, *flags(tmp_path / "run", LAWS[0]), does="segfault")
    assert result.exit_code == 1
    assert "the largest batch is not known: failed: killed by signal 11" in result.output
    assert "no law of memory" in result.output


def test_each_memory_mode_of_a_configuration_is_a_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "two.yaml"
    law = list(LAWS[0])
    config.write_text(
        "device: cpu\nlimits: {rss: 1GiB}\nprotocol: quick\n"
        "defaults: {task: text-to-image, model: embedded:sdxl, prompt: a house, "
        f"extra: {{law: {law}}}}}\n"
        "matrix:\n  workload: [{name: w}]\n  dtype: [float32, float16]\n  size: [64x128]\n"
        "  batch: [2, 4]\n"
    )
    out = tmp_path / "run"
    result = invoke(
        monkeypatch, str(config), "--out", str(out), "--largest-batch", "8", "--largest-side", "256"
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("largest batch at 64x128: at least 8") == 2
    assert result.output.count("largest size at batch 2: at least 128x256") == 2
    assert "w-128x64" not in result.output
    assert "w, dtype float32: limit 1 GiB" in result.output
    assert "w, dtype float16: limit 1 GiB" in result.output
    plan = json.loads((out / "plan.json").read_text())["plan"]
    names = [cell["name"] for cell in plan["cells"]]
    assert len(names) == len(set(names))
    assert {cell["workload"]["dtype"] for cell in plan["cells"]} == {"float32", "float16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "embedded:sdxl", "--device", "cpu"], "--limit 2GiB"),
        ([], "one of them"),
        (["--model", "embedded:sdxl", "--limit", "2GiB", "--aspect", "wide"], "WIDTH:HEIGHT"),
        (["--model", "embedded:sdxl", "--limit", "2GiB", "--multiple", "12"], "multiple of 8"),
    ],
)
def test_nonsense_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    result = invoke(monkeypatch, *arguments)
    assert result.exit_code == 2
    assert message in re.sub(r"[│\s]+", " ", result.output)


def test_the_shape_and_the_step_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = invoke(
        monkeypatch,
        *flags(out, LAWS[0], "--what", "size", "--aspect", "16:9", "--multiple", "64"),
    )
    assert result.exit_code == 0, result.output
    made = {(r["cell"]["workload"]["height"], r["cell"]["workload"]["width"]) for r in lines(out)}
    assert all(height % 64 == width % 64 == 0 for height, width in made)
    assert (576, 1024) in made
