"""Every class is in the outline, worst first."""

from __future__ import annotations

import re

import numpy as np

from fgvc_cli.report.charts import skyline


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


def test_the_outline_has_a_bar_a_class_sorted(read_page):
    drawing = read_page(skyline([0.5, 0.0, 1.0, 0.25, 0.5], 0.45))
    assert heights(drawing.of_class("outline")[0]["d"]) == [0, 25, 50, 50, 100]
    described = drawing.all("svg")[0]["aria-label"].replace("\xa0", " ")
    assert described == (
        "Accuracy of 5 classes, sorted: from 0.0 % to 100.0 %, the median at 50.0 %. Never right: 1; always "
        "right: 1; below the mean of 45.0 %: 2."
    )


def test_a_thousand_classes_are_a_short_path(read_page):
    accuracies = np.random.default_rng(0).integers(0, 51, 1000) / 50
    markup = skyline(accuracies.tolist(), 0.5)
    assert len(markup) < 3000
    assert heights(read_page(markup).of_class("outline")[0]["d"]) == sorted((100 * accuracies).round(1))
