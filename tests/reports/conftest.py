"""What reports are made without: weights that lie on this machine, and figures if a test asks."""

from __future__ import annotations

import pytest

from reports import figures as drawing


@pytest.fixture(autouse=True, scope="session")
def no_weights():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CLIP", "none")
        patch.setenv("BENCH_LPIPS", "none")
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of the time of a report."""
    monkeypatch.setattr(drawing, "draw", lambda *_: list)
