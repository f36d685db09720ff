"""What every data set must keep."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgvc_cli.contracts import Dataset, Preprocessing, Split
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.opening import training_splits
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.dataset_subject import DatasetSubject
from fgvc_cli.testing.models import classifier_of, update_of
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.backbones import TinyConvolutional
from fgvc_cli.testing.tiny.heads import TinyHead
from fgvc_cli.testing.tiny.isolation import isolated

OPENING: Checks[DatasetSubject] = Checks()

SAMPLE = 16
"""Images of a split that are read, spread over it."""


def checks(subject: Subject, partners: bool) -> Iterator[Check]:  # noqa: ARG001
    """Return the checks of a data set."""
    from fgvc_cli.testing.dataset_files import FILES

    dataset = DatasetSubject(subject)
    for check in (*OPENING.of(dataset), *FILES.of(dataset)):
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@OPENING("it has splits", "Training needs 'train'; every figure names the split that it is of.")
def splits(dataset: DatasetSubject) -> None:
    """Names of their own, "train" first, and each split there and not empty."""
    names = dataset.dataset.splits()
    expect(
        isinstance(names, tuple) and len(set(names)) == len(names) and all(isinstance(n, str) and n for n in names),
        "a tuple of different names from splits()",
        f"it returns {names!r}",
        "name each split once",
    )
    expect(bool(names) and names[0] == "train", "'train' as the first split", f"they are {names}", "put it first")
    for name, split in _splits(dataset):
        expect(isinstance(split, Split), f"a Split for {name!r}", f"a {type(split).__name__}", "return one")
        expect(split.name == name, f"a split called {name!r}", f"it is called {split.name!r}", "pass on the name")
        expect(len(split) > 0, f"images in {name!r}", "it is empty", "leave out of splits() what has no images")


@OPENING("its classes have names", "Labels, tables and files go by them; a classifier is matched to data by them.")
def class_names(dataset: DatasetSubject) -> None:
    """A tuple of at least two different texts."""
    names = dataset.dataset.class_names
    fits = isinstance(names, tuple) and all(isinstance(name, str) and name.strip() for name in names)
    expect(fits, "a tuple of names as class_names", f"it is {some([repr(n) for n in names])}", "name every class")
    twice = [name for name, count in Counter(names).items() if count > 1]
    expect(not twice, "a name of its own for every class", f"{some(twice)} stands for several", "tell them apart")
    expect(len(names) >= 2, "two classes or more", f"there are {len(names)}", "name every class, not those of a split")


@OPENING("its labels are classes", "A label is an index into class_names, in every split alike.")
def labels(dataset: DatasetSubject) -> None:
    """Integers in range; every class has an image to train on."""
    classes = len(dataset.dataset.class_names)
    for name, split in _splits(dataset):
        found = np.asarray(split.labels)
        expect(
            found.ndim == 1 and np.issubdtype(found.dtype, np.integer),
            f"integers as labels of {name!r}",
            f"they are {found.dtype} of shape {found.shape}",
            "give one index an image",
        )
        low, high = int(found.min()), int(found.max())
        expect(low >= 0 and high < classes, f"labels from 0 to {classes - 1}", f"{name!r} has {low} to {high}", _NAMES)
    present = set(np.asarray(dataset.dataset.split("train").labels).tolist())
    absent = [name for index, name in enumerate(dataset.dataset.class_names) if index not in present]
    expect(
        not absent,
        "a training image of every class",
        f"{some(absent)} {'has' if len(absent) == 1 else 'have'} none",
        _NAMES,
    )


@OPENING("its keys tell images apart", "Tables and files name an image by its key.")
def keys(dataset: DatasetSubject) -> None:
    """Unique texts, one an image."""
    for name, split in _splits(dataset):
        wrong = [repr(key) for key in split.keys if not (isinstance(key, str) and key)]
        expect(
            not wrong, f"texts as keys of {name!r}", f"{some(wrong)} is none", "use the file's name below its folder"
        )
        twice = [key for key, count in Counter(split.keys).items() if count > 1]
        expect(not twice, f"a key of its own for each image of {name!r}", f"{some(twice)} stands for several", _KEYS)


@OPENING("its images can be read", "They are decoded by the host, as files or as arrays H,W,3 of uint8.")
def images(dataset: DatasetSubject) -> None:
    """A sample of each split is there and is what the host reads."""
    for name, split in _splits(dataset):
        for index in _sample(len(split)):
            image = split.images[index]
            if isinstance(image, np.ndarray):
                fits = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
                found = f"{split.keys[index]} is {image.dtype} of shape {image.shape}"
                expect(fits, f"arrays H,W,3 of uint8 as images of {name!r}", found, "convert them")
                continue
            expect(isinstance(image, Path), "a Path (or an array) as an image", f"{image!r}", "give pathlib paths")
            try:
                read_image(image)
            except ImageError as error:
                raise ContractBroken(
                    f"images of {name!r} that can be read", str(error), "leave it out of the split"
                ) from error


@OPENING("it is the same each time", "A run is repeated from its seed; a resumed one opens its data again.")
def same_again(dataset: DatasetSubject) -> None:
    """Opened again it has the same classes, images and labels in the same order."""
    first = dataset.dataset
    second = dataset.open()
    expect(first.class_names == second.class_names, "the same class_names again", "they differ", _SORT)
    for name, split in _splits(dataset):
        other = second.split(name)
        same = list(split.keys) == list(other.keys) and np.array_equal(split.labels, other.labels)
        expect(same, f"the same images of {name!r}, in the same order", "another order or other labels come", _SORT)
        again = first.split(name)
        expect(list(again.keys) == list(split.keys), f"one split {name!r}", "split() gives another one again", _SORT)


@OPENING("no image is in two splits", "What is trained on must not be tested on.", advisory=True)
def disjoint(dataset: DatasetSubject) -> None:
    """Files (or arrays) of one split are not those of another one."""
    seen: dict[str | bytes, str] = {}
    for name, split in _splits(dataset):
        for key, image in zip(split.keys, split.images, strict=True):
            other = seen.setdefault(str(image) if isinstance(image, Path) else _digest(image), name)
            expect(
                other == name,
                "images of their own in each split",
                f"{image if isinstance(image, Path) else key} of {name!r} is in {other!r} too",
                "choose one; what is drawn, draw from another seed for each split",
            )


@OPENING("its parts lie in its images", "The pointing game and occlusion of parts go by these boxes.")
def parts(dataset: DatasetSubject) -> None:
    """Boxes x0, y0, x1, y1 within the pixels; deciding parts are named by class."""
    known: set[str] = set()
    for _, split in _splits(dataset):
        for index in _sample(len(split)) if split.parts is not None else ():
            assert split.parts is not None
            size = _size(split.images[index])
            for part, (x0, y0, x1, y1) in split.parts[index].items():
                known.add(part)
                fits = 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]
                found = f"{part} of {split.keys[index]} is {(x0, y0, x1, y1)}"
                expect(
                    fits,
                    f"boxes within {size[0]} x {size[1]} pixels",
                    found,
                    "give pixels of the image as it is stored",
                )
    deciding = dataset.dataset.deciding_parts()
    if deciding is None and not known:
        raise NotApplicable("it knows no parts")
    for name, names in (deciding or {}).items():
        strange = [part for part in names if part not in known]
        expect(
            name in dataset.dataset.class_names, "deciding parts by class name", f"{name!r} is none", "use class_names"
        )
        expect(not strange, f"parts that images have for {name!r}", f"{some(strange)} is on none", "name parts alike")


@OPENING("a classifier trains on it", "Splits, labels and images go together in the host's own hands.")
def trains(dataset: DatasetSubject) -> None:
    """A few of its images, read and preprocessed, make an update with a finite loss."""
    opened = dataset.dataset
    chosen = training_splits(opened, 0.25, 0, "train").train
    torch.manual_seed(0)
    backbone = TinyConvolutional()
    classifier = classifier_of(backbone, lambda info: TinyHead(info, len(opened.class_names)))
    side = backbone.info.image_size
    preprocess = Preprocessing(side, side, backbone.info.mean, backbone.info.std)
    indices = list(_sample(len(chosen)))[:4]
    pixels = torch.stack([preprocess(read_image(chosen.images[index])) for index in indices])
    targets = torch.tensor([int(chosen.labels[index]) for index in indices])
    steps = update_of(classifier)([(classifier.normalize(pixels), targets)])
    finite = all(bool(loss.value.isfinite()) for step in steps for loss in step.losses)
    expect(finite, "a finite loss on its images", "it is not", "look at labels and images")


def _splits(dataset: DatasetSubject) -> Iterator[tuple[str, Split]]:
    opened: Dataset = dataset.dataset
    yield from ((name, opened.split(name)) for name in opened.splits())


def _sample(count: int) -> Iterator[int]:
    yield from sorted({round(i * (count - 1) / max(1, SAMPLE - 1)) for i in range(SAMPLE)})


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def _size(image: Any) -> tuple[int, int]:
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else read_image(image).size


_NAMES = "take labels from the names of the classes, never from the order of a split's folders"
_KEYS = "use the file's path below the split's folder"
_SORT = "sort what is listed, and draw from request.seed or the options"
