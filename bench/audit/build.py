"""Headers and cells, as a reader found them → the neutral table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from bench.audit import columns
from bench.audit.columns import Meaning
from bench.audit.printed import locale_of, marks_of, parse
from bench.audit.table import AuditError, Numbers, Table

SIZE = re.compile(r"(?<!\d)(\d{2,5})\s*[x×X*]\s*(\d{2,5})(?!\d)")
SUMMARY = re.compile(
    r"^\W*(?:the\s+)?(?:overall|average|averages|avg\.?|mean|means|geo\.?mean|geometric "
    r"mean|ø|total|"
    r"sum|all|summary)\b\W*(?:over all|of all|all|overall|speedup)?\W*$",
    re.IGNORECASE,
)
_BASELINE = re.compile(
    r"(?:^|\b)(?:none|eager|baseline|base|vanilla|off|stock|reference|uncompiled|without\b.*|"
    r"no[ _-]?(?:compile|compiler|opt\w*)|plain|native|original|unoptimi[sz]ed|"
    r"(?:py)?torch(?:[ _-]?(?:eager|baseline|native))?|diffusers)(?:$|\b)",
    re.IGNORECASE,
)
_NOT_BASELINE = re.compile(
    r"compil(?!er\W*(?:none|off))|inductor|nexfort|oneflow|tensorrt|trt", re.IGNORECASE
)
_BACKEND = re.compile(
    r"compile|inductor|nexfort|one.?flow|one.?diff|tensor.?rt|\btrt\b|xformers|deep.?cache|"
    r"aitemplate|sfast|stable.?fast|onnx|openvino|optimi[sz]ed|accelerated|quant|fp8|int8|\bjit\b",
    re.IGNORECASE,
)
_EMPTY = {"", "-", "–", "—", "n/a", "na", "nan", "none", "null", "?", "not stated", "unknown"}
_MOST_WORDS = 0.5
"""A column of which less than this share can be read as figures holds none."""


def is_baseline(arm: str) -> bool:
    """Whether an arm's name is that of the unaccelerated baseline, such as none or eager."""
    text = arm.strip()
    return len(text) <= 40 and bool(_BASELINE.fullmatch(text)) and not _NOT_BASELINE.search(text)


def arm_of(header: str) -> str:
    """Return the arm that a header names ("eager", "tensorrt"), "" for none."""
    found = _BACKEND.search(header)
    if found:
        return found[0].lower()
    words = re.split(r"[^\w]+|_", header)
    return next((word.lower() for word in words if word and is_baseline(word)), "")


def build(
    file: str,
    kind: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    lines: Sequence[int],
    *,
    maps: Mapping[str, Meaning],
    place: str = "line",
    title: str = "",
) -> Table:
    """Return the table of these cells.

    Args:
        file: as named by the user.
        kind: what the reader took it for.
        headers: one for each column; rows that are shorter are filled with empty cells.
        rows: cells as printed.
        lines: of each row.
        maps: columns whose meaning the user gave, by header.
        place: what ``lines`` counts.
        title: of the table, where the file holds several.
    """
    table = Table(file, kind, list(lines), place, title)
    width = len(headers)
    grid = [list(row[:width]) + [""] * (width - len(row)) for row in rows]
    by_column: list[list[str]] = [[row[i].strip() for row in grid] for i in range(width)]
    meanings = _meanings(table, headers, maps)
    if meanings and all(meaning is None for meaning in meanings):
        table.ignored = list(headers)
        return table
    meanings, headers, by_column = _melt(table, meanings, list(headers), by_column)
    marks = [
        marks_of(cells[:2000])
        for meaning, cells in zip(meanings, by_column, strict=True)
        if meaning and columns.kind_of(meaning.name) != "text"
    ]
    elsewhere = (sum(comma for comma, _ in marks), sum(point for _, point in marks))
    for header, meaning, cells in zip(headers, meanings, by_column, strict=True):
        _take(table, header, meaning, cells, elsewhere)
    _sizes(table)
    _arms(table)
    _milliseconds(table)
    return _without_summaries(table)


