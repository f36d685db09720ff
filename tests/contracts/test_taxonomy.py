"""Taxonomies: building them from columns, paths and parents, and what is no tree."""

from __future__ import annotations

import json

import pytest

from fgvc_cli.contracts import Taxonomy

BIRDS = Taxonomy(
    ("species", "genus", "family"),
    {
        "herring": ("Gull", "Laridae"),
        "ring": ("Gull", "Laridae"),
        "common": ("Tern", "Laridae"),
        "crow": ("", "Corvidae"),
    },
)
NAMES = tuple(BIRDS.ancestors)


def test_columns_are_ordered_by_their_number_of_groups_and_empty_ones_left_out() -> None:
    found = Taxonomy.of_columns(
        ("species", "family", "note", "genus"),
        {name: (family, "", genus) for name, (genus, family) in BIRDS.ancestors.items()},
    )
    assert found == BIRDS
    assert Taxonomy.of_columns(("class", "genus"), {"a": ("",), "b": ("",)}) is None


def test_paths_of_different_depth_meet_at_the_root_and_groups_of_one_name_are_told_apart() -> None:
    paths = {"apple": ("fruit", "other"), "carrot": ("vegetable", "other"), "leek": ("vegetable",), "milk": ()}
    found = Taxonomy.of_paths(paths, levels=("kind",))
    assert found is not None
    assert found.levels == ("class", "level 2", "kind")
    assert found.ancestors == {
        "apple": ("other (fruit)", "fruit"),
        "carrot": ("other (vegetable)", "vegetable"),
        "leek": ("", "vegetable"),
        "milk": ("", ""),
    }
    assert found.fault(tuple(paths)) == ""
    assert Taxonomy.of_paths({"a": (), "b": ()}) is None


def test_parents_of_parents_are_followed() -> None:
    found = Taxonomy.of_parents(
        ("herring", "crow", "Leek"), {"herring": "Gull", "Gull": "Bird", "crow": "Bird", "Leek": "Leek"}
    )
    assert found is not None
    assert found.ancestors == {"herring": ("Gull", "Bird"), "crow": ("", "Bird"), "Leek": ("", "Leek")}
    with pytest.raises(ValueError, match="'b' in 'c' in 'b'"):
        Taxonomy.of_parents(("a", "x"), {"a": "b", "b": "c", "c": "b"})


@pytest.mark.parametrize(
    ("levels", "changed", "fact"),
    [
        (("species",), {}, "1 level"),
        (("species", "genus", "genus"), {}, "'genus'"),
        (("species", "genus", ""), {}, "no name"),
        (None, {"robin": ("", "")}, "robin"),
        (None, {"ring": ("Gull", "Sternidae")}, "'Gull' has two parents, 'Laridae' and 'Sternidae'"),
        (None, {"ring": ("Gull", "")}, "'Gull' has two parents, 'Laridae' and none"),
        (None, {"ring": ("Gull",)}, "1 ancestors"),
    ],
)
def test_what_is_no_tree_over_the_classes_is_named(levels, changed, fact: str) -> None:
    taxonomy = Taxonomy(levels or BIRDS.levels, {**BIRDS.ancestors, **changed})
    assert fact in taxonomy.fault(NAMES)


def test_a_class_without_ancestors_is_missing_until_it_is_added() -> None:
    names = (*NAMES, "robin")
    assert "robin" in BIRDS.fault(names)
    grown = BIRDS.with_classes(["robin"])
    assert grown.fault(names) == "" and grown.ancestors["robin"] == ("", "")


def test_json_gives_the_same_taxonomy() -> None:
    assert Taxonomy.from_json(json.loads(json.dumps(BIRDS.as_json()))) == BIRDS
