"""Mixed meters: memory figures of different meters in one comparison.

torch's allocated peak leaves out what the driver and other libraries hold; nvidia-smi and
"device used" count it, and a snapshot is no peak. Their difference is no saving.
"""

from __future__ import annotations

import numpy as np

from bench.audit import rows
from bench.audit.build import arm_of, is_baseline
from bench.audit.columns import meter_of
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Table

CHECK = "mixed-meters"
GIB = 1024**3


def meters(table: Table) -> list[str]:
    """Return the meter of each row's memory figure, "" where none is stated or there is none."""
    known = {text: meter_of(text) for text in set(table.text("meter"))}
    stated = [known[text] for text in table.text("meter")]
    own = table.memories[0][0] if table.memories else ""
    values = table.values("peak_bytes")
    return [(meter or own) if values[i] == values[i] else "" for i, meter in enumerate(stated)]


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return comparisons whose arms were measured by different meters."""
    found = meters(table)
    by_meters: dict[tuple[str, str], list[rows.Pair]] = {}
    for pair in rows.pairs(table):
        base, other = found[pair.base], found[pair.other]
        if base and other and base != other:
            by_meters.setdefault((base, other), []).append(pair)
    findings = []
    value = table.values("peak_bytes") / GIB
    for (base, other), mixed in by_meters.items():
        first = mixed[0]
        members = tuple(dict.fromkeys(i for pair in mixed for i in (pair.base, pair.other)))
        findings.append(
            Finding(
                CHECK,
                "certain",
                0.8,
                f"Memory of {rows.places(table, [p.other for p in mixed])} "
                f"({', '.join(dict.fromkeys(table.text('backend')[p.other] for p in mixed))}) was "
                f"measured as {other}, that of the baselines beside them as {base}: the two cannot "
                "be compared.",
                members,
                f"{figure(value[first.other])} GiB ({other}) beside "
                f"{figure(value[first.base])} GiB ({base})",
                "both arms measured by one meter",
            )
        )
    if not findings:
        findings = [*_columns(table), *_unpaired(table, found)]
    notes = []
    if np.isfinite(table.values("peak_bytes")).any() and not any(found):
        notes.append(Note(CHECK, "The table does not say what measured its memory."))
    return findings, notes


def _columns(table: Table) -> list[Finding]:
    """Memory in several columns, and an arm with its figure in another one than its baseline."""
    if len(table.memories) < 2:
        return []
    findings = _columns_of_arms(table)
    filled = [np.isfinite(column.values) for _, column in table.memories]
    for pair in rows.pairs(table):
        have = [(k, f) for k, f in enumerate(filled) if f[pair.base] or f[pair.other]]
        both = any(f[pair.base] and f[pair.other] for _, f in have)
        apart = any(f[pair.base] for _, f in have) and any(f[pair.other] for _, f in have)
        if both or not apart:
            continue
        headers = [table.memories[k][1].header for k, _ in have]
        findings.append(
            Finding(
                CHECK,
                "certain",
                0.8,
                f"{rows.label(table, pair.other)} and its baseline state their memory in different "
                f"columns ({' and '.join(headers)}): the two cannot be compared.",
                (pair.base, pair.other),
                "no memory column has a figure in both "
                f"{rows.places(table, [pair.base, pair.other])}",
                "both arms measured by one meter",
            )
        )
    return findings


def _columns_of_arms(table: Table) -> list[Finding]:
    """Columns such as "eager allocated" and "TensorRT nvidia-smi", each of one arm."""
    named = [
        (arm, meter, column)
        for meter, column in table.memories
        if (arm := arm_of(column.header)) and meter
    ]
    for arm, meter, column in named[1:]:
        first_arm, first_meter, first = named[0]
        both = np.flatnonzero(np.isfinite(column.values) & np.isfinite(first.values)).tolist()
        if arm == first_arm or meter == first_meter or not both:
            continue
        i = both[0]
        return [
            Finding(
                CHECK,
                "certain",
                0.8,
                f"{first.header!r} and {column.header!r} are memory by different meters, "
                f"{first_meter} and {meter}: they cannot be compared.",
                tuple(both),
                f"{rows.label(table, i)}: {figure(first.values[i] / GIB)} GiB ({first_meter}) "
                f"beside {figure(column.values[i] / GIB)} GiB ({meter})",
                "both arms measured by one meter",
            )
        ]
    return []


def _unpaired(table: Table, found: list[str]) -> list[Finding]:
    """Rows of one network and size by different meters, where no arms are told apart."""
    findings = []
    arms = table.text("backend")
    if any(is_baseline(arm) for arm in arms):
        return []
    names = ("session", "gpu", "model", "task", "height", "width", "batch", "dtype")
    usable = [i for i in range(len(table)) if found[i]]
    for group in rows.groups(table, names, usable):
        kinds = list(dict.fromkeys(found[i] for i in group))
        if len(kinds) < 2:
            continue
        findings.append(
            Finding(
                CHECK,
                "likely",
                0.7,
                f"Memory of {rows.places(table, group)} stands in one column and was measured by "
                f"different meters: {' and '.join(kinds)}.",
                tuple(group),
                ", ".join(
                    f"{figure(table.values('peak_bytes')[i] / GIB)} GiB ({found[i]})"
                    for i in group[:4]
                ),
                "all rows measured by one meter",
            )
        )
    return findings
