"""Plausibility bands: what published figures leave room for, on both sides.

The ranges are those of the tables in reports/reference, per graphics card and class of network; a
test recomputes them from there. A row is called implausible only when it lies further out than the
widest ratio that those tables show between two backends of one cell (`ROOM`), beyond the range's
end. Where a table states no card of that list, only the fast side is judged, with the whole step
from the slowest to the fastest published card as further room.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.audit import rows
from bench.audit.checks.meters import meters
from bench.audit.finding import Finding, Note
from bench.audit.rows import figure
from bench.audit.table import Table

CHECK = "plausibility"
GIB = 1024**3

ROOM = 3.5
"""512×512 RealVisXL: 44.523 it/s with oneflow, 13.381 without, a ratio of 3.33; rounded up."""
LARGEST_SPEEDUP = 3.33
MEMORY_ROOM = 4.0
"""img2img_pipeline.csv: 12.33 GiB in float32, 4.63 with slicing and offloading in float16, a ratio
of 2.7; half as much again."""


@dataclass(frozen=True, slots=True)
class Band:
    """A published range.

    ``low`` and ``high`` are its ends: seconds of one step and picture, or bytes at the peak.
    """

    gpu: str
    network: str
    side: int
    low: float
    high: float
    source: str


STEP_BANDS = (
    Band("A30", "sd1", 512, 0.0927, 0.0932, "batch_generation.csv, A30, DDIM, 3 pictures a batch"),
    Band("", "sdxl", 1024, 1 / 16.257, 1 / 1.181, "onediff_t2i_i2i.csv, all sessions"),
    Band("", "sdxl", 512, 1 / 47.863, 1 / 12.942, "onediff_t2i_i2i.csv, all sessions"),
    Band("", "sd1", 1024, 1 / 13.108, 1 / 7.033, "onediff_t2i_i2i.csv, instruct-pix2pix"),
    Band("", "sd1", 512, 1 / 69.57, 1 / 31.124, "onediff_t2i_i2i.csv, instruct-pix2pix"),
)
CALL_BANDS = (
    Band("RTX 2060", "sd1", 512, 15.0, 25.0, "low_vram_claims.csv, RTX 2060, low-memory script"),
)
"""Whole pictures of 50 steps, where only such a bound was published."""
MEMORY_BANDS = (
    Band("", "sdxl", 1024, 10.465, 13.302, "onediff_t2i_i2i.csv"),
    Band("", "sdxl", 512, 7.655, 10.085, "onediff_t2i_i2i.csv"),
    Band("", "sd1", 1024, 3.643, 13.079, "onediff_t2i_i2i.csv, instruct-pix2pix"),
    Band(
        "",
        "sd1",
        512,
        2.4,
        12.119,
        "onediff_t2i_i2i.csv, batch_generation.csv, low_vram_claims.csv",
    ),
)
EAGER_BANDS = (
    Band("H100|H200|GH200", "sdxl", 1024, 1.471 / 30, 2.496 / 30, "sdxl_by_gpu.csv, H100"),
    Band("A100", "sdxl", 1024, 2.742 / 30, 3.704 / 30, "sdxl_by_gpu.csv, A100"),
    Band("A10", "sdxl", 1024, 8.160 / 30, 9.399 / 30, "sdxl_by_gpu.csv, A10"),
)
"""Where a class of cards is published: from the compiled call to the eager one, over its 30 steps.

For loops without a compiler alone. An eager step lies between them: it is a part of the eager call,
and no faster than a compiled one. ``gpu`` lists words of a card's name."""
EAGER_ROOM = 1.2
"""An H200 has an H100's cores and 1.4 times its bandwidth, and software has moved on; an A100's own
rate of 8.43 it/s, published by others, lies within this of the range of its class."""
SAVING = re.compile(
    r"offload|slic|tiling|tiled|efficient|quant|int8|fp8|nf4|4bit|8bit|low.?v?ram|low.?mem",
    re.IGNORECASE,
)
_SD1 = re.compile(
    r"pix2pix|stable.?diffusion.?v?[12]|\bsd.?v?[12](?:[._-]\d)?\b|sd-turbo|dreamshaper|v1[._-]5"
)


def network_of(model: str) -> str:
    """Return the class of network that a model's name tells: sdxl, sd1, or "" for others."""
    low = model.lower()
    if re.search(r"xl|illustrious|pony", low) and "flux" not in low and "small" not in low:
        return "" if low.startswith(("embedded:", "synthetic:")) else "sdxl"
    return "sd1" if _SD1.search(low) else ""


