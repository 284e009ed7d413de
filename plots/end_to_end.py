"""End-to-end time by backend.

Columns: workload, label, backend, value, low, high, calls, processes, points (one median for each
process), shown (the value as text), published (bool), why (why there is no value).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from plots.lists import draw

TITLE = "End-to-end time of one call, by backend"


def figure(table: pd.DataFrame, colours: Mapping[str, str] | None = None) -> Figure:
    """Return dots with intervals on a time axis from 0, one panel for each workload."""
    return draw(
        table,
        TITLE,
        "end-to-end time of one call [s], less is better",
        colours,
    )
