"""What a person wants explained, and which options of the command line do not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fgvc_cli.config.layering import Layer
from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.images import SubjectRequest
from fgvc_cli.explaining.masking import Cover, Fill
from fgvc_cli.scoring.model import Computing, find_model


@dataclass(frozen=True)
class ExplainRequest:
    """What images and datasets have in common.

    Attributes:
        runs: run folders or model files; empty: the newest finished run.
        explainers: names of explainers.
        settings: options of explainers, by name.
        target: "predicted", "true" or the name of a class.
        cover: how the most marked part is covered.
        steps: how often more is covered.
        computing: where and how.
        out: folder for what is written, or None.
        force: whether what is there may be replaced.
    """

    runs: Sequence[Path]
    explainers: Sequence[str]
    settings: Mapping[str, Any]
    target: str
    cover: Cover
    steps: int
    computing: Computing
    out: Path | None
    force: bool

    def models(self) -> list[Path]:
        """Return the model files, each once.

        Raises:
            FgvcError: one of the runs is not there.
        """
        return list(dict.fromkeys(map(find_model, self.runs))) if self.runs else [find_model(None)]


@dataclass(frozen=True)
class SetRequest:
    """Which images of which dataset.

    Attributes:
        subject: dataset and split.
        limit: so many images at most.
        classes: only images of these; empty: of all.
        differ: only images that the first of two runs gets right and the second wrong.
    """

    subject: SubjectRequest
    limit: int | None = None
    classes: Sequence[str] = field(default_factory=list)
    differ: bool = False

    def study(self, request: ExplainRequest) -> StudyRequest:
        """Return the whole request for figures over a dataset."""
        return StudyRequest(
            models=request.models(),
            subject=self.subject,
            explainers=request.explainers,
            settings=dict(request.settings),
            target=request.target,
            cover=request.cover,
            steps=request.steps,
            limit=self.limit,
            classes=self.classes,
            differ=self.differ,
            computing=request.computing,
            out=request.out,
            force=request.force,
        )


def covered(fill: str | None, area: float | None, threshold: float | None) -> Cover:
    """Return the covering that the command line means; None leaves a default.

    Raises:
        UsageError: a value is out of its bounds, or both a share and a threshold are given.
    """
    if area is not None and threshold is not None:
        raise UsageError("--cover-area and --cover-threshold exclude each other: leave one of them out.")
    default = Cover()
    return Cover(
        cast(Fill, fill or default.fill),  # Cover itself refuses what is no filling
        default.area if area is None else area,
        threshold,
    )


def refuse_what_does_not_go_together(
    images: Sequence[Path],
    runs: Sequence[Path],
    over_set: Mapping[str, Any],
    covering: Mapping[str, Any],
    occlude: bool,
) -> None:
    """Refuse a command line of which one half would be ignored.

    Args:
        images: what is to be explained, or nothing.
        runs: that were named.
        over_set: options that mean a dataset, by name, with their values.
        covering: options of the occlusion test, likewise.
        occlude: whether it is asked for.

    Raises:
        UsageError: it says which, and what to do.
    """
    of_set = [name for name, value in over_set.items() if value]
    if images and of_set:
        raise UsageError(f"IMAGES and {of_set[0]} exclude each other: name images, or a dataset.")
    if not images and not of_set:
        raise UsageError(
            "There is nothing to explain: name images (fgvc explain photo.jpg --occlude), or a dataset with --data, "
            "--dataset or --split."
        )
    of_test = [name for name, value in covering.items() if value is not None]
    if images and of_test and not occlude:
        raise UsageError(f"{of_test[0]} belongs to the occlusion test: add --occlude.")
    if over_set.get("--differ") and len(set(runs)) != 2:
        raise UsageError("--differ compares two runs: name them with --run A --run B.")


@dataclass(frozen=True)
class StudyRequest:
    """What a person wants to know over a dataset.

    Attributes:
        models: model files, of the runs to compare (see `find_model`). The first one's dataset is meant where none
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
