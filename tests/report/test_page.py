"""Assembling sections: heading levels, anchors, folding and escaping."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from fgvc_cli.report.page import Page, Section


def page_of(*sections: Section) -> str:
    return Page("Title", "Kicker", Markup("<p>Lede.</p>"), sections, "Colophon.").html()


def test_the_contents_link_to_top_level_sections(read_page):
    page = read_page(page_of(Section("a", "First", parts=[Section("b", "Part")]), Section("c", "Last")))
    assert [(link["href"], link.text) for link in page.one("nav").all("a")] == [("#a", "First"), ("#c", "Last")]
    assert not read_page(page_of(Section("a", "Only"))).all("nav")


def test_a_folded_section_shows_heading_and_subtitle(read_page):
    page = read_page(page_of(Section("a", "Run", Markup("<p>body</p>"), folded=True, subtitle="41.7 %")))
    details = page.by_id("a").one("details")
    assert not details.has("open") and details.one("summary").text == "Run 41.7 %" and details.text.endswith("body")


def test_duplicate_anchors_are_refused():
    with pytest.raises(ValueError, match="anchors: b"):
        page_of(Section("a", "First", parts=[Section("b", "Part")]), Section("b", "Other"))
