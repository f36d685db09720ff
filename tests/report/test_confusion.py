"""Confusion matrices of few and of many classes."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from fgvc_cli.report import confusion
from fgvc_cli.report.confusion import confusion_image, confusion_table


def cells_of(markup, read_page) -> dict[tuple[int, int], str]:
    """The shade of each cell that is drawn, by (row, column); "empty" for rows without images."""
    found = {}
    for path in read_page(markup).all("path"):
        x = y = 0
        for command, numbers in re.findall(r"([Mmh])([-\d ]+)", path["d"]):
            values = [int(number) for number in numbers.split()]
            if command == "h":
                for column in range(x, x + values[0]):
                    assert (y, column) not in found
                    found[y, column] = path["class"]
                x += values[0]
            else:
                x, y = values if command == "M" else (x + values[0], y + values[1])
    return found


def test_a_table_has_the_counts(read_page):
    confused = Counter({("ant", "ant"): 3, ("ant", "bee"): 1, ("bee", "bee"): 4})
    table = read_page(confusion_table(confused, ["ant", "bee", "cat"])).one("table")
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.one("tbody").all("tr")]
    assert rows == [["1 ant", "3", "1", "·"], ["2 bee", "·", "4", "·"], ["3 cat", "·", "·", "·"]]
    classes = {cell.text: cell.get("class") for cell in table.all("td")}
    assert classes == {"3": "right4", "1": "wrong2", "·": None, "4": "right5"}
    assert [a["title"] for a in table.all("abbr")] == ["ant", "bee", "cat"]


def test_an_image_has_a_cell_for_each_pair(read_page):
    names = [f"k{i:02}" for i in range(30)]
    confused = Counter({(name, name): 10 for name in names[:-1]})
    confused += Counter({("k03", "k20"): 10, ("k03", "k21"): 10, ("k00", "k29"): 1})
    cells = cells_of(confusion_image(confused, names), read_page)
    assert cells[1, 1] == "right5" and cells[3, 3] == "right2" and cells[3, 20] == cells[3, 21] == "wrong3"
    assert cells[0, 29] == "wrong2", "a rare mistake is visible"
    assert (0, 1) not in cells and cells[29, 0] == cells[29, 29] == "empty"
    assert len(cells) == 29 + 3 + 30


@pytest.mark.parametrize("classes", [241, 1000, 10_000])
def test_many_classes_share_cells_and_the_image_stays_small(classes, read_page):
    names = [str(i) for i in range(classes)]
    rng = np.random.default_rng(0)
    confused = Counter({(names[i], names[i]): 7 for i in range(classes)})
    confused.update((names[a], names[b]) for a, b in rng.integers(0, classes, (3 * classes, 2)))
    markup = confusion_image(confused, names)
    per_cell = -(-classes // confusion.CELLS)
    cells = cells_of(markup, read_page)
    assert len(markup) < 110_000 and f"{per_cell} neighboring" in markup
    assert max(row for row, _ in cells) < confusion.CELLS and cells[5, 5].startswith("right")
