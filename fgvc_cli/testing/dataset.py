"""Contract checks of datasets."""

from __future__ import annotations

import hashlib
import json
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Dataset, DatasetRequest, EncodedImage, Preprocessing, Provision, Split, Taxonomy
from fgvc_cli.contracts.dataset import no_note
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.opening import dataset_request
from fgvc_cli.data.splits import training_splits
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import mismatch
from fgvc_cli.specs import DatasetSpec
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.models import classifier_of, update_of
from fgvc_cli.testing.tiny import TinyConvolutional, TinyHead, isolated, write_folder, write_table

TABLES = (".csv", ".tsv")
"""Suffixes of tables that can be generated."""

CHECKSUMS = {"md5": 32, "sha256": 64}
"""Checksum algorithms and their number of hexadecimal digits."""

SAMPLE = 16
"""Number of images to read per split, evenly spaced."""

LABELS_FIX = "derive labels from the names of classes, not from the order of a split's folders"
ORDER_FIX = "sort what is listed, and draw random numbers from request.seed or the options"


@dataclass(frozen=True)
class DatasetUnderTest:
    """A dataset. Named datasets are searched where the host searches them (FGVC_DATA)."""

    subject: ComponentUnderTest

    @property
    def spec(self) -> DatasetSpec:
        """Its spec."""
        return cast(DatasetSpec, self.subject.component.spec)

    @property
    def reads_data(self) -> bool:
        """Whether it is read from a given folder or file."""
        return self.spec.reads_folder or bool(self.spec.reads_files)

    def request(self) -> DatasetRequest:
        """Return the host's request, without notes."""
        return replace(dataset_request(self._data if self.reads_data else None, 0), note=no_note)

    def open(self, request: DatasetRequest | None = None) -> Dataset:
        """Open it without network access."""
        options = self.subject.options()
        with _no_network():
            dataset: Dataset = self.subject.make(Dataset, request=request or self.request(), options=options)
        return dataset

    @cached_property
    def dataset(self) -> Dataset:
        """The opened dataset.

        Raises:
            NotApplicable: its files are not available.
        """
        provision = self.provision(self.request())
        if provision is not None and provision.missing():
            command = f"fgvc data prepare {self.spec.name}"
            raise NotApplicable(f"its files are not in {provision.folder}; run {command} and check again")
        try:
            return self.open()
        except FgvcError as error:
            own = " with generated data; give another folder or file as `data`"
            generated = own if self.reads_data and self.subject.data is None else ""
            raise NotApplicable(f"it cannot be opened{generated}: {error}") from None

    def provision(self, request: DatasetRequest) -> Provision | None:
        """Return its provision; None if the target is a function."""
        method = getattr(self.subject.target(), "provision", None)
        return None if method is None else method(request, self.subject.options())

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Yield the names of its splits and the splits."""
        yield from ((name, self.dataset.split(name)) for name in self.dataset.splits())

    @cached_property
    def _data(self) -> Path:
        """The folder or file that it is read from: the given one, or a generated one."""
        if self.subject.data is not None:
            return self.subject.data
        folder = Path(self._folder.name)
        if self.spec.reads_folder:
            write_folder(folder)
            return folder
        suffixes = [suffix for suffix in self.spec.reads_files if suffix in TABLES]
        if not suffixes:
            kinds = " or ".join(self.spec.reads_files)
            raise NotApplicable(f"{kinds} files cannot be generated; give one as `data`")
        return write_table(folder, suffixes[0])

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="fgvc-check-")


@contextmanager
def _no_network() -> Iterator[None]:
    """Refuse network connections, and raise `ContractError` if one was tried, even if the error was caught."""
    tried: list[str] = []
    real = socket.getaddrinfo, socket.socket.connect

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(str(arguments[0] if isinstance(arguments[0], str) else arguments[-1]))
        raise OSError("a dataset must not download anything when it is opened")

    socket.getaddrinfo, socket.socket.connect = refuse, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.getaddrinfo, socket.socket.connect = real  # type: ignore[method-assign]
        if tried:
            raise ContractError(
                "no connection when a dataset is opened",
                f"it connects to {tried[0]}",
                "return downloads from provision, for fgvc data prepare",
            )


CHECKS: Checks[DatasetUnderTest] = Checks(DatasetUnderTest, isolated)


@CHECKS("splits start with train and are not empty", "Training needs 'train'; every metric names its split.")
def splits(dataset: DatasetUnderTest) -> None:
    """Unique names, "train" first; each split exists and is not empty."""
    names = dataset.dataset.splits()
    expect(
        isinstance(names, tuple) and len(set(names)) == len(names) and all(isinstance(n, str) and n for n in names),
        "a tuple of different names from splits()",
        f"it returned {names!r}",
        "return each split once",
    )
    expect(bool(names) and names[0] == "train", "'train' as the first split", f"they are {names}", "put it first")
    for name, split in dataset.splits():
        expect(isinstance(split, Split), f"a Split for {name!r}", f"a {type(split).__name__}", "return one")
        expect(split.name == name, f"a split named {name!r}", f"its name is {split.name!r}", "pass on the name")
        counts = len(split.images), len(split.labels), len(split.keys)
        found = "{} images, {} labels and {} keys".format(*counts)
        expect(len(set(counts)) == 1, f"a label and a key for each image of {name!r}", found, "give one per image")
        expect(len(split) > 0, f"images in {name!r}", "it is empty", "leave splits without images out of splits()")


@CHECKS("class names are unique", "They identify classes in labels, tables and classifiers.")
def class_names(dataset: DatasetUnderTest) -> None:
    """A tuple of at least two different names."""
    names = dataset.dataset.class_names
    fits = isinstance(names, tuple) and all(isinstance(name, str) and name.strip() for name in names)
    expect(fits, "a tuple of names as class_names", f"it is {some([repr(n) for n in names])}", "name every class")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    expect(not repeated, "a unique name for every class", f"{some(repeated)} is repeated", "use different names")
    expect(len(names) >= 2, "two classes or more", f"there are {len(names)}", "include classes that a split lacks")


@CHECKS("labels index the class names", "A label is an index into class_names, in every split.")
def labels(dataset: DatasetUnderTest) -> None:
    """Integers in range; every class has a training image."""
    classes = len(dataset.dataset.class_names)
    for name, split in dataset.splits():
        array = np.asarray(split.labels)
        expect(
            array.ndim == 1 and np.issubdtype(array.dtype, np.integer),
            f"integers as labels of {name!r}",
            f"they are {array.dtype} of shape {array.shape}",
            "give one index per image",
        )
        low, high = int(array.min()), int(array.max())
        fits = low >= 0 and high < classes
        expect(fits, f"labels from 0 to {classes - 1}", f"{name!r} has {low} to {high}", LABELS_FIX)
    present = set(np.asarray(dataset.dataset.split("train").labels).tolist())
    absent = [name for index, name in enumerate(dataset.dataset.class_names) if index not in present]
    found = f"{some(absent)} {'has' if len(absent) == 1 else 'have'} none"
    expect(not absent, "a training image of every class", found, LABELS_FIX)


@CHECKS("keys are unique", "Tables and files name an image by its key.")
def keys(dataset: DatasetUnderTest) -> None:
    """One unique non-empty string per image."""
    for name, split in dataset.splits():
        wrong = [repr(key) for key in split.keys if not (isinstance(key, str) and key)]
        fix = "use the file's path below the split's folder"
        expect(not wrong, f"strings as keys of {name!r}", f"{some(wrong)}: not a string", fix)
        repeated = [key for key, count in Counter(split.keys).items() if count > 1]
        expect(not repeated, f"a unique key for each image of {name!r}", f"{some(repeated)} is repeated", fix)


@CHECKS("images can be read", "The host decodes them from files or uint8 arrays H,W,3.")
def images(dataset: DatasetUnderTest) -> None:
    """A sample of each split exists and can be decoded."""
    for name, split in dataset.splits():
        for index in _sample(len(split)):
            image = split.images[index]
            if isinstance(image, np.ndarray):
                fits = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
                found = f"{split.keys[index]} is {image.dtype} of shape {image.shape}"
                expect(fits, f"uint8 arrays H,W,3 as images of {name!r}", found, "convert them")
                continue
            fits = isinstance(image, Path | EncodedImage)
            expect(fits, "a Path, an EncodedImage or an array as an image", f"{image!r}", "use pathlib paths")
            try:
                read_image(image)
            except ImageError as error:
                fix = "leave it out of the split"
                raise ContractError(f"images of {name!r} that can be read", str(error), fix) from error


@CHECKS("opening it again gives the same data", "Runs are repeated by their seed, and resumed runs open it again.")
def reproducible(dataset: DatasetUnderTest) -> None:
    """A second instance has the same classes, images and labels in the same order."""
    first = dataset.dataset
    second = dataset.open()
    expect(first.class_names == second.class_names, "the same class_names again", "they differ", ORDER_FIX)
    for name, split in dataset.splits():
        other = second.split(name)
        same = list(split.keys) == list(other.keys) and np.array_equal(split.labels, other.labels)
        expect(same, f"the same images of {name!r} in the same order", "order or labels differ", ORDER_FIX)
        again = first.split(name)
        same = list(again.keys) == list(split.keys)
        expect(same, f"the same split {name!r} in each call", "split() returns another one", ORDER_FIX)


@CHECKS("splits share no image", "Training images must not be used for testing.", advisory=True)
def disjoint(dataset: DatasetUnderTest) -> None:
    """No file (or array) is in two splits."""
    seen: dict[str | bytes, str] = {}
    for name, split in dataset.splits():
        for key, image in zip(split.keys, split.images, strict=True):
            if isinstance(image, Path | EncodedImage):
                content: str | bytes = str(image)
            else:
                content = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
            other = seen.setdefault(content, name)
            expect(
                other == name,
                "different images in each split",
                f"{image if isinstance(image, Path) else key} of {name!r} is in {other!r} too",
                "assign it to one; generate each split from another seed",
            )


@CHECKS("part boxes are inside the images", "The pointing game and occlusion of parts use them.")
def parts(dataset: DatasetUnderTest) -> None:
    """Boxes x0, y0, x1, y1 are within the image; deciding_parts() names known classes and parts."""
    known: set[str] = set()
    for _, split in dataset.splits():
        if split.parts is None:
            continue
        for index in _sample(len(split)):
            image = split.images[index]
            width, height = image.shape[1::-1] if isinstance(image, np.ndarray) else read_image(image).size
            for part, (x0, y0, x1, y1) in split.parts[index].items():
                known.add(part)
                fits = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
                found = f"{part} of {split.keys[index]} is {(x0, y0, x1, y1)}"
                expect(fits, f"boxes within {width} x {height} pixels", found, "use pixels of the stored image")
    deciding = dataset.dataset.deciding_parts()
    if deciding is None and not known:
        raise NotApplicable("it has no parts")
    for name, names in (deciding or {}).items():
        is_class = name in dataset.dataset.class_names
        expect(is_class, "deciding parts by class name", f"{name!r} is not one", "use class_names")
        unknown = [part for part in names if part not in known]
        fix = "use the same names as in Split.parts"
        expect(not unknown, f"existing parts for {name!r}", f"no image has {some(unknown)}", fix)


@CHECKS("taxonomy() is a tree over the classes", "Evaluation scores its levels; predict names groups.")
def taxonomy(dataset: DatasetUnderTest) -> None:
    """Named levels; for each class an ancestor at each level, or ""; every group has one parent."""
    found = dataset.dataset.taxonomy()
    if found is None:
        raise NotApplicable("it has none")
    expect(isinstance(found, Taxonomy), "a Taxonomy (or None)", f"a {type(found).__name__}", "return one")
    wrong = mismatch(found.levels, tuple[str, ...], "levels")
    wrong = wrong or mismatch(found.ancestors, Mapping[str, tuple[str, ...]], "ancestors.")
    expect(not wrong, "tuples of names", f"{wrong} is something else", "give every level and every ancestor a name")
    fault = found.fault(dataset.dataset.class_names)
    expect(not fault, "a tree over class_names", fault, "give every group one parent and its own name on its level")


@CHECKS("a classifier can train on it", "Splits, labels and images must work together.")
def trainable(dataset: DatasetUnderTest) -> None:
    """An update on a few images has a finite loss."""
    opened = dataset.dataset
    chosen = training_splits(opened, TrainOptions(val_fraction=0.25, val_by="position")).train
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
    expect(finite, "a finite loss on its images", "it is not finite", "check labels and images")


@CHECKS("ignored_files() counts files by suffix", "Users see which files of their folder are no images.")
def ignored(dataset: DatasetUnderTest) -> None:
    """ignored_files() returns a dict of numbers by suffix."""
    found: Any = dataset.dataset.ignored_files()
    fits = isinstance(found, Mapping) and all(isinstance(n, int) for n in found.values())
    expect(fits, "a dict of numbers by suffix", f"it returned {found!r}", "return an empty one if there are none")


@CHECKS("identity() is serializable", "Every run records it.")
def identity(dataset: DatasetUnderTest) -> None:
    """identity() has a name and can be written as JSON; the dataset's name is that of the spec."""
    opened = dataset.dataset
    found = opened.identity()
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        fix = "use strings, numbers, lists and dicts"
        raise ContractError("plain values from identity()", str(error), fix) from error
    named = isinstance(found, dict) and bool(found.get("name"))
    expect(named, "a name in identity()", f"it returned {found}", "add it")
    same = opened.name == dataset.spec.name or dataset.reads_data
    expect(same, f"name to be {dataset.spec.name!r}", f"{opened.name!r}", "use the name in the spec")


