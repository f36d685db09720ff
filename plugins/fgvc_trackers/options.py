"""Options of the built-in trackers; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class TensorBoardOptions:
    """Where TensorBoard's files go."""

    folder: str = option(
        "", "folder of event files, one folder a run in it; empty: trackers/tensorboard in the run folder"
    )
