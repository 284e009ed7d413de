"""records.jsonl: whole lines or nothing, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contract import SCHEMA_VERSION
from bench.store import Journal, StoreError
from tests.store.support import record


def _append(path: Path, *keys: tuple[str, int]) -> Journal:
    journal = Journal(path)
    for cell_id, round_ in keys:
        journal.append(record(cell_id, round_, prompt="Boot, rot — 赤い舟"))
    journal.close()
    return journal


def test_a_crash_at_every_byte_loses_at_most_the_record_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    whole = tmp_path / "whole.jsonl"
    _append(whole, ("a", 0), ("b", 0), ("a", 1))
    data = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    assert len(ends) == 3
    for cut in range(len(data) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        path = folder / "records.jsonl"
        path.write_bytes(data[:cut])
        stored = sum(end <= cut for end in ends)
        journal = Journal(path)
        assert len(journal.entries) == stored
        aside = journal.recover()
        rest = data[([0, *ends][stored]) : cut]
        assert (aside is not None) == bool(rest)
        if aside is not None:
            assert aside.name == "records.torn-1.jsonl"
            assert aside.read_bytes() == rest
        for cell_id, round_ in [("a", 0), ("b", 0), ("a", 1)][stored:]:
            journal.append(record(cell_id, round_, prompt="Boot, rot — 赤い舟"))
        journal.close()
        assert path.read_bytes() == data


def test_torn_files_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for tail in (b"{one", b"{two"):
        with path.open("ab") as file:
            file.write(tail)
        Journal(path).recover()
    assert (tmp_path / "records.torn-1.jsonl").read_bytes() == b"{one"
    assert (tmp_path / "records.torn-2.jsonl").read_bytes() == b"{two"


@pytest.mark.parametrize(
    "tail", [b"\x00" * 300, b'{"schema": 1, "cell\x00\x00\x00"}\n', b"\xff\xfe\n"]
)
def test_what_a_power_cut_leaves_at_the_end_is_moved_aside(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "records.jsonl"
    _append(path, ("a", 0))
    good = path.read_bytes()
    path.write_bytes(good + tail)
    journal = Journal(path)
    assert [e.cell_id for e in journal.entries] == ["a"]
    aside = journal.recover()
    assert aside is not None
    assert aside.read_bytes() == tail
    assert path.read_bytes() == good


def _between(path: Path, *lines: str) -> Journal:
    """A journal of two records of cell a, with other lines between them."""
    first, last = (json.dumps(record("a", i)) for i in (0, 1))
    path.write_text("".join(f"{line}\n" for line in (first, *lines, last)))
    return Journal(path)


@pytest.mark.parametrize(
    "line",
    [
        "{broken",
        "\x00\x00",
        "<<<<<<< HEAD",
        "\udc80".encode(errors="surrogateescape").decode("latin-1"),
        json.dumps(record("b")) + json.dumps(record("c")),
        "[" * 100_000,
    ],
)
def test_good_lines_are_read_and_bad_ones_counted_and_named(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = _between(tmp_path / "records.jsonl", line, line)
    assert [(e.cell_id, e.round) for e in journal.entries] == [("a", 0), ("a", 1)]
    assert list(journal.bad) == [2, 3]
    assert journal.torn_at is None
    journal.warn()
    said = capsys.readouterr().err
    assert "2 line(s) are not records of a run" in said
    assert "line 2 (" in said
    before = journal.path.read_bytes()
    journal.append(record("b"))
    assert journal.path.read_bytes().startswith(before)
    assert [e.line for e in Journal(journal.path).entries] == [1, 4, 5]


@pytest.mark.parametrize(
    "value",
    [
        [],
        7,
        "text",
        None,
        {},
        {"schema": "1"},
        {"schema": 1, "cell_id": "a", "round": 0},
        {"schema": 1, "cell_id": "a", "round": -1, "outcome": "ok"},
        {"schema": 1, "cell_id": "a", "round": 0, "outcome": "great"},
        {"schema": 1, "cell_id": 4, "round": 0, "outcome": "ok"},
        {"schema": 1, "cell_id": "a", "round": 0, "outcome": "ok", "attempt": -1},
    ],
)
def test_a_foreign_line_is_passed_over_and_named(tmp_path: Path, value: Any) -> None:
    journal = _between(tmp_path / "records.jsonl", json.dumps(value))
    assert len(journal.entries) == 2
    assert list(journal.bad) == [2]


def test_a_record_of_a_newer_schema_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record("a") | {"schema": SCHEMA_VERSION + 1}) + "\n")
    with pytest.raises(StoreError, match=r"line 1.*update bench"):
        Journal(path)


def test_the_same_record_twice_is_one_and_two_that_differ_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    same = json.dumps(record("a"), indent=None, sort_keys=True)
    journal = _between(path, same)
    assert [(e.line, e.round) for e in journal.entries] == [(1, 0), (3, 1)]
    assert journal.bad == {}
    with pytest.raises(StoreError, match=r"line 2: cell 'a' round 0 .*on line 1.* differ"):
        _between(path, json.dumps(record("a", load_s=1.0)))


def test_attempts_may_be_in_any_order(tmp_path: Path) -> None:
    journal = _between(tmp_path / "records.jsonl", json.dumps(record("b", 0, 1)))
    journal = _between(journal.path, *(json.dumps(record("b", 0, n)) for n in (2, 0, 1)))
    assert journal.latest["b", 0].attempt == 2
    journal.append(record("b", 0, 3))


def _replaced(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    copy.rename(path)


def _cut(path: Path) -> None:
    os.truncate(path, path.read_bytes().index(b"\n") + 1)


def _written_to(path: Path) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record("b")) + "\n")


def _moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.jsonl"))


@pytest.mark.parametrize(
    ("change", "words", "found", "name"),
    [
        (Path.unlink, "was deleted .*put back with all 3", [0, 1, 2], "records.jsonl"),
        (
            _replaced,
            r"was replaced .*All 3 .* in records\.saved-1",
            [0, 1, 2],
            "records.saved-1.jsonl",
        ),
        (_moved, "was moved .*All 3 record", [0, 1, 2], "elsewhere.jsonl"),
        (
            _cut,
            r"was cut to \d+ bytes .* 1 of its 2 .* lost.*saved-1",
            [2],
            "records.saved-1.jsonl",
        ),
        (_written_to, "was written to .*All 2 .*safe.*saved-1", [2], "records.saved-1.jsonl"),
    ],
)
def test_a_file_that_is_changed_meanwhile_loses_nothing_silently(
    tmp_path: Path, change: Any, words: str, found: list[int], name: str
) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    for n in (0, 1):
        journal.append(record("a", n))
    change(journal.path)
    with pytest.raises(StoreError, match=f"(?s){words}"):
        journal.append(record("a", 2))
    assert [e.round for e in Journal(tmp_path / name).entries] == found


def test_a_file_in_a_folder_that_is_gone_is_said_to_be_lost(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / "records.jsonl")
    journal.path.parent.mkdir()
    journal.append(record("a"))
    shutil.rmtree(journal.path.parent)
    with pytest.raises(StoreError, match=r"was deleted .* 2 record\(s\) are lost"):
        journal.append(record("a", 1))


def test_blank_lines_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(
        f"{json.dumps(record('a'))}\r\n\n{json.dumps(record('b'))}\n\n".encode(),
    )
    assert [e.cell_id for e in Journal(path).entries] == ["a", "b"]


@pytest.mark.parametrize(("stored", "attempt"), [([], 1), ([0], 0), ([0], 2), ([0, 1], 1)])
def test_only_the_next_attempt_can_be_stored(
    tmp_path: Path, stored: list[int], attempt: int
) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    for each in stored:
        journal.append(record("a", 0, each))
    with pytest.raises(ValueError, match="not the next"):
        journal.append(record("a", 0, attempt))
    journal.close()
    assert len(Journal(journal.path).entries) == len(stored)


def test_nan_never_reaches_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(record("a", load_s=float("nan")))
    assert journal.entries == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "Free some space"), (errno.EFBIG, "Free some space"), (errno.EIO, "Mend that")],
)
@pytest.mark.parametrize("written", [0, 1, 40])
def test_a_write_that_fails_half_way_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str, written: int
) -> None:
    path = tmp_path / "records.jsonl"
    journal = Journal(path)
    journal.append(record("a"))
    before = path.read_bytes()
    real = os.write

    def fail(fd: int, data: bytes) -> int:
        if written == 0:
            raise OSError(number, os.strerror(number))
        return real(fd, data[:written])

    def fail_sync(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        if written == 40:
            patched.setattr(os, "write", real)
            patched.setattr(os, "fsync", fail_sync)
        with pytest.raises(StoreError, match=words if written != 1 else "Free some space"):
            journal.append(record("b"))
    assert path.read_bytes() == before
    journal.append(record("b"))
    journal.close()
    assert [e.cell_id for e in Journal(path).entries] == ["a", "b"]


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(min_size=1), _json, max_size=4), max_size=5))
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, extras: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "records.jsonl"
    records = [{**extra, **record("a", i)} for i, extra in enumerate(extras)]
    journal = Journal(path)
    for each in records:
        journal.append(each)
    journal.close()
    again = Journal(path)
    assert [json.loads(line) for _, line in again.lines(again.entries)] == records
    assert path.read_bytes().count(b"\n") == len(records) if records else True


def test_text_that_is_no_unicode_is_stored_readably(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    journal.append(record("a", reason="broken \ud800 text"))
    journal.close()
    again = Journal(journal.path)
    assert next(again.read(again.entries)).reason == "broken ? text"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"e2e_s": [1.0, -2.0]}, r"e2e_s\[1\]: expected float > 0"),
        ({"e2e_s": "fast"}, "e2e_s: expected array, got str"),
        ({"round": 2**60}, "round: expected int <="),
        ({"images": [{"path": "../../etc/passwd"}]}, r"images\[0\]\.path: expected a path below"),
        ({"images": [{"path": "/etc/passwd"}]}, r"images\[0\]\.path: expected a path below"),
        ({"cell": {"cell_id": "a"}}, "cell: object missing required field name"),
        ({"fingerprint": []}, "fingerprint: expected object, got array"),
        ({"fingerprint": {"gpu": "H200"}}, r"fingerprint\.gpu: expected object"),
        ({"cell": record("a")["cell"] | {"threads": -1}}, r"cell\.threads: expected int >= 0"),
        ({"lora": {"source": "a", "scale": "much"}}, r"lora\.scale: expected float"),
        (
            {"telemetry": {"period_s": 1, "columns": {"t_s": [1], "cpu_pct": []}}},
            "differ in length",
        ),
    ],
)
def test_a_field_that_is_wrong_is_named_with_file_and_line(
    tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "records.jsonl"
    lines = (json.dumps(record("a", **each)) for each in ({}, {"round": 1} | fields))
    path.write_text("".join(f"{line}\n" for line in lines))
    journal = Journal(path)
    assert [each.round for each in journal.read(journal.entries)] == [0]
    assert re.search(rf"records\.jsonl: 1 .* line 2 \(.*{sentence}", journal.notes()[0])
    # Whoever adds to the file measures that cell again.
    assert [each.round for each in Journal(path, whole=True).entries] == [0]


@pytest.mark.parametrize("field", ["anything", "cell", "fingerprint", "memory_modes"])
def test_what_nests_too_deeply_is_one_sentence(tmp_path: Path, field: str) -> None:
    path = tmp_path / "records.jsonl"

    def deep(levels: int) -> None:
        nested = f'{{"gpu": null, "a": {"[" * levels}{"]" * levels}}}'
        path.write_text(f'{json.dumps(record("a"))[:-1]}, "{field}": {nested}}}\n')

    deep(100_000)
    assert "line 1 (it nests too deeply)" in Journal(path).notes()[0]
    deep(400)
    if field in ("cell", "fingerprint"):
        journal = Journal(path)
        assert list(journal.read(journal.entries)) == []
        assert list(journal.bad) == [1]
