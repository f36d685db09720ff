"""Find a dataset by name or by path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fgvc_cli.config.run_config import check_path, dataset_for, dataset_settings
from fgvc_cli.contracts import Dataset, Provision
from fgvc_cli.data.opening import dataset_request, open_dataset
from fgvc_cli.enforcement import attributed, expect_type
from fgvc_cli.errors import UsageError
from fgvc_cli.formatting import expanded
from fgvc_cli.options import build
from fgvc_cli.registry import Component, Registry

SEED = 0
"""For a dataset that generates or splits images: the default of training."""


@dataclass(frozen=True)
class ChosenDataset:
    """A registered dataset with its options and the path that it reads (`data`), if any; files may be missing.

    `exclude` is a CSV file of images to leave out.
    """

    component: Component
    options: Any
    path: Path | None = None
    exclude: Path | None = None

    @property
    def title(self) -> str:
        """Its name, or the path that it reads."""
        return self.component.name if self.path is None else str(self.path)

    @property
    def is_own(self) -> bool:
        """Whether it reads the user's own files."""
        spec: Any = self.component.spec
        return bool(spec.reads_folder or spec.reads_files)

    def provision(self) -> Provision | None:
        """Return its files and download links; None if it needs none of its own.

        Raises:
            ComponentError: it raises, or returns something else.
        """
        provide = getattr(self.component.load(), "provision", None)
        if provide is None:
            return None
        with attributed(self.component, "provision()"):
            found = provide(dataset_request(self.path, SEED), self.options)
            expect_type(found, (Provision, type(None)), "a Provision or None")
        return cast(Provision | None, found)

    def open(self) -> Dataset:
        """Open it.

        Raises:
            FgvcError: its files are missing or cannot be used.
        """
        return open_dataset(self.component, self.options, self.path, SEED, self.exclude)


def choose_dataset(
    name: str | None, path: Path | None, texts: Sequence[str], registry: Registry, exclude: Path | None = None
) -> ChosenDataset:
    """Find a dataset by name, by path, or both.

    Args:
        name, path: of the dataset.
        texts: options as `dataset.option=value`.
        registry: of the datasets.
        exclude: CSV file of images to leave out.

    Raises:
        UsageError: neither is given, there is no such dataset, it does not read such a path, or an option is wrong.
    """
    path = None if path is None else expanded(path).absolute()
    if name is not None:
        component = _named(name, registry)
        if path is not None:
            check_path(component, path)
    elif path is not None:
        component = dataset_for(path, registry)
    else:
        known = ", ".join(component.name for component in registry.components("dataset"))
        raise UsageError(f"Which dataset? Name one ({known}), or give a folder or file with `data`")
    options: Any = build(component.options_type(), dataset_settings(texts), "dataset")
    return ChosenDataset(component, options, path, exclude)


def _named(name: str, registry: Registry) -> Component:
    try:
        return registry.find("dataset", name)
    except UsageError:
        if expanded(name).exists():
            raise UsageError(f"'{name}' is a path, not the name of a dataset: use `data={name}`") from None
        raise
