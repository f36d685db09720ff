"""Which dataset reads a path, and settings of a dataset alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fgvc_cli.config.layering import Layer
from fgvc_cli.errors import UsageError
from fgvc_cli.options import parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import DatasetSpec


def dataset_for(path: Path, registry: Registry) -> Component:
    """Return the dataset that reads a folder or a file, preferably a built-in one.

    Raises:
        UsageError: no dataset reads such a path.
    """
    found = [c for c in registry.components("dataset") if _reads(cast(DatasetSpec, c.spec), path)]
    if not found:
        known = sorted({e for c in registry.components("dataset") for e in cast(DatasetSpec, c.spec).reads_files})
        files = f" or a file that ends in {', '.join(known)}" if known else ""
        raise UsageError(f"`data={path}`: give a folder of images{files}")
    named = [c for c in found if path.suffix.lower() in cast(DatasetSpec, c.spec).reads_files and not path.is_dir()]
    return sorted(named or found, key=lambda c: not c.builtin)[0]


def check_path(component: Component, folder: Path | None) -> None:
    """Raise `UsageError` if a dataset needs a path and has none, or cannot read the one given."""
    spec = cast(DatasetSpec, component.spec)
    takes = [*["a folder"] * spec.reads_folder, *(f"a {ending} file" for ending in spec.reads_files)]
    if takes and folder is None:
        raise UsageError(f"dataset '{component.name}' reads {' or '.join(takes)}; set `data`")
    if folder is not None and not takes:
        raise UsageError(f"dataset '{component.name}' takes no folder; leave out `data={folder}` or the name")
    if folder is not None and folder.exists() and not _reads(spec, folder):
        raise UsageError(f"dataset '{component.name}' reads {' or '.join(takes)}, which {folder} is not")


def _reads(spec: DatasetSpec, path: Path) -> bool:
    """Return whether a dataset reads such a path; a path that does not exist is judged by its suffix."""
    is_file = path.is_file() or (path.suffix.lower() in spec.reads_files and not path.is_dir())
    return path.suffix.lower() in spec.reads_files if is_file else spec.reads_folder


def dataset_settings(texts: Sequence[str]) -> Layer:
    """Parse settings of the form `dataset.option=value`.

    Raises:
        UsageError: a setting is not an option of a dataset, or is malformed.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        kind, name, value = parse_setting(text)
        if kind != "dataset" or name in ("name", "data"):
            raise UsageError(f"`{text}`: only options of the dataset can be set here, as dataset.option=value")
        settings[name] = value
    return settings
