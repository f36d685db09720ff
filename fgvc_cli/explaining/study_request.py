"""What a person wants to know of explainers over a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.computing import Computing
from fgvc_cli.evaluation.subject import SubjectRequest
from fgvc_cli.explaining.covering import Cover
from fgvc_cli.training.recipes import Layer


@dataclass(frozen=True)
class StudyRequest:
    """What a person wants to know over a data set.

    Attributes:
        models: model files, of the runs to compare (see `find_model`). The first one's data set is meant where none
            is named; the others must know its classes.
        subject: which images.
        explainers: names; the random map is added where it is missing.
        settings: options of explainers, by name; each goes to the explainers that have it.
        target: the class that maps explain: "predicted", "true", or the name of a class.
        cover: how much is covered, and with what.
        steps: how often more is covered, the map drawn anew each time.
        curve_steps: points of the deletion and insertion curves after the first.
        tolerance: how far outside of a box the pointing game still counts a hit, in sides of the crop.
        limit: so many images at most.
        classes: only images of these classes; empty: of all.
        differ: only images that the first of two runs gets right and the second wrong, the surest first.
        computing: where and how.
        out: folder for the results; None: `explanation/SPLIT` in the first run.
        force: whether `out` may exist.
        telling: images of each kind in the gallery.
    """

    models: Sequence[Path]
    subject: SubjectRequest = field(default_factory=SubjectRequest)
    explainers: Sequence[str] = ("gradcam",)
    settings: Layer = field(default_factory=dict)
    target: str = "predicted"
    cover: Cover = field(default_factory=Cover)
    steps: int = 1
    curve_steps: int = 20
    tolerance: float = 0.0
    limit: int | None = None
    classes: Sequence[str] = ()
    differ: bool = False
    computing: Computing = field(default_factory=lambda: Computing(precision="fp32"))
    out: Path | None = None
    force: bool = False
    telling: int = 4

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("No run is named: name one with --run.")
        if self.differ and len(self.models) != 2:
            raise UsageError(f"--differ compares two runs, not {len(self.models)}: write --run A --run B --differ.")
        for name, value, least in (
            ("--steps", self.steps, 1),
            ("--limit", self.limit, 1),
            ("curve_steps", self.curve_steps, 2),
        ):
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: it must be at least {least}.")
