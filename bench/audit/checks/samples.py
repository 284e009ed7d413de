"""Sample-size sins: FID on a handful of pictures, and rows with no sample count."""

from __future__ import annotations

import re

import numpy as np

from bench.audit import rows
from bench.audit.finding import Finding, Note, Sure
from bench.audit.rows import figure
from bench.audit.table import Table

CHECK = "sample-size"
FID_PICTURES = 5000
"""Pictures below which FID is refused here; its bias falls with 1 ÷ n (Chong and Forsyth 2020)."""


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return FID of too few pictures; and note what the table does not say of its samples."""
    findings = _fid(table)
    notes = []
    if table.has("fid") and not findings and not _says_how_many(table):
        notes.append(
            Note(
                CHECK,
                f"The table does not say over how many pictures its FID was taken; below "
                f"{FID_PICTURES:,} it means nothing.",
            )
        )
    runs = table.values("runs")
    timed = any(table.has(n) for n in ("e2e_s", "total_s", "mean_s", "median_s"))
    if timed and not np.isfinite(runs).any():
        notes.append(
            Note(
                CHECK,
                "The table states no number of runs: each time may be a single one, so there is no "
                "spread and no interval, and a difference of a few per cent means nothing.",
            )
        )
    elif timed and (runs[np.isfinite(runs)] < 2).any():
        single = np.flatnonzero(runs < 2).tolist()
        notes.append(
            Note(
                CHECK,
                f"{rows.places(table, single).capitalize()} rest on a single run: no spread, no "
                "interval.",
                tuple(single),
            )
        )
    if timed and not any(table.text("gpu")):
        notes.append(Note(CHECK, "The table does not say on which graphics card it was measured."))
    return findings, notes


def _says_how_many(table: Table) -> bool:
    return table.has("n_fid") or table.has("samples") or bool(re.search(r"\d", table.header("fid")))


def _fid(table: Table) -> list[Finding]:
    fid = table.values("fid")
    at = np.flatnonzero(np.isfinite(fid)).tolist()
    if not at:
        return []
    header = table.header("fid").lower()
    stated = table.values("n_fid")
    samples = table.values("samples")
    few: list[int] = []
    why = ""
    sure: Sure = "certain"
    named = re.search(r"n[_= ]?(\d+)\b|(\d+)[_ ]?(?:images|samples|k\b)", header)
    if re.search(r"\b(?:pair|single|per[_ ]image)", header.replace("_", " ")):
        few, why = at, f"the column is called {table.header('fid')!r}: one picture against one"
    elif named and "k" not in named[0] and int(named[1] or named[2]) < FID_PICTURES:
        few, why = at, f"n = {named[1] or named[2]} by the column's name"
    elif np.isfinite(stated[at]).any():
        few = [i for i in at if stated[i] < FID_PICTURES]
        why = f"n = {stated[few[0]]:g}" if few else ""
    elif np.isfinite(samples[at]).any():
        few = [i for i in at if samples[i] < FID_PICTURES]
        why = f"{samples[few[0]]:g} pictures" if few else ""
    elif any(table.text("label")[i] or table.text("picture")[i] for i in at):
        few, sure = at, "likely"
        why = "each row names one picture"
    if not few:
        return []
    values = fid[few]
    return [
        Finding(
            CHECK,
            sure,
            0.75,
            f"FID of {rows.places(table, few)} is of too few pictures to estimate anything: {why}.",
            tuple(few),
            f"FID fits the mean and the 2048 × 2048 covariance of features; below {FID_PICTURES:,} "
            f"pictures its bias exceeds the differences that it is read for (here "
            f"{figure(values.min())} to {figure(values.max())})",
            f"FID over {FID_PICTURES:,} pictures or more, or a picture-by-picture measure (LPIPS, "
            "SSIM) instead",
        )
    ]
