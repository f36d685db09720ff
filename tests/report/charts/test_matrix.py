"""Confusion matrices of few and of very many classes."""

from __future__ import annotations

import base64
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.report import confusion_chart
from fgvc_cli.report.confusion_chart import confusion_picture, confusion_table


def picture_of(markup, read_page) -> np.ndarray:
    """The picture as RGBA, uint8 H,W,4."""
    uri = read_page(markup).one("img")["src"]
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_a_table_has_the_counts(read_page):
    confused = Counter({("ant", "ant"): 3, ("ant", "bee"): 1, ("bee", "bee"): 4})
    table = read_page(confusion_table(confused, ["ant", "bee", "cat"])).one("table")
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.one("tbody").all("tr")]
    assert rows == [["1 ant", "3", "1", "·"], ["2 bee", "·", "4", "·"], ["3 cat", "·", "·", "·"]]
    classes = {cell.text: cell.get("class") for cell in table.all("td")}
    assert classes == {"3": "right4", "1": "wrong2", "·": None, "4": "right5"}
    assert [a["title"] for a in table.all("abbr")] == ["ant", "bee", "cat"]


def test_a_picture_has_a_square_a_cell_right_and_wrong_in_their_colors(read_page):
    names = [f"k{i:02}" for i in range(30)]
    confused = Counter({(name, name): 10 for name in names[:-1]}) + Counter({("k03", "k20"): 10})
    seen = picture_of(confusion_picture(confused, names), read_page)
    side = len(seen) // 30
    assert seen.shape[:2] == (30 * side, 30 * side) and len(seen) >= confusion_chart.SIDE

    def cell(row: int, column: int) -> tuple[int, ...]:
        square = seen[row * side : (row + 1) * side, column * side : (column + 1) * side].reshape(-1, 4)
        assert (square == square[0]).all()
        return tuple(int(value) for value in square[0])

    assert cell(0, 0) == (*confusion_chart.RIGHT, 255)
    assert cell(3, 20)[:3] == confusion_chart.WRONG and 0 < cell(3, 3)[3] < 255  # half of its images each
    assert cell(0, 1)[3] == 0, "what never happens is not painted"
    assert cell(29, 0)[:3] == confusion_chart.EMPTY and cell(29, 29) == cell(29, 0), "a class without images"


def test_a_rare_mistake_can_be_seen(read_page):
    names = [f"k{i:02}" for i in range(20)]
    confused = Counter({(name, name): 999 for name in names}) + Counter({("k00", "k19"): 1})
    seen = picture_of(confusion_picture(confused, names), read_page)
    assert seen[0, -1, 3] >= 255 * confusion_chart.FAINTEST


@pytest.mark.parametrize("classes", [241, 1000, 10_000])
def test_very_many_classes_share_cells_and_the_picture_stays_small(classes, read_page):
    names = [str(i) for i in range(classes)]
    rng = np.random.default_rng(0)
    confused = Counter({(names[i], names[i]): 7 for i in range(classes)})
    confused.update((names[a], names[b]) for a, b in rng.integers(0, classes, (3 * classes, 2)))
    markup = confusion_picture(confused, names)
    assert len(markup) < 60_000
    seen = picture_of(markup, read_page)
    assert len(seen) <= 2 * confusion_chart.SIDE
    middle = len(seen) // 2
    assert tuple(seen[middle, middle, :3]) == confusion_chart.RIGHT and f"{-(-classes // 240)} neighboring" in markup
