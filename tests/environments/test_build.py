"""Building, mending, removing: killed in the middle, twice at once, on a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.environments import EnvironmentProblem, EnvironmentUnavailable, build, built, uv
from bench.environments.build import provide
from tests.environments.support import declare, read, stand_in, wheel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv, "find", stand_in(tmp_path_factory.mktemp("uv")))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))


def site(status: built.Status) -> Path:
    assert status.folder is not None
    return built.packages_in(status.folder)


@pytest.mark.usefixtures("offline")
def test_a_real_environment_from_wheels_and_nothing_else(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "aaa", "1.0", "WORD = 'from the lock'")
    wheel(tmp_path / "wheels", "bbb", "2.0")
    mine = wheel(tmp_path / "mine", "bbb", "2.1", "WORD = 'mine'")
    declared = declare(
        tmp_path / "files",
        packages={"aaa": "1.0", "bbb": "2.0"},
        find_links=["../wheels"],
        wheels=[str(mine)],
    )
    said: list[str] = []
    progress: list[str] = []
    cache = tmp_path / "cache"
    ready = build.sync(declared, cache, say=said.append, progress=progress.append)
    assert ready.state == "ready"
    assert ready.interpreter is not None
    assert "2 packages" in said[0]
    assert [line.split()[0] for line in progress][-2:] == ["Installed", "Bytecode"]
    program = "import aaa, bbb; print(aaa.WORD, bbb.WORD)"
    printed = subprocess.run(
        [ready.interpreter.path, "-c", program], capture_output=True, text=True
    )
    assert printed.stdout == "from the lock mine\n"
    assert build.sync(declared, cache, say=said.append) == ready
    assert len(said) == 1

    shutil.rmtree(next(site(ready).glob("aaa-*.dist-info")))
    assert built.status(declared, cache).state == "broken"
    mended = build.sync(declared, cache, say=said.append)
    assert mended.state == "ready"
    assert "Mending (aaa 1.0 was removed" in said[1]
    assert build.remove("tiny", cache)[0][0] == ready.folder
    assert built.status(declared, cache).state == "absent"


@pytest.mark.usefixtures("offline")
def test_a_withdrawn_wheel_is_named_and_leaves_nothing_but_the_log(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "aaa", "1.0")
    declared = declare(
        tmp_path / "files", packages={"aaa": "1.0", "gone": "3.0"}, find_links=["../wheels"]
    )
    with pytest.raises(EnvironmentUnavailable, match=r"package gone\S*, which the lock") as raised:
        build.sync(declared, tmp_path / "cache")
    assert "'find_links'" in str(raised.value)
    assert built.status(declared, tmp_path / "cache").state == "absent"
    (log,) = (tmp_path / "cache").glob("*.log")
    assert "gone was not found" in log.read_text()


def test_without_a_network_folders_of_wheels_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    wheel(tmp_path / "wheels", "aaa", "1.0")
    whole = declare(tmp_path / "files", packages={"aaa": "1.0"}, find_links=["../wheels"])
    assert build.sync(whole, tmp_path / "cache").state == "ready"
    lacking = declare(
        tmp_path / "files", "lacking", {"aaa": "1.0", "bbb": "1.0"}, find_links=["../wheels"]
    )
    with pytest.raises(EnvironmentUnavailable, match="registry cannot be reached") as raised:
        build.sync(lacking, tmp_path / "cache")
    written = [str(raised.value), *(log.read_text() for log in tmp_path.rglob("*.log"))]
    assert len(written) == 3
    assert "secret" not in "".join(written)


def test_the_identity_is_what_it_is_made_from(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def key(**keys: Any) -> str:
        return build.plan(declare(tmp_path / "files", **keys), cache).folder.name

    first = key(packages={"aaa": "1.0"})
    assert key(packages={"aaa": "1.0"}, description="other words") == first
    (tmp_path / "wheels").mkdir()
    links = key(packages={"aaa": "1.0"}, find_links=["../wheels"])
    wheel(tmp_path / "wheels", "aaa", "1.0")
    more = key(packages={"aaa": "1.0"}, find_links=["../wheels"])
    own = wheel(tmp_path, "aaa", "1.0", "1")
    mine = key(packages={"aaa": "1.0"}, wheels=[str(own)])
    wheel(tmp_path, "aaa", "1.0", "2")
    changed = key(packages={"aaa": "1.0"}, wheels=[str(own)])
    assert len({first, links, more, mine, changed, key(packages={"aaa": "1.1"})}) == 6


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda s: shutil.rmtree(site(s) / "aaa"), "it is not whole: aaa is missing"),
        (lambda s: shutil.rmtree(site(s) / "aaa-1.0.dist-info"), "aaa 1.0 was removed"),
        (lambda s: shutil.rmtree(site(s)), "aaa 1.0 was removed"),
        (lambda s: built.python_in(s.folder).unlink(), "its interpreter is gone"),
    ],
)
def test_what_is_broken_is_seen_and_mended(
    tmp_path: Path, harm: Callable[[built.Status], None], message: str
) -> None:
    declared, cache = declare(tmp_path), tmp_path / "cache"
    harm(build.sync(declared, cache))
    broken = built.status(declared, cache)
    assert broken.state == "broken"
    assert broken.interpreter is None
    assert message in str(broken.reason)
    assert "`bench env sync tiny` mends it" in built.why_not(broken)
    assert build.sync(declared, cache).state == "ready"


@pytest.mark.usefixtures("quick")
def test_an_interpreter_that_was_uninstalled_shows(tmp_path: Path) -> None:
    declared, cache = declare(tmp_path), tmp_path / "cache"
    ready = build.sync(declared, cache)
    python = built.python_in(ready.folder)  # type: ignore[arg-type]
    python.unlink()
    python.symlink_to(tmp_path / "uninstalled")
    assert "uninstalled" in str(built.status(declared, cache).reason)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from bench.environments import build, uv
from tests.environments.support import read
uv.find = lambda: Path({uv!r})
build.sync(read(Path({files!r}))["tiny"], Path({cache!r}), say=lambda text: print(text, flush=True),
           progress=lambda line: print(line, flush=True))
"""

