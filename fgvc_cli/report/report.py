"""Write the HTML report of runs or of a study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.compare import RunSelection, select_runs
from fgvc_cli.files import check_writable
from fgvc_cli.registry import Registry
from fgvc_cli.report.examples import ReportRequest
from fgvc_cli.report.page import Page, Section
from fgvc_cli.report.run_report import RunReport, StudyReport, report_run, report_study
from fgvc_cli.report.run_sections import overview_section, result, run_parts, run_section
from fgvc_cli.report.study_sections import comparison_section, study_lede, study_reproducing_section
from fgvc_cli.runs.folder import REPORT_FILE, find_run


@dataclass(frozen=True)
class Report:
    """A report that was written: the HTML file and its size in bytes, its runs, and the study that it is of, if any."""

    file: Path
    size: int
    runs: Sequence[RunReport]
    study: StudyReport | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no run and no part of a run is missing."""
        ended = () if self.study is None else (*self.study.comparison.failed, *self.study.comparison.unfinished)
        return not ended and not any(run.missing for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; docs/report-page.md lists its keys."""
        study = {} if self.study is None else {"comparison": self.study.comparison.as_json()}
        return {"page": str(self.file), "bytes": self.size, **study, "runs": [run.as_json() for run in self.runs]}


def write_report(
    paths: Sequence[Path], request: ReportRequest, registry: Registry, out: Path | None = None, force: bool = False
) -> Report:
    """Write the report of runs (default: the newest finished one); one study alone gets a comparison of its runs.

    Raises:
        FgvcError: a run is damaged, a requested dataset is not available, or the file cannot be written.
        UsageError: there is no such split, explainer or device, or `out` exists.
    """
    selection = select_runs(paths or [find_run(None).path])
    file = report_file(selection, out, force)
    reports: Sequence[RunReport] = [report_run(run, request, registry) for run in selection.runs]
    study = None
    if selection.study is not None and request.split.is_own:
        study = report_study(selection, request.split.split, reports)
        reports = study.runs
    page = runs_page(reports) if study is None else study_page(study)
    document = page.html().encode(errors="replace")
    files.write_bytes(file, document)
    return Report(file, len(document), reports, study)


def report_file(selection: RunSelection, out: Path | None, force: bool) -> Path:
    """Return the file of a report, after checking that it can be written.

    Args:
        selection: runs of the report.
        out: None: `report.html` in the folder of the run or the study, replacing an existing one; for several runs a
            new file in the current folder.
        force: whether `out` may exist.

    Raises:
        UsageError: `out` is not a regular file, or exists without `force`.
        FgvcError: the folder is not writable.
    """
    if out is not None:
        file = out
    elif selection.study is not None:
        file = selection.study.path / REPORT_FILE
    elif len(selection.runs) == 1:
        file = selection.runs[0].path / REPORT_FILE
    else:
        stem = f"report-{time.strftime('%Y%m%d-%H%M%S')}"
        names = [f"{stem}.html", *(f"{stem}-{number}.html" for number in range(2, 1000))]
        file = next(path for name in names if not (path := Path(name)).exists())
    if file.is_dir():
        raise UsageError(f"`out={file}` is a folder; name a file, such as {file / REPORT_FILE}")
    if file.exists() and not file.is_file():  # a device or a pipe, which the file would replace
        raise UsageError(f"`out={file}` is not a regular file; choose another one")
    if out is not None and out.exists() and not force:
        raise UsageError(f"`out={out}` exists; choose another file, or replace it with `force`")
    check_writable(file.parent, "The report")
    return file


def runs_page(reports: Sequence[RunReport]) -> Page:
    """Return the page of a run; for several runs, a table and a section for each."""
    if len(reports) == 1:
        report = reports[0]
        return _page(report.record.title, f"Run {report.record.run.name}", result(report), run_parts(report))
    sections = [overview_section(reports), *(run_section(report, n) for n, report in enumerate(reports, 1))]
    datasets = " and ".join(sorted({report.record.dataset for report in reports}))
    lede = Markup('<p class="lede">Expand a run below the table for its details.</p>')
    return _page(f"{len(reports)} runs on {datasets}", "Several runs", lede, sections)


def study_page(report: StudyReport) -> Page:
    """Return the page of a study: its combinations compared, then a section for each run."""
    tables = report.comparison.tables
    titles = {
        run.run.path: f"{row.title}, seed {run.seed}" for table in tables for row in table.rows for run in row.runs
    }
    runs = [run_section(run, n, titles[run.record.run.path]) for n, run in enumerate(report.runs, 1)]
    sections = [
        *(comparison_section(report, index) for index in range(len(tables))),
        Section("runs", "Runs", Markup("<p>Expand a run for its details.</p>"), runs),
        study_reproducing_section(report),
    ]
    datasets = " and ".join(sorted({run.record.dataset for run in report.runs}))
    return _page(f"Study on {datasets}", f"Study {report.name}", study_lede(report), sections)


def _page(title: str, kicker: str, lede: Markup, sections: Sequence[Section]) -> Page:
    footer = f"Generated by fgvc {__version__} on {time.strftime('%Y-%m-%d %H:%M')}. This file is self-contained."
    return Page(title, kicker, lede, sections, footer)
