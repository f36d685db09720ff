"""Options of the table dataset."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class TableOptions:
    """Which columns hold what. Without these, they go by their usual names, in upper or lower case."""

    path: str | None = option(None, "column of the images; usual names: path, file, filename, image, image_path")
    label: str | None = option(None, "column of the classes; usual names: label, class, class_name, category")
    split: str | None = option(None, "column of the splits; usual names: split, set, subset, partition")
    root: str | None = option(
        None, "folder that relative paths start from, seen from the table's own; without it, that one"
    )
