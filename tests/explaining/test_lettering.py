"""Text that keeps to its room."""

from __future__ import annotations

import pytest

from fgvc_cli.explaining.text_layout import ELLIPSIS, shortened, width_of, wrapped

TEXTS = [
    "b",
    "Bar-winged-Finch",
    "Northern Rough-winged Swallow of the coast",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "Größe-Æther-Ångström Ωmega Жук",
    " many   blanks and\nlines ",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [40, 90, 150, 400])
@pytest.mark.parametrize("bold", [False, True])
def test_every_line_fits(text, width, bold):
    lines = wrapped(text, width, 13, bold)
    assert 1 <= len(lines) <= 2
    assert all(width_of(line, 13, bold) <= width for line in lines)
    whole, shown = "".join(text.split()), "".join("".join(lines).split())
    assert shown == whole or (shown.endswith(ELLIPSIS) and whole.startswith(shown.removesuffix(ELLIPSIS)))


def test_a_line_ends_where_a_word_does():
    text = "Northern Rough-winged Swallow"
    assert wrapped(text, width_of("Northern Rough-wing", 13), 13) == ["Northern Rough-", "winged Swallow"]


def test_what_fits_is_left_alone():
    assert shortened("short", 200, 13) == "short" and wrapped("short", 200, 13) == ["short"]
    assert wrapped("", 200, 13) == []


def test_a_path_is_shortened_in_the_middle():
    text = shortened("photographs/of/the/holiday/in/the/north/bird.jpg", 150, 13, middle=True)
    assert text.startswith("photo") and text.endswith("bird.jpg") and ELLIPSIS in text
    assert width_of(text, 13) <= 150


def test_no_room_leaves_nothing():
    assert shortened("word", 3, 13) == ""
