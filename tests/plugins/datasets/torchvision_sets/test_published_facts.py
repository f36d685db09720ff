"""Links and checksums against those in torchvision's source, and layouts against what torchvision reads itself."""

from __future__ import annotations

import tarfile

import pytest
from torchvision import datasets
from torchvision.datasets.inaturalist import DATASET_MD5, DATASET_URLS

from fgvc_cli.data.acquisition.unpacking import unpack

TOP = {"fgvc_aircraft": "fgvc-aircraft-2013b", "food101": "food-101", "inat": "train_val2018"}
"""The one folder in a published archive."""


def published(sets, dataset, **options):
    return {d.url: d.checksum.removeprefix("md5:") for d in sets.provision(dataset, **options).downloads}


def test_links_and_checksums_are_torchvisions(sets):
    flowers = datasets.Flowers102
    assert published(sets, "flowers102") == {
        f"{flowers._download_url_prefix}{file}": md5 for file, md5 in flowers._file_dict.values()
    }
    assert published(sets, "oxford_pets") == dict(datasets.OxfordIIITPet._RESOURCES)
    assert published(sets, "food101") == {datasets.Food101._URL: datasets.Food101._MD5}
    assert list(published(sets, "fgvc_aircraft")) == [datasets.FGVCAircraft._URL]


@pytest.mark.parametrize("version", ["2021", "2021_mini", "2019", "2018", "2017"])
def test_links_and_checksums_of_inaturalist_are_torchvisions(sets, version):
    ours = published(sets, "inat", version=version)
    folders = {"2021": ("2021_train", "2021_valid"), "2021_mini": ("2021_train_mini", "2021_valid")}
    for folder in folders.get(version, (version,)):
        assert ours[DATASET_URLS[folder]] == DATASET_MD5[folder]


def test_cars_have_instructions(sets):
    provision = sets.provision("stanford_cars")
    assert provision.downloads == ()
    assert (
        "cars_test_annos_withlabels.mat" in provision.by_hand and "ai.stanford.edu no longer work" in provision.by_hand
    )


def test_torchvision_reads_the_same_folder(sets):
    classes = {
        "flowers102": (datasets.Flowers102, {}),
        "fgvc_aircraft": (datasets.FGVCAircraft, {"annotation_level": "family"}),
        "stanford_cars": (datasets.StanfordCars, {}),
        "oxford_pets": (datasets.OxfordIIITPet, {}),
        "food101": (datasets.Food101, {}),
    }
    for name, (target, extra) in classes.items():
        case = sets.case(name, **({"level": "family"} if name == "fgvc_aircraft" else {}))
        sets.write(case)
        split, theirs = sets.open(name, **case.options).split("test"), target(sets.root, split="test", **extra)
        assert [int(theirs[i][1]) for i in range(len(theirs))] == list(split.labels)


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="unpacking requires Python 3.11.4")
@pytest.mark.parametrize("name", ["fgvc_aircraft", "food101", "inat"])
def test_an_archive_in_its_published_form_unpacks_to_the_layout(sets, name, tmp_path):
    case = sets.case(name, **({"version": "2018"} if name == "inat" else {}))
    sets.write(case)
    provision = sets.provision(name, **case.options)
    download = provision.downloads[0]
    inside = provision.folder / (download.unpack or "")
    with tarfile.open(tmp_path / "published.tar.gz", "w:gz") as archive:
        archive.add(inside, arcname=TOP[name])
    fresh = tmp_path / "fresh"
    unpack(tmp_path / "published.tar.gz", fresh / (download.unpack or ""), "published.tar.gz", download.strip)
    assert all((fresh / name).exists() for name in download.results)
    assert {p.relative_to(fresh) for p in fresh.rglob("*.jpg")} == {
        p.relative_to(provision.folder) for p in inside.rglob("*.jpg")
    }
