"""What the host expects of a dataset."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Dataset, EncodedImage, Split, Taxonomy
from fgvc_cli.enforcement.attribution import RECORD, Broken, Check, Record, attributed, described, expect_type
from fgvc_cli.registry import Component


class CheckedImages(Sequence[Any]):
    """The images of a split; errors name the dataset and the image.

    Args:
        images: as the dataset gives them.
        keys: one per image.
        component: the dataset.
    """

    def __init__(self, images: Sequence[Any], keys: Sequence[str], component: Component) -> None:
        self.images, self.keys, self.component = images, keys, component

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with attributed(self.component, f"image '{self.keys[index]}'"):
            image = self.images[index]
            if not isinstance(image, str | Path | EncodedImage):
                _check_array(image)
            return image


def _check_array(image: Any) -> None:
    shape: tuple[int, ...] = getattr(image, "shape", ())
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and image.size:
        return
    gray = isinstance(image, np.ndarray) and (image.ndim == 2 or (image.ndim == 3 and shape[2] == 1))
    fix = " (convert gray images with `np.dstack([image] * 3)`)" * gray
    raise Broken(f"a path, an EncodedImage, or a uint8 array H,W,3{fix}", described(image))


def built(dataset: Dataset, record: Record) -> None:  # noqa: ARG001
    """Check name and class names."""
    name, classes = getattr(dataset, "name", None), getattr(dataset, "class_names", None)
    expect_type(name, str, "text in the attribute `name`")
    if not isinstance(classes, tuple | list) or not all(isinstance(each, str) for each in classes):
        raise Broken("a tuple of names in the attribute `class_names`", described(classes))
    if len(set(classes)) < len(classes):
        raise Broken("class names that differ", f"{Counter(classes).most_common(1)[0][0]!r} twice")


def _splits(dataset: Dataset, result: Any) -> tuple[str, ...]:  # noqa: ARG001
    if not isinstance(result, tuple | list) or not result or not all(isinstance(name, str) for name in result):
        raise Broken("a tuple of names of splits", described(result))
    return tuple(result)


def _split(dataset: Dataset, result: Any, name: str) -> Split:
    expect_type(result, Split, f"a Split '{name}'")
    record: Record = getattr(dataset, RECORD)
    for attribute in ("images", "labels", "keys"):
        value = getattr(result, attribute)
        if not isinstance(value, Sized) or not hasattr(value, "__getitem__"):
            raise Broken(f"a sequence as {attribute} of the split '{name}'", described(value))
    counts = len(result.images), len(result.labels), len(result.keys)
    if len(set(counts)) > 1:
        raise Broken(
            f"one label and one key per image of the split '{name}'", "{} images, {} labels and {} keys".format(*counts)
        )
    _check_labels(result.labels, len(dataset.class_names), name)
    _check_keys(result.keys, name)
    if result.parts is not None and len(result.parts) != len(result.images):
        raise Broken(f"parts of each of {counts[0]} images of the split '{name}', or None", described(result.parts))
    if result.groups is not None and len(result.groups) != len(result.images):
        raise Broken(f"a group of each of {counts[0]} images of the split '{name}', or None", described(result.groups))
    checked = copy.copy(result)  # the dataset may keep its own
    checked.images = CheckedImages(result.images, result.keys, record.component)
    found: Split = checked
    return found


def _check_labels(labels: Any, classes: int, split: str) -> None:
    expected = f"labels of the split '{split}' from 0 to {classes - 1}, the indices of its class names"
    found = np.asarray(labels)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise Broken(expected, described(labels[0]) if len(labels) and found.ndim == 1 else described(found))
    wrong = np.flatnonzero((found < 0) | (found >= classes))
    if wrong.size:
        raise Broken(expected, f"{found[wrong[0]]} for image {wrong[0]}")


def _check_keys(keys: Sequence[Any], split: str) -> None:
    expected = f"keys of the split '{split}' that are texts and differ"
    if wrong := [key for key in keys if not isinstance(key, str)]:
        raise Broken(expected, described(wrong[0]))
    if len(set(keys)) < len(keys):
        raise Broken(expected, f"{Counter(keys).most_common(1)[0][0]!r} twice")


def _attributes(dataset: Dataset, result: Any) -> tuple[str, ...]:  # noqa: ARG001
    if not isinstance(result, tuple | list) or not all(isinstance(name, str) for name in result):
        raise Broken("a tuple of names of attributes", described(result))
    return tuple(result)


def _attribute(dataset: Dataset, result: Any, name: str, split: str) -> Sequence[str]:
    images = len(dataset.split(split))
    if not isinstance(result, Sequence) or not all(isinstance(value, str) for value in result):
        raise Broken(f"a sequence of texts, '{name}' of the images of the split '{split}'", described(result))
    if len(result) != images:
        raise Broken(f"'{name}' of each of {images} images of the split '{split}'", f"{len(result)} values")
    return result


def _ignored_files(dataset: Dataset, result: Any) -> Any:  # noqa: ARG001
    expect_type(result, Mapping, "a dict of numbers by suffix")
    return result


def _deciding_parts(dataset: Dataset, result: Any) -> Any:  # noqa: ARG001
    expect_type(result, (Mapping, type(None)), "a dict of names of parts by class, or None")
    return result


def _taxonomy(dataset: Dataset, result: Any) -> Any:  # noqa: ARG001
    expect_type(result, (Taxonomy, type(None)), "a Taxonomy or None")
    return result


def _identity(dataset: Dataset, result: Any) -> Any:  # noqa: ARG001
    expect_type(result, Mapping, "a dict")
    try:
        json.dumps(result)
    except (TypeError, ValueError) as error:
        raise Broken("a dict that can be written as JSON", f"one that cannot ({error})") from None
    return result


CALLS: dict[str, Check] = {
    "splits": _splits,
    "split": _split,
    "attributes": _attributes,
    "attribute": _attribute,
    "ignored_files": _ignored_files,
    "deciding_parts": _deciding_parts,
    "taxonomy": _taxonomy,
    "identity": _identity,
}
"""Checks by method."""
