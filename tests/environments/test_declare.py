"""Declarations: what a file may say, whose file wins, and what wrong ones are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.environments import EnvironmentProblem, EnvironmentUnavailable, declarations, lock
from bench.environments.declare import declaration
from tests.environments.support import HERE, declare, read, toml, wheel


def test_what_ships_is_well_formed_and_its_locks_are_whole() -> None:
    shipped = read(Path(__file__).parents[2] / "compilers" / "environments")
    assert {"nexfort", "oneflow"} <= set(shipped)
    for each in shipped.values():
        assert each.description
        assert each.installed_bytes
        for version in each.pythons:
            packages, made_from = lock.read(each, version)
            assert {"torch", "diffusers", "transformers"} <= set(packages)
            assert made_from == lock.requirements_sha256(each)
            # another build of the same version, such as one for the CPU, stays possible
            assert not [exact for exact in packages.values() if "+" in exact]


def test_no_shipped_file_names_a_host() -> None:
    for path in (Path(__file__).parents[2] / "compilers" / "environments").iterdir():
        assert not re.search(r"https?://|--(extra-)?index-url", path.read_text()), path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python = [", "is not TOML"),
        ("", "it needs 'python'"),
        ('python = ["3.11"]\npyhton = 1', "unknown key 'pyhton'; did you mean 'python'?"),
        ('python = ["2.7"]', "must list versions such as"),
        ("python = []", "must list versions such as"),
        ("python = 3.11", "'python' must be a list of versions or the path"),
        ('python = ["3.11"]\nwheels = "a.whl"', "'wheels' must be a list of wheel files"),
        ('python = ["3.11"]\nwheels = [1]', "'wheels' must be a list of wheel files"),
        ('python = ["3.11"]\ninstalled_bytes = true', "must be a number of bytes"),
        ('python = ["3.11"]\nlocks_named = "x"', "unknown key 'locks_named'"),
        ('python = ["3.11"]\nvariables = {"A=B" = "1"}', "'A=B' is not"),
        ('python = ["3.11"]\nvariables = {A = 1}', "'A' is not"),
        ('python = "/usr/bin/python3"\nwheels = ["a.whl"]', "'wheels' means nothing"),
        ('extends = "nothing"', "extends 'nothing', which is no environment"),
        ('extends = "x"', "extends 'x', which is no environment"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(EnvironmentProblem, match=re.escape(message)):
        read(Path("/nowhere"), tmp_path)


def test_files_that_extend_each_other_in_a_ring(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b"')
    (tmp_path / "b.toml").write_text('extends = "a"')
    with pytest.raises(EnvironmentProblem, match="extends itself"):
        read(tmp_path)


def test_a_users_file_extends_a_shipped_one_of_its_own_name(tmp_path: Path) -> None:
    shipped, user = tmp_path / "shipped", tmp_path / "user"
    declare(
        shipped,
        packages={"aaa": "1.0", "bbb": "2.0", "ccc": "1"},
        known_problem="no wheel",
        variables={"ONE": "1", "TWO": "2"},
    )
    wheel(user / "mine", "bbb", "2.1")
    (user / "tiny.toml").write_text(
        'extends = "tiny"\nwheels = ["mine/bbb-2.1-py3-none-any.whl"]\nknown_problem = ""\n'
        'without = ["cc*"]\nvariables = {TWO = "22"}\n'
    )
    mine = read(shipped, user)["tiny"]
    assert mine.known_problem is None
    assert mine.variables == {"ONE": "1", "TWO": "22"}
    packages, wheels = lock.wanted(mine, HERE)
    assert packages == {"aaa": "1.0"}
    assert wheels == {"bbb": user / "mine" / "bbb-2.1-py3-none-any.whl"}


def test_locks_are_those_of_what_is_extended_unless_there_are_requirements(
    tmp_path: Path,
) -> None:
    shipped, user = tmp_path / "shipped", tmp_path / "user"
    declare(shipped)
    user.mkdir()
    (user / "older.toml").write_text('extends = "tiny"\npython = ["3.10"]\n')
    (user / "other.toml").write_text('extends = "tiny"\nrequirements = "other.in"\n')
    known = read(shipped, user)
    assert known["older"].lock_path("3.10") == shipped / "tiny-py3.10.txt"
    assert known["other"].lock_path(HERE) == user / f"other-py{HERE}.txt"


def test_a_wheel_that_is_not_there_or_no_wheel(tmp_path: Path) -> None:
    for name, message in (("b-1-py3-none-any.whl", "not there"), ("b.whl", "not called like a")):
        declared = declare(tmp_path, wheels=[name])
        with pytest.raises(EnvironmentUnavailable, match=message):
            lock.wanted(declared, HERE)


def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    known = {"tiny": declare(tmp_path)}
    with pytest.raises(EnvironmentProblem, match="Did you mean 'tiny'"):
        declaration("tinny", known)
    with pytest.raises(EnvironmentProblem, match="There are: tiny"):
        declaration("zzz", known)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("aaa==1.0", "aaa==1.1"), "does not fit its checksum"),
        (lambda text: text.replace("bbb==2.0\n", ""), "does not fit its checksum"),
        (lambda text: text[: len(text) // 2], "has no checksum|does not fit"),
        (lambda text: text.replace("aaa==1.0", "aaa>=1.0"), "'aaa>=1.0' is no NAME==VERSION"),
        (lambda text: text + "-e git+ssh://x\n", "is no NAME==VERSION"),
        (lambda text: "", "has no checksum"),
        (lambda text: "\x00", "is no NAME==VERSION"),
    ],
)
def test_a_damaged_lock_is_refused_with_the_command_that_helps(
    tmp_path: Path, change: object, message: str
) -> None:
    declared = declare(tmp_path, packages={"aaa": "1.0", "bbb": "2.0"})
    path = declared.lock_path(HERE)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(EnvironmentUnavailable, match=message) as told:
        lock.read(declared, HERE)
    assert "bench env lock tiny" in str(told.value)
    path.unlink()
    with pytest.raises(EnvironmentUnavailable, match="is missing"):
        lock.read(declared, HERE)


def test_where_users_put_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "diffusion-compiler-bench" / "environments"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(f"python = {toml('/usr/bin/python3')}")
    found = declarations(tmp_path / "none", {"XDG_CONFIG_HOME": str(tmp_path)})
    assert found["mine"].own_python == Path("/usr/bin/python3")
