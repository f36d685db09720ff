"""Tiny datasets in the exact layouts in which torchvision keeps the published ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry


def jpeg(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (shade % 256, 60, 30)).save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def flowers102(folder: Path) -> dict[str, dict[str, str]]:
    """Twelve images of three kinds, whose numbers are mixed as in the published set."""
    kinds = [3, 1, 102, 1, 3, 102, 102, 3, 1, 1, 3, 102]
    splits = {"trnid": [4, 1, 6], "valid": [2, 5, 3], "tstid": [12, 7, 8, 9, 10, 11]}
    for number in range(1, 13):
        jpeg(folder / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([kinds], dtype=np.uint8)})
    savemat(folder / "setid.mat", {name: np.array([ids], dtype=np.uint16) for name, ids in splits.items()})
    names = {1: "pink primrose", 3: "canterbury bells", 102: "blackberry lily"}
    return {
        ours: {f"jpg/image_{i:05d}.jpg": names[kinds[i - 1]] for i in splits[theirs]}
        for ours, theirs in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    }


AIRCRAFT = {  # variant, family, manufacturer
    "0034309": ("737-200", "Boeing 737", "Boeing"),
    "0034958": ("737-300", "Boeing 737", "Boeing"),
    "0037511": ("A340-600", "A340", "Airbus"),
    "0054632": ("F-16A/B", "F-16", "Lockheed Corporation"),
}


def fgvc_aircraft(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """The same images in every split but the names, at three levels."""
    truth: dict[str, dict[str, dict[str, str]]] = {}
    names = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
    for position, (level, file) in enumerate(names.items()):
        text(folder / "data" / f"{file}.txt", *sorted({kinds[position] for kinds in AIRCRAFT.values()}))
        truth[level] = {}
        for number, split in enumerate(("train", "val", "test")):
            labeled = {f"{number + 1}{name[1:]}": kinds[position] for name, kinds in AIRCRAFT.items()}
            lines = [f"{name} {kind}" for name, kind in labeled.items()]
            text(folder / "data" / f"images_{level}_{split}.txt", *lines)
            truth[level][split] = {f"data/images/{name}.jpg": kind for name, kind in labeled.items()}
    for image in (image for images in truth["variant"].values() for image in images):
        jpeg(folder / image)
    return truth


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]


def annotations(path: Path, labels: list[int]) -> None:
    """Write a .mat file as the published ones: an array of records."""
    kind = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    records = np.zeros((1, len(labels)), dtype=kind)
    for i, label in enumerate(labels):
        records[0, i] = (np.uint16(1), np.uint16(2), np.uint16(9), np.uint16(8), np.uint8(label), f"{i + 1:05d}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": records})


def stanford_cars(folder: Path) -> dict[str, dict[str, str]]:
    """Files of the two splits have the same names, in different folders."""
    labels = {"train": [3, 1, 2, 1], "test": [2, 3, 1]}
    annotations(folder / "devkit" / "cars_train_annos.mat", labels["train"])
    annotations(folder / "cars_test_annos_withlabels.mat", labels["test"])
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array([CARS], dtype=object)})
    truth = {s: {f"cars_{s}/{i + 1:05d}.jpg": CARS[n - 1] for i, n in enumerate(ns)} for s, ns in labels.items()}
    for image in (image for images in truth.values() for image in images):
        jpeg(folder / image)
    return truth


def oxford_pets(folder: Path) -> dict[str, dict[str, str]]:
    """Names, and the published columns: class, cat or dog, breed of these."""
    breeds = {"Abyssinian": "1 1 1", "american_bulldog": "2 2 1", "wheaten_terrier": "3 2 2"}
    truth: dict[str, dict[str, str]] = {}
    for split, official, numbers in (("train", "trainval", (100, 101)), ("test", "test", (1, 2))):
        names = [(f"{breed}_{number}", breed) for breed in breeds for number in numbers]
        text(folder / "annotations" / f"{official}.txt", *(f"{name} {breeds[breed]}" for name, breed in names))
        truth[split] = {f"images/{name}.jpg": breed.replace("_", " ").title() for name, breed in names}
        for image in truth[split]:
            jpeg(folder / image)
    return truth


def food101(folder: Path) -> dict[str, dict[str, str]]:
    """Lists by class, which need not be in the order of the alphabet."""
    truth: dict[str, dict[str, str]] = {}
    for split, numbers in (("train", (1005649, 1014775)), ("test", (1011328,))):
        listed = {dish: [f"{dish}/{number}" for number in numbers] for dish in ("waffles", "apple_pie", "beignets")}
        text(folder / "meta" / f"{split}.json", json.dumps(listed))
        truth[split] = {f"images/{name}.jpg": dish for dish, names in listed.items() for name in names}
        for image in truth[split]:
            jpeg(folder / image)
    return truth


TAXA = (
    "00000_Animalia_Chordata_Aves_Passeriformes_Muscicapidae_Oenanthe_oenanthe",
    "00001_Animalia_Chordata_Aves_Passeriformes_Muscicapidae_Oenanthe_hispanica",
    "00002_Plantae_Tracheophyta_Magnoliopsida_Apiales_Apiaceae_Oenanthe_crocata",
    "00003_Plantae_Tracheophyta_Magnoliopsida_Apiales_Apiaceae_Daucus_carota",
)


def inat_2021(folder: Path, train: str) -> dict[str, dict[str, str]]:
    """A folder a species, named by its place among the others."""
    truth: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for split, below, files in (("train", train, ("b.jpg", "a.jpg")), ("test", "2021_valid", ("c.jpg",))):
        for taxon in TAXA:
            species = " ".join(taxon.split("_")[-2:])
            for file in sorted(files):
                truth[split][f"{below}/{taxon}/{file}"] = species
            for file in files:
                jpeg(folder / below / taxon / file)
    return truth


def inat_lists(folder: Path, year: str) -> dict[str, dict[str, str]]:
    """Lists in COCO's form, with categories and annotations in no order; 2018 and 2019 name classes in a file apart."""
    top = {"2017": "train_val_images", "2018": "train_val2018", "2019": "train_val2019"}[year]
    categories: list[dict[str, Any]] = []
    for number, taxon in enumerate(TAXA):
        _, *ranks, epithet = taxon.split("_")
        above = dict(zip(("kingdom", "phylum", "class", "order", "family", "genus"), ranks, strict=True))
        iconic = {"supercategory": "Aves" if "Aves" in ranks else "Plantae"}
        kept = {"2017": iconic, "2018": {**above, **iconic}, "2019": above}[year]
        categories.append({"id": number, "name": f"{ranks[-1]} {epithet}", **kept})
    lists, truth = folder / "lists" / year, {"train": {}, "test": {}}  # type: ignore[var-annotated]
    hidden = categories if year == "2017" else [{**c, "name": str(c["id"])} for c in categories]
    for split, official in (("train", "train"), ("test", "val")):
        images, notes = [], []
        for category in categories:
            name = category["name"] if year == "2017" else str(category["id"])
            file = f"{'Aves' if category['id'] < 2 else 'Plantae'}/{name}/{official}.jpg"
            images.append({"id": 50 - category["id"], "file_name": f"{top}/{file}"})
            notes.insert(0, {"id": 7, "image_id": 50 - category["id"], "category_id": category["id"]})
            truth[split][f"{year}/{file}"] = category["name"]
            jpeg(folder / year / file)
        text(
            lists / f"{official}{year}.json",
            json.dumps({"images": images, "categories": hidden[::-1], "annotations": notes}),
        )
    if year != "2017":
        text(lists / "categories.json", json.dumps(categories))
    return truth


