"""A section's own figures are drawn, those of every report are not."""

from __future__ import annotations

import pytest

from reports import figures


@pytest.fixture(autouse=True)
def only_its_own_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time of a report."""
    monkeypatch.setattr(figures, "_plotted", lambda *_: {})