def _never_thousands(meaning: Meaning) -> bool:
    kind = columns.kind_of(meaning.name)
    return (
        kind in ("rate", "ratio", "share")
        or (kind == "time" and meaning.scale in (None, 1.0, 60.0))
        or (kind == "memory" and meaning.scale in (1e9, 1024.0**3))
    )


def _meanings(
    table: Table, headers: Sequence[str], maps: Mapping[str, Meaning]
) -> list[Meaning | None]:
    found: list[Meaning | None] = []
    taken: dict[str, str] = {m.name: h for h, m in maps.items() if h in headers}
    for header in headers:
        name = header.strip()
        if name in maps:
            found.append(maps[name])
            continue
        meaning = columns.meaning(name) if name else None
        if meaning is not None and meaning.name in taken and meaning.name != "peak_bytes":
            table.guesses.append(
                f"column {name!r} would be {meaning.name} too, which was read from "
                f"{taken[meaning.name]!r}; it is left aside"
            )
            meaning = None
        elif meaning is not None:
            taken.setdefault(meaning.name, name)
            if meaning.guessed:
                table.guesses.append(f"column {name!r} is read as {meaning.name}")
        found.append(meaning)
    return found


def _melt(
    table: Table,
    meanings: list[Meaning | None],
    headers: list[str],
    cells: list[list[str]],
) -> tuple[list[Meaning | None], list[str], list[list[str]]]:
    """Turn columns that are arms ("eager (s)", "compiled (s)") into rows of one column."""
    arms = []
    for i, header in enumerate(headers):
        words, unit = columns.split(header)
        name = re.sub(r"\b(?:inference|time|latency|e2e|s|ms)\b", "", words).strip()
        is_time = columns.scale_of("time", unit) is not None and unit != ""
        if is_time and (is_baseline(name) or _BACKEND.search(name)):
            meaning = meanings[i]
            if meaning is None or meaning.guessed or meaning.name == "compile_s":
                arms.append((i, name, unit))
    if (
        len(arms) < 2
        or not any(is_baseline(name) for _, name, _ in arms)
        or any(m is not None and m.name in ("e2e_s", "backend") for m in meanings)
    ):
        return meanings, headers, cells
    others = [name for _, name, _ in arms if not is_baseline(name)]
    ratios = _ratios_of_arms(headers, {i for i, _, _ in arms}, others)
    columns_of_arms = {i for i, _, _ in arms} | set(ratios.values())
    kept = [i for i in range(len(headers)) if i not in columns_of_arms]
    ratio = columns.meaning(headers[next(iter(ratios.values()))]) if ratios else None
    rows = len(table.lines)
    made: list[list[str]] = [[] for _ in kept]
    stated: list[str] = []
    backend: list[str] = []
    times: list[str] = []
    lines: list[int] = []
    for row in range(rows):
        for i, name, unit in arms:
            for place, k in enumerate(kept):
                made[place].append(cells[k][row])
            stated.append(cells[ratios[name]][row] if name in ratios else "")
            backend.append(name)
            times.append(f"{cells[i][row]} {unit}" if cells[i][row] else "")
            lines.append(table.lines[row])
    table.lines = lines
    table.guesses = [g for g in table.guesses if not any(repr(headers[i]) in g for i, _, _ in arms)]
    listed = ", ".join(repr(headers[i]) for i, _, _ in arms)
    table.guesses.append(f"columns {listed} are read as the arms of a comparison, a row each")
    table.guesses = [
        g for g in table.guesses if not any(f"column {headers[k]!r}" in g for k in ratios.values())
    ]
    if ratio is not None:
        kept_ratio = next(iter(ratios.values()))
        meanings = [*(meanings[i] for i in kept), ratio]
        headers = [*(headers[i] for i in kept), headers[kept_ratio]]
        made.append(stated)
        kept = list(range(len(meanings)))
    return (
        [*(meanings[i] for i in kept), Meaning("backend", "", None, False),
         Meaning("e2e_s", "s", 1.0, False)],
        [*(headers[i] for i in kept), "arm", "time"],
        [*made, backend, times],
    )  # fmt: skip


