"""Pages in a browser: wide and narrow windows, both themes, print and keyboard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.report.report import runs_page, study_page

PHONE, WIDE = 360, 1280
LONG = ["Wort" * 120, "鳥" * 200, "a b" * 150, *(f"Ring-eyed-Forktail-{i}" for i in range(30))]

OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"


@pytest.fixture(scope="module")
def pages(run_report, study_report, recorded, scored, examples, tmp_path_factory) -> dict[str, Path]:
    """Files of pages: a run, several runs, very long names, a thousand classes, and a study."""
    long = run_report(
        record=recorded(name="run-" * 60, dataset={"name": LONG[0]}, config="x" * 900),
        scores=scored(LONG, 4),
        examples=examples(2, *LONG[:2], key=LONG[2]),
        missing=[LONG[0]],
    )
    made = {
        "whole": [run_report()],
        "several": [run_report(), run_report(scores=scored(40))],
        "long names": [long],
        "few long names": [run_report(scores=scored(LONG[:4], 4), record=recorded(epochs=120))],
        "thousand": [run_report(scores=scored(1000, 3), record=recorded(classes=1000))],
    }
    folder = tmp_path_factory.mktemp("pages")
    files = {name: folder / f"{name.replace(' ', '-')}.html" for name in made}
    for name, reports in made.items():
        files[name].write_text(runs_page(reports).html(), encoding="utf-8")
    files["study"] = folder / "study.html"
    heads = [*(f"head-{i}" for i in range(18)), LONG[0]]
    files["study"].write_text(study_page(study_report(heads, 1)).html(), encoding="utf-8")
    return files


@pytest.mark.parametrize(("width", "theme"), [(PHONE, "light"), (WIDE, "dark")])
@pytest.mark.parametrize("name", ["whole", "long names", "thousand", "study"])
def test_layout_contrast_and_console(browser, pages, name, width, theme):
    browser.open(pages[name], width, theme)
    browser.run(OPEN_ALL)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.cut_off() == []
    texts = browser.contrasts()
    assert len(texts) > 50
    assert [text for text in texts if text["contrast"] < 4.5] == []
    assert [text for text in texts if text["size"] < 12] == []
    assert browser.trouble == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_drawn(browser, pages, theme):
    browser.open(pages["whole"], WIDE, theme)
    pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert pixels[-1, 0] > 240 if theme == "light" else pixels[-1, 0] < 40
    assert len(np.unique(pixels)) > 50 and (abs(pixels.astype(int) - pixels[-1, 0]) > 100).mean() > 0.01, (
        "it is not blank"
    )
    assert browser.run("getComputedStyle(document.querySelector('h1')).fontFamily").startswith('"Iowan')


def test_pictures_and_charts_are_drawn(browser, pages):
    browser.open(pages["thousand"], PHONE)
    browser.run("Promise.all([...document.images].map(image => image.decode()))")
    assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
    script = "[...document.querySelectorAll('path.line, path.outline')].map(p => p.getBoundingClientRect().height)"
    heights = browser.run(script)
    assert len(heights) == 5 and all(height > 50 for height in heights)
    assert browser.run("document.querySelectorAll('svg text').length") > 20


def test_labels_of_charts_do_not_overlap(browser, pages):
    script = """
    [...document.querySelectorAll('.chart > svg')].map(chart => [...chart.querySelectorAll('text')].map(text => {
      const box = text.getBoundingClientRect();
      return [box.left, box.top, box.right, box.bottom];
    }))"""
    for width in (PHONE, WIDE):
        browser.open(pages["few long names"], width)
        for boxes in browser.run(script):
            for i, (left, top, right, bottom) in enumerate(boxes):
                assert bottom - top > 11
                for other in boxes[i + 1 :]:
                    apart = right <= other[0] or other[2] <= left or bottom <= other[1] + 2 or other[3] <= top + 2
                    assert apart, (boxes[i], other)


def test_the_skip_link(browser, pages):
    browser.open(pages["whole"])
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "report"


def test_print_expands_runs_and_hides_links(browser, pages):
    browser.open(pages["several"], WIDE, media="print")
    assert browser.run("document.querySelector('details.folded .facts').checkVisibility({contentVisibilityAuto: true})")
    assert browser.run("document.querySelector('nav').checkVisibility()") is False
    assert browser.pdf().startswith(b"%PDF")
    browser.open(pages["several"], WIDE)
    assert browser.run("document.querySelector('details.folded .facts').checkVisibility()") is False
