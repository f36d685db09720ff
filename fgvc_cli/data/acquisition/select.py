"""Which dataset, and which caches, the user means."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc_cli import settings
from fgvc_cli.config.datasets import check_path, dataset_for, dataset_settings
from fgvc_cli.contracts import Dataset, Provision
from fgvc_cli.data.opening import open_dataset, request_for
from fgvc_cli.errors import FgvcError, UsageError, cause_of, did_you_mean
from fgvc_cli.options import build
from fgvc_cli.registry import Component, Registry

if TYPE_CHECKING:
    from fgvc_cli.data.cache.index import StoreInfo


DATA_ROOT = "--data-root"
SEED = 0
"""For a dataset that draws or splits: the default of training."""


@dataclass(frozen=True)
class ChosenDataset:
    """A dataset that need not be here yet.

    Attributes:
        component: as it is registered.
        options: its options dataclass.
        path: what `--data` names, or None.
        settings: the `--set` texts that made the options.
    """

    component: Component
    options: Any
    path: Path | None = None
    settings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a person calls it: its name, or the path that it is made from."""
        return self.component.name if self.path is None else str(self.path)

    @property
    def is_own(self) -> bool:
        """Whether it is made from files that a person names."""
        spec: Any = self.component.spec
        return bool(spec.reads_folder or spec.reads_files)

    def arguments(self, option: str = "") -> str:
        """Return what names it on a command line, ready to paste; `option` stands before a name."""
        words = [*([option] if option else []), self.component.name]
        if self.path is not None:
            words = ["--data", str(self.path)]
        for text in self.settings:
            words += ["--set", text]
        current = settings.current()
        if self.path is None and current.origin("data_root") == DATA_ROOT:  # who had to name it has to name it again
            words += [DATA_ROOT, str(current.data_root)]
        return " ".join(shlex.quote(word) for word in words)

    def provision(self) -> Provision | None:
        """Return what files it needs and how they are had; None if it needs none of its own.

        Raises:
            FgvcError: its plugin is broken.
        """
        ask = getattr(self.component.load(), "provision", None)
        if ask is None:
            return None
        try:
            found = ask(request_for(self.path, SEED), self.options)
        except FgvcError:
            raise
        except Exception as error:  # a stranger's code can raise anything
            raise self._broken(f"its provision failed: {cause_of(error)}") from error
        if not (found is None or isinstance(found, Provision)):
            raise self._broken(f"its provision gave a {type(found).__name__} where Provision or None is meant")
        return found

    def open(self) -> Dataset:
        """Open it.

        Raises:
            FgvcError: its files are not here or cannot be used.
        """
        return open_dataset(self.component, self.options, self.path, SEED)

    def _broken(self, how: str) -> FgvcError:
        return FgvcError(f"The dataset '{self.component.name}' of {self.component.distribution} is broken: {how}.")


def choose_dataset(name: str | None, data: Path | None, texts: Sequence[str], registry: Registry) -> ChosenDataset:
    """Find the dataset that a person means.

    Args:
        name: of a registered dataset, or None.
        data: what `--data` names, or None.
        texts: `--set dataset.option=value` as typed.
        registry: finds datasets.

    Raises:
        UsageError: neither or no such dataset is named, it is not made from such a path, or an option is wrong.
    """
    if name is None and data is None:
        known = ", ".join(component.name for component in registry.components("dataset"))
        raise UsageError(f"Which dataset? Name one ({known}), or a folder or file with --data PATH.")
    path = None if data is None else data.expanduser().absolute()
    if name is not None:
        component = _named(name, registry)
        if path is not None:
            check_path(component, path)
    else:
        assert path is not None
        component = dataset_for(path, registry)
    options: Any = build(component.options_type(), dataset_settings(texts), "dataset")
    return ChosenDataset(component, options, path, tuple(texts))


def _named(name: str, registry: Registry) -> Component:
    try:
        return registry.find("dataset", name)
    except UsageError:
        if Path(name).expanduser().exists():
            raise UsageError(f"'{name}' is no dataset but a path: write --data {shlex.quote(name)}.") from None
        raise


def stores_of(names: Sequence[str], stores: Sequence[StoreInfo]) -> list[StoreInfo]:
    """Return the stores of some datasets, by name or by the folder that they were made from; all, for no names.

    Raises:
        UsageError: no store is of such data.
    """
    if not names:
        return list(stores)
    wanted: list[StoreInfo] = []
    for name in names:
        found = [store for store in stores if _is_of(store, name)]
        if not found:
            known = sorted({store.data for store in stores})
            raise UsageError(
                f"{name}: the decode cache holds nothing of it.{did_you_mean(name, known)} It holds: "
                f"{'; '.join(known) or 'nothing'}."
            )
        wanted += [store for store in found if store not in wanted]
    return wanted


def _is_of(store: StoreInfo, name: str) -> bool:
    """Say whether a store, whose data are called `NAME` or `NAME (FOLDER)`, is of a dataset or a folder."""
    folder = Path(name).expanduser().absolute()
    return store.data == name or store.data.startswith(f"{name} (") or store.data.endswith(f" ({folder})")
