"""Foreign files: limits and kinds on reading, links on writing, and answers of processes."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import files, text
from bench.cli import env
from bench.records.read import _plain
from bench.worker import inputs
from bench.worker.errors import SourceError
from tests.cli.records import invoke
from tests.reports import make_records as make


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def no_file(request: Any, tmp_path: Path, monkeypatch: Any) -> Path:
    """A path that opens to something else than a file, with the name of an image."""
    path = tmp_path / "x.png"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


def test_what_is_no_file_is_refused_at_once(no_file):
    started = time.monotonic()
    for read in (files.read, files.image):
        with pytest.raises(OSError, match=r"and no file|No such device"):
            read(no_file)
    with pytest.raises(SourceError):
        inputs.open_picture(no_file)
    for arguments in (
        ("audit", str(no_file)),
        ("run", str(no_file), "--dry-run"),
        ("compare", str(no_file), str(no_file)),
    ):
        ended = invoke(*arguments)
        assert ended.exit_code == 2
        assert ended.stderr.startswith("bench: ") or "Usage" in ended.stderr
        assert ended.stderr.count("\n") < 12
    assert time.monotonic() - started < 20


def test_a_records_file_that_is_none(tmp_path):
    run = make.write_run(tmp_path / "run", make.records(make.WORKLOADS[:1], rounds=1))
    (run / "records.jsonl").unlink()
    os.mkfifo(run / "records.jsonl")
    ended = invoke("show", str(run))
    assert ended.exit_code == 2
    assert "it is a pipe and no file" in ended.stderr


def test_size_limits(tmp_path):
    file = tmp_path / "sparse"
    with file.open("wb") as stream:
        stream.truncate(20 * 1024**3)
    with pytest.raises(files.FileError, match="it has 21,474,836,480 bytes"):
        files.read(file)
    with pytest.raises(files.FileError, match="has more bytes"):
        files.read(Path("/proc/kallsyms"), 100)
    for name in ("plan.json", "records.jsonl"):
        run = make.write_run(tmp_path / name, make.records(make.WORKLOADS[:1], rounds=1))
        os.truncate(run / name, 20 * 1024**3)
        ended = invoke("show", str(run))
        assert ended.exit_code == 2
        assert ended.stderr.startswith("bench: ")


def test_an_image_of_too_many_pixels(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    end = chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end
    (tmp_path / "large.png").write_bytes(data)
    with pytest.raises(files.FileError, match="pixels"):
        files.image(tmp_path / "large.png")
    with pytest.raises(SourceError, match="cannot be read"):
        inputs.open_picture(tmp_path / "large.png")


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image(data, tmp_path):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(files.FileError, match="it is no"):
        files.image(tmp_path / "x.png")


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x", "a/../../x", "link/x", "file", "loop/x"),
        *("\x00", "x" * 5000, "..", "~/x/../../.."),
    ],
)
def test_what_lies_outside_a_run_is_refused(name, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "x").write_text("private")
    (run / "link").symlink_to(tmp_path)
    (run / "file").symlink_to(tmp_path / "x")
    (run / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"outside the run folder|no path of a file|too long"):
        files.read(files.inside(run, name))


def test_a_link_within_a_run_is_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_text("a")
    (tmp_path / "run" / "b").symlink_to("a")
    (tmp_path / "linked").symlink_to("run")
    assert files.read(files.inside(tmp_path / "linked", "b")) == b"a"


def test_nothing_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("page", ".page.partial", "log"):
        (folder / name).symlink_to(outside)
    files.write(folder / "page", "text")
    assert (folder / "page").read_text() == "text"
    assert not (folder / "page").is_symlink()
    with pytest.raises(files.FileError, match="log is a link"):
        files.create(folder / "log", os.O_WRONLY | os.O_TRUNC)
    (folder / "plots").symlink_to(tmp_path)
    with pytest.raises(files.FileError, match="plots is a link"):
        files.folder(folder / "plots")
    assert outside.read_text() == "mine"
    assert sorted(each.name for each in folder.iterdir()) == ["log", "page", "plots"]


@pytest.mark.parametrize(
    "name",
    [
        *(".lock", "records.jsonl", "logs", "cache", "pictures", "report.html", "REPORT.md"),
        *("plots", "plots/end_to_end.svg", ".report.html.partial", ".REPORT.md.partial"),
    ],
)
def test_fixed_names_of_a_run_are_not_written_through_links(name, tmp_path, undrawn_figures):
    from bench.store import RunFolder, StoreError

    run = make.write_run(tmp_path / "run", make.records(make.WORKLOADS[:1], rounds=1))
    outside = tmp_path / "outside"
    kept = run / name
    if kept.exists():
        kept.rename(outside)
    elif name == "plots":
        outside.mkdir()
    else:
        outside.write_text("mine")
    kept.parent.mkdir(exist_ok=True)
    kept.symlink_to(outside)
    before = _content(outside)
    again = {**make.records(make.WORKLOADS[:1], rounds=1)[0], "attempt": 1}
    if name in (".lock", "records.jsonl", "logs", "cache", "pictures"):
        with pytest.raises(StoreError, match=r"is a link|outside"):
            RunFolder.acquire(run)
    else:
        with RunFolder.acquire(run) as folder:
            folder.append(again)
    invoke("report", str(run))
    assert _content(outside) == before


@pytest.fixture
def undrawn_figures(monkeypatch):
    from reports import figures

    monkeypatch.setattr(figures, "draw", lambda *_: list)
    monkeypatch.setenv("BENCH_CLIP", "none")
    monkeypatch.setenv("BENCH_LPIPS", "none")


def _content(path: Path) -> Any:
    return path.read_bytes() if path.is_file() else sorted(each.name for each in path.rglob("*"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "answers with more bytes"),
        ("import time\ntime.sleep(60)", "no answer within"),
        ("import os, time\nos.close(1)\ntime.sleep(60)", "no end within"),
        ("raise SystemExit(3)", "status 3"),
    ],
)
def test_an_answer_has_limits(code, said):
    started = time.monotonic()
    with pytest.raises(OSError, match=said):
        files.answer([sys.executable, "-c", code], seconds=2, most=2**20)
    assert time.monotonic() - started < 10


def test_an_answer():
    assert files.answer([sys.executable, "-c", "print('yes')"]) == b"yes\n"


def test_a_dry_run_starts_no_interpreter(tmp_path, monkeypatch):
    mark, python = tmp_path / "was-run", tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {mark}\n")
    python.chmod(0o755)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    from bench.environments import declare

    made = declare.Declaration.__new__(declare.Declaration)
    object.__setattr__(made, "own_python", python)
    monkeypatch.setattr(declare, "declaration", lambda _: made)
    assert env.declared_sizes(["mine"]) == [f"mine: your interpreter {python}"]
    assert not mark.exists()


@pytest.mark.parametrize(
    "bad", ["\x1b", "\x07", "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u061c", "\b", "\f"]
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_escape_sequences_end_when_a_record_is_read(bad, ascii_only):
    given = f"a{bad}\\u001b \\\\b\n\t é × –"
    line = json.dumps({"x": given}, ensure_ascii=ascii_only).encode()
    assert json.loads(_plain(line))["x"] == given.replace(bad, "\ufffd")
    assert text.plain(given) == given.replace(bad, "\ufffd")
