"""Properties of every page: headings, labels, alternative texts, and no external resources."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import pairwise

import pytest

from fgvc_cli.report.report import runs_page

HOSTILE = [
    "<script>alert(1)</script>",
    "\" onload='x' --><b>",
    "{{ 7 * 7 }} {% raw %} &amp; $x",
    "🐝" * 8,
    "صقر الشاهين \u202e reversed",
    "雀形目" * 40,
    "Wort" * 300,
    "a\nb\x00c\x1b[31m",
]
"""Names of classes and files that could break markup or layout."""


@pytest.fixture(
    scope="module",
    params=["several", "many classes", "no images", "no scores", "untrained", "hostile"],
)
def html(request, run_report, recorded, scored, examples) -> str:
    shown = {
        "several": lambda: [run_report(), run_report(scores=scored(40))],
        "many classes": lambda: [run_report(scores=scored(1200, 2), record=recorded(classes=1200))],
        "no images": lambda: [run_report(examples=None, missing=["The images are not available (gone)."])],
        "no scores": lambda: [run_report(examples=None, scores=None)],
        "untrained": lambda: [run_report(record=recorded(epochs=0, images_per_second=None))],
        "hostile": lambda: [
            run_report(
                record=recorded(name=HOSTILE[0] + HOSTILE[5], config=HOSTILE[0], dataset={"name": HOSTILE[1]}),
                scores=scored(HOSTILE, 3),
                examples=examples(1, *HOSTILE[:2], key=HOSTILE[7]),
                missing=[HOSTILE[0]],
            )
        ],
    }
    return runs_page(shown[request.param]()).html()


@pytest.fixture(scope="module")
def page(html, read_page):
    return read_page(html)


def test_heading_levels(page):
    levels = [int(element.tag[1]) for element in page.all(*(f"h{n}" for n in range(1, 7)))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(heading.text for heading in page.all("h1", "h2", "h3", "h4"))


def test_screen_readers_find_labels_and_alternative_texts(page):
    (html,) = page.all("html")
    assert html["lang"] == "en" and page.one("title").text and page.one("main")["id"] == "report"
    skip = page.one("body").all()[0]
    assert (skip.tag, skip["href"]) == ("a", "#report")
    for image in page.all("img"):
        assert image["alt"].strip() and int(image["width"]) and int(image["height"])
    for drawing in page.all("svg"):
        is_named = drawing.get("role") == "img" and bool(drawing.get("aria-label"))
        is_inner = any(drawing in outer.all("svg") for outer in page.all("svg") if outer is not drawing)
        assert is_named or is_inner or drawing.get("aria-hidden") == "true"
    for details in page.all("details"):
        assert details.all()[0].tag == "summary" and details.all("summary")[0].text
    for element in page.all():
        if element.get("tabindex") == "0":
            assert element.get("aria-label") and element.get("role") == "group"


def test_tables_have_captions_and_scoped_headers(page):
    for table in page.all("table"):
        assert table.one("caption").text
        for header in table.all("th"):
            assert header["scope"] in ("row", "col") and header.text
        widths = {len(row.all("th", "td")) for row in table.all("tr")}
        assert len(widths) == 1


def test_anchors_are_unique_and_links_resolve(page):
    ids = [element["id"] for element in page.all() if element.has("id")]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in ids
    landmarks = [section for section in page.all("section") if section.has("aria-labelledby")]
    assert all(page.by_id(section["aria-labelledby"]).tag == "h2" for section in landmarks)
    names = [page.by_id(section["aria-labelledby"]).text for section in landmarks]
    assert names and len(names) == len(set(names)), "landmarks are told apart by their names"


def test_there_are_no_scripts_and_no_external_resources(page, html):
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form", "audio", "video")
    for element in page.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on") and name != "style", f"<{element.tag} {name}>"
            if name in ("src", "href", "srcset", "action", "data", "xlink:href"):
                assert value.startswith(("#", "data:image/")), value[:80]
    assert "url(" not in page.one("style").text and "@import" not in page.one("style").text
    assert not re.search(r"https?://", html)


def test_the_content_security_policy(page, html):
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert (
        policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_names_add_no_markup(run_report, recorded, scored, examples, read_page):
    def shape(names: list[str]) -> list[tuple[str, tuple[str, ...]]]:
        report = run_report(
            record=recorded(name="run", dataset={"name": names[1]}),
            scores=scored(names, 3),
            examples=examples(1, names[0], names[1], key=names[7]),
        )
        page = read_page(runs_page([report]).html())
        return [(element.tag, tuple(element.attributes)) for element in page.all()]

    assert shape(HOSTILE) == shape([f"Kind-{i}" for i in range(8)])


def test_names_are_shown_unchanged(run_report, scored, read_page):
    page = read_page(runs_page([run_report(scores=scored(HOSTILE, 3), examples=None)]).html())
    classes = [header.text for header in page.by_id("classes").all("th") if header["scope"] == "row"]
    expected = [" ".join(name.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").split()) for name in HOSTILE]
    assert sorted(classes) == sorted(expected)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", page.text)
