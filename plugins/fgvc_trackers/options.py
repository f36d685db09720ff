"""Options of the built-in trackers; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class TensorBoardOptions:
    """Options of `tensorboard`."""

    folder: str = option(
        "", "folder for event files, with one folder per run; empty: trackers/tensorboard in the run folder"
    )
