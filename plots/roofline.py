"""How near each backend's denoiser is to what the device can do.

Columns: workload, label, backend, flop_per_byte, flop_per_weight_byte, flops_per_s (of the
denoising loop), matmul_flops_per_s, copy_bytes_per_s (both measured on this device), mfu_pct,
busy_pct (device-busy share of the loop; NaN where it cannot be traced), launch_bound (True, False
or None), processes.
"""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from plots import style

TITLE = "The denoiser against the device's limits"


@style.figure_of(
    TITLE,
    nothing="No record counted the model's operations and measured the device's limits.",
    notes=(
        "Up: operations of the denoiser in one call over the time of its loop. The roof is "
        "what this device reached in the same run: a copy (slope) and a matrix product in "
        "the workload's type (level). Across: operations for each byte moved. The mark "
        "stands where each of diffusers' operators reads and writes by itself, and its "
        "line reaches to where nothing but weights is read: what fuses lies between. "
        "Backends that skip work or narrow it are left out, and of a backend's variants "
        "all but the fastest. Per cent: share of the matrix product's rate; busy: of the "
        "loop in which the device computes. Hollow: under 90 %, bound by launches. "
        "n = processes."
    ),
    height=lambda rows: 3.6 + 0.19 * rows["label"].nunique(),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: the roof, and each backend under it."""
    axes, rows = panel.axes, panel.rows
    peak = float(rows["matmul_flops_per_s"].median())
    copy = float(rows["copy_bytes_per_s"].median())
    ridge = peak / copy
    known = rows[rows["flops_per_s"].map(style.present)]
    places = [*known["flop_per_byte"], ridge]
    left, right = min(places) / 3, max([*places, *known["flop_per_weight_byte"]]) * 1.5
    axes.plot([left, ridge, right], [copy * left, peak, peak], color=style.INK, linewidth=1.3)
    axes.text(
        right, peak, f"{_si(peak)}FLOP/s measured ", ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    style.write(axes, f"{_si(copy)}B/s measured", (left, copy * left), (10, -2), va="top")
    shapes = style.markers(rows["label"])
    for row in rows.itertuples():
        label = style.shorten(row.label, 33)
        if not style.present(row.flops_per_s):
            axes.plot([], [], linestyle="", label=f"{label}: no figure")
            continue
        busy = f", busy {row.busy_pct:.0f} %" if style.present(row.busy_pct) else ""
        colour = panel.colours[row.backend]
        reads = (row.flop_per_byte, row.flop_per_weight_byte)
        axes.hlines(row.flops_per_s, *reads, color=colour, linewidth=1, alpha=0.6)
        style.dot(
            axes, row.flop_per_byte, row.flops_per_s, shapes[str(row.label)], colour, 7,
            filled=row.launch_bound is not True, linestyle="",
            label=f"{label}: {_si(row.flops_per_s)}FLOP/s, {row.mfu_pct:.1f} %{busy} · "
            f"n = {row.processes}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    lowest = min([copy * left, *known["flops_per_s"]])
    axes.set_ylim(lowest / 2, peak * 2.2)
    axes.set_xlabel("operations for each byte moved [FLOP/B]")
    axes.set_ylabel("operations per second [FLOP/s]")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _si(value).strip()))
        axis.set_minor_locator(NullLocator())
    style.legend_below(axes)


def _si(value: float) -> str:
    """Return a number with three digits and the prefix of its unit."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
