"""Log training curves to TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from fgvc_cli import FgvcError
from fgvc_cli.contracts import RunStart, Tracker, scalars
from fgvc_trackers.options import TensorBoardOptions


class TensorBoard(Tracker):
    """Log the metrics of each epoch as curves, the settings as text, and the test metrics.

    A resumed training hides the points of epochs that it repeats.

    Args:
        options: see `TensorBoardOptions`.

    Raises:
        FgvcError: the package tensorboard is not installed.
    """

    def __init__(self, options: TensorBoardOptions) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FgvcError(
                "tracker 'tensorboard' needs a package that is not installed: "
                f'pip install "fgvc-cli[tensorboard]" ({error})'
            ) from error
        self.options, self._writer_type = options, SummaryWriter

    def started(self, run: RunStart) -> None:
        """Open the event file and write the settings."""
        shared = Path(self.options.folder).expanduser()
        self.folder = shared / run.folder.absolute().name if self.options.folder else run.own_folder("tensorboard")
        self.writer = self._writer_type(str(self.folder), purge_step=run.epochs_done + 1 if run.resumed else None)
        settings = indent(json.dumps(run.config, indent=2), "    ")  # a Markdown code block
        self.writer.add_text("settings", f"{settings}\n", run.epochs_done)
        self._runs = shared if self.options.folder else run.folder.parent

    def epoch_finished(self, metrics: Mapping[str, Any]) -> None:
        """Write a point of each curve."""
        step = metrics["epoch"]
        self._write({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Write the test metrics at the best epoch, and close the file."""
        if summary is not None and summary["test"] is not None:
            self._write({"test": summary["test"]}, summary["best_epoch"])
        self.writer.close()

    def notes(self) -> list[str]:
        """Return the command that shows the curves."""
        return [f"curves: tensorboard --logdir {self._runs}"]

    def _write(self, document: Mapping[str, Any], step: int) -> None:
        for name, value in scalars(document).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
