"""The bar chart: one bar per update, and the reason in place of one that failed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from fgvc_cli.benchmarking import chart
from fgvc_cli.benchmarking.chart import BAR_INCHES, COLORS, REASON_LENGTH, draw_chart


@pytest.fixture
def drawn(monkeypatch, make_report, tmp_path):
    """A function that draws a chart of some rows and returns its axes, without writing it."""

    def axes_of(rows):
        figures = []
        monkeypatch.setattr(chart, "save_figure", lambda figure, _: figures.append(figure))
        draw_chart(tmp_path / "a.png", make_report(rows))
        return figures[0].axes[0]

    return axes_of


def test_bars_have_the_length_of_their_rate_and_the_color_of_their_head(drawn, make_rows):
    rows = make_rows(["resnet50", "swin_t"])
    rows = [replace(row, update=replace(row.update, ratio=0.0123)) for row in rows]
    axes = drawn(rows)
    assert [bar.get_width() for bar in axes.patches] == [row.update.images_per_second for row in rows]
    heads = [bar.get_facecolor() for bar in axes.patches]
    assert len(set(heads)) == 3 and heads[0] == heads[1] != heads[3]
    assert axes.figure.get_figheight() > BAR_INCHES * (len(rows) + 2)
    texts = [text.get_text() for text in axes.texts]
    assert {"resnet50", "swin_t"} <= set(texts)
    assert sum("× 0.012" in text for text in texts) == len(rows) - 2, "all but the baselines, as in the table"


def test_a_failed_row_has_its_reason_in_place_of_a_bar(drawn, make_rows):
    rows = make_rows(["resnet50"])
    failed = [replace(row, update=None, failed="a reason of $5_^ " * 20) if row.head == "pim" else row for row in rows]
    axes = drawn(failed)
    assert len(axes.patches) == len(rows) - 3
    reasons = [text.get_text() for text in axes.texts if text.get_text().startswith("a reason")]
    assert len(reasons) == 3 and all(len(text.replace("\\", "")) <= REASON_LENGTH for text in reasons)


def test_more_heads_than_colors_and_the_file(tmp_path, make_report, make_rows):
    (row, *_) = make_rows(["resnet50"])
    draw_chart(tmp_path / "a.png", make_report([replace(row, head=f"$head_{i}^") for i in range(len(COLORS) + 1)]))
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and 1000 < image.width < 1800
