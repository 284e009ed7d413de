"""Files that a configuration names: where they are looked for, and what they do to identity."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bench.cli.app import main
from bench.config import ConfigError, Plan, load_config, make_plan, parse_config
from bench.runner.lane import located
from tests.config.support import workload

EDIT = """\
matrix:
  workload:
    - name: edit
      task: edit
      model: {model}
      prompt: make it night
      input_image: {image}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with configs/, where the working folder is another one."""
    for folder in ("configs", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def plan(home: Path, image: str = "cat.png", model: str = "embedded:pix2pix") -> Plan:
    path = home / "configs" / "x.yaml"
    path.write_text(EDIT.format(image=image, model=model))
    return make_plan(load_config(path))


def model_folder(path: Path, weights: bytes = b"w" * 3_000_000) -> Path:
    (path / "unet").mkdir(parents=True)
    (path / "model_index.json").write_text("{}")
    (path / "unet" / "model.safetensors").write_bytes(weights)
    return path


def test_a_path_starts_from_the_folder_of_the_configuration(home: Path) -> None:
    (home / "cat.png").write_bytes(b"cat")
    (home / "elsewhere" / "cat.png").write_bytes(b"another")
    (cell,) = plan(home, "../cat.png").cells
    assert cell["workload"]["input_image"] == "../cat.png"
    assert cell["inputs"]["input_image"]["path"] == str((home / "cat.png").resolve())


def test_of_the_command_line_and_of_python_it_starts_from_the_working_folder(home: Path) -> None:
    picture = home / "elsewhere" / "cat.png"
    picture.write_bytes(b"cat")
    path = home / "configs" / "x.yaml"
    path.write_text(EDIT.format(image="null", model="embedded:pix2pix"))
    change = "matrix.workload.edit.input_image=cat.png"
    (from_option,) = make_plan(load_config(path, [change])).cells
    given = workload(task="edit", model="embedded:pix2pix", input_image="cat.png")
    (from_python,) = make_plan(parse_config({"matrix": {"workload": [given]}})).cells
    for cell in (from_option, from_python):
        assert cell["inputs"]["input_image"]["path"] == str(picture.resolve())


def test_the_worker_is_told_absolute_paths_and_the_record_what_was_written(home: Path) -> None:
    (home / "cat.png").write_bytes(b"cat")
    folder = model_folder(home / "models" / "mine")
    (cell,) = plan(home, "../cat.png", "path:../models/mine").cells
    told = located(cell)["workload"]
    assert told["input_image"] == str((home / "cat.png").resolve())
    assert told["model"] == f"path:{folder.resolve()}"
    assert cell["workload"]["model"] == "path:../models/mine"


def test_a_cell_without_files_is_told_as_it_is() -> None:
    (cell,) = make_plan(parse_config({"matrix": {"workload": [workload()]}})).cells
    assert cell["inputs"] == {}
    assert located(cell) == cell


@pytest.mark.parametrize(
    ("image", "model", "message"),
    [
        ("cat.jpg", "embedded:pix2pix",
         (r"x\.yaml:7: workload 'edit': input image 'cat\.jpg' \(/.*/configs/cat\.jpg\) does not "
         r"exist\. Did you mean 'cat\.png'\?")),
        ("here.png", "embedded:pix2pix",
         (r"x\.yaml:7: .* does not exist\. Paths in a configuration start from its own folder; "
         r"from there it is '\.\./elsewhere/here\.png'\.")),
        ("a/b/cat.png", "embedded:pix2pix", r":7: .* does not exist\. Nor does the folder /.*/a/b"),
        (".", "embedded:pix2pix", r":7: .*input image '\.' \(/.*\) is a folder"),
        ("/dev/zero", "embedded:pix2pix", r":7: .*input image '/dev/zero' is no regular file"),
        ("cat.png", "path:mime",
         r":5: .*model folder 'mime' \(/.*\) does not exist\. Did you mean 'path:mine'\?"),
        ("cat.png", "path:cat.png", r":5: .*is a file, and path: takes a folder.*from_single_file"),
        ("cat.png", f"path:{'x' * 300}", r":5: .*cannot be read: file name too long"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_its_line(
    home: Path, image: str, model: str, message: str
) -> None:
    (home / "configs" / "cat.png").write_bytes(b"cat")
    (home / "elsewhere" / "here.png").write_bytes(b"cat")
    model_folder(home / "configs" / "mine")
    with pytest.raises(ConfigError) as refused:
        plan(home, image, model)
    assert re.search(message, str(refused.value)), str(refused.value)


def test_the_plan_says_what_it_reads(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "cat.png").write_bytes(b"cat")
    plan(home, "../cat.png")
    with pytest.raises(SystemExit) as ended:
        main(["run", "../configs/x.yaml", "--dry-run"])
    assert not ended.value.code
    assert f"reads     {(home / 'cat.png').resolve()} (../cat.png)\n" in capsys.readouterr().out


def test_identity_follows_what_a_picture_holds_and_not_its_place(home: Path) -> None:
    for name, data in (("cat.png", b"cat"), ("copy.png", b"cat"), ("dog.png", b"dog")):
        (home / "configs" / name).write_bytes(data)
    cat, copy, dog = (
        plan(home, name).cells[0]["cell_id"] for name in ("cat.png", "copy.png", "dog.png")
    )
    assert cat == copy != dog
    (home / "configs" / "cat.png").write_bytes(b"dog")
    assert plan(home).cells[0]["cell_id"] == dog


def test_identity_follows_what_a_model_folder_holds_and_not_its_place(home: Path) -> None:
    (home / "configs" / "cat.png").write_bytes(b"cat")
    one = model_folder(home / "configs" / "one")
    two = model_folder(home / "two")
    os.utime(two / "model_index.json", (1, 1))

    def cell_id(where: str) -> str:
        return plan(home, model=f"path:{where}").cells[0]["cell_id"]

    first = cell_id("one")
    assert first == cell_id(str(two))
    for change in (
        lambda: (one / "model_index.json").write_text("{ }"),
        lambda: (one / "unet" / "model.safetensors").write_bytes(b"v" * 3_000_000),
        lambda: (one / "unet" / "model.fp16.safetensors").write_bytes(b"w"),
        lambda: (one / "unet" / "code.py").write_text("pass"),
    ):
        before = cell_id("one")
        change()
        assert cell_id("one") != before


def test_pictures_that_hold_the_same_are_one_cell(home: Path) -> None:
    for name in ("cat.png", "copy.png"):
        (home / "elsewhere" / name).write_bytes(b"cat")
    given = workload(task="edit", model="embedded:pix2pix")
    axes = {"workload": [given], "input_image": ["cat.png", "copy.png"]}
    with pytest.raises(ConfigError, match=r"duplicate cell .*: 'cat\.png' and 'copy\.png' hold"):
        make_plan(parse_config({"matrix": axes}))
