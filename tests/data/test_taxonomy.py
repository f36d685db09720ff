"""Taxonomies in files of the user."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fgvc_cli.data.taxonomy import read_taxonomy
from fgvc_cli.errors import FgvcError

CLASSES = ("herring", "ring", "crow")


def read(folder: Path, text: str, classes=CLASSES, name: str = "taxonomy.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return read_taxonomy(folder / name, classes)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_column_per_level_in_any_order(tmp_path: Path, delimiter: str) -> None:
    text = "species,family,genus\nherring,Laridae,Gull\nring,Laridae,Tern\n\ncrow,Corvidae,\n".replace(",", delimiter)
    found = read(tmp_path, text)
    assert found.levels == ("species", "genus", "family")
    assert found.ancestors == {"herring": ("Gull", "Laridae"), "ring": ("Tern", "Laridae"), "crow": ("", "Corvidae")}


def test_two_columns_may_be_a_tree_of_any_depth(tmp_path: Path) -> None:
    assert read(tmp_path, "class,kind\nherring,Gull\nring,Gull\ncrow,\n").levels == ("class", "kind")
    found = read(tmp_path, "class,parent\nherring,Gull\nring,Gull\ncrow,Bird\nGull,Bird\nBird,\n")
    assert found.ancestors == {"herring": ("Gull", "Bird"), "ring": ("Gull", "Bird"), "crow": ("", "Bird")}


def test_names_match_in_every_unicode_form_and_other_classes_are_ignored(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "fgvc_cli")
    found = read(tmp_path, "class,genus\nMo\u0308we,Gull\nother,Gull\nx,\n", ("M\u00f6we", "x"))
    assert found.ancestors == {"M\u00f6we": ("Gull",), "x": ("",)}
    assert "'other'" in caplog.text


def test_a_file_without_groups_is_no_taxonomy(tmp_path: Path) -> None:
    assert read(tmp_path, "class,genus\nherring,\nring,\ncrow,\n") is None


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", ["a class per line"]),
        ("class\nherring\n", ["a class per line"]),
        ("class,genus,genus\nherring,a,b\n", ["'genus'"]),
        ("class,genus\nherring,Gull\n,Gull\n", ["line 3", "empty"]),
        ("class,genus\nherring,Gull,x\n", ["line 2", "3 columns"]),
        ("class,genus\nherring,Gull\nring,Gull\n", ["no line for class 'crow'"]),
        ("class,genus\nherring,Gull\nring,Gull\ncrows,Corvus\n", ["'crow'", "Did you mean 'crows'"]),
        ("class,genus\nherring,Gull\nherring,Tern\n", ["line 3", "two parents", "'Tern'", "'Gull' in line 2"]),
        ("class,genus,family\nherring,Gull,A\nring,Gull,B\ncrow,C,A\n", ["genus 'Gull' has two parents, 'A' and 'B'"]),
        ("class,parent\nherring,Gull\nGull,Bird\nBird,Gull\nring,\ncrow,\n", ["'Gull' in 'Bird' in 'Gull'"]),
        ('class,genus\n"herring,Gull\n', ["quotes"]),
    ],
)
def test_what_is_no_taxonomy_is_one_clear_line(tmp_path: Path, text: str, facts: list[str]) -> None:
    with pytest.raises(FgvcError) as raised:
        read(tmp_path, text)
    message = str(raised.value)
    assert "\n" not in message and "taxonomy.csv" in message
    assert all(fact in message for fact in facts), message


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.csv").write_bytes(b"class,genus\n\xff\xfe,a\n")
    with pytest.raises(FgvcError, match=r"UTF-8"):
        read_taxonomy(tmp_path / "taxonomy.csv", CLASSES)
    with pytest.raises(FgvcError, match=r"Did you mean 'taxonomy.csv'"):
        read_taxonomy(tmp_path / "taxonomi.csv", CLASSES)
    with pytest.raises(FgvcError, match="cannot be read"):
        read_taxonomy(tmp_path, CLASSES)
