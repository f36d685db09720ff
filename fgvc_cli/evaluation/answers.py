"""The answers of a calibrated run on a split, and images of classes that it does not know."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_cli.data.acquisition.select import choose_dataset
from fgvc_cli.data.inputs import find_inputs
from fgvc_cli.data.splits import pack_images, quoted_names
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.files import write_csv
from fgvc_cli.formatting import counted
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.calibration.metrics import UnknownMetrics
from fgvc_cli.scoring.calibration.novelty import ScoreName
from fgvc_cli.scoring.calibration.stored import Decisions
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.observation import Observation
from fgvc_cli.scoring.scores import Scores, score

logger = logging.getLogger(__name__)

ANSWERS, UNKNOWN_ANSWERS = "answers.csv", "unknown.csv"
UNKNOWN = "unknown"
"""The answer for an image without one."""
SEPARATOR = "|"
"""Between the classes of a set in a cell of CSV."""


def decide(ready: ReadyClassifier, scores: Scores, novelty: Mapping[ScoreName, np.ndarray]) -> Decisions | None:
    """Return what the run's calibration decides for scored images; None without a calibration."""
    return None if ready.calibration is None else ready.calibration.decide(scores.probabilities, novelty)


def unknown_images(where: str, class_names: Sequence[str], registry: Registry) -> Split:
    """Return images of classes that the classifier does not know, with labels that mean nothing.

    Args:
        where: a folder, searched recursively, or the name of a dataset, all of whose splits are used.
        class_names: of the classifier.
        registry: resolves the name of a dataset.

    Raises:
        UsageError: there is neither such a folder nor such a dataset, or it has images of a class that is known.
        FgvcError: the folder has no image, or the dataset's images are missing.
    """
    folder = Path(where).expanduser()
    if folder.exists():
        try:
            images: list[Any] = list(find_inputs([folder])[0])
        except FgvcError as error:
            raise FgvcError(f"`unknown={where}`: {error}") from error
        keys, named = [str(image) for image in images], [image.parent.name for image in images]
    else:
        try:
            dataset = choose_dataset(where, None, [], registry).open()
        except UsageError as error:
            raise UsageError(f"`unknown={where}`: there is no such folder, and no such dataset: {error}") from error
        splits = [dataset.split(name) for name in dataset.splits()]
        images = [image for split in splits for image in split.images]
        keys = [f"{split.name}/{key}" for split in splits for key in split.keys]
        named = [dataset.class_names[label] for split in splits for label in split.labels]
    known = [name for name in dict.fromkeys(named) if name in set(class_names)]
    if known:
        raise UsageError(
            f"`unknown={where}` has images of classes that the run knows: {quoted_names(known)}; move them"
        )
    return Split(UNKNOWN, pack_images(images), [0] * len(images), keys, origin=where)


def score_unknown(
    ready: ReadyClassifier, split: Split, known: Mapping[ScoreName, np.ndarray], folder: Path
) -> tuple[UnknownMetrics, Path]:
    """Score unknown images, and write the answer for each to `unknown.csv` in a folder.

    Args:
        ready: the classifier.
        split: see `unknown_images`.
        known: novelty scores of the images of the evaluated split.
        folder: for the file.

    Raises:
        FgvcError: no image can be read.
    """
    observation = Observation(ready, None if ready.calibration is None else ready.calibration.means)
    with progress(f"{UNKNOWN} images", len(split)) as bar, ready.memory_explained():
        scores = score(ready.classifier, ready.loader(split), split, ready.precision, bar.advance, observation)
    if not len(scores):
        raise FgvcError(f"`unknown={split.origin}`: none of {counted(len(split), 'image')} can be read")
    decisions = decide(ready, scores, observation.scores)
    metrics = UnknownMetrics.of(split.origin, known, observation.scores, ready.calibration, decisions, scores.failures)
    names = ready.classifier.class_names
    header = ["key", "predicted", "probability", *(["answer", "reason"] if decisions else []), *observation.scores]

    def rows() -> Iterator[list[Any]]:
        for i, key in enumerate(scores.keys):
            best = int(scores.predicted[i])
            confidence = scores.confidence[i] if decisions is None else decisions.probabilities[i].max()
            row = [key, "", ""] if best < 0 else [key, names[best], f"{confidence:.6f}"]
            if decisions is not None:
                row += answer_cells(decisions, i, names[best])
            yield [*row, *(f"{values[i]:.6g}" for values in observation.scores.values())]

    write_csv(folder / UNKNOWN_ANSWERS, header, rows())
    return metrics, folder / UNKNOWN_ANSWERS


def answer_cells(decisions: Decisions, image: int, name: str) -> list[str]:
    """Return the answer, which is `name` or "unknown", and the reason for the latter."""
    reason = decisions.reason(image)
    return [UNKNOWN if reason else name, reason]


def write_answers(folder: Path, scores: Scores, decisions: Decisions | None, class_names: Sequence[str]) -> list[Path]:
    """Write the answer for each image to `answers.csv` in a folder; without decisions, remove those of earlier ones."""
    path = folder / ANSWERS
    if decisions is None:
        path.unlink(missing_ok=True)
        return []
    sets = decisions.members is not None

    def rows() -> Iterator[list[Any]]:
        for i, key in enumerate(scores.keys):
            best, label = int(scores.predicted[i]), int(scores.labels[i])
            probability = "" if best < 0 else f"{decisions.probabilities[i].max():.6f}"
            row = [
                key,
                class_names[label],
                *answer_cells(decisions, i, class_names[best]),
                probability,
                int(best == label),
            ]
            if sets:
                chosen = decisions.set_of(i)
                row += [len(chosen), SEPARATOR.join(class_names[j] for j in chosen)]
            yield row

    header = ["key", "true", "answer", "reason", "probability", "correct", *(["set_size", "set"] if sets else [])]
    write_csv(path, header, rows())
    return [path]
