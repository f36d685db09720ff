"""Colors that can be told apart in both themes: WCAG 2.2, 1.4.3 (text, 4.5) and 1.4.11 (graphics, 3), level AA."""

from __future__ import annotations

import re

import pytest

from fgvc_cli.report import confusion_chart
from fgvc_cli.report.page import style_sheet

Color = tuple[float, float, float]

TEXTS = [
    ("ink", "paper"), ("ink", "panel"), ("soft", "paper"), ("soft", "panel"), ("link", "paper"),
    ("c1", "paper"), ("c2", "paper"),  # of the words "right" and "wrong"
]  # fmt: skip
GRAPHICS = [("edge", "paper"), ("link", "paper"), *((f"c{n}", "paper") for n in range(1, 9))]


def themes() -> dict[str, dict[str, Color]]:
    """The custom properties of each theme that are colors, in [0, 255]."""
    style = style_sheet()
    dark = re.search(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", style, re.DOTALL)
    light = re.search(r":root \{(.*?)\}", style, re.DOTALL)
    assert light and dark
    return {"light": colors(light[1]), "dark": {**colors(light[1]), **colors(dark[1])}}


def colors(block: str) -> dict[str, Color]:
    found: dict[str, Color] = {}
    for name, digits in re.findall(r"--([\w-]+): #([0-9a-f]{6});", block):
        found[name] = tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))  # type: ignore[assignment]
    for name, numbers in re.findall(r"--([\w-]+): (\d+ \d+ \d+);", block):
        found[name] = tuple(map(int, numbers.split()))  # type: ignore[assignment]
    return found


def luminance(color: Color) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Color, other: Color) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def over(color: Color, opacity: float, ground: Color) -> Color:
    return tuple(opacity * c + (1 - opacity) * g for c, g in zip(color, ground, strict=True))  # type: ignore[return-value]


def test_the_measure_is_that_of_the_guidelines():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


def test_both_themes_have_every_color_and_differ():
    light, dark = themes().values()
    assert light.keys() == dark.keys() and {"paper", "ink", "right", "wrong", "c8"} <= light.keys()
    assert all(light[name] != dark[name] for name in light)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXTS)
def test_text_can_be_read(theme, text, ground):
    found = themes()[theme]
    assert contrast(found[text], found[ground]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("line", "ground"), GRAPHICS)
def test_lines_and_bars_can_be_seen(theme, line, ground):
    found = themes()[theme]
    assert contrast(found[line], found[ground]) >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_numbers_can_be_read_on_every_shade_of_a_cell(theme, kind):
    found = themes()[theme]
    shades = dict(re.findall(rf"\.{kind}(\d)[^{{}}]*\{{ --shade: ([\d.]+);", style_sheet()))
    shades |= dict(re.findall(rf", \.{kind}(\d) \{{ --shade: ([\d.]+);", style_sheet()))
    assert set(shades) == {str(level) for level in range(1, confusion_chart.LEVELS + 1)}
    for opacity in map(float, shades.values()):
        assert contrast(found["ink"], over(found[kind], opacity, found["paper"])) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_strongest_cells_of_a_matrix_picture_can_be_seen(theme):
    paper = themes()[theme]["paper"]
    assert contrast(confusion_chart.RIGHT, paper) >= 3 and contrast(confusion_chart.WRONG, paper) >= 3


def test_what_is_right_and_what_is_wrong_is_told_by_more_than_color(run_report, read_page):
    from fgvc_cli.report.report import report_page

    page = read_page(report_page([run_report()]).html())
    tags = page.by_id("occlusion").of_class("tag")
    assert tags and {tag.text for tag in tags} <= {"right", "wrong"}
    assert page.by_id("curves").of_class("dashed"), "training and validation differ in their strokes too"