def plausible_step_s(network: str, side: int, gpu: str) -> tuple[float, float, str] | None:
    """Return the shortest and longest plausible eager step of one picture, in s, and the source.

    Of the class of the card that ``gpu`` names where that was published, else of all cards that
    tables do not name; None where nothing was published of this network and size.
    """
    words = set(re.findall(r"\w+", gpu))
    for band in EAGER_BANDS:
        own = words & set(band.gpu.split("|"))
        if own and (band.network, band.side) == (network, side):
            return band.low / EAGER_ROOM, band.high * EAGER_ROOM, band.source
    for band in STEP_BANDS:
        if (band.gpu, band.network, band.side) == ("", network, side):
            return band.low / ROOM, band.high * ROOM, band.source
    return None


def check(table: Table) -> tuple[list[Finding], list[Note]]:
    """Return rows too good, or too bad, to be true beside what was published."""
    findings = [*_steps(table), *_calls(table), *_memory(table), *_speedups(table)]
    return findings, []


def _networks(table: Table) -> list[str]:
    models = table.text("model")
    if any(models):
        known = {model: network_of(model) for model in set(models)}
        return [known[model] for model in models]
    # LDM's scripts have one network.
    ldm = table.has("first_s", "gap_s")
    return ["sd1" if ldm else ""] * len(table)


def _bands(table: Table, i: int, network: str, bands: tuple[Band, ...]) -> list[tuple[Band, bool]]:
    """Return the bands that row i falls under, and whether its card is the band's own."""
    side = float(table.values("height")[i] * table.values("width")[i])
    gpu = table.text("gpu")[i].lower().replace("geforce ", "")
    own = [
        band for band in bands
        if band.network == network and band.gpu and band.gpu.lower() in gpu
        and side == band.side**2
    ]  # fmt: skip
    if own:
        return [(band, True) for band in own]
    return [
        (band, False)
        for band in bands
        if band.network == network and not band.gpu and side == band.side**2
    ]


def _usable(table: Table, networks: list[str]) -> list[int]:
    half = [not text or "16" in text for text in (t.lower() for t in table.text("dtype"))]
    batch = table.values("batch")
    return [
        i for i, network in enumerate(networks)
        if network and half[i] and (batch[i] != batch[i] or batch[i] <= 4)
    ]  # fmt: skip


def _steps(table: Table) -> list[Finding]:
    networks = _networks(table)
    rate, step = table.values("it_per_s"), table.values("step_s")
    batch, time = table.values("batch"), table.values("e2e_s")
    steps, strength = table.values("steps"), table.values("strength")
    found: dict[tuple[Band, str], list[tuple[int, float]]] = {}
    gap = table.values("gap_s") if not table.has("it_per_s") else np.full(len(table), np.nan)
    for i in _usable(table, networks):
        seconds = 1 / rate[i] if rate[i] > 0 else step[i]
        if not seconds > 0:
            ran = steps[i] * strength[i] if 0 < strength[i] <= 1 else steps[i]
            seconds = gap[i] / ran if gap[i] > 0 and ran >= 10 else np.nan
        if not seconds > 0 and time[i] > 0 and steps[i] >= 1:
            # The loop is a part of the call, so a step takes no longer than this.
            part = strength[i]
            ran = rows.effective_steps(steps[i], part) if 0 < part < 1 else steps[i]
            seconds = (time[i] + table.half("e2e_s")[i]) / max(ran, 1)
        if not seconds > 0:
            continue
        each = float(seconds) / (float(batch[i]) if batch[i] >= 1 else 1.0)
        for band, own in _bands(table, i, networks[i], STEP_BANDS):
            # Without the band's own card, another card may be slower by any factor.
            if each < band.low / ROOM:
                found.setdefault((band, "fast"), []).append((i, each))
            elif own and each > band.high * ROOM:
                found.setdefault((band, "slow"), []).append((i, each))
    return [_off(table, band, word, group, "a step and picture", lambda v: figure(v, "s"), ROOM)
            for (band, word), group in found.items()]  # fmt: skip


def _calls(table: Table) -> list[Finding]:
    networks = _networks(table)
    named = [bool(network) or not table.text("model")[i] for i, network in enumerate(networks)]
    time = table.values("e2e_s")
    steps = table.values("steps")
    found: dict[tuple[Band, str], list[tuple[int, float]]] = {}
    for i in range(len(table)):
        if not named[i] or not time[i] > 0 or (steps[i] == steps[i] and steps[i] < 20):
            continue
        batch = table.values("batch")[i]
        each = float(time[i]) / (float(batch) if batch >= 1 else 1.0)
        for band, own in _bands(table, i, "sd1", CALL_BANDS):
            if own and each < band.low / (ROOM * 50 / 20):
                found.setdefault((band, "fast"), []).append((i, each))
            elif own and each > band.high * ROOM:
                found.setdefault((band, "slow"), []).append((i, each))
    return [_off(table, band, word, group, "a picture", lambda v: figure(v, "s"),
                 ROOM * (50 / 20 if word == "fast" else 1))
            for (band, word), group in found.items()]  # fmt: skip


