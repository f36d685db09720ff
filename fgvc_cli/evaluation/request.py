"""What a person wants to know of runs, whichever way they are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
