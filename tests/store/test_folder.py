"""The run folder: lock, plan, refusals."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contract import SCHEMA_VERSION
from bench.store import RunFolder, StoreError
from tests.store.support import plan, record


def test_a_new_folder_has_its_rooms_and_no_records(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path / "a" / "b") as folder:
        assert {p.name for p in folder.path.iterdir()} == {"logs", "pictures", "cache", ".lock"}
        assert list(folder.records()) == []


def test_the_plan_is_replaced_whole_and_the_run_keeps_its_identity(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path) as folder:
        folder.write_plan(plan("a"), {"cpu": "x"}, "1")
        first = folder.run_id
        folder.write_plan(plan("a", "b"), {"cpu": "y"}, "2")
    again = RunFolder.open(tmp_path)
    assert again.run_id == first != ""
    assert [c["cell_id"] for c in again.plan["cells"]] == ["a", "b"]
    assert again.host == {"cpu": "y"}
    assert not list(tmp_path.glob(".plan*"))


def test_the_second_runner_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    code = (
        "import sys; from bench.store import RunFolder; f = RunFolder.acquire(sys.argv[1]);"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"another runner .*pid {holder.pid}"):
            RunFolder.acquire(tmp_path)
    finally:
        holder.kill()
        holder.wait()
        holder.communicate()
    RunFolder.acquire(tmp_path).close()


def test_a_lock_that_a_dead_runners_child_keeps_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test ends when the child does; this is for a machine that is slow to let it.
    monkeypatch.setattr("bench.store.folder._DEAD_HOLDER_S", 120.0)
    # As between fork and exec: the runner is dead, and a child still has its descriptor.
    code = (
        "import os, sys, time; from bench.store import RunFolder\n"
        "folder = RunFolder.acquire(sys.argv[1])\n"
        "if os.fork() == 0: time.sleep(0.3)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env)
    runner.wait()
    RunFolder.acquire(tmp_path).close()


def test_without_its_lock_file_a_folder_is_still_locked(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path) as folder:
        folder.write_plan(plan("a"), {}, "1")
        (tmp_path / ".lock").unlink()
        with pytest.raises(StoreError, match="in use by another runner"):
            RunFolder.acquire(tmp_path)
        folder.append(record("a"))
    RunFolder.acquire(tmp_path).close()


@pytest.mark.parametrize("moved", [True, False])
def test_a_folder_that_goes_away_ends_the_run_and_says_what_became_of_it(
    tmp_path: Path, moved: bool
) -> None:
    path = tmp_path / "run"
    with RunFolder.acquire(path) as folder:
        folder.append(record("a"))
        if moved:
            path.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(path)
        with pytest.raises(StoreError, match="safe in it, wherever" if moved else "are lost"):
            folder.check()
    with RunFolder.acquire(tmp_path / "early") as folder:
        shutil.rmtree(tmp_path / "early")
        with pytest.raises(StoreError, match=r"deleted or moved .* 0 record"):
            folder.check()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path), pytest.raises(StoreError, match=f"pid {os.getpid()}"):
        RunFolder.acquire(tmp_path)
    RunFolder.acquire(tmp_path).close()


def test_reading_needs_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path) as folder:
        folder.write_plan(plan("a", "b"), {}, "1")
        folder.append(record("a"))
        file = tmp_path / "records.jsonl"
        with file.open("ab") as half:
            half.write(b'{"schema": 1, "cel')
        before = file.read_bytes()
        assert [r.cell_id for r in RunFolder.open(tmp_path).records()] == ["a"]
        assert file.read_bytes() == before


def test_writing_needs_the_lock(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path) as folder:
        folder.write_plan(plan("a"), {}, "1")
    with pytest.raises(RuntimeError, match="lock"):
        RunFolder.open(tmp_path).append(record("a"))


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="not empty and is not the folder of a run"):
        RunFolder.acquire(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"part of that path is a file.*Nothing was started.*--out"
    ):
        RunFolder.acquire(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "not writable"),
        (errno.ENOSPC, "disk is full"),
        (errno.EIO, "input/output error"),
    ],
)
def test_an_unwritable_folder_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    real = os.open

    def refuse(path: object, *args: object, **kwargs: object) -> int:
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=words):
        RunFolder.acquire(tmp_path)


def _mounted(tmp_path: Path, options: str) -> Path:
    """A tmpfs, where the system lets us; otherwise the test is skipped."""
    place = tmp_path / "mount"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs privileges")
    return place


def _append_until_it_fails(folder: RunFolder) -> None:
    for round_ in range(1000):
        folder.append(record("a", round_, reason="x" * 5000))


def test_a_file_system_mounted_read_only(tmp_path: Path) -> None:
    place = _mounted(tmp_path, "size=1m,ro")
    try:
        with pytest.raises(StoreError, match="read-only"):
            RunFolder.acquire(place / "run")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_loses_no_record_that_was_stored(tmp_path: Path) -> None:
    place = _mounted(tmp_path, "size=128k")
    try:
        with RunFolder.acquire(place / "run") as folder:
            folder.write_plan(plan("a"), {}, "1")
            with pytest.raises(StoreError, match=r"(?s)no space left.*are safe.*--resume"):
                _append_until_it_fails(folder)
            stored = len(folder.journal.entries)
            assert stored > 5
        again = RunFolder.open(place / "run")
        assert len(again.journal.entries) == stored
        assert again.journal.torn_at is None
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_records_are_those_of_the_plan_and_of_the_last_attempt(tmp_path: Path) -> None:
    with RunFolder.acquire(tmp_path) as folder:
        folder.write_plan(plan("a", "b", rounds=2), {}, "1")
        folder.append(record("a", 0, outcome="oom"))
        folder.append(record("gone", 0))
        folder.append(record("a", 1))
        folder.append(record("a", 0, attempt=1))
        folder.append(record("b", 2))
        got = [(r.cell_id, r.round, r.attempt) for r in folder.records()]
        assert got == [("a", 1, 0), ("a", 0, 1)]
        assert len(list(folder.records(every=True))) == 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": 1}'])
def test_a_broken_plan_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(StoreError, match=r"plan\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(StoreError, match=r"plan\.json"):
        RunFolder.acquire(tmp_path)


def test_a_plan_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"schema": SCHEMA_VERSION + 1}))
    with pytest.raises(StoreError, match="update bench"):
        RunFolder.open(tmp_path)


def test_what_is_no_run_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no plan\.json"):
        RunFolder.open(tmp_path)
