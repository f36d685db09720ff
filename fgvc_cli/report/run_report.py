"""The content of a report: of a run, and of a study."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.compare import RunSelection, compare_selection
from fgvc_cli.experiments.comparison import Comparison
from fgvc_cli.registry import Registry
from fgvc_cli.report.artifacts import RunArtifacts, RunRecord
from fgvc_cli.report.examples import Examples, ReportRequest
from fgvc_cli.report.predictions import SplitScores
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.scoring.model import run_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunReport:
    """The report of a run: request, training record, evaluation and examples, if any, and what is missing and why."""

    request: ReportRequest
    record: RunRecord
    scores: SplitScores | None
    examples: Examples | None
    missing: list[str] = field(default_factory=list)
    image_files: dict[str, Path] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object; docs/report-page.md lists its keys."""
        scores, examples = self.scores, self.examples
        return {
            "run": str(run_of(self.record.run.model_file)),
            "title": self.record.title,
            **{name: None if scores is None else getattr(scores.summary, name) for name in ("split", "images", "top1")},
            "standard_error": None if scores is None else scores.standard_error,
            "evaluation": None if scores is None or scores.folder is None else str(scores.folder),
            "explainer": None if examples is None else examples.explainer,
            "mistakes": [] if examples is None else [example.key for example in examples.mistakes],
            "occlusion": []
            if examples is None
            else [{"image": example.key, "survived": example.survived} for example in examples.panels],
            "missing": self.missing,
        }


def report_run(run: Run, request: ReportRequest, registry: Registry) -> RunReport:
    """Collect the report of a finished run; the split is evaluated if it was not before.

    Raises:
        FgvcError: the run is damaged, or a requested dataset is not available.
        UsageError: there is no such split, explainer or device.
    """
    record = RunRecord.read(run)
    logger.info(f"run        {record.run.path}")
    artifacts = RunArtifacts(record, request, registry)
    scores, examples = artifacts.scores, artifacts.examples
    return RunReport(request, record, scores, examples, artifacts.missing, artifacts.image_files)


@dataclass(frozen=True)
class StudyReport:
    """The report of a study: folder, text of its file, comparison, and runs, the best combination first, by seed."""

    folder: Path
    text: str
    comparison: Comparison
    runs: Sequence[RunReport]

    @property
    def name(self) -> str:
        """Name of the study's folder."""
        return self.folder.absolute().name

    def number_of(self, run: Run) -> int:
        """Return the number of a run's section in the page, from 1."""
        return [report.record.run.path for report in self.runs].index(run.path) + 1

    def epochs_of(self, run: Run) -> list[EpochMetrics]:
        """Return the metrics of a run by epoch."""
        return self.runs[self.number_of(run) - 1].record.epochs


def report_study(selection: RunSelection, split: str | None, reports: Sequence[RunReport]) -> StudyReport:
    """Compare the runs of a study, whose split has been evaluated.

    Raises:
        FgvcError: a run has no predictions to compare.
    """

    def refuse(run: Run, split: str | None) -> Path:
        raise FgvcError(f"{run.path} has no evaluation{f' on {split}' if split else ''} to compare; evaluate it first")

    assert selection.study is not None
    comparison = compare_selection(selection, split, refuse)
    by_path = {report.record.run.path: report for report in reports}
    ordered = [by_path[run.run.path] for table in comparison.tables for row in table.rows for run in row.runs]
    text = selection.study.study_file.read_text(encoding="utf-8", errors="replace")
    return StudyReport(selection.study.path, text, comparison, ordered)
