"""The view as ``report.html``: one file, no network, nothing but what it was given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from reports.figures import Drawn
from reports.tables import Cell
from reports.view import View


def render(view: View, drawn: Sequence[Drawn]) -> str:
    """Return the page. Every text is escaped; script and style are named by hash in its policy."""
    folder = files("reports") / "templates"
    style = (folder / "report.css").read_text(encoding="utf-8")
    script = (folder / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["line"] = line
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    return template.render(
        view=view,
        drawn=[one for one in drawn if one.name not in view.figures_of_sections],
        by_name={one.name: one for one in drawn},
        sections=view.sections,
        lead=view.leads,
        question=view.question,
        # Both are files of this package, and nothing is put into them.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=policy,
    )


def line(cells: Sequence[Cell]) -> Markup:
    """Return the cells of a table's row, escaped. Written out: a template takes ten times "
    "longer.
    """
    return Markup("".join(map(_cell, cells)))  # noqa: S704 - escaped below


def _cell(cell: Cell) -> str:
    kind = f' class="{cell.kind}"' if cell.kind else ""
    value = "" if cell.value is None else f' data-value="{escape(repr(cell.value))}"'
    said = escape(cell.text)
    if cell.kind == "word":
        badge = escape(cell.text.lower().replace(" ", "-"))
        said = Markup('<span class="badge {}">{}</span>').format(badge, said)
    return f"<td{kind}{value}>{said}</td>"


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes as a URI that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"
