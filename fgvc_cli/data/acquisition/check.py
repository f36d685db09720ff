"""Whether every image of a dataset can be read, and what is unusual about them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.cores import usable_cores
from fgvc_cli.data.acquisition.decoding import Outcome, decode_all
from fgvc_cli.data.acquisition.describe import SplitCounts, count_split
from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.progress import progress

THREADS = 4
BLOCK = 1 << 20


def of_one_size(sizes: Sequence[int]) -> list[int]:
    """Return the indices of those whose size in bytes another one has too; 0 is no size."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        if size:
            by_size[size].append(index)
    return sorted(index for indices in by_size.values() if len(indices) > 1 for index in indices)


def identical(
    images: Sequence[Path | np.ndarray], candidates: Iterable[int], advance: Callable[[], object]
) -> list[list[int]]:
    """Group images that are the same byte for byte.

    Args:
        images: files, or arrays.
        candidates: indices of those that may be.
        advance: called after each candidate.

    Returns:
        Groups of two or more indices, in order. A file that cannot be read any more is in none.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    candidates = list(candidates)
    with ThreadPoolExecutor(THREADS) as threads:  # hashing and reading let other threads run
        for index, digest in zip(candidates, threads.map(_digest, (images[i] for i in candidates)), strict=True):
            advance()
            if digest is not None:
                groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _digest(image: Path | np.ndarray) -> bytes | None:
    digest = hashlib.blake2b(digest_size=20)
    if isinstance(image, np.ndarray):
        digest.update(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        return digest.digest()
    try:
        with image.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


SMALL_SIDE = 32
"""Pixels of the short side below which an image is noted."""

ODD_RATIO = 4.0
"""Long side over short side above which an image is noted."""

FEW_IMAGES = 5
"""A class with fewer images to train on is noted."""


@dataclass(frozen=True)
class Place:
    """An image of a dataset: its split, its key there, the name of its class, and its file, if it is one."""

    split: str
    key: str
    label: str
    file: Path | None


@dataclass(frozen=True)
class Noted:
    """An image, and what is to be said of it: why it cannot be read, or its size."""

    place: Place
    what: str


@dataclass
class CheckReport:
    """What was found, so far.

    Attributes:
        splits: the counts of each split that is checked.
        class_names: of the dataset.
        total: images to check.
        checked: images checked so far.
        complete: whether all were, and then compared with each other.
        unreadable: images that cannot be read, and why.
        small: images under `SMALL_SIDE` px, with their size.
        odd: images over `ODD_RATIO` times as long as wide, with their size.
        copies: groups of images that are the same byte for byte.
    """

    splits: list[SplitCounts]
    class_names: tuple[str, ...]
    total: int
    checked: int = 0
    complete: bool = False
    unreadable: list[Noted] = field(default_factory=list)
    small: list[Noted] = field(default_factory=list)
    odd: list[Noted] = field(default_factory=list)
    copies: list[list[Place]] = field(default_factory=list)

    def shared(self) -> dict[tuple[str, str], list[list[Place]]]:
        """Return for each two splits the copies that both have."""
        names = [counts.name for counts in self.splits]
        found = {
            pair: [group for group in self.copies if set(pair) <= {place.split for place in group}]
            for pair in combinations(names, 2)
        }
        return {pair: groups for pair, groups in found.items() if groups}

    def repeated(self) -> dict[str, list[list[Place]]]:
        """Return for each split the copies that it has more than once."""
        groups = {
            counts.name: [[place for place in group if place.split == counts.name] for group in self.copies]
            for counts in self.splits
        }
        return {name: kept for name, found in groups.items() if (kept := [group for group in found if len(group) > 1])}

    def contradictory(self) -> list[list[Place]]:
        """Return the copies that stand under different classes."""
        return [group for group in self.copies if len({place.label for place in group}) > 1]

    def few(self) -> dict[str, int]:
        """Return the classes with few images to train on, and how many; none if that split is not checked."""
        trained_on = next((counts.images for counts in self.splits if counts.name == "train"), ())
        return {name: n for name, n in zip(self.class_names, trained_on, strict=False) if n < FEW_IMAGES}


def splits_to_check(dataset: Dataset, wanted: str | None) -> list[Split]:
    """Return the split that a person names, or all.

    Raises:
        UsageError: there is no such split.
    """
    names = dataset.splits()
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"--split {wanted}: {dataset.name} has no such split.{did_you_mean(wanted, names)} "
            f"Splits: {', '.join(names)}."
        )
    return [dataset.split(name) for name in names if wanted in (None, name)]


class Check:
    """Decodes every image of some splits and compares their files; its report grows as it goes.

    Args:
        splits: of one dataset.
        class_names: of that dataset.
        workers: processes that decode; -1 takes the machine's cores, 0 this process.

    Attributes:
        report: what was found so far.
    """

    def __init__(self, splits: Sequence[Split], class_names: tuple[str, ...], workers: int = -1) -> None:
        self._splits, self._class_names = splits, class_names
        self._workers = usable_cores() if workers < 0 else workers
        self._images = [image for split in splits for image in split.images]
        self._first = np.cumsum([0, *map(len, splits)])  # index of each split's first image
        self._sizes = np.zeros(len(self._images), dtype=np.int64)
        self.report = CheckReport([count_split(s, class_names) for s in splits], class_names, len(self._images))

    def run(self) -> None:
        """Check; interrupted at any moment, the report holds what was found until then."""
        with progress("checking", len(self._images)) as bar:
            for index, outcome in decode_all(self._images, self._workers):
                self._take(index, outcome)
                bar.advance()
        for found in (self.report.unreadable, self.report.small, self.report.odd):
            order = {counts.name: rank for rank, counts in enumerate(self.report.splits)}
            found.sort(key=lambda noted: (order[noted.place.split], noted.place.key))
        candidates = of_one_size(self._sizes.tolist())
        with progress("comparing", len(candidates)) as bar:
            groups = identical(self._images, candidates, bar.advance)
        self.report.copies = [[self._place(index) for index in group] for group in groups]
        self.report.complete = True

    def _take(self, index: int, outcome: Outcome) -> None:
        report = self.report
        report.checked += 1
        if outcome.cause:
            report.unreadable.append(Noted(self._place(index), outcome.cause))
            return
        self._sizes[index] = outcome.size
        short, long = sorted((outcome.width, outcome.height))
        size = f"{outcome.width}x{outcome.height} px"
        if short < SMALL_SIDE:
            report.small.append(Noted(self._place(index), size))
        if long > ODD_RATIO * short:
            report.odd.append(Noted(self._place(index), size))

    def _place(self, index: int) -> Place:
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        split, within = self._splits[number], index - int(self._first[number])
        image = self._images[index]
        label = self._class_names[split.labels[within]]
        return Place(split.name, split.keys[within], label, image if isinstance(image, Path) else None)


def check_document(report: CheckReport) -> dict[str, object]:
    """Return what JSON says of a check."""
    return {
        "images": report.total,
        "checked": report.checked,
        "complete": report.complete,
        "splits": {
            counts.name: {**counts.as_json(), "class_counts": dict(zip(report.class_names, counts.images, strict=True))}
            for counts in report.splits
        },
        "unreadable": [_noted_json(noted, "cause") for noted in report.unreadable],
        "small": [_noted_json(noted, "size") for noted in report.small],
        "odd_shape": [_noted_json(noted, "size") for noted in report.odd],
        "identical": [[_place_json(place) for place in group] for group in report.copies],
        "shared_by_splits": {" and ".join(pair): len(groups) for pair, groups in report.shared().items()},
        "repeated_in_split": {name: len(groups) for name, groups in report.repeated().items()},
        "under_different_classes": len(report.contradictory()),
        "classes_with_few_images": report.few(),
    }


def _noted_json(noted: Noted, what: str) -> dict[str, object]:
    return {**_place_json(noted.place), what: noted.what}


def _place_json(place: Place) -> dict[str, object]:
    return {"split": place.split, "key": place.key, "class": place.label, "file": place.file}
