"""Contract checks of datasets."""

from __future__ import annotations

import hashlib
import json
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fgvc_cli.contracts import Dataset, DatasetRequest, Preprocessing, Provision, Split
from fgvc_cli.contracts.dataset import no_note
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.opening import dataset_request
from fgvc_cli.data.splits import training_splits
from fgvc_cli.errors import FgvcError
from fgvc_cli.specs import DatasetSpec
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.models import classifier_of, update_of
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import TinyConvolutional, TinyHead, isolated, write_folder, write_table

TABLES = (".csv", ".tsv")
"""Endings of the tables that the kit can write."""


@dataclass(frozen=True)
class DatasetSubject:
    """A dataset. Named ones are looked for where the host looks (FGVC_DATA)."""

    subject: Subject

    @property
    def spec(self) -> DatasetSpec:
        """What its plugin says of it."""
        return cast(DatasetSpec, self.subject.component.spec)

    @property
    def takes_data(self) -> bool:
        """Whether it is made from what `--data` names."""
        return self.spec.reads_folder or bool(self.spec.reads_files)

    def request(self) -> DatasetRequest:
        """Return what the host would tell it, notes left out."""
        return replace(dataset_request(self._data if self.takes_data else None, 0), note=no_note)

    def open(self, request: DatasetRequest | None = None) -> Dataset:
        """Open it, with the network out of reach."""
        options = self.subject.options()
        with _no_network():
            dataset: Dataset = self.subject.make(Dataset, request=request or self.request(), options=options)
        return dataset

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset, opened.

        Raises:
            NotApplicable: its files are not here.
        """
        provision = self.provision(self.request())
        if provision is not None and provision.missing():
            name = self.spec.name
            raise NotApplicable(
                f"its files are not here ({provision.folder}): fgvc data prepare {name}, then check again"
            )
        try:
            return self.open()
        except FgvcError as error:
            own = " with what the kit wrote for it; name another with data=... or --data" if self._is_own else ""
            raise NotApplicable(f"it does not open here{own}: {error}") from None

    @property
    def _is_own(self) -> bool:
        return self.takes_data and self.subject.data is None

    def provision(self, request: DatasetRequest) -> Provision | None:
        """Return what it says of the files that it needs; a function that makes a dataset has nothing to say."""
        ask = getattr(self.subject.target(), "provision", None)
        return None if ask is None else ask(request, self.subject.options())

    def empty(self, folder: Path) -> DatasetRequest:
        """Return a request by which nothing is there."""
        return replace(
            self.request(),
            root=folder / "data",
            cache=folder / "cache",
            folder=folder / "none" if self.takes_data else None,
        )

    @cached_property
    def _data(self) -> Path:
        """What it is made from: as given, or of the kit's own."""
        if self.subject.data is not None:
            return self.subject.data
        folder = Path(self._own.name)
        if self.spec.reads_folder:
            write_folder(folder)
            return folder
        endings = [ending for ending in self.spec.reads_files if ending in TABLES]
        if not endings:
            kinds = " or ".join(self.spec.reads_files)
            raise NotApplicable(f"the kit cannot write {kinds} files: name one (contract(..., data=...), --data)")
        return write_table(folder, endings[0])

    @cached_property
    def _own(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="fgvc-check-")


@contextmanager
def _no_network() -> Iterator[None]:
    """Let no connection be made; one that is tried breaks the contract, whatever the dataset makes of the error."""
    tried: list[str] = []
    real = socket.getaddrinfo, socket.socket.connect

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(str(arguments[0] if isinstance(arguments[0], str) else arguments[-1]))
        raise OSError("a dataset downloads nothing when it is opened")

    socket.getaddrinfo, socket.socket.connect = refuse, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.getaddrinfo, socket.socket.connect = real  # type: ignore[method-assign]
        if tried:
            raise ContractBroken(
                "no connection when a dataset is opened",
                f"it reaches for {tried[0]}",
                "say in provision what there is to download: fgvc data prepare does it",
            )


FILES: Checks[DatasetSubject] = Checks()

CHECKSUMS = {"md5": 32, "sha256": 64}
"""Hexadecimal digits of the checksums that can be given."""


@FILES("it says where its images are from", "Every run records it.")
def identity(dataset: DatasetSubject) -> None:
    """identity() has its name and a form in JSON; the name is that of the spec."""
    opened = dataset.dataset
    found = opened.identity()
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise ContractBroken(
            "plain values from identity()", str(error), "use text, numbers, lists and dicts"
        ) from error
    expect(
        isinstance(found, dict) and bool(found.get("name")), "identity() to give a name", f"it gives {found}", "add it"
    )
    expect(
        opened.name == dataset.spec.name or dataset.takes_data,
        f"name to be {dataset.spec.name!r}",
        f"{opened.name!r}",
        "set name to what the spec says",
    )


@FILES("it says how its files are had", "`fgvc data prepare` gets what provision names, and tells a person the rest.")
def provision(dataset: DatasetSubject) -> None:
    """What it needs lies below the data root; links are https with checksums; the rest is said in words."""
    request = dataset.request()
    found = dataset.provision(request)
    if found is None:
        raise NotApplicable("it needs no files of its own")
    expect(isinstance(found, Provision), "a Provision (or None)", f"a {type(found).__name__}", "return one")
    below = found.folder == request.root or request.root in found.folder.parents
    expect(below, f"a folder below {request.root}", f"it is {found.folder}", "begin with request.root")
    expect(bool(found.needed), "names of what is needed", "there are none", "name a file without which it is not there")
    expect(bool(found.downloads or found.by_hand), "a link, or words on what to do", "neither is given", "say by_hand")
    for download in found.downloads:
        kind, _, digits = download.checksum.partition(":")
        right = not download.checksum or (kind in CHECKSUMS and len(digits) == CHECKSUMS[kind])
        form = " or ".join(f"'{name}:' and {count} digits" for name, count in CHECKSUMS.items())
        expect(
            right, f"a checksum of the form {form}", f"that of {download.file} is {download.checksum!r}", "correct it"
        )
        expect("://" in download.url, "a link", f"{download.file} has {download.url!r}", "give the whole address")


@FILES("what is not there is said", "A person reads what to put where, or which command gets it.")
def absent(dataset: DatasetSubject) -> None:
    """Where there are no files it raises an FgvcError in one line, and connects to nothing."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        request = dataset.empty(Path(folder))
        if not dataset.takes_data and dataset.provision(request) is None:
            raise NotApplicable("it needs no files of its own")
        try:
            dataset.open(request)
        except FgvcError as error:
            expect("\n" not in str(error) and bool(str(error)), "one line", f"{str(error)!r}", "say it in one")
            return
        except ContractBroken:
            raise
        except Exception as error:
            raise ContractBroken(
                "an FgvcError where the files are not there",
                f"it raised {type(error).__name__}: {error}",
                "begin with self.provision(request, options).require(self.name)",
            ) from error
    raise ContractBroken("an FgvcError where the files are not there", "it opens without them", "look for them at once")


OPENING: Checks[DatasetSubject] = Checks()

SAMPLE = 16
"""Images of a split that are read, spread over it."""


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a dataset."""
    pass

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
