"""The groups of classes that published datasets know."""

from __future__ import annotations

import pytest


def opened(sets, dataset: str, **options: str):
    sets.write(sets.case(dataset, **{k: v for k, v in options.items() if dataset != "inat" or k == "version"}))
    dataset = sets.open(dataset, **options)
    taxonomy = dataset.taxonomy()
    assert taxonomy is None or taxonomy.fault(dataset.class_names) == ""
    return taxonomy


def test_aircraft_have_family_and_manufacturer(sets) -> None:
    found = opened(sets, "fgvc_aircraft", level="variant")
    assert found.levels == ("variant", "family", "manufacturer")
    assert found.ancestors["737-300"] == ("Boeing 737", "Boeing")
    assert found.ancestors["F-16A/B"] == ("F-16", "Lockheed Corporation")


def test_aircraft_by_family_have_a_manufacturer_and_manufacturers_nothing(sets) -> None:
    found = opened(sets, "fgvc_aircraft", level="family")
    assert found.levels == ("family", "manufacturer") and found.ancestors["A340"] == ("Airbus",)
    assert sets.open("fgvc_aircraft", level="manufacturer").taxonomy() is None


def test_aircraft_without_the_lists_of_other_levels_have_no_groups(sets) -> None:
    case = sets.case("fgvc_aircraft", level="variant")
    sets.write(case)
    for file in (sets.root / case.folder / "data").glob("images_family_*.txt"):
        file.unlink()
    assert sets.open("fgvc_aircraft", level="variant").taxonomy() is None


@pytest.mark.parametrize("version", ["2021", "2018", "2019"])
def test_species_have_all_ranks_with_unique_names(sets, version: str) -> None:
    found = opened(sets, "inat", version=version)
    assert found.levels == ("species", "genus", "family", "order", "class", "phylum", "kingdom")
    assert found.ancestors["Oenanthe crocata"] == (
        "Oenanthe (Plantae)", "Apiaceae", "Apiales", "Magnoliopsida", "Tracheophyta", "Plantae",
    )  # fmt: skip
    assert found.ancestors["Oenanthe oenanthe"][0] == "Oenanthe (Animalia)"


def test_higher_ranks_have_those_above_them(sets) -> None:
    found = opened(sets, "inat", version="2018", level="family")
    assert found.levels == ("family", "order", "class", "phylum", "kingdom")
    assert sets.open("inat", version="2018", level="kingdom").taxonomy() is None
    assert sets.open("inat", version="2018", level="supercategory").taxonomy() is None


def test_2017_has_supercategories(sets) -> None:
    found = opened(sets, "inat", version="2017")
    assert found.levels == ("species", "supercategory") and found.ancestors["Daucus carota"] == ("Plantae",)


def test_cars_have_the_make_of_their_name(sets) -> None:
    found = opened(sets, "stanford_cars")
    assert [found.ancestors[name] for name in sorted(found.ancestors)] == [("AM General",), ("Acura",), ("Ram",)]


def test_pets_are_cats_or_dogs(sets) -> None:
    found = opened(sets, "oxford_pets")
    assert found.ancestors == {"Abyssinian": ("cat",), "American Bulldog": ("dog",), "Wheaten Terrier": ("dog",)}
