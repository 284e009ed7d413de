"""Where weights are found and refused, what is kept, and the process that computes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import perceptual
from bench.contract import Perceptual
from bench.perceptual import Kept, Order, Question, Weights, WeightsError, find
from bench.worker.pictures import digest
from tests.worker import tiny_clip

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny_clip.clip(folder / "clip")
    tiny_clip.lpips(folder / "alex.safetensors")
    return folder


def test_without_weights_there_is_a_reason_and_nothing_is_fetched(tmp_path: Path) -> None:
    here = {"HF_HOME": str(tmp_path)}
    for metric, option in perceptual.OPTION.items():
        found, reason = find(metric, None, here)
        assert found is None
        assert option in str(reason)
    assert list(tmp_path.iterdir()) == []


def test_weights_come_from_the_option_before_the_variable(made: Path) -> None:
    elsewhere = {"BENCH_LPIPS": "/nowhere", "BENCH_CLIP": str(made / "clip")}
    one, _ = find("lpips", str(made / "alex.safetensors"), elsewhere)
    two, _ = find("clip_score", None, elsewhere)
    assert one is not None
    assert two is not None
    assert (one.name, two.name) == ("alex", "clip")
    assert len({one.identity, two.identity}) == 2


@pytest.mark.parametrize(("asked", "variable"), [("none", "/x"), (None, "none")])
def test_none_leaves_a_metric_out(asked: str | None, variable: str) -> None:
    found, reason = find("clip_score", asked, {"BENCH_CLIP": variable})
    assert found is None
    assert "says so" in str(reason)


def cached(home: Path, repo: str, commit: str, source: Path) -> Path:
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    shutil.copytree(source, folder / "snapshots" / commit)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return folder


def test_the_hugging_face_cache_is_looked_through(made: Path, tmp_path: Path) -> None:
    here = {"HF_HOME": str(tmp_path)}
    small, large = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"
    cached(tmp_path, small, "aaa", made / "clip")
    assert find("clip_score", None, here)[0].name == small  # type: ignore[union-attr]
    folder = cached(tmp_path, large, "bbb", made / "clip")
    assert find("clip_score", None, here)[0].name == large  # type: ignore[union-attr]
    # A snapshot with pickles alone is passed over, main or not.
    (folder / "snapshots" / "ccc").mkdir()
    (folder / "snapshots" / "ccc" / "pytorch_model.bin").write_bytes(b"x")
    (folder / "refs" / "main").write_text("ccc")
    assert find("clip_score", None, here)[0].path.name == "bbb"  # type: ignore[union-attr]
    elsewhere = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    assert find("clip_score", None, elsewhere)[0].name == large  # type: ignore[union-attr]


def spoil(made: Path, folder: Path, how: str) -> tuple[Perceptual, Path]:
    clip, file = folder / "clip", folder / "alex.safetensors"
    shutil.copytree(made / "clip", clip)
    shutil.copy(made / "alex.safetensors", file)
    if how == "pickled clip":
        (clip / "model.safetensors").rename(clip / "pytorch_model.bin")
    elif how == "no tokenizer":
        for each in ("tokenizer.json", "vocab.json", "merges.txt"):
            (clip / each).unlink(missing_ok=True)
    elif how == "another model":
        config = json.loads((clip / "config.json").read_text())
        (clip / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
    elif how == "broken config":
        (clip / "config.json").write_text("{")
    elif how == "pointer":
        (clip / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    elif how == "no folder":
        return "clip_score", folder / "no"
    elif how == "a file for a folder":
        return "clip_score", file
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
        return "lpips", file
    elif how == "pickled":
        (folder / "alex.pth").write_bytes(b"\x80\x02}q\x00.")
        return "lpips", folder / "alex.pth"
    elif how == "a pickle by another name":
        file.write_bytes(b"\x80\x02}q\x00.")
        return "lpips", file
    elif how == "other tensors":
        shutil.copy(clip / "model.safetensors", file)
        return "lpips", file
    elif how == "no file":
        return "lpips", folder / "no.safetensors"
    elif how == "a folder for a file":
        return "lpips", clip
    return "clip_score", clip


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("pickled clip", "can run code"),
        ("no tokenizer", "lacks a tokenizer"),
        ("another model", "'siglip', not a clip model"),
        ("broken config", "Expecting"),
        ("pointer", "Git LFS pointer"),
        ("no folder", "no such folder"),
        ("a file for a folder", "no such folder"),
        ("truncated", "damaged"),
        ("pickled", "can run code"),
        ("a pickle by another name", "no safetensors file"),
        ("other tensors", "no weights of LPIPS"),
        ("no file", "no such file"),
        ("a folder for a file", "takes one safetensors file"),
    ],
)
def test_weights_that_cannot_be_used(made: Path, tmp_path: Path, how: str, said: str) -> None:
    metric, place = spoil(made, tmp_path, how)
    with pytest.raises(WeightsError, match=said):
        find(metric, str(place), {})
    found, reason = find(metric, None, {perceptual.VARIABLE[metric]: str(place)})
    assert found is None
    assert said in str(reason)


INFINITE = json.dumps(
    {"lpips": float("inf"), "picture_sha256": "c", "reference_sha256": "d", "weights": "alex",
     "weights_identity": "0123"}
).encode()  # fmt: skip
WEIGHTS = Weights("lpips", "alex", "0123", None)
ONE, OTHER = Question("lpips", "a" * 64, "b" * 64), Question("clip_score", "a" * 64, "a <b>\nc")


def test_what_is_kept_is_found_again_by_content(tmp_path: Path) -> None:
    kept, clip = Kept([tmp_path]), Weights("clip_score", "c", "4567", None)
    kept.add(tmp_path, WEIGHTS, ONE, 0.25)
    kept.add(tmp_path, clip, OTHER, 31.5, cut=True)
    for each in (kept, Kept([tmp_path])):
        assert each.get(WEIGHTS, ONE) == 0.25
        assert each.get(clip, OTHER) == 31.5
        assert each.cut(clip, OTHER) is True
        assert each.get(Weights("lpips", "alex", "9999", None), ONE) is None
    assert Kept([tmp_path]).weights == {"lpips": WEIGHTS, "clip_score": clip}


def test_the_weights_used_last_are_known(tmp_path: Path) -> None:
    Kept([tmp_path]).add(tmp_path, WEIGHTS, ONE, 0.25)
    newer = Weights("lpips", "vgg", "8888", None)
    Kept([tmp_path]).add(tmp_path, newer, ONE, 0.5)
    Kept([tmp_path]).use(tmp_path, WEIGHTS)
    size = (tmp_path / perceptual.FILE).stat().st_size
    Kept([tmp_path]).use(tmp_path, WEIGHTS)
    assert (tmp_path / perceptual.FILE).stat().st_size == size
    assert Kept([tmp_path]).weights["lpips"] == WEIGHTS


@pytest.mark.parametrize(
    "torn", [b'{"lpips": 0.3, "pict', b"[1]", b"\xff\xfe", b'{"lpips": 1}', b"", INFINITE]
)
def test_a_line_that_is_torn_costs_itself_alone(tmp_path: Path, torn: bytes) -> None:
    Kept([]).add(tmp_path, WEIGHTS, ONE, 0.25)
    with (tmp_path / perceptual.FILE).open("ab") as file:
        file.write(torn + b"\n")
    kept = Kept([tmp_path])
    assert kept.get(WEIGHTS, Question("lpips", "c", "d")) is None
    kept.add(tmp_path, WEIGHTS, Question("lpips", "c", "d"), 0.5)
    assert kept.get(WEIGHTS, ONE) == 0.25
    assert Kept([tmp_path]).get(WEIGHTS, Question("lpips", "c", "d")) == 0.5


def test_a_run_that_cannot_be_written_loses_nothing_but_time(tmp_path: Path) -> None:
    kept = Kept([tmp_path / "gone"])
    kept.add(tmp_path / "gone", WEIGHTS, ONE, 0.25)
    assert kept.get(WEIGHTS, ONE) == 0.25


def orders(folder: Path) -> list[Order]:
    files = []
    for number, colour in enumerate(((200, 20, 20), (20, 20, 200))):
        image = Image.new("RGB", (64, 64), colour)
        image.putpixel((3, number), (255, 255, 255))
        image.save(folder / f"{number}.png")
        files.append((folder / f"{number}.png", digest(image)))
    (a, one), (b, other) = files
    return [
        Order(Question("lpips", one, other), a, b, folder),
        Order(Question("clip_score", one, "a red house"), a, None, folder),
    ]


def weights_of(made: Path) -> dict[Any, Weights]:
    lpips, _ = find("lpips", str(made / "alex.safetensors"), {})
    clip, _ = find("clip_score", str(made / "clip"), {})
    assert lpips is not None
    assert clip is not None
    return {"lpips": lpips, "clip_score": clip}


def test_a_process_of_its_own_computes_and_what_it_says_is_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.worker.perceptual import Lpips

    monkeypatch.chdir(tmp_path)
    asked, weights, kept = orders(tmp_path), weights_of(made), Kept([tmp_path])
    assert perceptual.compute(weights, asked, kept) == {}
    (one, two) = (kept.get(weights[o.question.metric], o.question) for o in asked)
    pictures = (Image.open(tmp_path / f"{n}.png") for n in (1, 0))
    assert one == pytest.approx(Lpips(str(made / "alex.safetensors"))(*pictures), rel=1e-5)
    assert two is not None
    assert len((tmp_path / perceptual.FILE).read_text().splitlines()) == 2


def test_without_torch_there_is_the_reason(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reasons = perceptual.compute(weights_of(made), orders(tmp_path), Kept([]))
    assert reasons.keys() == {"lpips", "clip_score"}
    assert all("No module named 'torch'" in reason for reason in reasons.values())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((sys.executable, "-c", "print('boom', file=__import__('sys').stderr); exit(3)"), "boom"),
        ((sys.executable, "-c", "__import__('os').kill(__import__('os').getpid(), 9)"), "-9"),
        ((sys.executable, "-c", "print('{', end=''); exit(1)"), "status 1"),
        (("/nowhere/python",), "could not be started"),
    ],
)
def test_a_process_that_breaks_off_is_the_reason(
    made: Path, tmp_path: Path, command: tuple[str, ...], said: str
) -> None:
    kept = Kept([tmp_path])
    reasons = perceptual.compute(weights_of(made), orders(tmp_path), kept, command)
    assert reasons.keys() == {"lpips", "clip_score"}
    assert all(said in reason for reason in reasons.values())
    assert not (tmp_path / perceptual.FILE).exists()
