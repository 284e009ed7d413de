"""What a machine did while calls were repeated: each quantity over time, with the calls shaded.

Two tables. Samples: workload, label, backend, quantity (a key of `QUANTITIES`), t_s, value. Calls:
workload, label, begin_s, end_s.
"""

from __future__ import annotations

import pandas as pd

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


def _kinds(samples: pd.DataFrame) -> list[str]:
    present = set(samples["quantity"])
    return list(dict.fromkeys(axis for key, (axis, _, _) in QUANTITIES.items() if key in present))


@style.figure_of(
    TITLE,
    nothing="No run has telemetry (telemetry: true).",
    notes=(
        "n is the number of samples; shaded from start to end of each call, "
        "which has no share in any timed figure. Before and after, the worker idled. "
        "CPU: 100 % is every logical CPU of the machine."
    ),
    height=lambda samples, _: 0.75 + 1.15 * len(_kinds(samples)),
    ratios=lambda samples: [1.0] * len(_kinds(samples)),
    by="label",
    most=6,
    left_out="{drawn} of {total} cells are drawn.",
)
def figure(panel: style.Panel) -> None:
    """Draw one cell: small axes below one another that share their time."""
    samples, calls = panel.tables
    count = samples.groupby("quantity").size().max()
    panel.axes.set_title(style.wrap(f"{samples['label'].iloc[0]} (n = {count})", 60, 2))
    for axes, kind in zip(panel.stack, _kinds(samples), strict=True):
        for begin, end in zip(calls["begin_s"], calls["end_s"], strict=True):
            # A hair's breadth apart, so that calls can be told from one another.
            axes.axvspan(begin, begin + 0.97 * (end - begin), color=style.GRID, linewidth=0)
        for key, (axis, label, colour) in QUANTITIES.items():
            one = samples[samples["quantity"] == key]
            if axis == kind and len(one):
                values = one["value"] / (style.GIB if key.endswith("_bytes") else 1)
                axes.plot(one["t_s"], values, color=colour, label=label, linewidth=1.2)
        axes.set_ylabel(kind.replace(" [", "\n["))
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low) if kind != "temperature [°C]" else low, high * 1.05)
        axes.legend(loc="best", fontsize=7.5)
    panel.stack[-1].set_xlabel("time since the pass began [s]")
