from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.worker import compile_cache


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*compile_cache.FOLDERS, "TORCHINDUCTOR_FX_GRAPH_CACHE"):
        monkeypatch.setenv(name, "unchanged")


def test_every_cache_goes_into_the_cells_own_folder(tmp_path):
    assert compile_cache.use(tmp_path / "new", "fresh") is False
    for name in compile_cache.FOLDERS:
        assert Path(os.environ[name]).is_relative_to(tmp_path / "new")
        assert Path(os.environ[name]).is_dir()


def test_inductor_and_triton_really_use_it(tmp_path):
    from torch._inductor import config

    if not hasattr(config, "fx_graph_cache"):
        pytest.skip("torch before 2.1 keeps no graphs")
    from torch._inductor.runtime.runtime_utils import cache_dir

    compile_cache.use(tmp_path, "fresh")
    assert Path(cache_dir()).is_relative_to(tmp_path)
    assert config.fx_graph_cache


def test_a_fresh_cache_is_empty_even_in_a_folder_that_is_not(tmp_path):
    (tmp_path / "left-over").write_text("x")
    assert compile_cache.use(tmp_path, "fresh") is False
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert not list(folder.iterdir())
    assert (tmp_path / "left-over").exists()


def test_a_warm_cache_keeps_what_is_there(tmp_path):
    assert compile_cache.use(tmp_path, "warm") is False
    (tmp_path / "inductor" / "graph").write_text("x")
    assert compile_cache.use(tmp_path, "warm") is True
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")


def lookups(hits: int, misses: int) -> dict[str, int]:
    return {"hits": hits, "misses": misses}


def test_warm_is_what_was_found_and_not_what_was_asked():
    assert compile_cache.found("fresh", False, lookups(1, 3)) == ("fresh", None)
    assert compile_cache.found("warm", True, lookups(3, 0)) == ("warm", None)
    assert compile_cache.found("warm", True, None) == ("warm", None)
    for filled, seen, cache, words in (
        (False, lookups(0, 3), "fresh", "empty"),
        (True, lookups(0, 3), "fresh", "none of 3"),
        (True, lookups(2, 1), "warm", "1 of 3 missed"),
    ):
        found, warning = compile_cache.found("warm", filled, seen)
        assert found == cache
        assert words in (warning or "")


@pytest.mark.parametrize(
    ("lookups", "cache", "said"),
    [
        (None, "warm", ""),
        ({"hits": 8, "misses": 0}, "warm", ""),
        ({"hits": 6, "misses": 2}, "warm", "2 of 8 lookups found nothing"),
        ({"hits": 0, "misses": 8}, "fresh", "none of 8 lookups found anything"),
    ],
)
def test_brought_code_that_does_not_fit_warms_nothing(lookups, cache, said):
    found, why = compile_cache.found_brought(100, lookups)
    assert found == cache
    assert why is not None
    assert why.startswith("the backend brought 100 bytes of compiled code along")
    assert said in why
