"""Check that every image of a dataset can be read, and find duplicates and other problems."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgvc_cli.contracts import Dataset, EncodedImage, Split
from fgvc_cli.data.acquisition.decoding import DecodeResult, decode_all
from fgvc_cli.data.acquisition.describe import SplitCounts, count_split
from fgvc_cli.data.splits import find_split
from fgvc_cli.errors import FgvcError
from fgvc_cli.launch import usable_cores
from fgvc_cli.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

THREADS = 4
BLOCK = 1 << 20

SMALL_SIDE = 32
"""Images with a shorter side in pixels are reported as small."""

MAX_ASPECT_RATIO = 4.0
"""Images with a larger ratio of long to short side are reported."""

FEW_IMAGES = 5
"""Classes with fewer training images are reported."""


@dataclass(frozen=True)
class ImageRef:
    """An image of a dataset: split, key, class name, and file (None if it has none; `pixels` are then the image)."""

    split: str
    key: str
    label: str
    file: Path | None
    pixels: EncodedImage | np.ndarray | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"split": self.split, "key": self.key, "class": self.label, "file": self.file}


@dataclass(frozen=True)
class Finding:
    """A problem with an image: the reason why it cannot be read, or its unusual size."""

    image: ImageRef
    what: str


@dataclass
class CheckReport:
    """The results of a check, complete or not.

    Attributes:
        splits: counts of each checked split.
        class_names: of the dataset.
        total: number of images to check.
        checked: number of images checked so far.
        complete: whether all images were checked and compared.
        unreadable: images that cannot be read, with the reason.
        small: images under `SMALL_SIDE`, with their size.
        odd: images over `MAX_ASPECT_RATIO`, with their size.
        copies: groups of images that are byte-identical.
        ignored: number of files in the dataset's folder that are no images, by suffix.
    """

    splits: list[SplitCounts]
    class_names: tuple[str, ...]
    total: int
    checked: int = 0
    complete: bool = False
    unreadable: list[Finding] = field(default_factory=list)
    small: list[Finding] = field(default_factory=list)
    odd: list[Finding] = field(default_factory=list)
    copies: list[list[ImageRef]] = field(default_factory=list)
    ignored: Mapping[str, int] = field(default_factory=dict)

    def shared(self) -> dict[tuple[str, str], list[list[ImageRef]]]:
        """Return the groups of copies that each pair of splits has in common."""
        found = {
            pair: [group for group in self.copies if set(pair) <= {image.split for image in group}]
            for pair in combinations([counts.name for counts in self.splits], 2)
        }
        return {pair: groups for pair, groups in found.items() if groups}

    def repeated(self) -> dict[str, list[list[ImageRef]]]:
        """Return the groups of copies within each split."""
        found = {
            counts.name: [[image for image in group if image.split == counts.name] for group in self.copies]
            for counts in self.splits
        }
        repeated = {name: [group for group in groups if len(group) > 1] for name, groups in found.items()}
        return {name: groups for name, groups in repeated.items() if groups}

    def contradictory(self) -> list[list[ImageRef]]:
        """Return the groups of copies with different labels."""
        return [group for group in self.copies if len({image.label for image in group}) > 1]

    def few(self) -> dict[str, int]:
        """Return the classes with few training images, and their number; empty if "train" is not checked."""
        counts = next((counts.images for counts in self.splits if counts.name == "train"), ())
        return {name: n for name, n in zip(self.class_names, counts, strict=False) if n < FEW_IMAGES}

    def as_json(self) -> dict[str, object]:
        """Return the JSON form."""
        splits = {
            counts.name: {**counts.as_json(), "class_counts": dict(zip(self.class_names, counts.images, strict=True))}
            for counts in self.splits
        }
        return {
            "images": self.total,
            "checked": self.checked,
            "complete": self.complete,
            "splits": splits,
            "unreadable": [{**found.image.as_json(), "cause": found.what} for found in self.unreadable],
            "small": [{**found.image.as_json(), "size": found.what} for found in self.small],
            "odd_shape": [{**found.image.as_json(), "size": found.what} for found in self.odd],
            "identical": [[image.as_json() for image in group] for group in self.copies],
            "shared_by_splits": {" and ".join(pair): len(groups) for pair, groups in self.shared().items()},
            "repeated_in_split": {name: len(groups) for name, groups in self.repeated().items()},
            "under_different_classes": len(self.contradictory()),
            "classes_with_few_images": self.few(),
            "ignored_files": dict(self.ignored),
        }


def splits_to_check(dataset: Dataset, name: str | None) -> list[Split]:
    """Return the split of this name, or all splits for None; see `find_split`."""
    return [find_split(dataset, each) for each in (dataset.splits() if name is None else [name])]


class DatasetCheck:
    """Decodes every image of some splits and compares their files.

    Args:
        splits: of one dataset.
        class_names: of that dataset.
        workers: number of processes that decode; -1: one per core, 0: decode in this process.
        ignored: number of files in the dataset's folder that are no images, by suffix.
        measure: what else to compute of each decoded image, in the processes that decode.

    Attributes:
        report: the results so far, also after an interrupt.
        measured: the results of `measure`, by the position of the image in all splits.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        class_names: tuple[str, ...],
        workers: int = -1,
        ignored: Mapping[str, int] | None = None,
        measure: Callable[[PILImage], Any] | None = None,
    ) -> None:
        self._measure = measure
        self.measured: dict[int, Any] = {}
        self._splits, self._class_names = splits, class_names
        self._workers = usable_cores() if workers < 0 else workers
        self._images = [image for split in splits for image in split.images]
        self._first = np.cumsum([0, *map(len, splits)])  # index of each split's first image
        self._sizes = np.zeros(len(self._images), dtype=np.int64)
        counts = [count_split(s, class_names) for s in splits]
        self.report = CheckReport(counts, class_names, len(self._images), ignored=ignored or {})

    def run(self) -> None:
        """Check all images."""
        with progress("checking", len(self._images)) as bar:
            for index, result in decode_all(self._images, self._workers, self._measure):
                self._record(index, result)
                bar.advance()
        order = {counts.name: rank for rank, counts in enumerate(self.report.splits)}
        for findings in (self.report.unreadable, self.report.small, self.report.odd):
            findings.sort(key=lambda found: (order[found.image.split], found.image.key))
        candidates = same_size(self._sizes.tolist())
        with progress("comparing", len(candidates)) as bar:
            groups = identical(self._images, candidates, bar.advance)
        self.report.copies = [[self.ref(index) for index in group] for group in groups]
        self.report.complete = True

    def _record(self, index: int, result: DecodeResult) -> None:
        report = self.report
        report.checked += 1
        if result.cause:
            report.unreadable.append(Finding(self.ref(index), result.cause))
            return
        if self._measure is not None:
            self.measured[index] = result.measured
        self._sizes[index] = result.size
        short, long = sorted((result.width, result.height))
        size = f"{result.width}x{result.height} px"
        if short < SMALL_SIDE:
            report.small.append(Finding(self.ref(index), size))
        if long > MAX_ASPECT_RATIO * short:
            report.odd.append(Finding(self.ref(index), size))

    def ref(self, index: int) -> ImageRef:
        """Return an image by its position in all splits."""
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        split, within = self._splits[number], index - int(self._first[number])
        image = self._images[index]
        label = self._class_names[split.labels[within]]
        file, pixels = (image, None) if isinstance(image, Path) else (None, image)
        return ImageRef(split.name, split.keys[within], label, file, pixels)


def same_size(sizes: Sequence[int]) -> list[int]:
    """Return the indices of sizes that occur more than once, except 0."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        if size:
            by_size[size].append(index)
    return sorted(index for indices in by_size.values() if len(indices) > 1 for index in indices)


def identical(
    images: Sequence[Path | EncodedImage | np.ndarray], candidates: Iterable[int], advance: Callable[[], object]
) -> list[list[int]]:
    """Group candidate images, given by index, that are byte-identical; `advance` is called after each candidate.

    Returns:
        Groups of two or more indices, in order, without files that can no longer be read.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    candidates = list(candidates)
    with ThreadPoolExecutor(THREADS) as threads:  # hashing and reading release the GIL
        for index, digest in zip(candidates, threads.map(_digest, (images[i] for i in candidates)), strict=True):
            advance()
            if digest is not None:
                groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _digest(image: Path | EncodedImage | np.ndarray) -> bytes | None:
    digest = hashlib.blake2b(digest_size=20)
    if isinstance(image, np.ndarray):
        digest.update(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        return digest.digest()
    try:
        if isinstance(image, EncodedImage):
            digest.update(image.read())
            return digest.digest()
        with image.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except (OSError, FgvcError):
        return None
    return digest.digest()
