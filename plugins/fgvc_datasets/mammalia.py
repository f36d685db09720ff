"""Mammalia: 100 classes of mammals, the third dataset of the report of June 2024 (docs/report.md).

What is known: it was handed out in the 2024 competition of the University of Trento's course Introduction to Machine
Learning and is not public (readme of github.com/andreleo02/fine-grained-image-classification), as a folder train/ of
class folders and a folder test/ of images without labels (code of
github.com/mattia-rampazzo/fine-grained-image-recognition-Intro2ML). According to the report, each of 100 classes has 50
training and 10 test images. Which images those test images are, and where the photographs come from, is not known, so
no split is called official here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import DatasetRequest, Provision
from fgvc_cli.contracts.dataset import scan_folder
from fgvc_cli.errors import FgvcError
from fgvc_datasets.options import MammaliaOptions
from fgvc_datasets.published import PublishedDataset

SPLITS = ("train", "val", "test")
REPORTED_CLASSES = 100


class MammaliaDataset(PublishedDataset):
    """Class folders in train/, and in val/ and test/ if they exist; or class folders without split folders.

    Without split folders, some images of each class are held out as test split, independent of the seed of the
    training. Class names are the folders' names.
    """

    title = "mammalia"
    by_hand = (
        "The dataset is not public: it was handed out in a course of the University of Trento (Introduction to Machine "
        "Learning, 2024). If you have it, put one folder of images per class into {folder}/train and, if you have "
        "labeled test images, into {folder}/test; or put class folders with all images directly into {folder}."
    )
    license = "not known; what is known about it is in docs/report.md"
    options: MammaliaOptions

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        """Return the required folders: train/, or else the existing class folders."""
        provision = super().provision(request, options)
        return replace(provision, needed=tuple(path.name for path in _class_folders(provision.folder)) or ("train",))

    def read(self, request: DatasetRequest) -> None:
        """Read the folders.

        Raises:
            FgvcError: no class folder has an image, or a class has too few images to hold some out.
        """
        undivided = bool(_class_folders(self.folder))
        folders = {"train": self.folder} if undivided else {name: self.folder / name for name in SPLITS}
        found = {name: images for name, folder in folders.items() if (images := _images(folder))}
        if "train" not in found:
            raise FgvcError(f"{self.folder / 'train'}: none of its class folders contains an image")
        self.class_names = tuple(sorted({label for images in found.values() for label in images}))
        if undivided and self.options.test_images:
            self._hold_out(found["train"])
        else:
            for name, images in found.items():
                where = f"all of {self.folder}" if undivided else f"the folder {name}/"
                self._add_classes(name, images, f"{where} as found; no official list is published")
        self._note(request)

    def _hold_out(self, images: dict[str, list[Path]]) -> None:
        count, seed = self.options.test_images, self.options.test_seed
        test = {label: _sample(paths, label, count, seed) for label, paths in images.items()}
        short = [label for label, paths in images.items() if len(paths) <= count]
        if short:
            raise FgvcError(
                f"{self.folder / short[0]}: {len(images[short[0]])} images are too few to hold out {count} for the "
                "test; add images, lower `dataset.test_images`, or create folders train/ and test/"
            )
        train = {label: [path for path in paths if path not in test[label]] for label, paths in images.items()}
        how = f"drawn with seed {seed}; the report's own division is not published"
        self._add_classes("train", train, f"all but {count} images of each class, {how}")
        self._add_classes("test", {label: sorted(paths) for label, paths in test.items()}, f"{count} a class, {how}")

    def _add_classes(self, name: str, images: dict[str, list[Path]], origin: str) -> None:
        index_of = {label: index for index, label in enumerate(self.class_names)}
        labels = [index_of[label] for label in sorted(images) for _ in images[label]]
        self.add(name, [path for label in sorted(images) for path in images[label]], labels, origin)

    def _note(self, request: DatasetRequest) -> None:
        number = len(self.class_names)
        if number != REPORTED_CLASSES:
            classes = f"{number} class{'' if number == 1 else 'es'}"
            request.note(f"{self.folder} has {classes}; the report's Mammalia has {REPORTED_CLASSES}")
        test = self.folder / "test"
        unlabeled = len(scan_folder(test).images) if test.is_dir() else 0
        if unlabeled:
            request.note(f"{test}: {unlabeled:,} images outside class folders have no label and are ignored")


def _class_folders(folder: Path) -> list[Path]:
    """Return the class folders directly in the dataset's folder; none if it has split folders."""
    if not folder.is_dir() or any((folder / name).is_dir() for name in SPLITS):
        return []
    return [each.path for each in scan_folder(folder).with_images]


def _images(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    return {each.path.name: each.all_images() for each in scan_folder(folder).with_images}


def _sample(paths: list[Path], label: str, count: int, seed: int) -> set[Path]:
    """Draw images by a digest of their names: the same on every machine, and stable when images are added."""

    def rank(path: Path) -> bytes:
        return hashlib.sha256(f"{seed}/{label}/{path.name}".encode("utf-8", "surrogateescape")).digest()

    return set(sorted(paths, key=rank)[:count])
