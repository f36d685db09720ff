"""Everything reported of a run or of a study."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.compared_run import Collected, read
from fgvc_cli.experiments.comparison import Comparison, Section, compare
from fgvc_cli.experiments.study import STUDY_FILE
from fgvc_cli.registry import Registry
from fgvc_cli.report.artifacts import Recorded, RunArtifacts, read_recorded
from fgvc_cli.report.examples import Examples, ReportRequest, show_examples
from fgvc_cli.report.predictions import Scored
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.scoring.model import run_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunReport:
    """A run, its figures, and images that it is right and wrong about.

    Attributes:
        request: what was asked for.
        recorded: what the run folder says of the training.
        scored: the figures of a split; None where there are none and none can be made.
        examples: images with heat maps; None where there are none.
        missing: what is not in the report, and why, a sentence each.
        files: where an image is, by its key; of those shown, where they are files.
    """

    request: ReportRequest
    recorded: Recorded
    scored: Scored | None
    examples: Examples | None
    missing: list[str]
    files: dict[str, Path]

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON has them."""
        scored, examples = self.scored, self.examples
        return {
            "run": str(run_of(self.recorded.run.model_file)),
            "title": self.recorded.title,
            "split": None if scored is None else scored.summary.split,
            "images": None if scored is None else scored.summary.images,
            "top1": None if scored is None else scored.summary.top1,
            "standard_error": None if scored is None else scored.standard_error,
            "evaluation": None if scored is None or scored.folder is None else str(scored.folder),
            "explainer": None if examples is None else examples.explainer,
            "mistakes": [] if examples is None else [example.key for example in examples.mistakes],
            "occlusion": []
            if examples is None
            else [{"image": example.key, "survived": example.survived} for example in examples.panels],
            "missing": self.missing,
        }


def report_run(run: Run, request: ReportRequest, registry: Registry) -> RunReport:
    """Gather what is reported of a run; a split that was not evaluated yet is.

    Args:
        run: a finished one.
        request: what is wanted.
        registry: finds datasets and explainers.

    Raises:
        FgvcError: the run is damaged, or what was asked for is not to be had.
        UsageError: there is no such split, explainer or device.
    """
    recorded = read_recorded(run)
    logger.info(f"run        {recorded.run.path}")
    material = RunArtifacts(recorded, request, registry)
    scored = material.scored()
    examples = _examples(material, scored)
    if examples is not None and examples.left_out:
        material.missing.append(_left_out(examples.left_out))
    files = {} if examples is None or material.subject is None else _files(examples, material)
    return RunReport(request, recorded, scored, examples, material.missing, files)


def _examples(material: RunArtifacts, scored: Scored | None) -> Examples | None:
    """Explain images if they, the classifier and the predictions are there."""
    images = material.request.images
    if scored is None or not scored.predictions or material.subject is None or not images:
        return None
    ready, explainer = material.explaining, material.explainer
    if ready is None or explainer is None:
        return None
    return show_examples(ready, explainer, material.subject.split, scored.predictions, images)


def _left_out(reasons: dict[str, str]) -> str:
    key, reason = next(iter(reasons.items()))
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"Images were left out: {key}{more} ({reason.rstrip('.')})."


def _files(examples: Examples, material: RunArtifacts) -> dict[str, Path]:
    assert material.subject is not None
    split = material.subject.split
    shown = {example.key for example in (*examples.mistakes, *examples.panels)}
    return {
        key: image
        for key, image in zip(split.keys, split.images, strict=True)
        if key in shown and isinstance(image, Path)
    }


@dataclass(frozen=True)
class StudyReport:
    """A study whose runs were gathered.

    Attributes:
        folder: of the study.
        text: of its `study.toml`.
        comparison: of its runs.
        runs: each by itself, in the order of the comparison: the best combination first, its seeds in turn.
    """

    folder: Path
    text: str
    comparison: Comparison
    runs: Sequence[RunReport]

    @property
    def name(self) -> str:
        """What the study's folder is called."""
        return self.folder.absolute().name

    def number_of(self, run: Run) -> int:
        """Return the place of a run among the sections of the page, from 1."""
        paths = [report.recorded.run.path for report in self.runs]
        return paths.index(run.path) + 1

    def epochs_of(self, run: Run) -> list[EpochMetrics]:
        """Return the metrics of a run by epoch."""
        return self.runs[self.number_of(run) - 1].recorded.epochs

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON has them: the document of `fgvc compare`."""
        return self.comparison.as_json()


def report_study(collected: Collected, split: str | None, runs: Sequence[RunReport]) -> StudyReport:
    """Compare the runs of a study, each of which was scored when it was gathered.

    Args:
        collected: the study.
        split: that is reported of, as it was asked for.
        runs: what was gathered of each.

    Raises:
        FgvcError: a run has no predictions to compare.
    """
    assert collected.study is not None
    compared = list(read(collected.runs, split, _refuse))
    comparison = compare(compared, collected.failed, [run.name for run in collected.unfinished])
    ordered = [run.run.path for section in comparison.sections for row in section.rows for run in row.runs]
    by_path = {report.recorded.run.path: report for report in runs}
    text = (collected.study / STUDY_FILE).read_text(encoding="utf-8", errors="replace")
    return StudyReport(collected.study, text, comparison, [by_path[path] for path in ordered])


def titles(section: Section) -> dict[Path, str]:
    """Return what each run of a section is called: its combination and its seed."""
    return {run.run.path: f"{row.title}, seed {run.seed}" for row in section.rows for run in row.runs}


def _refuse(run: Run, split: str | None) -> Path:
    what = "" if split is None else f" of {split}"
    raise FgvcError(f"{run.path} has no evaluation{what} to compare: fgvc evaluate {run.path}.")
