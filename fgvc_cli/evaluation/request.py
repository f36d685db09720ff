"""What a person wants to know of runs, whichever way they are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.computing import Computing, run_of
from fgvc_cli.evaluation.subject import SubjectRequest


@dataclass(frozen=True)
class EvaluationRequest:
    """Which runs, on which images, and where the results go.

    Attributes:
        models: model files, each once.
        subject: which images.
        computing: where and how.
        out: folder for the results; None: one in the run, or a new one where there are several runs.
        force: whether `out` may exist.
    """

    models: Sequence[Path]
    subject: SubjectRequest = field(default_factory=SubjectRequest)
    computing: Computing = field(default_factory=Computing)
    out: Path | None = None
    force: bool = False

    @property
    def runs(self) -> tuple[Path, ...]:
        """What a person names the runs by."""
        return tuple(run_of(model) for model in self.models)


def refuse_what_does_not_go_together(
    runs: Sequence[Path], ensemble: bool, sharpness: bool, around: Mapping[str, Any], per_class: bool
) -> None:
    """Refuse a command line of which one half would be ignored.

    Args:
        runs: that were named.
        ensemble, sharpness: whether these are asked for.
        around: options of sharpness by field; None: not given.
        per_class: whether all classes are to be listed.

    Raises:
        UsageError: it says which, and what to do.
    """
    if ensemble and sharpness:
        raise UsageError("--ensemble and --sharpness are two evaluations: ask for one at a time.")
    if ensemble and len(runs) < 2:
        raise UsageError("--ensemble averages several runs: name two or more, fgvc evaluate RUN RUN --ensemble.")
    given = [f"--{name.replace('_', '-')}" for name, value in around.items() if value is not None]
    if given and not sharpness:
        raise UsageError(f"{given[0]} belongs to the measure of sharpness: add --sharpness.")
    if per_class and sharpness:
        raise UsageError("--sharpness has no figures of classes: leave out --per-class.")
