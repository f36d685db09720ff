"""Options of the built-in datasets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class FolderOptions:
    """Which folders hold which split. Without these, they go by their usual names, in upper or lower case."""

    train: str | None = option(None, "folder of the training images; usual names: train, training")
    val: str | None = option(None, "folder of the validation images; usual names: val, valid, validation")
    test: str | None = option(None, "folder of the test images; usual names: test, testing")


@dataclass(frozen=True)
class TableOptions:
    """Which columns hold what. Without these, they go by their usual names, in upper or lower case."""

    path: str | None = option(None, "column of the images; usual names: path, file, filename, image, image_path")
    label: str | None = option(None, "column of the classes; usual names: label, class, class_name, category")
    split: str | None = option(None, "column of the splits; usual names: split, set, subset, partition")
    root: str | None = option(
        None, "folder that relative paths start from, seen from the table's own; without it, that one"
    )


@dataclass(frozen=True)
class DemoOptions:
    """How many images are drawn, and how large."""

    train: int = option(64, "training images of each class", minimum=1)
    val: int = option(16, "validation images of each class", minimum=1)
    test: int = option(25, "test images of each class", minimum=1)
    size: int = option(128, "side of the images in pixels", minimum=32, maximum=1024)
    seed: int = option(0, "what is drawn; it does not change with the seed of the training", minimum=0)


@dataclass(frozen=True)
class Flowers102Options:
    """Which images are trained on."""

    splits: Literal["official", "report"] = option(
        "official",
        "official: train 1020, val 1020, test 6149; report: train and test exchanged, as in the June 2024 report",
    )


@dataclass(frozen=True)
class FgvcAircraftOptions:
    """What counts as a class."""

    level: Literal["variant", "family", "manufacturer"] = option(
        "variant",
        "what is told apart: 100 variants (Boeing 737-700), 70 families (Boeing 737), 30 manufacturers (Boeing)",
    )


@dataclass(frozen=True)
class InatOptions:
    """Which of the yearly datasets, and what counts as a class."""

    version: Literal["2021", "2021_mini", "2019", "2018", "2017"] = option(
        "2021", "2021: 10,000 species, 2.7 million images; 2021_mini: 50 of each; 2019: 1,010; 2018: 8,142; 2017: 5,089"
    )
    level: Literal["species", "genus", "family", "order", "class", "phylum", "kingdom", "supercategory"] = option(
        "species", "what is told apart; supercategory: 2017 and 2018 only; 2017 has species and supercategory alone"
    )


@dataclass(frozen=True)
class GroceryStoreOptions:
    """Which of the two published sets of classes is used."""

    level: Literal["fine", "coarse"] = option("fine", "classes: 81 fine (Royal-Gala) or 43 coarse (Apple)")


@dataclass(frozen=True)
class MammaliaOptions:
    """How a test split is made where the class folders are not divided into train/ and test/."""

    test_images: int = option(10, "images of each class held out as test if there is no train/; 0: none", minimum=0)
    test_seed: int = option(42, "decides which images those are")
