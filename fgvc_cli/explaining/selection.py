"""Which images of a split are explained: all, some of each class, or those two runs disagree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_cli.data.opening import match_classes
from fgvc_cli.data.splits import by_keys, spread, subset
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.evaluation.images import Subject
from fgvc_cli.explaining.request import StudyRequest
from fgvc_cli.progress import progress
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import Scores, score


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


@dataclass(frozen=True)
class Chosen:
    """The images of a study.

    Attributes:
        splits: the same images in the same order for each run, the classes in turn (with `--differ` the surest
            first); labels index that run's classes.
        available: how many images there were before `--limit`, `--class` and `--differ`.
        how: in words, how they were chosen from those.
        notes: what a person should know before the figures come.
    """

    splits: list[Split]
    available: int
    how: str
    notes: list[str]


def choose_images(subject: Subject, runs: Sequence[ReadyClassifier], request: StudyRequest) -> Chosen:
    """Choose images for all runs; with `--differ` that takes scoring them with both.

    Raises:
        UsageError: a class does not exist, or is unknown to one of the runs.
        FgvcError: no image is left.
    """
    names = runs[0].classifier.class_names
    split, how = subject.split, []
    if request.classes:
        wanted = [class_index(name, names, "--class") for name in request.classes]
        split = of_classes(split, wanted, names)
        how.append(f"of {', '.join(dict.fromkeys(request.classes))}")
    splits = _for_all(split, runs, request.subject.ignore_unknown)
    if request.differ:
        splits, words = _differing(splits, runs)
        how.append(words)
    if request.limit is not None and request.limit < len(splits[0]):
        splits, words = _limited(splits, request.limit, in_order=request.differ)
        how.append(words)
    if not request.differ:
        splits = [subset(split, in_turn(splits[0].labels), split.name, split.origin) for split in splits]
    if not len(splits[0]):
        raise FgvcError(f"There is no image to explain in {subject.dataset} ({subject.split.name}).")
    described = ", ".join(how) or "all"
    source = subject.data or subject.dataset
    count = f"{len(splits[0])} of {len(subject.split)}" if how else str(len(splits[0]))
    note = f"images     {count}, {subject.split.name} of {source}{': ' + described if how else ''}"
    return Chosen(splits, len(subject.split), described, [note, *subject.notes])


def _for_all(split: Split, runs: Sequence[ReadyClassifier], ignore_unknown: bool) -> list[Split]:
    """Return the images whose classes all runs know, labeled for each."""
    names = runs[0].classifier.class_names
    splits = [split]
    for ready in runs[1:]:
        try:
            splits.append(match_classes(split, names, ready.classifier.class_names, ignore_unknown))
        except (UsageError, FgvcError) as error:
            raise type(error)(f"--run {ready.run}: {error}") from None
    known = set.intersection(*(set(each.keys) for each in splits))
    return splits if len(known) == len(split) else [by_keys(s, [k for k in split.keys if k in known]) for s in splits]


def _differing(splits: Sequence[Split], runs: Sequence[ReadyClassifier]) -> tuple[list[Split], str]:
    scores = [_score(split, ready) for split, ready in zip(splits, runs, strict=True)]
    keys = differing(*scores)
    if not keys:
        right = [
            f"{ready.run} gets {_right(each)} of {len(each)} right" for ready, each in zip(runs, scores, strict=True)
        ]
        raise FgvcError(f"--differ: no image is right in the first run and wrong in the second ({'; '.join(right)}).")
    words = f"right in {runs[0].run.name} and wrong in {runs[1].run.name}, the first's surest first"
    return [by_keys(split, keys) for split in splits], words


def _score(split: Split, ready: ReadyClassifier) -> Scores:
    with progress(ready.run.name, len(split)) as bar, ready.memory_explained():
        return score(ready.classifier, ready.loader(split), split, ready.precision, bar.advance)


def _right(scores: Scores) -> int:
    return int((scores.predicted == scores.labels).sum())


def _limited(splits: Sequence[Split], limit: int, in_order: bool) -> tuple[list[Split], str]:
    first = splits[0]
    indices = list(range(limit)) if in_order else spread(first.labels, limit)
    limited = [subset(split, indices, split.name, split.origin) for split in splits]
    if in_order:
        return limited, f"the first {limit}"
    counts = np.bincount(limited[0].labels)
    counts = counts[counts > 0]
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return limited, f"{each} of each of {len(counts)} classes, evenly apart"
