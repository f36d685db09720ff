"""The bar chart: one bar per update, and the reason in place of one that failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.benchmarking import chart
from fgvc_cli.benchmarking.chart import BAR_INCHES, COLORS, draw_chart


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def amount(path: Path, color: str) -> int:
    """Number of pixels that have a color."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(path) - wanted).max(axis=2) <= 3).sum())


def test_a_bar_is_as_long_as_its_rate(tmp_path, make_report, make_rows):
    draw_chart(tmp_path / "a.png", make_report(make_rows(["resnet50"])))
    linear, pim, cmal = (amount(tmp_path / "a.png", color) for color in COLORS[:3])
    assert linear / pim == pytest.approx(2, rel=0.06) and linear / cmal == pytest.approx(8, rel=0.15)


def test_small_ratios_are_formatted_as_in_the_table(tmp_path, make_report, make_rows, monkeypatch):
    """Records the texts that are drawn, as a picture has none to read back."""
    drawn = []
    rows = [replace(row, update=replace(row.update, ratio=0.0123)) for row in make_rows(["resnet50"])]
    monkeypatch.setattr(chart, "save_figure", lambda figure, _: drawn.extend(figure.axes[0].texts))
    draw_chart(tmp_path / "a.png", make_report(rows))
    assert sum("× 0.012" in text.get_text() for text in drawn) == len(rows) - 1  # but the baseline


def test_a_failed_row_has_no_bar(tmp_path, make_report, make_rows):
    rows = make_rows(["resnet50"])
    failed = [replace(row, update=None, failed="a reason of $5_^ " * 20) if row.head == "pim" else row for row in rows]
    draw_chart(tmp_path / "a.png", make_report(failed))
    assert amount(tmp_path / "a.png", COLORS[1]) == 0 and amount(tmp_path / "a.png", COLORS[2]) > 1000
    assert 1000 < pixels(tmp_path / "a.png").shape[1] < 1800  # a long reason does not widen the picture


@pytest.mark.parametrize("backbones", [1, 4])
def test_bars_keep_their_height(tmp_path, make_report, make_rows, backbones):
    path = tmp_path / "a.png"
    rows = make_rows([f"backbone{i}" for i in range(backbones)])
    draw_chart(path, make_report(rows))
    height, width, _ = pixels(path).shape
    assert height > 150 * BAR_INCHES * len(rows) and 1000 < width < 1800
    column = (np.abs(pixels(path) - [0, 0x72, 0xB2]).max(axis=2) <= 3)[:, : width // 4].any(axis=1)
    starts = int((column[1:] & ~column[:-1]).sum())
    assert starts == 3 * backbones  # the bars of "linear" are apart from each other


def test_a_single_row_and_more_heads_than_colors(tmp_path, make_report, make_rows):
    (row, *_) = make_rows(["resnet50"])
    draw_chart(tmp_path / "a.png", make_report([row]))
    assert amount(tmp_path / "a.png", COLORS[0]) > 1000
    draw_chart(tmp_path / "b.png", make_report([replace(row, head=f"head{i}") for i in range(len(COLORS) + 1)]))
    assert all(amount(tmp_path / "b.png", color) > 1000 for color in COLORS)
