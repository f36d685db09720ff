"""Open a dataset, and match its classes to those of a classifier by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fgvc_cli import settings
from fgvc_cli.config.datasets import check_path
from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.contracts.dataset import no_progress
from fgvc_cli.data.splits import quoted_names, subset
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.progress import progress
from fgvc_cli.registry import Component

logger = logging.getLogger(__name__)


def open_dataset(component: Component, options: Any, path: Path | None, seed: int) -> Dataset:
    """Instantiate a dataset; its notes are logged, and its progress is reported.

    Args:
        component: the registered dataset.
        options: its options dataclass.
        path: folder or file that it is made from (`data`), or None.
        seed: for a dataset that generates or splits images.

    Raises:
        FgvcError: the images are missing or cannot be used, or the plugin returns something else than a dataset.
        UsageError: the dataset needs a path and has none, or takes none.
    """
    check_path(component, path)
    with _reported_progress() as report:
        dataset = component.make(request=dataset_request(path, seed, report), options=options)
    if not isinstance(dataset, Dataset):
        raise FgvcError(
            f"The dataset '{component.name}' of {component.distribution} is broken: it returned a "
            f"{type(dataset).__name__} instead of a fgvc_cli.contracts.Dataset"
        )
    return dataset


def dataset_request(
    path: Path | None, seed: int, progress: Callable[[str, int, int], None] = no_progress
) -> DatasetRequest:
    """Return the request that a dataset is instantiated with, with the current settings' absolute folders."""
    current = settings.current()
    return DatasetRequest(path, current.data_root.absolute(), current.cache.absolute(), seed, logger.info, progress)


@contextmanager
def _reported_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a `DatasetRequest.progress` callback, which reports each description as its own piece of work."""
    with ExitStack() as stack:
        reported: dict[str, tuple[Any, int]] = {}

        def report(what: str, done: int, total: int) -> None:
            bar, before = reported.get(what) or (stack.enter_context(progress(what, total)), 0)
            bar.advance(done - before)
            reported[what] = (bar, done)

        yield report


def match_classes(
    split: Split, dataset_classes: Sequence[str], model_classes: Sequence[str], ignore_unknown: bool
) -> Split:
    """Return the split with labels that index the model's classes.

    Only classes with images in the split are considered. The split may lack classes of the model.

    Args:
        split: its labels index `dataset_classes`.
        dataset_classes: names of the dataset's classes.
        model_classes: names of the model's classes, in the order of its logits.
        ignore_unknown: skip images of classes that the model does not know, with a warning.

    Raises:
        UsageError: the split has classes that the model does not know, and `ignore_unknown` is False.
        FgvcError: no image is left.
    """
    index_of = {name: index for index, name in enumerate(model_classes)}
    present = [dataset_classes[label] for label in sorted(set(split.labels))]
    unknown = [name for name in present if name not in index_of]
    if unknown and not ignore_unknown:
        near = did_you_mean(unknown[0], model_classes) if len(unknown) == 1 else ""
        raise UsageError(
            f"The model does not know {len(unknown)} class{'' if len(unknown) == 1 else 'es'} of the {split.name} "
            f"split: {quoted_names(unknown)}.{near} Rename the folders to the model's class names, or skip these "
            "classes with `ignore_unknown`"
        )
    known = [i for i, label in enumerate(split.labels) if dataset_classes[label] in index_of]
    if not known:
        raise FgvcError(f"The {split.name} split has no image of a class that the model knows")
    skipped = len(split) - len(known)
    if skipped:
        logger.warning(
            f"skipped {skipped} image{'' if skipped == 1 else 's'} of classes unknown to the model: "
            f"{quoted_names(unknown)}"
        )
    matched = subset(split, known, split.name, split.origin) if skipped else split
    labels = [index_of[dataset_classes[label]] for label in matched.labels]
    return Split(matched.name, matched.images, labels, matched.keys, matched.parts, matched.origin)
