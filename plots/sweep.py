"""End-to-end time against steps: points, line, band, residuals.

Table: workload, label, backend, denoiser_calls, e2e_s, outlier (bool), fitted_s. Fits, one row for
each line: workload, label, backend, fixed_s, marginal_step_s, slope_half_s (half its interval),
mean_calls, mean_half_s (half the interval of the line at ``mean_calls``), n, processes, summary
(the line in words).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

TITLE = "Steps against time: end-to-end time over denoiser calls"


def figure(
    table: pd.DataFrame, fits: pd.DataFrame, colours: Mapping[str, str] | None = None
) -> Figure:
    """Return one panel for each workload: the sweep above, its residuals in per cent below."""
    names = style.workloads(table)
    if not names:
        return style.empty(TITLE, "No run swept the number of steps (sweep.steps).")
    colours = style.colour_of(table, colours)
    notes = [
        (
            "Each mark is one warmed call, in shuffled order; crosses are outliers, which carry no "
            "weight. Line: robust fit of fixed time + time per denoiser call. Band: its 95 % "
            "interval. "
            "marginal_it_per_s is the throughput without the fixed time; it_per_s, in the same "
            "unit, is measured within calls. "
            "Below: distance of each call from its line, the lines' marks side by side."
        ),
        style.left_out(table),
    ]
    with style.settings():
        lines = [len(style.of(fits, name)) for name in names]
        page = style.Page(TITLE, [4.2 + 0.42 * n for n in lines], notes=notes)
        for place, name in enumerate(names):
            upper, lower = page.pair(place, name, (3.0, 1.0))
            _draw(upper, lower, style.of(table, name), style.of(fits, name), colours)
        return page.figure


def _draw(
    upper: Axes,
    lower: Axes,
    calls: pd.DataFrame,
    fits: pd.DataFrame,
    colours: Mapping[str, str],
) -> None:
    shapes = style.markers(calls["label"])
    furthest = max(float(calls["denoiser_calls"].max()), 1.0)
    # Calls of one length would hide one another, so each line's residuals stand a little aside.
    aside = 0.022 * furthest / max(1, len(fits) - 1)
    for place, fit in enumerate(fits.itertuples()):
        colour = colours[fit.backend]
        own = calls[calls["label"] == fit.label]
        xs = [furthest * 1.04 * i / 50 for i in range(51)]
        centre = [fit.fixed_s + fit.marginal_step_s * x for x in xs]
        marker = shapes[str(fit.label)]
        upper.plot(
            xs,
            centre,
            color=colour,
            linewidth=1.5,
            marker=marker,
            markevery=[0],
            markersize=4.5,
            label=_legend(fit),
        )
        if style.present(fit.mean_half_s) and style.present(fit.slope_half_s):
            half = [
                math.hypot(fit.mean_half_s, fit.slope_half_s * (x - fit.mean_calls)) for x in xs
            ]
            upper.fill_between(
                xs,
                [c - h for c, h in zip(centre, half, strict=True)],
                [c + h for c, h in zip(centre, half, strict=True)],
                color=colour,
                alpha=0.18,
                linewidth=0,
            )
        kept, out = own[~own["outlier"]], own[own["outlier"]]
        upper.plot(
            kept["denoiser_calls"], kept["e2e_s"], marker, color=colour, markersize=4.5, alpha=0.75
        )
        upper.plot(out["denoiser_calls"], out["e2e_s"], "x", color=colour, markersize=7)
        off = 100 * (own["e2e_s"] / own["fitted_s"] - 1)
        inside = ~own["outlier"]
        lower.plot(
            own["denoiser_calls"][inside] + aside * (place - (len(fits) - 1) / 2),
            off[inside],
            marker,
            color=colour,
            markersize=4,
            alpha=0.75,
        )
    lower.axhline(0, color=style.FAINT, linewidth=1)
    highest = float(calls.loc[~calls["outlier"], "e2e_s"].max())
    beyond = calls[calls["e2e_s"] > highest * 1.25]
    upper.set_ylim(0, highest * 1.12)
    if len(beyond):
        upper.text(
            0.99,
            0.97,
            "outliers beyond the axis: "
            + ", ".join(f"{v:.1f} s" for v in sorted(beyond["e2e_s"], reverse=True)[:4]),
            transform=upper.transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=style.BAD,
        )
    upper.set_xlim(0, furthest * 1.04)
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("end-to-end time [s]")
    lower.set_ylabel("residual [%]")
    lower.set_xlabel("denoiser calls of one generation")
    style.legend_below(lower, 0.55, handles=upper.get_legend_handles_labels()[0], handlelength=1.4)


def _legend(fit: object) -> str:
    """Two lines: in one, a long name would take the panel's width from the axes."""
    return f"{style.shorten(str(getattr(fit, 'label', '')), 44)}\n{getattr(fit, 'summary', '')}"
