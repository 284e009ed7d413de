"""The view as ``REPORT.md``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from reports.answers import Answer
from reports.figures import Drawn
from reports.gallery import Column
from reports.sections.base import Section
from reports.tables import Table
from reports.view import VERDICTS, View, Workload

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render(view: View, drawn: Sequence[Drawn]) -> str:
    """Return the report as Markdown; figures and images are links into its folder."""
    parts = [f"# {_text(view.question)} {_text(view.title)}", _text(view.counts) + "."]
    if view.synthetic:
        parts.append(
            "**Synthetic weights** are used where marked: speed and memory are those of the "
            "architecture, images have no content."
        )
    by_name = {one.name: one for one in drawn}
    special = [part for section in view.sections for part in _section(section, by_name)]
    if view.leads:
        parts += [*special, "# Each workload by itself"]
    for workload in view.workloads:
        parts.append(_answer(workload.answer))
    parts.append("# Evidence")
    parts.append("## Figures")
    for one in drawn:
        if one.name not in view.figures_of_sections:
            parts += _figure(one)
    for workload in view.workloads:
        parts += _workload(workload)
    if not view.leads:
        parts += special
    tables = (view.outcomes, view.warnings, view.audit, view.published)
    for each in (*tables, *view.environments, view.records):
        if each is not None:
            parts.append(table(each, "##"))
    parts.append("## Method")
    parts.append("\n".join(f"- {_text(line)}" for line in view.method))
    parts.append("## Runs")
    parts.append(
        "\n".join(
            f"- {_text(s.label)}: run {_text(s.run_id)}, begun {_text(s.created_utc)}, bench "
            f"{_text(s.version)}"
            for s in view.sources
        )
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _figure(one: Drawn) -> list[str]:
    return [f"### {one.title}", one.says, f"![{one.title}](plots/{one.name}.svg)"]


def _section(section: Section, drawn: Mapping[str, Drawn]) -> list[str]:
    parts = [f"## {_text(section.title)}", *(_text(said) for said in section.says)]
    for name in section.figures:
        if name in drawn:
            parts += _figure(drawn[name])
    for picture in section.pictures:
        caption = _text(picture.caption)
        parts.append(f"![{caption}](gallery/{picture.name}.png)\n\n{caption}")
    return parts + [table(each, "###") for each in section.tables]


def _answer(answer: Answer) -> str:
    lines = [f"## {_text(answer.title)}: {_text(answer.headline)}", _text(answer.facts)]
    rows = [
        ("how much faster", f"**{answer.speedup}** ({answer.interval}), {answer.word}; "
         f"{_text(answer.times)}" if answer.speedup else ""),
        ("warm-up", "; ".join(answer.warmup)),
        ("memory", "; ".join(answer.memory)),
        ("same images?", answer.pictures),
        ("break-even", "; ".join(answer.breakeven)),
        (f"trust: {answer.trust}", _first(answer.why)),
        ("failed or incomplete", " / ".join(answer.lost)),
    ]  # fmt: skip
    lines.append(
        "\n".join(
            f"- {name}: {said if name == 'how much faster' else _text(said)}"
            for name, said in rows
            if said
        )
    )
    return "\n\n".join(lines)


def _first(doubts: Sequence[str]) -> str:
    """Return the most important doubt; all of them stand in the workload's table of verdicts."""
    more = f' ({len(doubts) - 1} more under "{VERDICTS}")' if len(doubts) > 1 else ""
    return doubts[0] + more if doubts else ""


def _workload(workload: Workload) -> list[str]:
    parts = [f"## {_text(workload.answer.title)}"]
    parts.append(f"Prompt: {_text(workload.prompt)}  \n{_text(workload.settings)}")
    parts += [table(each, "###") for each in workload.tables]
    shown = workload.gallery.shown
    if shown:
        head = f"| {_line(_text(c.backend) for c in shown)}"
        lines = [_line([name, *map(get, shown)]) for name, get in GALLERY.items()]
        parts.append("### Images\n\nDifferences are amplified, each by the factor above it.")
        parts.append("\n".join([head, _line(["---"] * (len(shown) + 1)), *lines]))
    return parts


def _difference(column: Column) -> str:
    if column.difference:
        return f"×{column.amplified}<br>![difference](gallery/{column.name}-difference.png)"
    return "identical" if column.identical else "–"


GALLERY: Mapping[str, Callable[[Column], str]] = {
    "picture": lambda column: f"![{_text(column.backend)}](gallery/{column.name}.png)",
    "difference": _difference,
    "figures": lambda column: (
        "<br>".join(f"{_text(name)} {_text(value)}" for name, value in column.metrics) or "–"
    ),
    "record": lambda column: _text(column.record),
}
"""The lines of a gallery, a column for each backend."""


def table(shown: Table, level: str) -> str:
    """Return a table under a heading of ``level``."""
    lines = [f"{level} {_text(shown.title)}", ""]
    if shown.note:
        lines += [_text(shown.note), ""]
    lines.append(_line(map(_text, shown.head)))
    lines.append(_line("---:" if right else "---" for _, right in shown.aligned))
    lines += [_line(_text(cell.text) for cell in row) for row in shown.rows]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: str) -> str:
    """Return text that Markdown, and the HTML that it may hold, shows as it is."""
    flat = " ".join(str(value).split())
    return _SPECIAL.sub(r"\\\1", flat.replace("&", "&amp;")) if flat else ""
