"""The images of a study: the same for each run, each with the labels of that run's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_cli.data.matching import match_classes
from fgvc_cli.data.splits import by_keys, subset
from fgvc_cli.data.spread import spread
from fgvc_cli.display.progress import View
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.scoring import Scores, score
from fgvc_cli.evaluation.subject import Subject
from fgvc_cli.explaining.choosing import class_index, differing, in_turn, of_classes
from fgvc_cli.explaining.study_request import StudyRequest


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


def choose_images(subject: Subject, runs: Sequence[ReadyClassifier], request: StudyRequest, view: View) -> Chosen:
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
        splits, words = _differing(splits, runs, view)
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
    """Return the images whose classes all runs know, labelled for each."""
    names = runs[0].classifier.class_names
    splits = [split]
    for ready in runs[1:]:
        try:
            splits.append(match_classes(split, names, ready.classifier.class_names, ignore_unknown))
        except (UsageError, FgvcError) as error:
            raise type(error)(f"--run {ready.run}: {error}") from None
    known = set.intersection(*(set(each.keys) for each in splits))
    return splits if len(known) == len(split) else [by_keys(s, [k for k in split.keys if k in known]) for s in splits]


def _differing(splits: Sequence[Split], runs: Sequence[ReadyClassifier], view: View) -> tuple[list[Split], str]:
    scores = [_score(split, ready, view) for split, ready in zip(splits, runs, strict=True)]
    keys = differing(*scores)
    if not keys:
        right = [
            f"{ready.run} gets {_right(each)} of {len(each)} right" for ready, each in zip(runs, scores, strict=True)
        ]
        raise FgvcError(f"--differ: no image is right in the first run and wrong in the second ({'; '.join(right)}).")
    words = f"right in {runs[0].run.name} and wrong in {runs[1].run.name}, the first's surest first"
    return [by_keys(split, keys) for split in splits], words


def _score(split: Split, ready: ReadyClassifier, view: View) -> Scores:
    with view.progress(ready.run.name, len(split)) as bar, ready.memory_explained():
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
