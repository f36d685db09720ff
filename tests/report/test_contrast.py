"""Color contrast in both themes: WCAG 2.2 AA, 1.4.3 (text: 4.5) and 1.4.11 (graphics: 3)."""

from __future__ import annotations

import re

import pytest

from fgvc_cli.report import confusion
from fgvc_cli.report.page import style_sheet
from fgvc_cli.report.report import runs_page

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


def test_both_themes_have_every_color_and_differ():
    light, dark = themes().values()
    assert light.keys() == dark.keys() and {"paper", "ink", "right", "wrong", "c8"} <= light.keys()
    assert all(light[name] != dark[name] for name in light)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_graphics_have_enough_contrast(theme):
    found = themes()[theme]
    pairs = [(pair, 4.5) for pair in TEXTS] + [(pair, 3) for pair in GRAPHICS]
    assert [pair for pair, least in pairs if contrast(found[pair[0]], found[pair[1]]) < least] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_shades_of_a_confusion_matrix(theme, kind):
    """Counts are readable on every shade of a table, and the darkest cells of an image are visible."""
    found = themes()[theme]
    shades: dict[str, dict[str, float]] = {"table": {}, "image": {}}
    rules = re.findall(r"((?:\.[\w-]+[ ,]*)+)\{ --shade: ([\d.]+);", style_sheet())
    for selectors, opacity in rules:
        level = re.search(rf"\.{kind}(\d)", selectors)
        assert level, selectors
        shades["image" if "matrix" in selectors else "table"][level[1]] = float(opacity)
    levels = {str(level) for level in range(1, confusion.LEVELS + 1)}
    assert set(shades["table"]) == set(shades["image"]) == levels
    for opacity in shades["table"].values():
        assert contrast(found["ink"], over(found[kind], opacity, found["paper"])) >= 4.5
    assert contrast(found[kind], found["paper"]) >= 3 and shades["image"]["5"] == 1


def test_right_and_wrong_are_distinguished_by_more_than_color(run_report, read_page):
    page = read_page(runs_page([run_report()]).html())
    tags = page.by_id("occlusion").of_class("tag")
    assert tags and {tag.text for tag in tags} <= {"right", "wrong"}
    assert page.by_id("curves").of_class("dashed"), "training and validation differ in their strokes too"
