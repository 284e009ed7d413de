"""uv: found, given pip's settings, kept from printing passwords, and what its failures mean."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.environments import EnvironmentProblem, EnvironmentUnavailable, lock, pip_settings, uv
from tests.environments.support import HERE, declare, wheel

MACHINE = """[global]
find-links = /machine
extra-index-url = https://machine.invalid/simple
[install]
timeout = 15.5
"""
USER = """[global]
index-url = https://user:se%cret@host.invalid/simple
extra_index_url =
    file:///opt/simple
    https://two.invalid/simple
timeout = 3
no-binary =
[install]
trusted-host = a.invalid b.invalid:8080
[list]
find-links = /of-another-command
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder without settings of pip and uv, which is the working folder too."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name, folder in (("HOME", ""), ("XDG_CONFIG_HOME", "user"), ("XDG_CONFIG_DIRS", "machine")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def according_to_pip() -> dict[str, str]:
    """Return what ``pip config list`` has for ``pip install``."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    layers: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in printed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in layers:
            layers[section][key] = ast.literal_eval(value).strip()
    return {key: value for layer in layers.values() for key, value in layer.items() if value}


@pytest.mark.parametrize("named", [None, "named.conf", "not-there.conf", os.devnull])
def test_settings_are_read_as_pip_reads_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    write(home / "machine/pip/pip.conf", MACHINE)
    write(home / ".pip/pip.conf", "[global]\ncert = old\nproxy = old\n")
    write(home / "user/pip/pip.conf", USER)
    write(home / "named.conf", "[global]\ncert = named\n")
    monkeypatch.setenv("PIP_PROXY", "http://p.invalid:3128")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    if named:
        monkeypatch.setenv("PIP_CONFIG_FILE", named)
    settings = pip_settings.read()
    assert settings == according_to_pip()
    assert settings["proxy"] == "http://p.invalid:3128"
    assert settings.get("timeout") == {os.devnull: None}.get(named or "", "15.5")


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        ({"INDEX_URL": "https://u:p@a.invalid/s"}, {"UV_INDEX_URL": "https://u:p@a.invalid/s"}),
        (
            {"EXTRA_INDEX_URL": " file:///a\nhttps://b.invalid/s  folder"},
            {"UV_EXTRA_INDEX_URL": "file:///a https://b.invalid/s file://{home}/folder"},
        ),
        (
            {"FIND_LINKS": "~/a,b https://c.invalid/ /not-there file:///not-there"},
            {"UV_FIND_LINKS": "file://{home}/a%2Cb,https://c.invalid/"},
        ),
        (
            {"CONSTRAINT": "one.txt https://a.invalid/two.txt"},
            {"UV_CONSTRAINT": "{home}/one.txt https://a.invalid/two.txt"},
        ),
        ({"CERT": "~/a b.pem"}, {"SSL_CERT_FILE": "{home}/a b.pem"}),
        ({"CLIENT_CERT": "c.pem"}, {"SSL_CLIENT_CERT": "{home}/c.pem"}),
        ({"TRUSTED_HOST": "a.invalid:80 b"}, {"UV_INSECURE_HOST": "a.invalid:80 b"}),
        ({"DEFAULT_TIMEOUT": "180"}, {"UV_HTTP_TIMEOUT": "180"}),
        ({"TIMEOUT": "15.5", "DEFAULT_TIMEOUT": "9"}, {"UV_HTTP_TIMEOUT": "15"}),
        ({"PROXY": "u:p@h:1"}, dict.fromkeys(pip_settings.PROXIES, "u:p@h:1")),
        ({"NO_INDEX": "yes", "INDEX_URL": "https://a.invalid"}, {"options": ("--no-index",)}),
        ({"NO_INDEX": "0"}, {}),
        (
            {"ONLY_BINARY": ":all:", "NO_BINARY": "a,b"},
            {"options": ("--only-binary=:all:", "--no-binary=a", "--no-binary=b")},
        ),
    ],
)
def test_each_setting_has_its_place_in_uv(
    home: Path, settings: dict[str, str], variables: dict[str, str | tuple[str, ...]]
) -> None:
    (home / "a,b").mkdir()
    environment = {f"PIP_{name}": text for name, text in settings.items()}
    environment["PIP_CONFIG_FILE"] = os.devnull
    found, options = pip_settings.translated(environment)
    assert found.pop("UV_INDEX_STRATEGY") == "unsafe-best-match"
    expected = {
        name: text.replace("{home}", str(home)) if isinstance(text, str) else text
        for name, text in variables.items()
    }
    assert {**found, **({"options": options} if options else {})} == expected


def test_a_variable_of_uv_stands(home: Path) -> None:
    environment = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "https://pip.invalid/simple",
        "UV_INDEX_URL": "https://uv.invalid/simple",
        "UV_INDEX_STRATEGY": "first-index",
    }
    assert pip_settings.translated(environment) == ({}, ())


def test_a_damaged_file_of_pip_is_named_and_not_quoted(home: Path) -> None:
    path = write(home / "user/pip/pip.conf", "index-url = https://user:secret@host.invalid\n")
    with pytest.raises(EnvironmentUnavailable) as raised:
        pip_settings.translated()
    assert str(path) in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def index(folder: Path, name: str, *versions: str) -> str:
    """Write a package registry of one package as files, and return its address."""
    wheels = [wheel(folder / name, name, version) for version in versions]
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in wheels)
    (folder / name / "index.html").write_text(f"<html><body>{links}</body></html>")
    return folder.as_uri()


def test_a_lock_takes_the_best_of_all_places_as_pip_does(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index(home / "one", "aaa", "1.0", "3.0"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index(home / "two", "aaa", "1.5"))
    monkeypatch.setenv("PIP_CONSTRAINT", str(write(home / "constraints.txt", "aaa<3\n")))
    wheel(home / "links", "aaa", "2.0+cpu")
    declared = declare(home / "files", packages={"aaa": "1.0"}, find_links=["../links"])
    said: list[str] = []
    path, changed = lock.make(declared, HERE, say=said.append)
    assert path == declared.lock_path(HERE)
    assert changed == {"aaa": ("1.0", "2.0")}
    assert lock.read(declared, HERE)[0] == {"aaa": "2.0"}
    assert lock.outdated(declared) == []
    assert "found here as another build: aaa" in said[1]
    assert declared.requirements is not None
    before = path.read_text()
    declared.requirements.write_text("aaa==3\n")
    assert lock.outdated(declared) == [HERE]
    with pytest.raises(EnvironmentProblem, match="the lock stays as it is: uv failed: No solution"):
        lock.make(declared, HERE)
    assert path.read_text() == before


def test_passwords_are_taken_out_of_what_uv_prints() -> None:
    line = "Failed: https://user:s:e@c%20ret@host.invalid/simple, http://token@b and a@b.invalid"
    assert uv.without_passwords(line) == (
        "Failed: https://****@host.invalid/simple, http://****@b and a@b.invalid"
    )


def test_without_uv_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentUnavailable, match=r"not installed; `pip install .*\[environm"):
        uv.find()


def test_pythons_are_found(home: Path) -> None:
    python = uv.find_python(HERE)
    assert python is not None
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert subprocess.check_output([python, "-c", program], text=True).strip() == HERE
    assert uv.find_python("3.99") is None


NO_SOLUTION = "error: No solution found when resolving dependencies\n  cause: Because"
NOT_HERE = "which the lock asks for, is not to be had here"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("error: x\n  cause: y: No space left on device (os error 28)", "the disk became full"),
        ("error: x\n  cause: error sending request for url (a)", "registry cannot be reached"),
        (f"{NO_SOLUTION} there is no version of aaa==1.0 and you", f"aaa==1.0, {NOT_HERE}"),
        (f"{NO_SOLUTION} gone was not found in the package registry", f"gone, {NOT_HERE}"),
        (f"{NO_SOLUTION} aaa==1.0 has no wheels with a matching", f"aaa==1.0, {NOT_HERE}"),
        (
            "error: x\n  Caused by: incompatible with the current platform: a-1-py2-none-any.whl",
            "the wheel a-1-py2-none-any.whl is not made for",
        ),
        ("error: Failed to download `aaa==1`\n  cause: Invalid zip file", "is damaged (aaa==1)"),
        (f"{NO_SOLUTION} aaa has an invalid package format and you", "is damaged (aaa)"),
        ("error: Failed to build `a==1`\n  cause: x", "uv failed: Failed to build `a==1` cause: x"),
        (
            f"{NO_SOLUTION} you require aaa==2.0 and aaa<2, we",
            "cause: Because you require aaa==2.0",
        ),
        ("warning: x\nerror: strange\nmore", "uv failed: strange more (all"),
        ("  × No solution:\n  ╰─▶ Because\n      you", "uv failed: No solution: Because you (all"),
        ("strange\nmore", "uv failed: strange more (all"),
        ("", "uv failed: no output"),
    ],
)
def test_what_a_failure_means(output: str, message: str) -> None:
    assert message in uv.explain(output, "tiny", Path("log"))