HANGS = "print('Downloading more', flush=True); time.sleep(600)"


def test_a_sync_that_is_killed_in_the_middle_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, cache = declare(tmp_path / "files"), tmp_path / "cache"
    program = KILLED.format(
        root=str(ROOT),
        uv=str(stand_in(tmp_path / "uv", HANGS)()),
        files=str(tmp_path / "files"),
        cache=str(cache),
    )
    sync = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert sync.stdout is not None
    while "more" not in sync.stdout.readline():
        assert sync.poll() is None
    assert built.status(declared, cache).state == "unfinished"
    sync.send_signal(signal.SIGKILL)
    sync.wait()
    sync.stdout.close()
    assert "a sync of it was interrupted" in built.why_not(built.status(declared, cache))
    monkeypatch.setattr(uv, "find", stand_in(tmp_path / "uv"))
    said: list[str] = []
    # its uv died with it, so the lock is free
    assert build.sync(declared, cache, say=said.append).state == "ready"
    assert said[0].startswith("Building anew what was begun")


def test_ctrl_c_takes_back_what_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared, cache = declare(tmp_path / "files"), tmp_path / "cache"
    monkeypatch.setattr(uv, "find", stand_in(tmp_path / "uv", HANGS))

    def interrupt(line: str) -> None:
        if "more" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.sync(declared, cache, progress=interrupt)
    assert built.status(declared, cache).state == "absent"


def test_two_syncs_at_once_build_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared, cache = declare(tmp_path / "files"), tmp_path / "cache"
    go = tmp_path / "go"
    waits = (
        f"open({str(tmp_path / 'builds')!r}, 'a').write('x')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
    )
    monkeypatch.setattr(uv, "find", stand_in(tmp_path / "uv", waits))
    said: list[str] = []
    results: list[built.Status] = []

    def one() -> None:
        results.append(build.sync(declared, cache, say=said.append))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while not any("waiting" in text for text in said):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go.touch()
    for thread in threads:
        thread.join()
    assert [each.state for each in results] == ["ready", "ready"]
    assert (tmp_path / "builds").read_text() == "x"


@pytest.mark.usefixtures("quick")
def test_what_a_run_uses_is_not_removed(tmp_path: Path) -> None:
    declared, cache = declare(tmp_path), tmp_path / "cache"
    ready = build.sync(declared, cache)
    assert ready.interpreter is not None
    with ready.interpreter.in_use(), ready.interpreter.in_use():
        with pytest.raises(EnvironmentProblem, match="used by another process"):
            build.remove("tiny", cache)
        assert built.status(declared, cache).state == "ready"
    assert len(build.remove("tiny", cache)) == 1


