"""From the name of a dataset to its splits, with classes matched to a classifier's by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from fgvc_cli import settings
from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.contracts.dataset import no_progress
from fgvc_cli.data.splits import TrainingSplits, listed, subset, training_splits
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.progress import progress
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import DatasetSpec

logger = logging.getLogger(__name__)

__all__ = ["TrainingSplits", "check_path", "made_from", "open_dataset", "request_for", "subset", "training_splits"]


def made_from(path: Path, registry: Registry) -> Component:
    """Return the data set that is made from what `--data` names, a folder or a file; the built-in before others.

    Raises:
        UsageError: no data set is made from such a thing.
    """
    found = [c for c in registry.components("dataset") if _reads(cast(DatasetSpec, c.spec), path)]
    if not found:
        known = sorted({e for c in registry.components("dataset") for e in cast(DatasetSpec, c.spec).reads_files})
        files = f" or a file that ends in {', '.join(known)}" if known else ""
        raise UsageError(f"--data {path}: give a folder of images{files}; see fgvc list-plugins for what reads them.")
    named = [c for c in found if path.suffix.lower() in cast(DatasetSpec, c.spec).reads_files and not path.is_dir()]
    return sorted(named or found, key=lambda c: not c.builtin)[0]


def open_dataset(component: Component, options: Any, folder: Path | None, seed: int) -> Dataset:
    """Make a data set; what it has to say and how far it is goes to standard error.

    Args:
        component: the registered data set.
        options: its options dataclass.
        folder: what `--data` names, or None.
        seed: for a data set that draws or splits.

    Raises:
        FgvcError: the images are not there or cannot be used.
        UsageError: the data set needs a folder and there is none, or takes none and there is one.
    """
    check_path(component, folder)
    with _shown_progress() as progress:
        dataset = component.make(request=request_for(folder, seed, progress), options=options)
    if not isinstance(dataset, Dataset):
        raise FgvcError(
            f"The data set '{component.name}' of {component.distribution} is broken: it gave a "
            f"{type(dataset).__name__} where fgvc_cli.contracts.Dataset is meant."
        )
    return dataset


def check_path(component: Component, folder: Path | None) -> None:
    """Raise `UsageError` if a data set needs what `--data` names and there is none, or cannot be made from it."""
    spec = cast(DatasetSpec, component.spec)
    takes = [*["a folder"] * spec.reads_folder, *(f"a {ending} file" for ending in spec.reads_files)]
    if takes and folder is None:
        raise UsageError(f"The data set '{component.name}' is made from {' or '.join(takes)}: name it with --data.")
    if folder is not None and not takes:
        raise UsageError(f"The data set '{component.name}' takes no folder: leave out --data {folder}, or its name.")
    if folder is not None and folder.exists() and not _reads(spec, folder):
        raise UsageError(f"The data set '{component.name}' is made from {' or '.join(takes)}, which {folder} is not.")


def request_for(
    folder: Path | None, seed: int, progress: Callable[[str, int, int], None] = no_progress
) -> DatasetRequest:
    """Return what the host tells a data set, the folders in force included."""
    current = settings.current()
    return DatasetRequest(folder, current.data_root.absolute(), current.cache.absolute(), seed, logger.info, progress)


def _reads(spec: DatasetSpec, path: Path) -> bool:
    """Say whether a data set is made from such a path; one that is not there goes by its ending."""
    is_file = path.is_file() or (path.suffix.lower() in spec.reads_files and not path.is_dir())
    return path.suffix.lower() in spec.reads_files if is_file else spec.reads_folder


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
        dataset_classes: names of the data set's classes.
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
