"""From the name of a dataset to its splits, with classes matched to a classifier's by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fgvc_cli import settings
from fgvc_cli.config.datasets import check_path, dataset_for
from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.contracts.dataset import no_progress
from fgvc_cli.data.splits import TrainingSplits, listed, subset, training_splits
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.progress import progress
from fgvc_cli.registry import Component

logger = logging.getLogger(__name__)

__all__ = ["TrainingSplits", "check_path", "dataset_for", "open_dataset", "request_for", "subset", "training_splits"]


def open_dataset(component: Component, options: Any, folder: Path | None, seed: int) -> Dataset:
    """Make a dataset; what it has to say and how far it is goes to standard error.

    Args:
        component: the registered dataset.
        options: its options dataclass.
        folder: what `--data` names, or None.
        seed: for a dataset that draws or splits.

    Raises:
        FgvcError: the images are not there or cannot be used.
        UsageError: the dataset needs a folder and there is none, or takes none and there is one.
    """
    check_path(component, folder)
    with _shown_progress() as progress:
        dataset = component.make(request=request_for(folder, seed, progress), options=options)
    if not isinstance(dataset, Dataset):
        raise FgvcError(
            f"The dataset '{component.name}' of {component.distribution} is broken: it gave a "
            f"{type(dataset).__name__} where fgvc_cli.contracts.Dataset is meant."
        )
    return dataset


def request_for(
    folder: Path | None, seed: int, progress: Callable[[str, int, int], None] = no_progress
) -> DatasetRequest:
    """Return what the host tells a dataset, the folders in force included."""
    current = settings.current()
    return DatasetRequest(folder, current.data_root.absolute(), current.cache.absolute(), seed, logger.info, progress)


@contextmanager
def _shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows how far work is as a bar, which ends with the work or, at the latest, with this."""
    with ExitStack() as bars:
        shown: dict[str, tuple[Any, int]] = {}

        def report(what: str, done: int, total: int) -> None:
            bar, before = shown[what] if what in shown else (bars.enter_context(progress(what, total)), 0)
            bar.advance(done - before)
            shown[what] = (bar, done)

        yield report


def match_classes(
    split: Split, dataset_classes: Sequence[str], model_classes: Sequence[str], ignore_unknown: bool
) -> Split:
    """Return the split with labels that index the model's classes.

    Classes count only where the split has images of them. The split may lack classes of the model.

    Args:
        split: labels index `dataset_classes`.
        dataset_classes: names of the dataset's classes.
        model_classes: names of the model's classes, in the order of its scores.
        ignore_unknown: leave out images of classes that the model does not know, and say so.

    Raises:
        UsageError: the split has classes that the model does not know, and they are not to be ignored.
        FgvcError: no image is left.
    """
    index_of = {name: index for index, name in enumerate(model_classes)}
    present = [dataset_classes[label] for label in sorted(set(split.labels))]
    unknown = [name for name in present if name not in index_of]
    if unknown and not ignore_unknown:
        near = did_you_mean(unknown[0], model_classes) if len(unknown) == 1 else ""
        raise UsageError(
            f"{len(unknown)} class{'' if len(unknown) == 1 else 'es'} of the {split.name} split "
            f"{'is' if len(unknown) == 1 else 'are'} unknown to this model: {listed(unknown)}.{near} "
            "Rename the folders as the model names its classes, or leave them out with --ignore-unknown."
        )
    kept = [i for i, label in enumerate(split.labels) if dataset_classes[label] in index_of]
    if not kept:
        raise FgvcError(f"No image of the {split.name} split is of a class that this model knows.")
    left_out = len(split) - len(kept)
    if left_out:
        logger.warning(f"left out {left_out} images of classes unknown to this model: {listed(unknown)}.")
    matched = subset(split, kept, split.name, split.origin) if left_out else split
    labels = [index_of[dataset_classes[label]] for label in matched.labels]
    return Split(matched.name, matched.images, labels, matched.keys, matched.parts, matched.origin)