def _ratios_of_arms(
    headers: Sequence[str], arms: set[int], others: Sequence[str]
) -> dict[str, int]:
    """Return which column states the speedup of which arm: the one that names it, or the only one.

    Columns that state another ratio than the first, or of which nobody knows the arm, are not
    among them.
    """
    found: dict[str, int] = {}
    kind = None
    for i, header in enumerate(headers):
        meaning = columns.meaning(header) if i not in arms else None
        if meaning is None or meaning.name not in ("speedup", "change_pct"):
            continue
        if kind is not None and (meaning.name, meaning.unit) != kind:
            continue
        named = [name for name in others if _bare(name) in _bare(header)]
        if not named and len(others) == 1:
            named = list(others)
        if len(named) == 1 and named[0] not in found:
            found[named[0]] = i
            kind = (meaning.name, meaning.unit)
    return found


def _bare(name: str) -> str:
    bare = re.sub(r"[\W_]+", "", name.lower())
    return bare.replace("tensorrt", "trt").replace("compiled", "compile")


def _take(
    table: Table, header: str, meaning: Meaning | None, cells: list[str], marks: tuple[int, int]
) -> None:
    if meaning is None:
        if header.strip():
            table.ignored.append(header.strip())
        return
    kind = columns.kind_of(meaning.name)
    if kind == "text":
        table.texts[meaning.name] = ["" if c.lower() in _EMPTY - {"none"} else c for c in cells]
        table.headers[meaning.name] = header
        return
    column = _numbers(table, header, meaning, cells, kind, marks)
    if column is None:
        table.ignored.append(header.strip())
        return
    if meaning.name == "peak_bytes":
        table.memories.append((meaning.meter, column))
        if "peak_bytes" in table.numbers:
            return
    table.numbers[meaning.name] = column
    table.headers[meaning.name] = header


def _numbers(
    table: Table, header: str, meaning: Meaning, cells: list[str], kind: str, marks: tuple[int, int]
) -> Numbers | None:
    values = np.full(len(cells), np.nan)
    half = np.zeros(len(cells))
    decimals = -9
    stated: set[str] = set()
    bare = []
    locale = locale_of(cells[:2000], marks, never_thousands=_never_thousands(meaning))
    printed = {cell: parse(cell, locale) for cell in dict.fromkeys(cells) if cell}
    filled = 0
    for i, cell in enumerate(cells):
        if cell.lower() in _EMPTY:
            continue
        filled += 1
        found = printed[cell]
        if found is None or found.bound:
            continue
        scale = columns.scale_of(kind, found.unit) if found.unit else None
        if found.unit and scale is None:
            continue
        if scale is None:
            bare.append(i)
            scale = meaning.scale or 1.0
        else:
            stated.add(found.unit)
        if scale < 0:
            # Seconds per iteration among iterations per second.
            values[i] = 1 / found.value if found.value else np.nan
            half[i] = found.half / found.value**2 if found.value else 0.0
        else:
            values[i] = found.value * scale
            half[i] = found.half * scale
        decimals = max(decimals, found.decimals if found.half else 15)
    read = int(np.isfinite(values).sum())
    if filled and read < _MOST_WORDS * filled and not (values > 0).any():
        return None
    scale = meaning.scale or (
        columns.scale_of(kind, next(iter(stated))) if len(stated) == 1 else None
    )
    if scale is None and bare:
        scale = _guessed_scale(table, header, kind, values[bare])
        values[bare] *= scale
        half[bare] *= scale
    scale = abs(scale or 1.0)
    step = 0.0 if decimals >= 15 or not read else 10.0**-decimals * scale
    return Numbers(header, values, half, step, meaning.unit or next(iter(stated), ""), scale)


