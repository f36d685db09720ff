"""Options of the built-in datasets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class DemoOptions:
    """Options of `demo`."""

    train: int = option(64, "training images per class", minimum=1, maximum=100_000)
    val: int = option(16, "validation images per class", minimum=1, maximum=100_000)
    test: int = option(25, "test images per class", minimum=1, maximum=100_000)
    size: int = option(128, "image side in pixels", minimum=32, maximum=1024)
    seed: int = option(0, "seed of the images, independent of the seed of the training", minimum=0)


@dataclass(frozen=True)
class DemoUnknownOptions(DemoOptions):
    """Options of `demo_unknown`."""

    train: int = option(10, "training images per class", minimum=1)
    val: int = option(5, "validation images per class", minimum=1)
    test: int = option(10, "test images per class", minimum=1)


@dataclass(frozen=True)
class FolderOptions:
    """Options of `folder`. By default, split folders are found by their usual names, in upper or lower case."""

    train: str | None = option(None, "folder of the training images; usual names: train, training, training_set")
    val: str | None = option(None, "folder of the validation images; usual names: val, valid, validation")
    test: str | None = option(None, "folder of the test images; usual names: test, testing, test_set")
    classes: Literal["auto", "first", "last"] = option(
        "auto",
        "which nested folders are classes: first (outermost) or last (innermost, as species in families)",
    )
    levels: str | None = option(
        None, "names of the levels of folders above the classes, outermost first, such as order,family"
    )

    def __post_init__(self) -> None:
        names = ["class", *self.level_names]
        if len(set(names)) < len(names):
            raise ValueError(f"levels={self.levels}: use a different name for each level, and not 'class'")

    @property
    def level_names(self) -> list[str]:
        """The names in `levels`."""
        return [name.strip() for name in (self.levels or "").split(",") if name.strip()]

    @property
    def named(self) -> dict[str, str]:
        """The folders that are given, by split."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {split: name for split, name in given.items() if name is not None}


@dataclass(frozen=True)
class TableOptions:
    """Options of `table`. By default, columns are found by their usual names, in upper or lower case."""

    path: str | None = option(
        None, "column of image paths; usual names: path, file, filename, file_name, image, image_path"
    )
    label: str | None = option(None, "column of classes; usual names: label, class, class_name, category")
    parents: str | None = option(
        None,
        "columns of the classes' groups, such as genus,family; usual names: genus, family, order, phylum, kingdom, "
        "parent, supercategory, superclass, coarse_label",
    )
    split: str | None = option(None, "column of splits; usual names: split, set, subset, partition, is_valid, fold")
    root: str | None = option(
        None, "folder that image paths are relative to, itself relative to the table's folder; none: the table's folder"
    )


@dataclass(frozen=True)
class ShardsOptions:
    """Options of `shards`."""

    base: str | None = option(
        None, "folder or URL of the shards, a folder relative to that of the index; none: as in the index"
    )


@dataclass(frozen=True)
class Flowers102Options:
    """Options of `flowers102`."""

    splits: Literal["official", "report"] = option(
        "official",
        "official: train 1020, val 1020, test 6149; report: train and test swapped, as in the June 2024 report",
    )


@dataclass(frozen=True)
class FgvcAircraftOptions:
    """Options of `fgvc_aircraft`."""

    level: Literal["variant", "family", "manufacturer"] = option(
        "variant", "classes: 100 variants (Boeing 737-700), 70 families (Boeing 737) or 30 manufacturers (Boeing)"
    )


@dataclass(frozen=True)
class InatOptions:
    """Options of `inat`."""

    version: Literal["2021", "2021_mini", "2019", "2018", "2017"] = option(
        "2021", "2021: 10,000 species, 2.7 million images; 2021_mini: 50 of each; 2019: 1,010; 2018: 8,142; 2017: 5,089"
    )
    level: Literal["species", "genus", "family", "order", "class", "phylum", "kingdom", "supercategory"] = option(
        "species", "rank of the classes; supercategory: only 2017 and 2018; 2017 has only species and supercategory"
    )


@dataclass(frozen=True)
class GroceryStoreOptions:
    """Options of `grocery_store`."""

    level: Literal["fine", "coarse"] = option("fine", "classes: 81 fine (Royal-Gala) or 43 coarse (Apple)")


@dataclass(frozen=True)
class MammaliaOptions:
    """Options of `mammalia`, for class folders that are not divided into train/ and test/."""

    test_images: int = option(
        10, "images per class held out as test if there is no train/; 0: none", minimum=0, maximum=1_000_000
    )
    test_seed: int = option(42, "seed of their selection")