@pytest.mark.usefixtures("quick")
def test_remove_takes_older_locks_along_and_other_names_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build.sync(declare(tmp_path, packages={"aaa": "1.0"}), cache)
    build.sync(declare(tmp_path, packages={"aaa": "1.1"}), cache)
    other = declare(tmp_path, name="tiny-2")
    build.sync(other, cache)
    assert len(build.remove("tiny", cache)) == 2
    assert built.status(other, cache).state == "ready"


def test_no_room_is_said_before_anything_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = declare(tmp_path, installed_bytes=5_000_000_000, download_bytes=2_000_000_000)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's own
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, 1_000_000_000))
    with pytest.raises(EnvironmentUnavailable, match=r"needs about 5\.25 GB in .* 1 GB are free"):
        build.sync(declared, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_python_that_is_not_here(tmp_path: Path) -> None:
    declared = declare(tmp_path, python=["3.99"])
    with pytest.raises(EnvironmentUnavailable, match=r"needs Python 3\.99, which was not found"):
        build.sync(declared, tmp_path / "cache")
    absent = declare(tmp_path, build_with="/nowhere/python")
    with pytest.raises(EnvironmentUnavailable, match="/nowhere/python to build with, which does"):
        build.sync(absent, tmp_path / "cache")


def test_another_platform(tmp_path: Path) -> None:
    declared = declare(tmp_path, platforms=["plan9-sparc"])
    with pytest.raises(EnvironmentUnavailable, match="is locked for plan9-sparc, and this is"):
        build.sync(declared, tmp_path / "cache")


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EnvironmentUnavailable, match="BENCH_ENVIRONMENTS"):
        build.sync(declare(tmp_path / "files"), tmp_path / "cache")


def test_an_installer_that_lies_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uv, "find", stand_in(tmp_path / "uv", change=("{version}", "9.9")))
    with pytest.raises(EnvironmentUnavailable, match=r"aaa is 9\.9 where the lock says 1\.0"):
        build.sync(declare(tmp_path), tmp_path / "cache")


def test_an_interpreter_of_the_users_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        f'python = "{sys.executable}"\nvariables = {{WORD = "hello"}}\n'
    )
    found = built.status(read(tmp_path)["mine"])
    assert found.state == "ready"
    assert found.interpreter is not None
    assert found.interpreter.path == sys.executable
    assert found.interpreter.variables == {"WORD": "hello"}
    (tmp_path / "mine.toml").write_text('python = "~/nowhere/python"\n')
    gone = built.status(read(tmp_path)["mine"])
    assert gone.state == "unusable"
    assert "which is not there" in built.why_not(gone)


class TestWhatARunGets:
    @pytest.fixture(autouse=True)
    def _own_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
        monkeypatch.setenv("BENCH_ENVIRONMENT_FILES", str(tmp_path / "files"))
        monkeypatch.setenv("BENCH_ENVIRONMENTS", str(tmp_path / "cache"))

    def test_what_it_needs_is_built_after_saying_so(self, tmp_path: Path) -> None:
        declare(tmp_path / "files", packages={"aaa": "1.0"})
        said: list[str] = []
        interpreter = provide("tiny", say=said.append)
        assert os.path.exists(interpreter.path)
        assert said[0].startswith("Building: tiny, 1 packages")
        assert not [text for text in said if text.startswith("Downloading")]
        assert provide("tiny", may_build=False) == interpreter

    def test_no_sync_refuses_with_the_command(self, tmp_path: Path) -> None:
        declare(tmp_path / "files")
        with pytest.raises(EnvironmentUnavailable, match="`bench env sync tiny` builds it"):
            provide("tiny", may_build=False)
        assert not (tmp_path / "cache").exists()

    def test_what_cannot_work_is_not_built(self, tmp_path: Path) -> None:
        declare(tmp_path / "files", known_problem="the wheel lacks a module")
        with pytest.raises(EnvironmentUnavailable, match=r"^the wheel lacks a module$"):
            provide("tiny")
        assert not (tmp_path / "cache").exists()

    def test_a_name_that_nobody_declares(self) -> None:
        for may_build in (True, False):
            with pytest.raises(EnvironmentUnavailable, match="no environment is called 'nope'"):
                provide("nope", may_build=may_build)

    def test_the_harness_own_is_always_there(self) -> None:
        assert provide("current").path == sys.executable
