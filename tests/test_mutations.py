"""Every file of a run that was changed by somebody is read, or refused in a sentence."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.gate import baselines
from reports import figures
from tests.cli.records import invoke
from tests.gate import support
from tests.reports import make_records as make
from tests.reports.sections.test_folder import ROWS, SAID

pytestmark = pytest.mark.thorough

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 2**53, 2**63, -(2**80), 0.5, -0.0, 1e308, -1e-308),
    *("", "x", "ok", "../../etc/passwd", "/etc/passwd", "\x1b[2J\u202e", "[/b]", "<img src=x>"),
    *("\ud800", "\x00", "9" * 5000, [], {}, [None], [[]], {"x": {}}, [1, "x"], ["a"] * 300),
)
DEEP = "[" * 3000 + "]" * 3000
TRIES = 300
TOLERANT = ("rows.jsonl", "perceptual.jsonl")
"""Files whose broken lines are left out: many at once tell as much."""
AT_ONCE = 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that readers look into, and a baseline of another one."""
    place = tmp_path_factory.mktemp("whole")
    workloads, backends = make.WORKLOADS[:1], make.BACKENDS[:2]
    made = make.records(workloads, backends, rounds=2, sweep=(2, 4), sizes=(64, 128))
    make.add_pictures(place / "run", made)
    run = make.write_run(place / "run", [{**each, "folder": SAID} for each in made])
    lines = [json.dumps(row) for row in ({"cell_id": "c"}, *ROWS)]
    (run / "pictures" / "rows.jsonl").write_text("\n".join(lines) + "\n")
    Image.new("RGB", (40, 20), "red").save(run / "pictures" / "a.png")
    figures_of = {"identical": False, "max_abs": 3, "psnr_db": 50.0, "ssim": 0.99, "flip": 0.01}
    shas = [record["images"][0]["sha256"] for record in made if record.get("images")]
    kept = {f"{shas[0]} {other}": {**figures_of, "null_reasons": {}} for other in shas}
    (run / "fidelity.json").write_text(json.dumps(kept))
    score = {"weights": "alex", "weights_identity": "abc", "picture_sha256": shas[-1]}
    scores = [
        {**score, "lpips": 0.1, "reference_sha256": shas[0]},
        {**score, "clip_score": 20.0, "prompt": workloads[0].prompt},
        {**score, "clip_score": None},
    ]
    (run / "perceptual.jsonl").write_text("".join(json.dumps(each) + "\n" for each in scores))
    measured = support.run(place, "measured", of=support.planned(rounds=1))
    baselines.save(measured, "main", place / "baselines")
    return place


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (container, key) within a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)


def mutated(text: str, draw: random.Random) -> bytes:
    """Return a line of JSON with one to three fields changed, gone or added, or bytes changed."""
    if draw.random() < 0.1:
        data = bytearray(text.encode())
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
    value = json.loads(text)
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice([*places(value)] or [([None], 0)])
        strange = draw.choice(STRANGE)
        if draw.random() < 0.2:
            del container[key]
        elif isinstance(container, dict) and draw.random() < 0.1:
            container[draw.choice(("extra", "\x1b[0m", ""))] = strange
        else:
            container[key] = copy.deepcopy(strange) if draw.random() < 0.95 else "DEEP"
    return json.dumps(value).replace('"DEEP"', DEEP).encode(errors="surrogatepass")


def mutate(file: Path, original: str, draw: random.Random) -> None:
    if file.suffix == ".jsonl":
        lines = original.splitlines()
        if file.name in TOLERANT:
            several = [mutated(draw.choice(lines), draw) for _ in range(AT_ONCE)]
            file.write_bytes(b"\n".join([lines[0].encode(), *several]) + b"\n")
            return
        at = draw.randrange(len(lines))
        rest = [line.encode() for line in lines]
        rest[at] = mutated(lines[at], draw)
        file.write_bytes(b"\n".join(rest) + b"\n")
    else:
        file.write_bytes(mutated(original, draw))


RUN = (
    lambda run: ("show", str(run)),
    lambda run: ("show", str(run), "--all-rounds"),
    lambda run: ("export", str(run), "--format", "csv"),
    lambda run: ("export", str(run), "--format", "pytest-benchmark"),
    lambda run: ("audit", str(run)),
    lambda run: ("report", str(run)),
    lambda run: ("compare", str(run), str(run.parent / "measured")),
)
FILES = {
    "records.jsonl": RUN,
    "plan.json": RUN,
    "fidelity.json": (RUN[5],),
    "perceptual.jsonl": (RUN[5],),
    "pictures/rows.jsonl": (RUN[5],),
}


def hammer(
    file: Path, commands: tuple[Callable[[Path], tuple[str, ...]], ...], run: Path, tries: int
) -> None:
    original = file.read_text()
    draw = random.Random(file.name)
    refused = 0
    tries //= AT_ONCE if file.name in TOLERANT else 1
    for number in range(tries):
        mutate(file, original, draw)
        command = commands[number % len(commands)](run)
        try:
            ended = invoke(*command)
        except BaseException:
            print(command, file.read_bytes()[:20_000])
            raise
        assert ended.exit_code in (0, 1, 2, 3), command
        assert "Traceback" not in ended.stderr
        for text in (ended.stdout, ended.stderr):
            assert "\x1b" not in text, (command, file.read_bytes())
            assert "\u202e" not in text, (command, file.read_bytes())
        if ended.exit_code == 2:
            refused += 1
            assert ended.stderr.startswith("bench: "), ended.stderr
    file.write_text(original)
    assert refused < tries


def check(name: str, whole: Path, tmp_path: Path, monkeypatch: Any, tries: int) -> None:
    for figure in ("BENCH_CLIP", "BENCH_LPIPS"):
        monkeypatch.setenv(figure, "none" if name != "perceptual.jsonl" else "")
    monkeypatch.setattr(figures, "draw", lambda *_: list)
    place = tmp_path / "copy"
    shutil.copytree(whole, place)
    monkeypatch.chdir(place)
    if name == "baseline":
        (file,) = (place / "baselines" / "main").iterdir()
        commands = (
            lambda _: ("baseline", "show", "main"),
            lambda _: ("compare", "measured", str(file)),
            lambda _: ("history", str(place / "baselines"), "--out", str(place / "history")),
        )
        hammer(file, commands, place / "run", tries)
    else:
        hammer(place / "run" / name, FILES[name], place / "run", tries)


@pytest.mark.parametrize("name", [*FILES, "baseline"])
def test_a_changed_file_is_read_or_refused(name, whole, tmp_path, monkeypatch):
    check(name, whole, tmp_path, monkeypatch, TRIES)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", [*FILES, "baseline"])
def test_ten_thousand_changes(name, whole, tmp_path, monkeypatch):
    check(name, whole, tmp_path, monkeypatch, 10_000)
