from __future__ import annotations

import json
import shutil

import pytest

from fgvc_cli.errors import FgvcError, UsageError

SPECIES = ("Oenanthe oenanthe", "Oenanthe hispanica", "Oenanthe crocata", "Daucus carota")


@pytest.mark.parametrize("version", ["2021", "2018", "2019"])
@pytest.mark.parametrize(
    ("level", "classes", "labels"),
    [
        ("species", SPECIES, [0, 1, 2, 3]),
        # a genus of birds and a genus of plants have one name, and are two classes
        ("genus", ("Oenanthe (Animalia)", "Oenanthe (Plantae)", "Daucus"), [0, 0, 1, 2]),
        ("family", ("Muscicapidae", "Apiaceae"), [0, 0, 1, 1]),
        ("kingdom", ("Animalia", "Plantae"), [0, 0, 1, 1]),
    ],
)
def test_levels(sets, version, level, classes, labels):
    sets.write(sets.case("inat", version=version))
    dataset = sets.open("inat", version=version, level=level)
    assert dataset.class_names == classes
    assert dataset.split("test").labels == labels


@pytest.mark.parametrize(
    ("version", "level", "known"),
    [
        ("2021", "supercategory", "species, genus, family, order, class, phylum, kingdom"),
        ("2019", "supercategory", "species, genus, family, order, class, phylum, kingdom"),
        ("2017", "genus", "species, supercategory"),
    ],
)
def test_a_missing_level_lists_the_available_ones(sets, version, level, known):
    sets.write(sets.case("inat", version=version))
    with pytest.raises(UsageError, match=rf"dataset\.level={level}`: the levels of this version are {known}\."):
        sets.open("inat", version=version, level=level)


@pytest.mark.parametrize("version", ["2017", "2018"])
def test_supercategories(sets, version):
    sets.write(sets.case("inat", version=version))
    assert sets.open("inat", version=version, level="supercategory").class_names == ("Aves", "Plantae")


@pytest.mark.parametrize("version", ["2021", "2018"])
def test_folders_created_by_torchvision_are_used(sets, version):
    case = sets.case("inat", version=version)
    truth = case.write(sets.root)
    dataset = sets.open("inat", version=version)
    assert dataset.folder == sets.root
    assert list(dataset.split("train").keys) == list(truth["train"])


def test_a_foreign_file_among_the_species_is_named(sets):
    sets.write(sets.case("inat", version="2021"))
    (sets.root / "inat" / "2021_train" / ".DS_Store").touch()
    with pytest.raises(FgvcError, match=r"2021_train: not as published: .*\.DS_Store.*remove extra files"):
        sets.open("inat")


def test_a_missing_species_is_noticed(sets):
    sets.write(sets.case("inat", version="2021"))
    shutil.rmtree(next((sets.root / "inat" / "2021_valid").glob("00003*")))
    with pytest.raises(FgvcError, match=r"2021_valid: not as published: its classes differ"):
        sets.open("inat")


def test_an_annotation_without_a_category_is_noticed(sets):
    sets.write(sets.case("inat", version="2018"))
    names = sets.root / "inat" / "lists" / "2018" / "categories.json"
    names.write_text(json.dumps(json.loads(names.read_text())[:3]))
    with pytest.raises(FgvcError, match=r"train2018\.json: not as published \(with categories\.json\): it names '3'"):
        sets.open("inat", version="2018")
