"""From the name of a data set to its splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from fgvc_cli import settings
from fgvc_cli.contracts import Dataset, DatasetRequest
from fgvc_cli.data.splits import TrainingSplits, subset, training_splits
from fgvc_cli.display import console
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Component
from fgvc_cli.specs import DatasetSpec

__all__ = ["TrainingSplits", "open_dataset", "subset", "training_splits"]


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
    spec = cast(DatasetSpec, component.spec)
    if spec.reads_folder and folder is None:
        raise UsageError(f"The data set '{component.name}' is made from a folder: name it with --data FOLDER.")
    if folder is not None and not spec.reads_folder:
        raise UsageError(f"The data set '{component.name}' takes no folder: leave out --data {folder} or --dataset.")
    current = settings.current()
    make = component.load()
    with _shown_progress() as progress:
        request = DatasetRequest(folder, current.data_root, current.cache, seed, console.note, progress)
        dataset = make(request=request, options=options)
    if not isinstance(dataset, Dataset):
        raise FgvcError(
            f"The data set '{component.name}' of {component.distribution} is broken: it gave a "
            f"{type(dataset).__name__} where fgvc_cli.contracts.Dataset is meant."
        )
    return dataset


@contextmanager
def _shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows how far work is as a bar, which ends with the work or, at the latest, with this."""
    with ExitStack() as bars:
        shown: dict[str, tuple[Any, int]] = {}

        def progress(what: str, done: int, total: int) -> None:
            bar, before = shown[what] if what in shown else (bars.enter_context(console.progress(what, total)), 0)
            bar.advance(done - before)
            shown[what] = (bar, done)

        yield progress
