"""What a machine did while calls were repeated: each quantity over time, with the calls shaded.

Two tables. Samples: workload, label, backend, quantity (a key of `QUANTITIES`), t_s, value. Calls:
workload, label, begin_s, end_s.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "What the machine did while calls were repeated"

QUANTITIES = {
    "gpu_pct": ("utilisation [%]", "GPU busy", "#0072B2"),
    "cpu_pct": ("utilisation [%]", "CPU, of all of the machine's", "#D55E00"),
    "device_used_bytes": ("memory [GiB]", "GPU, all processes", "#0072B2"),
    "process_used_bytes": ("memory [GiB]", "GPU, the worker", "#009E73"),
    "rss_bytes": ("memory [GiB]", "host, the worker", "#D55E00"),
    "power_w": ("power [W]", "GPU", "#CC79A7"),
    "sm_clock_mhz": ("SM clock [MHz]", "GPU", "#882255"),
    "temperature_c": ("temperature [°C]", "GPU", "#A40E26"),
}
"""Axis, name and colour of each quantity; those of one axis are drawn together."""

MOST = 6


def figure(
    samples: pd.DataFrame,
    calls: pd.DataFrame,
    colours: Mapping[str, str] | None = None,  # noqa: ARG001 - of backends
) -> Figure:
    """Return one panel for each cell: small axes below one another that share their time."""
    names = [str(name) for name in dict.fromkeys(samples["label"])] if len(samples) else []
    if not names:
        return style.empty(TITLE, "No run has telemetry (telemetry: true).")
    shown = names[:MOST]
    with style.settings():
        parts = [samples[samples["label"] == name] for name in shown]
        kinds = [_axes_of(part) for part in parts]
        left = f"{len(shown)} of {len(names)} cells are drawn." if len(shown) < len(names) else ""
        page = style.Page(
            TITLE,
            [0.75 + 1.15 * max(1, len(kind)) for kind in kinds],
            notes=[
                (
                    "n is the number of samples; shaded from the begin to the end of each call, "
                    "which has no share in any timed figure. Before and after, the worker idled. "
                    "CPU: 100 % is every logical CPU of the machine."
                ),
                left,
            ],
        )
        for place, (name, part, kind) in enumerate(zip(shown, parts, kinds, strict=True)):
            _cell(page, place, name, part, calls[calls["label"] == name], kind)
        return page.figure


def _axes_of(part: pd.DataFrame) -> list[str]:
    present = set(part["quantity"])
    return list(dict.fromkeys(axis for key, (axis, _, _) in QUANTITIES.items() if key in present))


def _cell(
    page: style.Page,
    place: int,
    name: str,
    part: pd.DataFrame,
    calls: pd.DataFrame,
    kinds: list[str],
) -> None:
    inner = page.cells[place].subgridspec(len(kinds), 1)
    shared: Axes | None = None
    for at, kind in enumerate(kinds):
        axes = page.figure.add_subplot(inner[at], sharex=shared)
        if shared is None:
            shared = axes
            most = int(part.groupby("quantity").size().max())
            axes.set_title(style.wrap(f"{name} (n = {most})", 60, 2))
        for begin, end in zip(calls["begin_s"], calls["end_s"], strict=True):
            # A hair's breadth apart, so that calls can be told from one another.
            axes.axvspan(begin, begin + 0.97 * (end - begin), color=style.GRID, linewidth=0)
        for key, (axis, label, colour) in QUANTITIES.items():
            one = part[part["quantity"] == key]
            if axis == kind and len(one):
                scale = 1024**3 if key.endswith("_bytes") else 1
                axes.plot(
                    one["t_s"], one["value"] / scale, color=colour, label=label, linewidth=1.2
                )
        axes.set_ylabel(kind.replace(" [", "\n["))
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low) if kind != "temperature [°C]" else low, high * 1.05)
        axes.legend(loc="best", fontsize=7.5)
        if at < len(kinds) - 1:
            axes.tick_params(axis="x", labelbottom=False)
    assert shared is not None
    axes.set_xlabel("time since the pass began [s]")
