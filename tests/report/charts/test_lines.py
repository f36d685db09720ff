"""Curves go through their points, and say what they are."""

from __future__ import annotations

import re

import pytest

from fgvc_cli.report.charts import DOTTED, Line, LineChart, Mark


def chart(*lines: Line, **more):
    return LineChart("Loss", "Falls.", lines, **more)


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_curve_goes_through_its_points(read_page):
    drawing = read_page(chart(Line("train", [(1, 2.0), (2, 1.0), (3, 0.0)], 1), from_zero=True).markup())
    (path,) = [p for p in drawing.of_class("line") if p.tag == "path"]
    (x1, y1), (x2, y2), (x3, y3) = points(path["d"])
    assert x1 < x2 < x3 and x2 - x1 == pytest.approx(x3 - x2) and y1 < y2 < y3 == 1000
    assert y3 - y2 == pytest.approx(y2 - y1, abs=0.2)
    assert {label.text for label in drawing.of_class("across")} == {"1", "2", "3", "epoch"}


def test_each_curve_is_named_and_drawn_as_the_legend_has_it(read_page):
    lines = [Line("a <b>", [(1, 1), (2, 2)], 3, dashed=True), Line("none", [], 4), Line("c", [(1, 1)], 8)]
    drawing = read_page(chart(*lines).markup())
    legend = drawing.one("ul").all("li")
    assert [item.text for item in legend] == ["a <b>", "c"]
    assert legend[0].all("line")[0]["class"] == "line c3 dashed"
    paths = [p["class"] for p in drawing.of_class("line") if p.tag == "path"]
    assert paths == ["line c3 dashed", "line c8"]


def test_many_points_have_no_dots(read_page):
    for count in (DOTTED, DOTTED + 1):
        drawing = read_page(chart(Line("a", [(x, x) for x in range(count)], 1)).markup())
        assert len(drawing.of_class("dots")) == (count == DOTTED)


def test_what_stands_out_is_marked_and_named(read_page):
    drawing = read_page(chart(Line("a", [(1, 1), (2, 3)], 1), mark=Mark(2, 3, "best epoch: 2")).markup())
    circles = [c for c in drawing.of_class("best") if c.tag == "circle"]
    assert len(circles) == 2 and "best epoch: 2" in drawing.one("ul").text
    assert drawing.all("svg")[0]["aria-label"] == "Falls."
