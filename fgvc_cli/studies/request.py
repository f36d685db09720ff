"""What a person asks of a study; free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.errors import UsageError


@dataclass(frozen=True)
class SweepRequest:
    """What is to be trained, as the command line says it.

    Attributes:
        names: of components, by kind ("backbone", "head", "optimizer"): those to combine; where a study file names
            some of that kind, which of its combinations are meant. A kind without names is the file's or the recipe's.
        options: the command line's options that all runs share, by section; None where not given.
        texts: `--set` as typed; a setting of a component is for those that have such an option.
        recipe: that all begin from.
        seeds: how many; None: as the file says, else one.
        first_seed: the first of them; None: as the file or the recipe says.
        file: a study file, or None.
        ready: the name of a study that a plugin brings, or None.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    texts: Sequence[str] = ()
    recipe: str | None = None
    seeds: int | None = None
    first_seed: int | None = None
    file: Path | None = None
    ready: str | None = None

    def __post_init__(self) -> None:
        if self.file is not None and self.ready is not None:
            raise UsageError(f"--config {self.file} and --study {self.ready} both name a study: leave one of them out.")

    def refuse_without_resume(self, retry_failed: bool) -> None:
        """Raise `UsageError` if something was asked that a new study has nothing of."""
        if retry_failed:
            raise UsageError("--retry-failed goes beside --resume STUDY: a new study has no failed runs.")

    def refuse_with_resume(self, out: Path | None) -> None:
        """Raise `UsageError` if anything was asked beside `--resume`: a study goes on with its own settings."""
        shared = [name for table in self.options.values() for name, value in table.items() if value is not None]
        others = {
            **self.names, "seeds": self.seeds, "seed": self.first_seed is not None, "config": self.file,
            "study": self.ready, "recipe": self.recipe, "set": self.texts, "out": out,
        }  # fmt: skip
        given = [*(name for name, value in others.items() if value), *shared]
        if given:
            names = ", ".join("--" + name.replace("_", "-").replace("name", "dataset") for name in given)
            raise UsageError(f"--resume goes on with the study's own settings: leave out {names}, or begin a new one.")
