"""Charts: ticks, lines, legends and the bars of classes."""

from __future__ import annotations

import re

import pytest

from fgvc_cli.report.charts import Line, LineChart, Mark, Scale, class_chart


def chart(*lines: Line, **more):
    return LineChart("Loss", "Falls.", lines, **more)


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_line_goes_through_its_points(read_page):
    drawing = read_page(chart(Line("train", [(1, 2.0), (2, 1.0), (3, 0.0)], 1), from_zero=True).markup())
    (path,) = [p for p in drawing.of_class("line") if p.tag == "path"]
    (x1, y1), (x2, y2), (x3, y3) = points(path["d"])
    assert x1 < x2 < x3 and x2 - x1 == pytest.approx(x3 - x2) and y1 < y2 < y3 == 1000
    assert y3 - y2 == pytest.approx(y2 - y1, abs=0.2)
    assert {label.text for label in drawing.of_class("across")} == {"1", "2", "3", "epoch"}


def test_lines_match_the_legend(read_page):
    lines = [Line("a <b>", [(1, 1), (2, 2)], 3, dashed=True), Line("none", [], 4), Line("c", [(1, 1)], 8)]
    drawing = read_page(chart(*lines).markup())
    legend = drawing.one("ul").all("li")
    assert [item.text for item in legend] == ["a <b>", "c"]
    assert legend[0].all("line")[0]["class"] == "line c3 dashed"
    paths = [p["class"] for p in drawing.of_class("line") if p.tag == "path"]
    assert paths == ["line c3 dashed", "line c8"]


def test_a_mark_is_drawn_and_labeled(read_page):
    drawing = read_page(chart(Line("a", [(1, 1), (2, 3)], 1), mark=Mark(2, 3, "best epoch: 2")).markup())
    circles = [c for c in drawing.of_class("best") if c.tag == "circle"]
    assert len(circles) == 2 and "best epoch: 2" in drawing.one("ul").text
    assert drawing.all("svg")[0]["aria-label"] == "Falls."


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 50, 6, ["0", "10", "20", "30", "40", "50"]),
        (0, 1, 5, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (1.13, 2.58, 5, ["1.5", "2.0", "2.5"]),
        (0.0021, 0.0098, 5, ["0.004", "0.006", "0.008"]),
        (0, 0.01, 5, ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]),
        (-3, 3, 4, ["-2", "0", "2"]),
    ],
)
def test_ticks_are_round(low, high, most, expected):
    assert [tick.text for tick in Scale(low, high).ticks(most)] == expected


@pytest.mark.parametrize("last", [1, 2, 7, 10, 23, 100, 350])
def test_integer_ticks(last):
    ticks = Scale(1, max(last, 2)).ticks(6, integers=True)
    assert 1 <= len(ticks) <= 6 and all(tick.text.isdigit() for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


def test_ticks_are_at_their_values():
    scale = Scale(20, 60)
    assert {tick.text: tick.at for tick in scale.ticks(5)} == pytest.approx(
        {"20": 0, "30": 0.25, "40": 0.5, "50": 0.75, "60": 1}
    )


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [-1.0, 1e-9], [5.0, 5.0, 5.0]])
def test_a_scale_has_room_whatever_the_values(values):
    scale = Scale.of(values)
    assert scale.low < scale.high and all(0 <= scale.at(value) <= 1 for value in values)
    assert Scale.of(values, start=0.0).low == min([0.0, *values])


def heights(path: str) -> list[float]:
    """The height of each class, from 0 to 100."""
    found: list[float] = []
    height = 0.0
    for letter, number in re.findall(r"([VH])([\d.]+)", path):
        if letter == "V":
            height = 100 - float(number)
        else:
            found += [height] * (int(number) - len(found))
    return found


def test_class_chart_has_a_bar_per_class_sorted(read_page):
    drawing = read_page(class_chart([0.5, 0.0, 1.0, 0.25, 0.5], 0.45))
    assert heights(drawing.of_class("outline")[0]["d"]) == [0, 25, 50, 50, 100]
    description = drawing.all("svg")[0]["aria-label"].replace("\xa0", " ")
    assert (
        "5 classes" in description and "median 50.0 %" in description and "below the mean of 45.0 %: 2" in description
    )
