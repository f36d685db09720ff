"""Open a dataset by its component, options and path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fgvc_cli import settings
from fgvc_cli.config.run_config import RunConfig, check_path
from fgvc_cli.contracts import Dataset, DatasetRequest
from fgvc_cli.contracts.dataset import no_progress
from fgvc_cli.data.exclusion import ExcludingDataset, Exclusion
from fgvc_cli.data.grouping import GroupedDataset
from fgvc_cli.data.inputs import note_ignored
from fgvc_cli.enforcement import make
from fgvc_cli.progress import progress
from fgvc_cli.registry import Component

logger = logging.getLogger(__name__)


def open_run_dataset(config: RunConfig) -> Dataset:
    """Open the dataset of a run's configuration; see `open_dataset`."""
    train = config.train
    return open_dataset(
        config.dataset.component, config.dataset.options, config.data, train.split_seed, train.exclude, train.group_by
    )


def open_dataset(
    component: Component,
    options: Any,
    path: Path | None,
    seed: int,
    exclude: str | Path | None = None,
    group_by: str | None = None,
) -> Dataset:
    """Instantiate a dataset; its notes are logged, and its progress is reported.

    Args:
        component: the registered dataset.
        options: its options dataclass.
        path: folder or file that it reads (`data`), or None.
        seed: for a dataset that generates or splits images.
        exclude: CSV file of images to leave out; see `Exclusion.read`.
        group_by: what images of one group have in common; see `GroupedDataset`.

    Raises:
        FgvcError: the images are missing or cannot be used, the plugin returns something other than a dataset, or
            `exclude` cannot be read or is of other data.
        UsageError: the dataset requires a path and has none, or accepts none, or its images have no such groups.
    """
    check_path(component, path)
    with reported_progress() as report:
        dataset: Dataset = make(component, Dataset, request=dataset_request(path, seed, report), options=options)
    note_ignored(dataset.name, dataset.ignored_files())
    dataset = dataset if group_by is None else GroupedDataset(dataset, group_by)
    return dataset if exclude is None else ExcludingDataset(dataset, Exclusion.read(Path(exclude)))


def dataset_request(
    path: Path | None, seed: int, progress: Callable[[str, int, int], None] = no_progress
) -> DatasetRequest:
    """Return the request that a dataset is instantiated with, with the current settings' absolute folders."""
    current = settings.current()
    return DatasetRequest(path, current.data_root.absolute(), current.cache.absolute(), seed, logger.info, progress)


@contextmanager
def reported_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a `DatasetRequest.progress` callback, which reports each description as its own piece of work."""
    with ExitStack() as stack:
        reported: dict[str, tuple[Any, int]] = {}

        def report(what: str, done: int, total: int) -> None:
            bar, before = reported.get(what) or (stack.enter_context(progress(what, total)), 0)
            bar.advance(done - before)
            reported[what] = (bar, done)

        yield report
