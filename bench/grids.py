"""Many pictures in one: rows with a label each, for the pictures of a chain and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.tasks.chain.record import Descent, Round

PICTURE_SIDE = 160
"""Longest side at which a picture is shown, pixels."""
MOST_IN_ROW = 12
MOST_ROWS = 24

_GAP = 6
_LINE = 15
_LABEL = 190
_CAPTION = 96
_INK, _FAINT, _BAD, _PAPER = "#1F2328", "#6A737D", "#A40E26", "#FFFFFF"


@dataclass(frozen=True)
class Row:
    """One row: pictures (PIL), a caption below each, and lines of text before them.

    A row that failed has a ``fault`` instead of pictures.
    """

    lines: Sequence[str]
    pictures: Sequence[Any] = ()
    captions: Sequence[str] = ()
    fault: str | None = None


def of_chain(
    rounds: Sequence[Round], lineage: Sequence[Descent], pictures: Sequence[Any]
) -> list[Row]:
    """Return a row for each round of a chain, from its record.

    Args:
        rounds: ``chain_rounds`` of the record.
        lineage: of ``pictures``, which are PIL pictures in the order of the chain.
    """
    rows = []
    for each in rounds:
        own = [entry for entry in lineage if entry.round == each.round]
        lines = [f"round {each.round}: {each.task}"]
        effective = each.steps_effective
        if effective is not None:
            lines.append(f"{effective} of {each.steps_requested} steps")
        calls = each.denoiser_calls
        if calls is not None and calls != effective:
            lines.append(f"{calls} denoiser calls")
        captions = [
            f"#{entry.index} seed {entry.seed}"
            + ("" if entry.parent_index is None else f"\nfrom #{entry.parent_index}")
            for entry in own
        ]
        fault = None
        if each.outcome != "ok":
            fault = f"{each.outcome or ''} {each.reason or 'not finished'}".strip()
        shown = [pictures[entry.index] for entry in own]
        rows.append(Row(lines, shown, captions, fault))
    return rows


def draw(title: str, rows: Sequence[Row]) -> Any:
    """Return the rows as one RGB picture (PIL).

    Pictures are shrunk to ``PICTURE_SIDE``, never enlarged; what does not fit into ``MOST_IN_ROW``
    and ``MOST_ROWS`` is counted in words.
    """
    from PIL import Image, ImageDraw

    shown = rows[:MOST_ROWS]
    small = [[_small(picture) for picture in row.pictures[:MOST_IN_ROW]] for row in shown]
    widths = [each.width for line in small for each in line] or [PICTURE_SIDE]
    heights = [max([each.height for each in line], default=2 * _LINE) for line in small]
    columns = max([len(line) for line in small] + [1])
    pitch = max(*widths, _CAPTION) + _GAP
    below = 1 + max([text.count("\n") + 1 for row in shown for text in row.captions], default=0)
    width = max(_LABEL + columns * pitch + _GAP, 520)
    title_lines = _broken(title, (width - 2 * _GAP) // 7)
    top = _GAP + len(title_lines) * _LINE + _GAP
    left_out = (
        f"{len(rows) - MOST_ROWS} more rounds are not shown." if len(rows) > MOST_ROWS else ""
    )
    rows_height = sum(max(height, 3 * _LINE) + below * _LINE for height in heights)
    height = top + rows_height + (_LINE if left_out else 0) + _GAP
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    font = _font()
    for at, line in enumerate(title_lines):
        pen.text((_GAP, _GAP + at * _LINE), line, fill=_INK, font=font)
    y = top
    for row, pictures, tall in zip(shown, small, heights, strict=True):
        lines = [part for line in row.lines for part in _broken(line, _LABEL // 7)]
        for at, line in enumerate(lines[: max(tall, 3 * _LINE) // _LINE]):
            pen.text((_GAP, y + at * _LINE), line, fill=_FAINT if at else _INK, font=font)
        for at, picture in enumerate(pictures):
            x = _LABEL + at * pitch
            page.paste(picture, (x, y))
            if at < len(row.captions):
                pen.text((x, y + picture.height + 1), row.captions[at], fill=_FAINT, font=font)
        if row.fault is not None:
            for at, line in enumerate(_broken(row.fault, (width - _LABEL) // 7)[:4]):
                pen.text((_LABEL, y + at * _LINE), line, fill=_BAD, font=font)
        more = len(row.pictures) - len(pictures)
        if more > 0:
            note = f"and {more} more"
            pen.text((_GAP, y + max(tall, 3 * _LINE) - _LINE), note, fill=_FAINT, font=font)
        y += max(tall, 3 * _LINE) + below * _LINE
    if left_out:
        pen.text((_GAP, y), left_out, fill=_FAINT, font=font)
    return page


def _small(picture: Any) -> Any:
    copy = picture.convert("RGB")
    copy.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return copy


def _broken(text: str, characters: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(characters, 8)) or [""]


def _font() -> Any:
    """Pillow's own letters: no file of any machine is needed."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(11)
    except (TypeError, ImportError, OSError):  # before Pillow 10.1, or built without FreeType
        return ImageFont.load_default()
