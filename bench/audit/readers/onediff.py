"""What OneDiff's script prints, grouped under headings as people paste it into a report."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.audit.build import SIZE, build, refuse
from bench.audit.columns import Meaning
from bench.audit.readers.markdown import plain
from bench.audit.table import Table

_LINES = {
    "warmup_s": re.compile(r"^\W*warm-?\s?up time\s*[:=]\s*(.+?)\s*$", re.IGNORECASE),
    "e2e_s": re.compile(r"^\W*inference time\s*[:=]\s*(.+?)\s*$", re.IGNORECASE),
    "it_per_s": re.compile(r"^\W*iterations per second\s*[:=]\s*(.+?)\s*$", re.IGNORECASE),
    "peak_bytes": re.compile(
        r"^\W*max (?:used )?cuda memory(?: used)?\s*[:=]\s*(.+?)\s*$", re.IGNORECASE
    ),
}
_FACT = re.compile(
    r"^\W*(model|task|compiler|backend|steps|strength|scheduler|gpu|dtype|batch|height|width|"
    r"clip score|fid|session)\s*[:=]\s*(\S.*?)\s*$",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^\s*(#{1,6})\s*(\S.*?)\s*#*\s*$")
_UNDERLINE = re.compile(r"^\s*(={4,}|-{4,})\s*$")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
_CODE = re.compile(r"`[^`]*`")
_CLAIMS = (
    re.compile(
        r"\bsteps?\b[^.\n|]{0,40}?\b(?:set to|fixed (?:to|at)|of|is|was|were|at)\s+"
        r"(\d{1,4})\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(\d{1,4})[ -](?:inference |denoising |sampling |diffusion )?steps?\b", re.IGNORECASE
    ),
)
_TASKS = (
    ("i2i", re.compile(r"image[ -]?(?:to|2)[ -]?image|img2img|\bi2i\b", re.IGNORECASE)),
    ("t2i", re.compile(r"te?xt[ -]?(?:to|2)[ -]?(?:image|img)|\bt2i\b", re.IGNORECASE)),
    ("edit", re.compile(r"\bedit(?:ing)?\b", re.IGNORECASE)),
)
_ARM = re.compile(
    r"^\W*(?P<how>with|without|no|using|w/o|w/)?\s*(?P<arm>one-?diff|nexfort|oneflow|"
    r"torch[ .-]?compile|inductor|tensorrt|xformers|deepcache|compil\w*|"
    r"stable-?fast|eager|baseline|none|pytorch|optimi[sz]ation)\b",
    re.IGNORECASE,
)
_HEADERS = (
    "session", "model", "task", "backend", "width", "height", "batch", "dtype", "gpu", "scheduler",
    "strength", "steps", "warmup_s", "e2e_s", "it_per_s", "peak_bytes", "meter", "clip_score",
    "fid", "label", "picture",
)  # fmt: skip
_SCRIPT_METERS = {"oneflow": "device_used", "nexfort": "torch.max_memory_allocated",
                  "none": "torch.max_memory_allocated"}  # fmt: skip
"""What the script's line of memory means: with oneflow, what the whole device holds; else torch's
peak (benchmarks/text_to_image.py of OneDiff)."""


def looks_like(text: str) -> bool:
    return any(_LINES["e2e_s"].match(line) for line in text.splitlines())


def read(shown: str, text: str, maps: Mapping[str, Meaning]) -> Table:
    """Return one row for each block of figures, with what its headings say.

    Raises:
        AuditError: no block holds an end-to-end time.
    """
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    headings: list[tuple[int, str]] = []
    loose: dict[str, str] = {}
    claims: dict[str, list[int]] = {}
    current: dict[str, str] | None = None
    last = ""
    fenced = False
    all_lines = text.splitlines()
    for number, line in enumerate(all_lines, 1):
        if _FENCE.match(line):
            fenced = not fenced
            continue
        heading = _heading(all_lines, number - 1)
        if heading and not fenced:
            level, said = heading
            headings = [*((n, t) for n, t in headings if n < level), (level, said)]
            current, loose, last = None, {}, ""
            continue
        name, value = _figure(line)
        if name:
            if current is None or name in current:
                current = {**_context([t for _, t in headings], last), **loose}
                rows.append(current)
                lines.append(number)
            if name == "e2e_s":
                lines[-1] = number
            current[name] = value
            continue
        fact = _FACT.match(line)
        if fact and not fenced:
            key = fact[1].lower().replace(" ", "_").replace("compiler", "backend")
            if current is not None and "e2e_s" in current and key not in ("fid", "clip_score"):
                current = None
            (loose if current is None else current)[key] = fact[2].strip("`* ")
            continue
        for label, target in _PICTURE.findall(line):
            if current is not None and "label" not in current:
                current |= {
                    "label": label.strip(),
                    "picture": target.rstrip("/").rpartition("/")[2],
                }
        if not fenced and line.strip() and not _UNDERLINE.match(line):
            last = line.strip()
            for found in _claims(line):
                claims.setdefault(found, []).append(number)
    kept = [i for i, row in enumerate(rows) if "e2e_s" in row]
    if not kept:
        raise refuse(shown, "no block in it holds an inference time.")
    rows = [rows[i] for i in kept]
    guess = _claim(rows, claims)
    for row in rows:
        row.setdefault("meter", _SCRIPT_METERS.get(row.get("backend", ""), ""))
    table = build(
        shown,
        "OneDiff's printed figures",
        _HEADERS,
        [[row.get(header, "") for header in _HEADERS] for row in rows],
        [lines[i] for i in kept],
        maps=maps,
    )
    table.numbers = {n: c for n, c in table.numbers.items() if (c.values == c.values).any()}
    table.texts = {n: c for n, c in table.texts.items() if any(c)}
    table.ignored = []
    table.guesses += guess
    return table


def _heading(lines: list[str], at: int) -> tuple[int, str] | None:
    found = _HEADING.match(lines[at])
    if found:
        return len(found[1]), plain(found[2])
    below = lines[at + 1] if at + 1 < len(lines) else ""
    under = re.fullmatch(r"(={4,}|-{4,})\s*", below)
    said = lines[at].strip()
    if under and said and not _UNDERLINE.match(said) and not _figure(said)[0]:
        # Setext: an unbroken underline at the line's beginning.
        return (1 if below[0] == "=" else 2), plain(said)
    return None


def _figure(line: str) -> tuple[str, str]:
    for name, pattern in _LINES.items():
        found = pattern.match(line)
        if found and re.search(r"\d", found[1]):
            return name, found[1].strip("`* ")
    return "", ""


def _context(headings: list[str], last: str) -> dict[str, str]:
    """Return what the headings above a block say of it; the nearest heading counts."""
    row: dict[str, str] = {}
    for text in (*headings, last):
        if not text:
            continue
        size = SIZE.search(text)
        if size:
            row |= {"width": size[1], "height": size[2]}
        arm = _ARM.search(text)
        if arm and len(text) <= 80:
            row["backend"] = _arm(arm)
        if text == last:
            continue
        task = next((task for task, pattern in _TASKS if pattern.search(text)), None)
        if task:
            row["task"] = task
        elif re.search(r"\w/\w", text) and not size:
            row["model"] = text.split("(")[0].split(" on ")[0].strip()
        elif not size and not arm and text is not headings[0]:
            row["model"] = text
        steps = re.search(
            r"\b(\d{1,4})\s*steps?\b|\bsteps?\s*[:=]?\s*(\d{1,4})\b", text, re.IGNORECASE
        )
        if steps:
            row["steps"] = steps[1] or steps[2]
        strength = re.search(r"\bstrength\s*[:=]?\s*(0?\.\d+|1(?:\.0*)?)\b", text, re.IGNORECASE)
        if strength:
            row["strength"] = strength[1]
    return row


def _arm(found: re.Match[str]) -> str:
    how = (found["how"] or "").lower()
    name = re.sub(r"[ .]", "-", found["arm"].lower()).replace("one-diff", "onediff")
    if how in ("without", "no", "w/o") or name in ("none", "eager", "baseline", "pytorch"):
        return "none"
    return name


def _claims(line: str) -> list[str]:
    bare = _CODE.sub(" ", line)
    return [found for pattern in _CLAIMS for found in pattern.findall(bare)]


def _claim(rows: list[dict[str, str]], claims: dict[str, list[int]]) -> list[str]:
    """Give rows without a step count the one that the text claims for all, if it claims one."""
    without = [row for row in rows if "steps" not in row]
    if not without or len(claims) != 1:
        return []
    ((steps, places),) = claims.items()
    for row in without:
        row["steps"] = steps
    return [f"the text on line {places[0]} is read as a claim of {steps} steps for every row"]
