"""What lies in a folder, what each picture is drawn, how its result is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import folder

NAME = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=60
)


def test_pictures_of_subfolders_count_and_other_files_do_not(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "sub/c.webp", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    for name in ("plan.json", "pictures/result.png"):
        (tmp_path / "runs" / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / "x" / name).write_bytes(b"x")
    assert folder.names(tmp_path) == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert folder.names(tmp_path / "notes.txt") == ["notes.txt"]
    assert folder.path_of(tmp_path, "sub/c.webp").is_file()
    assert folder.path_of(tmp_path / "a.jpg", "a.jpg") == tmp_path / "a.jpg"


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        folder.names(tmp_path / "none")


@pytest.mark.parametrize("change", ["name", "content", "further", "size"])
def test_identity_changes_with_names_and_content(tmp_path: Path, change: str) -> None:
    def identity() -> str:
        return folder.identity(tmp_path, folder.names(tmp_path))

    (tmp_path / "a.png").write_bytes(b"one")
    before = identity()
    assert identity() == before
    if change == "name":
        (tmp_path / "a.png").rename(tmp_path / "b.png")
    else:
        name = "b.png" if change == "further" else "a.png"
        (tmp_path / name).write_bytes(b"two" if change == "content" else b"four")
    assert identity() != before


def test_a_picture_that_cannot_be_read_counts_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    whole = folder.identity(tmp_path, ["a.png"])
    assert folder.identity(tmp_path, ["a.png", "gone.png"]) != whole


def test_a_draw_is_the_documented_one() -> None:
    digest = hashlib.sha256(b"7/prompt/wide/a.png").digest()
    assert folder.draw(7, "prompt", "wide/a.png", 5) == int.from_bytes(digest[:8], "big") % 5


def test_a_draw_depends_on_the_picture_alone_and_uses_every_choice() -> None:
    workload = {
        "prompt": "",
        "model": "embedded:sdxl",
        "prompts": ["a", "b", "c"],
        "models": ["embedded:sdxl", "embedded:pix2pix"],
        "seed": 10,
        "draw_seed": 3,
    }
    names = [f"{n}.png" for n in range(60)]
    drawn = list(folder.drawn(workload, names))
    assert [each["seed"] for each in drawn] == list(range(10, 70))
    assert {each["prompt"] for each in drawn} == {"a", "b", "c"}
    assert {each["model"] for each in drawn} == set(workload["models"])  # type: ignore[call-overload]
    fewer = {each["picture"]: each for each in folder.drawn(workload, names[30:])}
    for each in drawn[30:]:
        again = fewer[each["picture"]]
        assert (again["prompt"], again["model"]) == (each["prompt"], each["model"])
    other = list(folder.drawn({**workload, "draw_seed": 4}, names))
    assert [e["prompt"] for e in other] != [e["prompt"] for e in drawn]


def test_one_prompt_and_model_are_everyones() -> None:
    workload = {"prompt": "p", "model": "m", "seed": 0}
    assert {(e["prompt"], e["model"]) for e in folder.drawn(workload, ["a", "b"])} == {("p", "m")}


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("a.png", "a.png.png"),
        ("a.jpg", "a.jpg.png"),
        ("wide/a b.jpg", "wide%2Fa b.jpg.png"),
        ("50%2F.png", "50%252F.png.png"),
        ("é.png", "%C3%A9.png.png"),
    ],
)
def test_results_are_called_after_their_pictures(name: str, result: str) -> None:
    assert folder.result_name(name) == result


@given(NAME, NAME)
def test_results_never_collide(one: str, other: str) -> None:
    made = folder.result_name(one), folder.result_name(other)
    assert (made[0] == made[1]) == (one == other)
    assert all("/" not in each and len(each.encode()) < 240 for each in made)


def test_long_names_are_cut_and_stay_apart() -> None:
    made = {folder.result_name("é" * 200 + end) for end in ("a.png", "b.png")}
    assert len(made) == 2
    assert max(map(len, made)) < 240


def test_rows_are_read_past_torn_lines(tmp_path: Path) -> None:
    rows = tmp_path / folder.ROWS
    rows.write_text('{"cell_id": "c"}\n{"picture": "a"}\n[]\n{"picture": "b"}\n{"pict')
    assert [row["picture"] for row in folder.read_rows(rows)] == ["a", "b"]
    assert folder.belongs(tmp_path, "c")
    assert not folder.belongs(tmp_path, "d")
    assert not folder.belongs(tmp_path / "none", "c")
    rows.write_text("torn")
    assert folder.header(rows) is None
