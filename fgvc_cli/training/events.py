"""What run events carry to plugins (hooks `fgvc_run_started`, `fgvc_epoch_finished`, `fgvc_run_finished`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunStart:
    """A training that starts or goes on.

    Attributes:
        folder: the run folder.
        config: its settings by section, as in `config.toml`.
        class_names: in the order of the scores.
        resumed: whether it goes on from a saved state.
    """

    folder: Path
    config: dict[str, Any]
    class_names: tuple[str, ...]
    resumed: bool
