"""Mammalia: 100 classes of mammals, the third dataset of the report of June 2024 (docs/report.md).

What is known: it was handed out in the competition of the University of Trento's course Introduction to Machine
Learning of 2024 and is not public (readme of github.com/andreleo02/fine-grained-image-classification), as a folder
train/ of class folders and a folder test/ of images without labels (code of
github.com/mattia-rampazzo/fine-grained-image-recognition-Intro2ML). The report gives it 50 training and 10 test images
in each of 100 classes. What is not known: which images its test images are, and where the photographs come from. So no
split is called official here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fgvc_cli.contracts import DatasetRequest, Provision
from fgvc_cli.contracts.image_files import find_images, has_images, visible_folders
from fgvc_cli.errors import FgvcError
from fgvc_datasets.folder import loose_images
from fgvc_datasets.options import MammaliaOptions
from fgvc_datasets.published import PublishedDataset

SPLITS = ("train", "val", "test")
REPORTED_CLASSES = 100


class MammaliaDataset(PublishedDataset):
    """Class folders in train/, and in val/ and test/ if they are there; or class folders alone.

    Of class folders alone, some images of each class are held out as test split: always the same ones, whatever the
    seed of the training. Class names are the folders' names.
    """

    title = "mammalia"
    options: MammaliaOptions

    @classmethod
    def provision(cls, request: DatasetRequest, options: MammaliaOptions) -> Provision:  # noqa: ARG003
        """Return what is needed: train/, or else the class folders that are there."""
        folder = request.root / cls.title
        return Provision(
            folder=folder,
            needed=tuple(path.name for path in _class_folders(folder)) or ("train",),
            by_hand=(
                "The dataset is not public: it was handed out in a course of the University of Trento (Introduction "
                f"to Machine Learning, 2024). If you have it, put a folder of images for each class into "
                f"{folder / 'train'} and, where you have labeled test images, into {folder / 'test'}; or put class "
                f"folders with all images directly into {folder}."
            ),
            license="not known; what is known of it is in docs/report.md",
        )

    def read(self, request: DatasetRequest) -> None:
        """Read the folders.

        Raises:
            FgvcError: no class folder has an image, or a class has too few images to hold some out.
        """
        classes = _class_folders(self.folder)
        found = (
            {"train": _images_by_class(self.folder)}
            if classes
            else {name: images for name in SPLITS if (images := _images_by_class(self.folder / name))}
        )
        if "train" not in found:
            raise FgvcError(f"{self.folder / 'train'}: no class folder in it has an image.")
        self.class_names = tuple(sorted({label for images in found.values() for label in images}))
        if classes and self.options.test_images:
            self._hold_out(found["train"])
        else:
            for name, images in found.items():
                where = f"all of {self.folder}" if classes else f"the folder {name}/"
                self._add_classes(name, images, f"{where} as found; no official list is published")
        self._note(request)

    def _hold_out(self, images: dict[str, list[Path]]) -> None:
        count, seed = self.options.test_images, self.options.test_seed
        test = {label: _drawn(paths, label, count, seed) for label, paths in images.items()}
        short = [label for label, paths in images.items() if len(paths) <= count]
        if short:
            raise FgvcError(
                f"{self.folder / short[0]}: {len(images[short[0]])} images are too few to hold {count} out as test. "
                "Add images, hold fewer out with --set dataset.test_images=N, or make folders train/ and test/."
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
        if len(self.class_names) != REPORTED_CLASSES:
            number = len(self.class_names)
            classes = f"{number} class{'' if number == 1 else 'es'}"
            request.note(f"{self.folder} has {classes}; the report's Mammalia has {REPORTED_CLASSES}.")
        test = self.folder / "test"
        unlabeled = loose_images(test) if test.is_dir() else 0
        if unlabeled:
            request.note(f"{test}: {unlabeled:,} images in no class folder, and so without a label, are left out.")


def _class_folders(folder: Path) -> list[Path]:
    """List the class folders that lie directly in the dataset's folder; none if it has folders for splits."""
    if not folder.is_dir() or any((folder / name).is_dir() for name in SPLITS):
        return []
    return [path for path in visible_folders(folder) if has_images(path)]


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    folders = visible_folders(folder) if folder.is_dir() else []
    return {path.name: images for path in folders if (images := find_images(path))}


def _drawn(paths: list[Path], label: str, count: int, seed: int) -> set[Path]:
    """Draw images by a digest of their names: the same on every machine, and stable when images are added."""

    def rank(path: Path) -> bytes:
        return hashlib.sha256(f"{seed}/{label}/{path.name}".encode("utf-8", "surrogateescape")).digest()

    return set(sorted(paths, key=rank)[:count])
