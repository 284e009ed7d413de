"""A section's texts, figures and images reach both pages, and no other place."""

from __future__ import annotations

import plots.trace
from reports import build, frames, sections
from reports.sections.base import Plot, Section, Shown
from reports.tables import Cell, Table
from tests.reports import make_records as make

PNG = b"\x89PNG any"


class Special:
    """A section about <everything>."""

    def figures(self, comparisons):
        return {"special": Plot(plots.trace, lambda: [frames.trace(comparisons)], "how to read")}

    def section(self, comparisons):
        if not comparisons[0].findings[0].arm.first.stop_reason:
            return None
        return Section(
            "special",
            "All <of> it",
            ["one & two"],
            figures=["special", "never-drawn"],
            pictures=[Shown("special-grid", PNG, 8, 8, "a | grid")],
            tables=[Table("Counts", ["what"], [[Cell("seven")]])],
        )


def run(tmp_path, **more):
    records = [{**record, **more} for record in make.records()]
    return make.write_run(tmp_path / "run", records)


def test_a_section_is_on_both_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "modules", lambda: (Special(),))
    report = build.write([run(tmp_path, stop_reason="max_calls")])
    page, text = report.page.read_text(), report.markdown.read_text()
    assert "<h2>All &lt;of&gt; it</h2>" in page
    assert "one &amp; two" in page
    assert '<a href="#special">' in page
    assert page.count("how to read") == text.count("how to read") == 1
    assert "## All \\<of\\> it" in text
    assert "![a \\| grid](gallery/special-grid.png)" in text
    assert "### Counts" in text
    assert text.startswith("# Is it worth it?")
    assert page.index('class="answers"') < page.index("All &lt;of&gt; it</h2>")
    assert text.index("## All") < text.index("how to read") < text.index("### Counts")
    assert (report.page.parent / "plots" / "special.png").exists()
    assert (report.page.parent / "gallery" / "special-grid.png").read_bytes() == PNG


def test_a_figure_that_is_drawn_no_more_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "modules", lambda: (Special(),))
    folder = run(tmp_path, stop_reason=None)
    (folder / "plots").mkdir()
    (folder / "plots" / "special.svg").write_text("old")
    monkeypatch.setattr(
        Special,
        "figures",
        lambda *_: {"special": Plot(plots.trace, lambda: [frames.trace([])], "how to read")},
    )
    report = build.write([folder])
    assert not (folder / "plots" / "special.svg").exists()
    assert "All &lt;of&gt; it" not in report.page.read_text()
