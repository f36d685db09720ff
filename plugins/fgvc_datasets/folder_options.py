"""Options of the folder dataset."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class FolderOptions:
    """Which folders hold which split. Without these, they go by their usual names, in upper or lower case."""

    train: str | None = option(None, "folder of the training images; usual names: train, training")
    val: str | None = option(None, "folder of the validation images; usual names: val, valid, validation")
    test: str | None = option(None, "folder of the test images; usual names: test, testing")