@CHECKS("provision() is complete", "`fgvc data prepare` downloads the files and prints the instructions.")
def provision(dataset: DatasetUnderTest) -> None:
    """The folder is below the data root; there are downloads with valid checksums, or instructions."""
    request = dataset.request()
    found = dataset.provision(request)
    if found is None:
        raise NotApplicable("it needs no files")
    expect(isinstance(found, Provision), "a Provision (or None)", f"a {type(found).__name__}", "return one")
    below = found.folder == request.root or request.root in found.folder.parents
    expect(below, f"a folder below {request.root}", f"it is {found.folder}", "start with request.root")
    expect(bool(found.needed), "names of required files", "there are none", "name a file that must exist")
    possible = bool(found.downloads or found.by_hand)
    expect(possible, "a download or instructions", "there are neither", "set downloads or by_hand")
    for download in found.downloads:
        kind, _, digits = download.checksum.partition(":")
        valid = not download.checksum or (kind in CHECKSUMS and len(digits) == CHECKSUMS[kind])
        form = " or ".join(f"'{name}:' and {count} digits" for name, count in CHECKSUMS.items())
        checksum = f"that of {download.file} is {download.checksum!r}"
        expect(valid, f"a checksum of the form {form}", checksum, "correct it")
        expect("://" in download.url, "a URL", f"{download.file} has {download.url!r}", "use the full URL")


@CHECKS("missing files raise an FgvcError", "It tells users how to get them.")
def missing_files(dataset: DatasetUnderTest) -> None:
    """Without files it raises an FgvcError of one line, and connects to nothing."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as name:
        folder = Path(name)
        data = folder / "none" if dataset.reads_data else None
        request = replace(dataset.request(), root=folder / "data", cache=folder / "cache", folder=data)
        if not dataset.reads_data and dataset.provision(request) is None:
            raise NotApplicable("it needs no files")
        expected = "an FgvcError if the files are missing"
        try:
            dataset.open(request)
        except FgvcError as error:
            expect("\n" not in str(error) and bool(str(error)), "one line", f"{str(error)!r}", "remove line breaks")
            return
        except ContractError:
            raise
        except Exception as error:
            fix = "start with self.provision(request, options).require(self.name)"
            raise ContractError(expected, f"it raised {type(error).__name__}: {error}", fix) from error
    raise ContractError(expected, "it opens without them", "check for them in the constructor")


def _sample(count: int) -> Iterator[int]:
    yield from sorted({round(i * (count - 1) / max(1, SAMPLE - 1)) for i in range(SAMPLE)})