def _memory(table: Table) -> list[Finding]:
    networks = _networks(table)
    peak = table.values("peak_bytes") / GIB
    found: dict[tuple[Band, str], list[tuple[int, float]]] = {}
    known = meters(table)
    for i in _usable(table, networks):
        if not peak[i] > 0 or known[i] == "host resident":
            continue
        for band, _ in _bands(table, i, networks[i], MEMORY_BANDS):
            if not band.low / MEMORY_ROOM <= peak[i] <= band.high * MEMORY_ROOM:
                texts = " ".join(table.text(n)[i] for n in ("backend", "name", "model", "scope"))
                if SAVING.search(texts):
                    continue
            if peak[i] < band.low / MEMORY_ROOM:
                found.setdefault((band, "little"), []).append((i, float(peak[i])))
            elif peak[i] > band.high * MEMORY_ROOM and not table.values("batch")[i] > 1:
                found.setdefault((band, "much"), []).append((i, float(peak[i])))
    return [_off(table, band, word, group, "peak memory", lambda v: figure(v, "GiB"), MEMORY_ROOM)
            for (band, word), group in found.items()]  # fmt: skip


def _off(
    table: Table,
    band: Band,
    word: str,
    group: list[tuple[int, float]],
    what: str,
    shown: Callable[[float], str],
    room: float,
) -> Finding:
    at = [i for i, _ in group]
    worst = (min if word in ("fast", "little") else max)(group, key=lambda entry: entry[1])[1]
    end = band.low if word in ("fast", "little") else band.high
    factor = end / worst if word in ("fast", "little") else worst / end
    network = {"sdxl": "SDXL", "sd1": "Stable Diffusion 1 or 2"}[band.network]
    return Finding(
        CHECK,
        "likely" if factor > 2 * room else "possible",
        0.8,
        f"{rows.places(table, at).capitalize()}: too {word} for {network} at "
        f"{band.side}×{band.side}{f' on {band.gpu}' if band.gpu else ''}.",
        tuple(at),
        f"{what} {shown(worst)}; published {shown(band.low)} to {shown(band.high)} "
        f"({band.source}); {factor:.3g}× beyond, where {room:.3g}× is the room left",
        "the card, the steps that really ran, and the figure measured again"
        if what != "peak memory"
        else "the meter, and whether weights were offloaded or quantised",
    )


def _speedups(table: Table) -> list[Finding]:
    """Arms of equal settings whose ratio is beyond anything published here, either way."""
    time, rate = table.values("e2e_s"), table.values("it_per_s")
    networks = _networks(table)
    found: dict[str, list[tuple[rows.Pair, float]]] = {}
    for pair in rows.pairs(table):
        if pair.differs:
            continue
        if not networks[pair.other] and not table.has("it_per_s"):
            continue
        ratio = float(time[pair.base] / time[pair.other])
        if rate[pair.base] > 0 and rate[pair.other] > 0:
            # Both must say so: a wrong step count moves the time alone.
            by_rate = float(rate[pair.other] / rate[pair.base])
            ratio = (
                min((ratio, by_rate), key=lambda r: abs(np.log(r))) if ratio == ratio else by_rate
            )
        if ratio != ratio:
            continue
        if 1 / (LARGEST_SPEEDUP * ROOM) <= ratio <= LARGEST_SPEEDUP * ROOM:
            continue
        texts = f"{table.text('backend')[pair.other]} {table.text('name')[pair.other]}"
        if not SAVING.search(texts):
            found.setdefault("faster" if ratio > 1 else "slower", []).append((pair, ratio))
    findings = []
    for word, group in found.items():
        pair, ratio = max(group, key=lambda entry: abs(np.log(entry[1])))
        findings.append(
            Finding(
                CHECK,
                "possible",
                0.8,
                f"{rows.places(table, [p.other for p, _ in group]).capitalize()}: "
                f"{ratio if ratio > 1 else 1 / ratio:.3g} times {word} than the baseline at "
                "the same "
                "settings is beyond anything published.",
                tuple(dict.fromkeys(i for p, _ in group for i in (p.base, p.other))),
                f"{figure(time[pair.base])} s ÷ {figure(time[pair.other])} s; the "
                f"largest published ratio is {LARGEST_SPEEDUP} (onediff_t2i_i2i.csv), and "
                f"{ROOM}× more is the room left",
                "that both arms made the same pictures in the same steps",
            )
        )
    return findings
