"""All that is reported of a study: its runs beside each other, and each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.comparing.collecting import Collected, read
from fgvc_cli.comparing.comparison import Comparison, Section, compare
from fgvc_cli.errors import FgvcError
from fgvc_cli.reporting.run_report import RunReport
from fgvc_cli.runs.folder import RunFolder
from fgvc_cli.studies.places import STUDY_FILE


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

    def number_of(self, run: RunFolder) -> int:
        """Return the place of a run among the sections of the page, from 1."""
        paths = [report.recorded.run.path for report in self.runs]
        return paths.index(run.path) + 1

    def epochs_of(self, run: RunFolder) -> list[dict[str, Any]]:
        """Return the metrics of a run, a line an epoch."""
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


def _refuse(run: RunFolder, split: str | None) -> Path:
    what = "" if split is None else f" of {split}"
    raise FgvcError(f"{run.path} has no evaluation{what} to compare: fgvc evaluate {run.path}.")
