"""Which images of a split are explained: all, some of each class, or those that two runs differ on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
