"""Memory against picture size: one network's peak is a straight line in pixels.

Weights are there once and activations grow with the pixels, so peak = fixed + k × megapixels while
nothing is tiled, sliced or offloaded. A row far off the line of the others is another setting, a
leak, or what the card held besides.
"""

from __future__ import annotations

import numpy as np

from bench.audit import rows
from bench.audit.checks.meters import meters
from bench.audit.finding import Finding, Note
from bench.audit.lines import fit
from bench.audit.rows import figure
from bench.audit.table import Table

CHECK = "memory-line"
GIB = 1024**3
PRIOR_SCALE = 0.02
SMALLEST = 0.06


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return rows whose memory is off the line of their network's other sizes."""
    peak = table.values("peak_bytes")
    # The size asked for: what a reader plans with.
    size = table.values("height") * table.values("width") / 1e6
    with np.errstate(invalid="ignore"):
        usable = np.flatnonzero((peak > 0) & (size > 0)).tolist()
    names = ("session", "gpu", "model", "backend", "task", "dtype", "batch")
    findings: list[Finding] = []
    notes: list[Note] = []
    found = meters(table)
    for same in rows.groups(table, names, usable):
        for meter in dict.fromkeys(found[i] for i in same):
            group = [i for i in same if found[i] == meter]
            line = fit(
                size[group], peak[group] / GIB, table.half("peak_bytes")[group] / GIB,
                prior=PRIOR_SCALE, smallest=SMALLEST,
            )  # fmt: skip
            if line is None or (line.fixed < 0 and line.odd.any()):
                continue
            kept_rows = [group[k] for k in np.flatnonzero(~line.odd)]
            # Memory is counted, not timed: its scatter does not grow with it.
            slope, fixed = np.polyfit(size[kept_rows], peak[kept_rows] / GIB, 1)
            law = f"{fixed:.2g} GiB + {slope:.3g} GiB per megapixel"
            notes.append(
                Note(
                    CHECK,
                    f"Memory follows {law} on {len(kept_rows)} rows (R² = {line.r2:.4f}).",
                    tuple(group),
                )
            )
            for k in np.flatnonzero(line.odd).tolist():
                i = group[k]
                at = float(fixed + slope * size[i])
                value = float(peak[i]) / GIB
                side = "above" if value > at else "below"
                findings.append(
                    Finding(
                        CHECK,
                        "likely",
                        min(0.8, 0.3 + abs(float(line.off[k]))),
                        f"Memory of {rows.label(table, i)} lies {abs(value - at):.1f} GiB "
                        f"{side} the "
                        f"line of the other sizes, {law}.",
                        (i,),
                        f"{fixed:.3g} + {slope:.4g} × {size[i]:.4g} = {figure(at)} GiB, "
                        f"stated {figure(value)} GiB",
                        "this size measured again in a fresh process, and what else the card held",
                    )
                )
    return findings, notes
