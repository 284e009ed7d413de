"""End-to-end time against steps: points, line, band, residuals.

Table: workload, label, backend, denoiser_calls, e2e_s, outlier (bool), fitted_s. Fits, one row for
each line: workload, label, backend, fixed_s, marginal_step_s, slope_half_s (half its interval),
mean_calls, mean_half_s (half the interval of the line at ``mean_calls``), n, processes, summary
(the line in words).
"""

from __future__ import annotations

import numpy as np

from plots import style

TITLE = "Steps against time: end-to-end time over denoiser calls"


@style.figure_of(
    TITLE,
    nothing="No run swept the number of steps (sweep.steps).",
    notes=(
        "Each mark is one warmed call, in shuffled order; crosses are outliers, which carry no "
        "weight. Line: robust fit of fixed time + time per denoiser call. Band: its 95 % "
        "interval. "
        "marginal_it_per_s is the throughput without the fixed time; it_per_s, in the same "
        "unit, is measured within calls. "
        "Below: distance of each call from its line, the lines' marks side by side."
    ),
    height=lambda _, fits: 4.2 + 0.42 * len(fits),
    ratios=(3.0, 1.0),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: the sweep above, its residuals in per cent below."""
    (upper, lower), (calls, fits) = panel.stack, panel.tables
    shapes = style.markers(calls["label"])
    furthest = max(float(calls["denoiser_calls"].max()), 1.0)
    # Calls of one length would hide one another, so each line's residuals stand a little aside.
    aside = 0.022 * furthest / max(1, len(fits) - 1)
    xs = furthest * 1.04 * np.arange(51) / 50
    for place, fit in enumerate(fits.itertuples()):
        colour, marker = panel.colours[fit.backend], shapes[str(fit.label)]
        centre = fit.fixed_s + fit.marginal_step_s * xs
        upper.plot(
            xs,
            centre,
            color=colour,
            linewidth=1.5,
            marker=marker,
            markevery=[0],
            markersize=4.5,
            # Two lines: in one, a long name would take the panel's width from the axes.
            label=f"{style.shorten(fit.label, 44)}\n{fit.summary}",
        )
        if style.present(fit.mean_half_s) and style.present(fit.slope_half_s):
            half = np.hypot(fit.mean_half_s, fit.slope_half_s * (xs - fit.mean_calls))
            style.band(upper, xs, centre - half, centre + half, colour, 0.18)
        one = calls[calls["label"] == fit.label]
        kept, out = one[~one["outlier"]], one[one["outlier"]]
        style.dot(upper, kept["denoiser_calls"], kept["e2e_s"], marker, colour, 4.5, alpha=0.75)
        style.dot(upper, out["denoiser_calls"], out["e2e_s"], "x", colour, 7)
        at = kept["denoiser_calls"] + aside * (place - (len(fits) - 1) / 2)
        off = 100 * (kept["e2e_s"] / kept["fitted_s"] - 1)
        style.dot(lower, at, off, marker, colour, 4, alpha=0.75)
    lower.axhline(0, color=style.FAINT, linewidth=1)
    highest = float(calls.loc[~calls["outlier"], "e2e_s"].max())
    upper.set_ylim(0, highest * 1.12)
    beyond = sorted(calls.loc[calls["e2e_s"] > highest * 1.25, "e2e_s"], reverse=True)
    if beyond:
        upper.text(
            0.99,
            0.97,
            f"outliers beyond the axis: {', '.join(f'{v:.1f} s' for v in beyond[:4])}",
            transform=upper.transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=style.BAD,
        )
    upper.set_xlim(0, furthest * 1.04)
    upper.set_ylabel("end-to-end time [s]")
    lower.set_ylabel("residual [%]")
    lower.set_xlabel("denoiser calls of one generation")
    style.legend_below(lower, 0.55, handles=upper.get_legend_handles_labels()[0], handlelength=1.4)