Truth = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Case:
    """A dataset, with options, in its layout.

    Attributes:
        dataset: its registered name.
        folder: where it lies below the data root.
        write: writes it into that folder; returns for each split the class of each image by name.
        origins: of its splits.
        options: settings.
    """

    dataset: str
    folder: str
    write: Callable[[Path], Truth]
    origins: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.dataset, *self.options.values()))


OFFICIAL = "official"
VALIDATION = "the official validation split, as the literature reports it: the official test labels are not public"
THREE = {"train": OFFICIAL, "val": OFFICIAL, "test": OFFICIAL}
INAT = {"train": OFFICIAL, "test": VALIDATION}


def aircraft_at(level: str) -> Callable[[Path], Truth]:
    return lambda folder: fgvc_aircraft(folder)[level]


def inat_of(version: str) -> Callable[[Path], Truth]:
    if version.startswith("2021"):
        return lambda folder: inat_2021(folder, version.replace("2021", "2021_train"))
    return lambda folder: inat_lists(folder, version)


CASES = (
    Case("flowers102", "flowers-102", flowers102, THREE),
    *(
        Case("fgvc_aircraft", "fgvc-aircraft-2013b", aircraft_at(level), THREE, {"level": level})
        for level in ("variant", "family", "manufacturer")
    ),
    Case("stanford_cars", "stanford_cars", stanford_cars, {"train": OFFICIAL, "test": OFFICIAL}),
    Case("oxford_pets", "oxford-iiit-pet", oxford_pets, {"train": "official trainval", "test": OFFICIAL}),
    Case("food101", "food-101", food101, {"train": OFFICIAL, "test": OFFICIAL}),
    *(
        Case("inat", "inat", inat_of(version), INAT, {"version": version})
        for version in ("2021", "2021_mini", "2019", "2018", "2017")
    ),
)


class Sets:
    """Writes and opens datasets below one data root."""

    cases = CASES

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch, self.notes = root, monkeypatch, []  # type: ignore[var-annotated]

    def case(self, dataset: str, **options: str) -> Case:
        return next(c for c in CASES if c.dataset == dataset and options.items() <= dict(c.options).items())

    def write(self, case: Case) -> Truth:
        truth = case.write(self.root / case.folder)
        if case.dataset == "flowers102":
            self.trust_flowers()
        return truth

    def trust_flowers(self) -> None:
        """Make the lists as they are now those that torchvision expects."""
        from torchvision.datasets import Flowers102

        lists = {"label": "imagelabels.mat", "setid": "setid.mat"}
        md5 = {k: hashlib.md5((self.root / "flowers-102" / f).read_bytes()).hexdigest() for k, f in lists.items()}
        expected = {**Flowers102._file_dict, **{key: (file, md5[key]) for key, file in lists.items()}}
        self.monkeypatch.setattr(Flowers102, "_file_dict", expected)

    def expect(self, case: Case, truth: Truth) -> None:
        """Make the number of images that there are the published one."""
        target = get_registry().find("dataset", case.dataset).load()
        names = {"train": "trainval"} if case.dataset == "oxford_pets" else {}
        names = {"test": "validation"} if case.dataset == "inat" else names
        counts = {names.get(split, split): len(images) for split, images in truth.items()}
        self.monkeypatch.setattr(target, "published_images", lambda self: counts)

    def request(self) -> DatasetRequest:
        return DatasetRequest(None, self.root, self.root / "cache", 0, self.notes.append)

    def provision(self, dataset: str, **options: Any) -> Any:
        component = get_registry().find("dataset", dataset)
        return component.load().provision(self.request(), build(component.options_type(), options, "dataset"))

    def open(self, dataset: str, **options: Any) -> Any:
        component = get_registry().find("dataset", dataset)
        made = build(component.options_type(), options, "dataset")
        return component.load()(request=self.request(), options=made)


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sets:
    return Sets(tmp_path, monkeypatch)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=str)
