"""Wide tables: nothing is lost or cut, whatever the terminal's width."""

from __future__ import annotations

import pytest

from fgvc_cli.cli import console
from fgvc_cli.cli.tables import Column, print_sections, split

NAMES = ["linear + sgd", "pim + sam over sgd", "linear + sgd"]
SECTIONS = ["resnet50", "resnet50", "timm/vit_base_patch16_clip_224.laion2b_ft_in12k_in1k at 224 px"]
COLUMNS = [
    Column("update\nms", ["1234 ± 12", "2468 ± 20", "99.0 ± 0.5"]),
    Column("update\nimages/s", ["6.48", "3.24", "80.8"]),
    Column("\nempty", ["", "", ""]),
    Column("\nratio", ["1.00", "0.50", "1.00"]),
    Column("peak\nmemory", ["412 MB", "824 MB", "412 MB"]),
]


@pytest.fixture
def printed(capsys, monkeypatch):
    """A function that prints at a width and returns the lines."""

    def lines(width: int, names=NAMES, sections=SECTIONS, columns=COLUMNS) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        console._console.cache_clear()
        print_sections("combination", names, sections, columns)
        console._console.cache_clear()
        return capsys.readouterr().out.splitlines()

    return lines


def test_a_table_in_sections(printed):
    assert [line.rstrip() for line in printed(80)] == [
        "                          update    update           peak",
        "  combination                 ms  images/s  ratio  memory",
        "resnet50",
        "  linear + sgd         1234 ± 12      6.48   1.00  412 MB",
        "  pim + sam over sgd   2468 ± 20      3.24   0.50  824 MB",
        "timm/vit_base_patch16_clip_224.laion2b_ft_in12k_in1k at 224 px",
        "  linear + sgd        99.0 ± 0.5      80.8   1.00  412 MB",
    ]


@pytest.mark.parametrize("width", [30, 40, 50, 56])
def test_what_is_too_wide_is_printed_in_parts_with_every_cell_whole(printed, width):
    lines = printed(width)
    parts = [i for i, line in enumerate(lines) if line.strip().startswith("combination")]
    assert len(parts) > 1
    cells = [cell for column in COLUMNS for cell in column.cells if cell]
    text = "\n".join(lines)
    assert all(text.count(cell) >= cells.count(cell) for cell in cells)
    assert all(len(line.rstrip()) <= width for line in lines if not line.startswith("timm/"))


def test_one_without_sections_and_with_words(printed):
    words = Column("note", ["a note of many words that does not fit into one line of a narrow terminal"], words=True)
    lines = printed(50, ["first"], [""], [words])
    assert len(lines) > 2 and all(len(line.rstrip()) <= 50 for line in lines)
    assert " ".join(" ".join(lines).split()) == f"combination note first {words.cells[0]}"


def widths(parts):
    return [sum(column.width for column in part) for part in parts]


def test_columns_are_split_evenly_into_as_few_parts_as_it_takes():
    columns = [Column("x" * 8, []) for _ in range(6)]  # 10 characters each with the gap
    assert widths(split(columns, 60)) == [60]
    assert widths(split(columns, 59)) == [30, 30]
    assert widths(split(columns, 25)) == [20, 20, 20]
    assert widths(split(columns, 5)) == [10] * 6
    assert split([], 60) == []


def test_joined_columns_stay_together():
    columns = [Column("x" * 8, [], joined=bool(i % 3)) for i in range(6)]
    assert [len(part) for part in split(columns, 50)] == [3, 3]
    assert [len(part) for part in split(columns, 20)] == [3, 3]


def test_a_figure_that_is_wider_than_its_room_is_broken(printed):
    behind = Column("behind", ["0.0 (−16.7 to +16.7)"])
    said = " ".join(" ".join(printed(40, ["timm/test_resnet + linear"], [""], [behind])).split())
    assert "+16.7)" in said and "0.0 (−16.7 to" in said
