"""The worked example of docs/adding-a-backend.md, taken from the page and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib

from compilers import registry
from tests import plugin_backend
from tests.worker import fakes, tiny

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-backend.md"
FILE = re.compile(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in a folder, and the package installed from it."""
    files = dict(FILE.findall(PAGE.read_text(encoding="utf-8")))
    assert set(files) == {"pyproject.toml", "autocast_backend.py", "matrix.yaml"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    plugin_backend.write_metadata(
        tmp_path, project["name"], project["version"], project["entry-points"]
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_example_is_a_backend(folder: Path) -> None:
    backend = registry.get("autocast")
    assert backend.probe("cpu").supported
    assert not backend.probe("mps").supported


@pytest.mark.thorough
def test_the_example_runs_and_is_proved(folder: Path) -> None:
    from bench.config import load_config, make_plan

    plan = make_plan(load_config(folder / "matrix.yaml"))
    names = [cell["backend"]["name"] for cell in plan.cells]
    assert names == ["none", "autocast"]
    model = tiny.build("sdxl", folder / "model")
    digests = set()
    for cell in plan.cells:
        choice = cell["backend"]
        job = fakes.make_job(
            folder / choice["name"],
            model=f"path:{model}",
            backend=choice["name"],
            options=choice["options"],
            warmup={"stable_pct": 1000.0},
        )
        told = fakes.run(job)
        assert (told.outcome, told.reason) == ("ok", None)
        digests.add(told["images"][0]["sha256"])
    assert told["backend"]["scope"] == ["unet"]
    assert told["backend"]["lossy"] is True
    assert told["backend"]["evidence"]["changed"] == ["unet"]
    assert len(digests) == 2, "lower precision changes the picture"


def test_what_the_page_promises_of_options_and_scopes_is_true() -> None:
    from bench.contract import SCOPES

    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{scope}`" in text for scope in SCOPES)
