"""Iterations per second by backend. Columns as in `plots.end_to_end`."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from plots.lists import draw

TITLE = "Denoising iterations per second (it_per_s), by backend"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return dots with intervals on an axis from 0, one panel for each workload."""
    return draw(
        table,
        TITLE,
        "iterations per second [1/s], more is better",
        colours,
    )
