"""Select the images of a dataset explanation: all, some of each class, or those that two runs disagree on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import balanced_indices, match_classes, select_keys, subset
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.split_selection import SelectedSplit
from fgvc_cli.explaining.explanation import class_index
from fgvc_cli.progress import progress
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import Scores, score

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelectedImages:
    """The images of a dataset explanation.

    Attributes:
        splits: the same images in the same order for each run; labels index that run's classes. The order is round
            robin over the classes, so that an interrupted explanation covers all of them; with `differ`, by confidence.
        description: how they were selected.
    """

    splits: list[Split]
    description: str


def select_images(
    selected: SelectedSplit,
    runs: Sequence[ReadyClassifier],
    classes: Sequence[str] = (),
    limit: int | None = None,
    differ: bool = False,
    ignore_unknown: bool = False,
) -> SelectedImages:
    """Select images for all runs, see `DatasetExplanationRequest`; `differ` requires scoring them with both.

    Raises:
        UsageError: a class does not exist, or a run does not have it.
        FgvcError: no image is left.
    """
    names, split = runs[0].classifier.class_names, selected.split
    described = []
    if classes:
        split = filter_classes(split, [class_index(name, names, "class") for name in classes], names)
        described.append(f"of {', '.join(dict.fromkeys(classes))}")
    splits = _for_each_run(split, runs, ignore_unknown)
    if differ:
        splits = _select_differing(splits, runs)
        described.append(f"right in {runs[0].run.name} and wrong in {runs[1].run.name}, most confident first")
    if limit is not None and limit < len(splits[0]):
        indices = list(range(limit)) if differ else balanced_indices(splits[0].labels, limit)
        splits = [subset(each, indices, each.name, each.origin) for each in splits]
        described.append(f"the first {limit}" if differ else _balance(splits[0].labels))
    if not differ:
        splits = [subset(each, round_robin(splits[0].labels), each.name, each.origin) for each in splits]
    if not len(splits[0]):
        raise FgvcError(f"no images to explain in {selected.dataset} ({selected.split.name})")
    description = ", ".join(described) or "all"
    count = f"{len(splits[0])} of {len(selected.split)}" if described else str(len(splits[0]))
    source = f"{selected.split.name} of {selected.data or selected.dataset}"
    for line in (f"images     {count}, {source}" + f": {description}" * bool(described), *selected.notes):
        logger.info(line)
    return SelectedImages(splits, description)


def filter_classes(split: Split, classes: Sequence[int], class_names: Sequence[str]) -> Split:
    """Return the images of some classes.

    Raises:
        FgvcError: one of the classes has no image.
    """
    for label in classes:
        if label not in split.labels:
            raise FgvcError(f"`class={class_names[label]}`: the {split.name} split has no image of this class")
    wanted = [i for i, label in enumerate(split.labels) if label in classes]
    return subset(split, wanted, split.name, split.origin)


def round_robin(labels: Sequence[int]) -> list[int]:
    """Return the positions of all images in an order that alternates between the classes."""
    seen: Counter[int] = Counter()
    turns = []
    for position, label in enumerate(labels):
        turns.append((seen[label], label, position))
        seen[label] += 1
    return [position for _, _, position in sorted(turns)]


def first_right_second_wrong(first: Scores, second: Scores) -> list[str]:
    """Return the keys of the images that only the first scores get right, by descending confidence of the first.

    Images that either run could not read are excluded. Ties are in the order of the split.
    """
    wrong = {key for key, right in zip(second.keys, second.predicted == second.labels, strict=True) if not right}
    right = first.predicted == first.labels
    found = [i for i, key in enumerate(first.keys) if right[i] and key in wrong]
    return [first.keys[i] for i in sorted(found, key=lambda i: -float(first.confidence[i]))]


def _for_each_run(split: Split, runs: Sequence[ReadyClassifier], ignore_unknown: bool) -> list[Split]:
    """Return the images whose classes all runs have, with the labels of each run."""
    names = runs[0].classifier.class_names
    splits = [split]
    for ready in runs[1:]:
        try:
            splits.append(match_classes(split, names, ready.classifier.class_names, ignore_unknown))
        except (UsageError, FgvcError) as error:
            raise type(error)(f"`run={ready.run}`: {error}") from None
    known = set.intersection(*(set(each.keys) for each in splits))
    return (
        splits if len(known) == len(split) else [select_keys(s, [k for k in split.keys if k in known]) for s in splits]
    )


def _select_differing(splits: Sequence[Split], runs: Sequence[ReadyClassifier]) -> list[Split]:
    scores = []
    for split, ready in zip(splits, runs, strict=True):
        with progress(ready.run.name, len(split)) as bar, ready.memory_explained():
            scores.append(score(ready.classifier, ready.loader(split), split, ready.precision, bar.advance))
    keys = first_right_second_wrong(*scores)
    if not keys:
        accuracies = "; ".join(
            f"{ready.run}: {int((each.predicted == each.labels).sum())} of {len(each)} right"
            for ready, each in zip(runs, scores, strict=True)
        )
        raise FgvcError(f"`differ`: no image is right in the first run and wrong in the second ({accuracies})")
    return [select_keys(split, keys) for split in splits]


def _balance(labels: Sequence[int]) -> str:
    counts = np.unique(labels, return_counts=True)[1]
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return f"{each} of each of {len(counts)} classes, evenly spaced"
