from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from compilers import registry
from compilers.base import Backend, NoOptions
from tests import plugin_backend


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin_backend.install(tmp_path)))


@pytest.mark.parametrize("name", list(registry.BUILT_IN))
def test_built_in_backends_keep_the_protocol(name: str) -> None:
    backend = registry.get(name)
    assert isinstance(backend, Backend)
    assert backend.name == name
    assert backend.options() == registry.make_options(backend, {})
    assert typing.get_type_hints(backend.options) is not None


def test_looking_loads_no_torch(tmp_path: Path) -> None:
    plugin_backend.install(tmp_path)
    code = (
        "import sys; from compilers import registry\n"
        "assert 'plugin-good' in registry.names()\n"
        "assert 'plugin_backend' not in sys.modules\n"
        "for name in (*registry.BUILT_IN, 'plugin-good'):\n"
        "    registry.make_options(registry.get(name), {})\n"
        "assert not {'torch', 'diffusers', 'pydantic', 'pandas'} & set(sys.modules)\n"
    )
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path}, timeout=60)


@pytest.mark.usefixtures("plugins")
def test_third_party_backends_are_found_by_entry_point() -> None:
    assert registry.names()[: len(registry.BUILT_IN)] == tuple(registry.BUILT_IN)
    backend = registry.get("plugin-good")
    options = registry.make_options(backend, {"scope": ["vae.decode"]})
    assert dataclasses.asdict(options) == {"scope": ("vae.decode",), "fullgraph": False}


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plugin-missing", "plugin_backend_that_is_not_there"),
        ("plugin-no-backend", "lacks name, options"),
        ("plugin-misnamed", "calls itself 'something-else'"),
    ],
)
def test_a_broken_package_is_an_error_of_its_own_and_of_nobody_else(name: str, words: str) -> None:
    assert name in registry.names()
    with pytest.raises(registry.BackendError, match=words) as caught:
        registry.get(name)
    assert name in str(caught.value)
    assert registry.get("plugin-good").name == "plugin-good"
    assert registry.get("none").options is NoOptions


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(registry.UnknownBackendError, match="torch-compile-regional"):
        registry.get("torch-compiled")


def test_a_built_in_name_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_backend.write_metadata(
        tmp_path, "taker", "1", {registry.GROUP: {"none": "nowhere:Backend"}}
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.names().count("none") == 1
    assert type(registry.get("none")).__module__ == "compilers.none"


def test_two_packages_with_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("one", "two"):
        points = {registry.GROUP: {"contested": f"{package}:Backend"}}
        plugin_backend.write_metadata(tmp_path, package, "1", points)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(registry.BackendError, match="one:Backend, two:Backend"):
        registry.get("contested")


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(registry.BackendError, match=r"'mod'.*mode"):
        registry.make_options(registry.get("torch-compile"), {"mod": "default"})