def _guessed_scale(
    table: Table,
    header: str,
    kind: str,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    known = values[np.isfinite(values)]
    if not len(known):
        return 1.0
    if kind == "memory":
        middle = float(np.median(known))
        unit = "GiB" if middle < 256 else "MiB" if middle < 1e6 else "bytes"
        table.guesses.append(f"column {header!r} states no unit and is read as {unit}")
        return columns.SCALES["memory"][unit.lower()]
    if kind == "time" and not header.strip().lower().endswith("_s"):
        table.guesses.append(f"column {header!r} states no unit and is read as seconds")
    return 1.0


def _sizes(table: Table) -> None:
    """Read height and width from a column of sizes, or from names that hold one."""
    if table.has("height") or table.has("width"):
        if not table.has("height", "width"):
            only = "height" if table.has("height") else "width"
            table.numbers["width" if only == "height" else "height"] = table.numbers[only]
        return
    for source in ("size", "name", "model", "backend"):
        if source not in table.texts:
            continue
        found = [_size(text, whole=source == "size") for text in table.texts[source]]
        if not any(found):
            continue
        for place, name in enumerate(("width", "height")):
            values = np.array([np.nan if f is None else float(f[place]) for f in found])
            table.numbers[name] = Numbers(
                table.header(source), values, np.zeros(len(values)), 1.0, "px", 1.0
            )
            table.headers[name] = table.header(source)
        if source != "size":
            table.guesses.append(
                f"sizes are read from the texts of column {table.header(source)!r}"
            )
        return


def _size(text: str, *, whole: bool) -> tuple[int, int] | None:
    found = SIZE.search(text)
    if found:
        return int(found[1]), int(found[2])
    square = re.fullmatch(r"\s*(\d{2,4})\s*(?:px|p|²|\^2)?\s*", text)
    return (int(square[1]), int(square[1])) if whole and square else None


def _arms(table: Table) -> None:
    if "backend" in table.texts:
        return
    for source in ("name", "task"):
        arms = table.text(source)
        if not any(is_baseline(arm) for arm in arms):
            continue
        table.texts["backend"] = list(arms)
        table.headers["backend"] = table.header(source)
        table.guesses.append(
            f"column {table.header(source)!r} is read as the arms of a comparison, because it "
            "holds a baseline"
        )
        if source == "task":
            del table.texts["task"]
        return


def _milliseconds(table: Table) -> None:
    """Mend seconds that were only assumed, where steps and rate say that they are milliseconds."""
    column = table.numbers.get("e2e_s")
    guess = f"column {table.header('e2e_s')!r} states no unit and is read as seconds"
    if column is None or guess not in table.guesses or not table.has("it_per_s", "steps"):
        return
    with np.errstate(all="ignore"):
        share = column.values * table.values("it_per_s") / table.values("steps")
    known = share[np.isfinite(share)]
    if len(known) and 300 < float(np.median(known)) < 30000:
        for values in (column.values, column.half):
            values *= 1e-3
        column.step *= 1e-3
        column.scale = 1e-3
        table.guesses[table.guesses.index(guess)] = (
            f"column {table.header('e2e_s')!r} states no unit and is read as milliseconds, since "
            "steps ÷ it/s would not fit into it otherwise"
        )


def _without_summaries(table: Table) -> Table:
    names = ("name", "model", "backend", "task", "size", "session")
    texts = [table.texts[name] for name in names if name in table.texts]
    summing = [any(SUMMARY.match(t[i]) for t in texts if t[i]) for i in range(len(table))]
    if not any(summing):
        return table
    kept = table.subset([i for i, s in enumerate(summing) if not s])
    kept.guesses, kept.ignored = table.guesses, table.ignored
    kept.summaries = table.subset([i for i, s in enumerate(summing) if s])
    return kept


def refuse(file: str, why: str) -> AuditError:
    return AuditError(f"{file} cannot be audited: {why}")
