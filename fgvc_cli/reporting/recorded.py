"""What a run folder says of its training."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError
from fgvc_cli.runs.folder import RunFolder
from fgvc_cli.runs.loading import read_metadata

NEEDED = (
    "dataset", "classes", "chance", "splits", "components", "parameters", "recipe", "weights", "epochs", "best_epoch",
    "stopped_early", "test", "seconds", "images_per_second", "device", "precision", "processes", "seed", "versions",
)  # fmt: skip
"""Keys of `summary.json` that the page is made of."""


@dataclass(frozen=True)
class Recorded:
    """A finished run, as its folder describes it.

    Attributes:
        run: the folder.
        summary: `summary.json`.
        epochs: `metrics.jsonl`, a line an epoch; none after `--epochs 0`.
        config: the text of `config.toml`; empty where there is none.
        model: what the model file says of itself: classes, preprocessing, components.
    """

    run: RunFolder
    summary: dict[str, Any]
    epochs: list[dict[str, Any]]
    config: str
    model: dict[str, Any]

    @cached_property
    def _settings(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.config)
        except tomllib.TOMLDecodeError:
            return {}

    def setting(self, section: str, name: str) -> Any:
        """Return what `config.toml` says, or None: a damaged one says nothing, and the page shows it as it is."""
        table = self._settings.get(section)
        return table.get(name) if isinstance(table, dict) else None

    @property
    def title(self) -> str:
        """The combination that was trained, and on what."""
        names = {kind: str(component["name"]) for kind, component in self.summary["components"].items()}
        return f"{names['backbone']} + {names['head']} on {self.dataset}"

    @property
    def dataset(self) -> str:
        """The data set's name: of one that a person made, the folder's or file's that it is made from."""
        data = self.setting("dataset", "data")
        return Path(data).name if isinstance(data, str) else str(self.summary["dataset"]["name"])

    @property
    def optimizer(self) -> str:
        """The optimizer, and what it is built over: "sam over sgd"."""
        component = self.summary["components"]["optimizer"]
        base = component.get("base")
        return f"{component['name']} over {base['name']}" if base else str(component["name"])


def read_recorded(run: RunFolder) -> Recorded:
    """Read what a finished run says of itself.

    Raises:
        FgvcError: one of its files is damaged.
    """
    summary = run.summary()
    missing = [key for key in NEEDED if key not in summary]
    if missing:
        raise FgvcError(f"{run.summary_file} is damaged: it has no '{missing[0]}'. Restore it, or train again.")
    config = run.config_file.read_text(encoding="utf-8", errors="replace") if run.config_file.is_file() else ""
    return Recorded(run, summary, run.metrics(), config, read_metadata(run.model_file))
