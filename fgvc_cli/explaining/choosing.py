"""Which images of a split are explained: all, some of each class, or those that two runs differ on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import subset
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.evaluation.scoring import Scores


def class_index(name: str, class_names: Sequence[str], option: str) -> int:
    """Return the index of a class.

    Args:
        name: what a person typed.
        class_names: the classifier's.
        option: how the message names what was typed, such as "--class".

    Raises:
        UsageError: there is no such class.
    """
    if name not in class_names:
        raise UsageError(f"{option} {name}: the run knows no such class.{did_you_mean(name, class_names)}")
    return list(class_names).index(name)


def of_classes(split: Split, classes: Sequence[int], class_names: Sequence[str]) -> Split:
    """Return the images of these classes.

    Raises:
        FgvcError: one of them has no image.
    """
    for label in classes:
        if label not in split.labels:
            raise FgvcError(f"--class {class_names[label]}: the {split.name} split has no image of that class.")
    wanted = [i for i, label in enumerate(split.labels) if label in classes]
    return subset(split, wanted, split.name, split.origin)


def spread(labels: Sequence[int], limit: int) -> list[int]:
    """Choose `limit` images, or all if there are no more: the same ones each time, in ascending order.

    Each class gives equally many, as far as it has them; where that does not come out even, classes that lie evenly
    among the others give one more. Within a class the images lie evenly in the split's order.
    """
    if limit >= len(labels):
        return list(range(len(labels)))
    of_class = [np.flatnonzero(np.asarray(labels) == label) for label in sorted(set(labels))]
    quotas = _quotas([len(images) for images in of_class], limit)
    chosen = [images[_evenly(len(images), quota)] for images, quota in zip(of_class, quotas, strict=True) if quota]
    return sorted(int(i) for i in np.concatenate(chosen))


def in_turn(labels: Sequence[int]) -> list[int]:
    """Return the positions of all images so that the classes take turns: what is done when one interrupts is spread."""
    turn: Counter[int] = Counter()
    turns = []
    for position, label in enumerate(labels):
        turns.append((turn[label], label, position))
        turn[label] += 1
    return [position for _, _, position in sorted(turns)]


def differing(first: Scores, second: Scores) -> list[str]:
    """Return the keys of the images that the first scores get right and the second wrong, the first's surest first.

    Images that either could not read are left out. Equal confidence: in the order of the split.
    """
    wrong = {key for key, ok in zip(second.keys, second.predicted == second.labels, strict=True) if not ok}
    right = first.predicted == first.labels
    found = [i for i, key in enumerate(first.keys) if right[i] and key in wrong]
    return [first.keys[i] for i in sorted(found, key=lambda i: -float(first.confidence[i]))]


def by_keys(split: Split, keys: Sequence[str]) -> Split:
    """Return the images with these keys, in their order."""
    position = {key: i for i, key in enumerate(split.keys)}
    return subset(split, [position[key] for key in keys], split.name, split.origin)


def _quotas(counts: Sequence[int], limit: int) -> list[int]:
    """Share a limit out among classes that have so many images: level by level, as water fills."""
    level = 0
    while sum(min(count, level + 1) for count in counts) <= limit:
        level += 1
    quotas = [min(count, level) for count in counts]
    with_more = [i for i, count in enumerate(counts) if count > level]
    for i in _evenly(len(with_more), limit - sum(quotas)):
        quotas[with_more[i]] += 1
    return quotas


def _evenly(count: int, wanted: int) -> np.ndarray:
    """Return `wanted` of `count` positions, evenly apart, as far from the ends as from half of one another."""
    return ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(np.int64)
