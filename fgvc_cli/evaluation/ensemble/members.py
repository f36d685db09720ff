"""The runs of an ensemble: their classes are the same, and each classifies the same images in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fgvc_cli.contracts import Split
from fgvc_cli.data.matching import match_classes
from fgvc_cli.data.splits import by_keys, listed
from fgvc_cli.display.progress import View
from fgvc_cli.display.run_labels import run_labels
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.computing import Computing, ReadyClassifier, load, run_of
from fgvc_cli.evaluation.ensemble.averaging import aligned
from fgvc_cli.evaluation.scoring import Scores, score
from fgvc_cli.runs.loading import read_class_names


@dataclass(frozen=True)
class Members:
    """What the runs say of the images that all of them could read.

    Attributes:
        scores: one a run, of the same images in the same order, with the first run's classes in its order.
        device: computed them.
        precision: "fp32" or "bf16".
    """

    scores: list[Scores]
    device: torch.device
    precision: str


def class_names_of(models: Sequence[Path]) -> tuple[str, ...]:
    """Return the first model's class names, which must be those of all, in whatever order.

    Raises:
        UsageError: a model knows other classes.
        FgvcError: a file is missing or damaged.
    """
    first, *others = models
    names = read_class_names(first)
    for other in others:
        lacking = [name for name in names if name not in set(read_class_names(other))]
        more = [name for name in read_class_names(other) if name not in set(names)]
        if lacking or more:
            differences = [f"does not know {listed(lacking)}"] * bool(lacking)
            differences += [f"knows {listed(more)}, which {run_of(first)} does not"] * bool(more)
            raise UsageError(
                f"{run_of(other)} {' and '.join(differences)}: only runs of the same classes can be averaged. Leave "
                "one of them out."
            )
    return names


def score_members(models: Sequence[Path], split: Split, computing: Computing, view: View) -> Members:
    """Let each run classify the images, one run after the other in memory.

    An image that one run cannot read is not shown to the next, and enters no figure.

    Args:
        models: model files, all of the same classes.
        split: labels index the first model's classes.
        computing: where and how.
        view: takes progress.

    Raises:
        FgvcError: none of the images can be read, a model cannot be loaded, or memory runs out.
    """
    names, available = read_class_names(models[0]), len(split)
    found: list[tuple[Scores, tuple[str, ...]]] = []
    for model in models:
        ready = load(model, computing)
        scores = _score(ready, split, names, view)
        split = by_keys(split, scores.keys) if scores.failures else split
        if not len(split):
            raise FgvcError(f"None of the {available} images ({split.name}) can be read.")
        found.append((scores, ready.classifier.class_names))
    left_out = frozenset(key for scores, _ in found for key in scores.failures)
    members = [aligned(scores, own_names, names, left_out) for scores, own_names in found]
    return Members(members, ready.classifier.device, ready.precision)


def _score(ready: ReadyClassifier, split: Split, names: Sequence[str], view: View) -> Scores:
    matched = match_classes(split, names, ready.classifier.class_names, ignore_unknown=False)
    (label,) = run_labels([str(ready.run)])
    with view.progress(label, len(matched)) as bar, ready.memory_explained():
        return score(ready.classifier, ready.loader(matched), matched, ready.precision, bar.advance)
