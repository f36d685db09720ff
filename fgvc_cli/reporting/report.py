"""The whole of `fgvc report`: from runs to a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.comparing.collecting import collect
from fgvc_cli.display.progress import View
from fgvc_cli.registry import Registry
from fgvc_cli.reporting.pages import report_page, study_page
from fgvc_cli.reporting.places import page_file
from fgvc_cli.reporting.request import ReportRequest
from fgvc_cli.reporting.run_report import RunReport, report_run
from fgvc_cli.reporting.study_report import StudyReport, report_study
from fgvc_cli.runs import files
from fgvc_cli.runs.folder import find_run


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        file: where it is.
        size: bytes.
        runs: what it reports of.
        study: their comparison, if they are a study's.
    """

    file: Path
    size: int
    runs: Sequence[RunReport]
    study: StudyReport | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing in it."""
        ended = () if self.study is None else (*self.study.comparison.failed, *self.study.comparison.unfinished)
        return not ended and not any(run.missing for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return its facts as JSON has them."""
        study = {} if self.study is None else {"comparison": self.study.as_json()}
        return {"page": str(self.file), "bytes": self.size, **study, "runs": [run.as_json() for run in self.runs]}


def make_report(
    paths: Sequence[Path], request: ReportRequest, registry: Registry, view: View, out: Path | None, force: bool
) -> Report:
    """Report of runs and write the page.

    Args:
        paths: run folders, or studies for all of their runs; none: the newest finished run. One study alone gets the
            page of a study, with its runs compared.
        request: what is reported of each.
        registry: finds data sets and explainers.
        view: takes notes and progress.
        out: the file, or None; see `page_file`.
        force: whether `out` may exist.

    Raises:
        FgvcError: a run is damaged, what was asked for is not to be had, or the page cannot be written.
        UsageError: there is no such split, explainer or device, or `out` exists.
    """
    collected = collect(paths or [find_run(None).path])
    file = page_file(collected, out, force)
    reports = [report_run(run, request, registry, view) for run in collected.runs]
    is_compared = collected.study is not None and request.subject.is_own
    study = report_study(collected, request.subject.split, reports) if is_compared else None
    page = report_page(reports) if study is None else study_page(study)
    document = page.html().encode(errors="replace")
    files.write_bytes(file, document)
    return Report(file, len(document), reports if study is None else study.runs, study)
