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
from fgvc_cli.experiments.compared_run import Collected, collect
from fgvc_cli.files import check_writable
from fgvc_cli.registry import Registry
from fgvc_cli.report.examples import ReportRequest
from fgvc_cli.report.page import Page, Section
from fgvc_cli.report.run_report import RunReport, StudyReport, report_run, report_study, titles
from fgvc_cli.report.run_sections import glance_section, result, run_parts, run_section
from fgvc_cli.report.study_sections import comparison_section, study_lede, study_reproducing_section
from fgvc_cli.report.templating import fragment
from fgvc_cli.runs.folder import REPORT_FILE, find_run


def page_file(collected: Collected, out: Path | None, force: bool) -> Path:
    """Return the file of a page, after finding out that it can be written.

    Args:
        collected: what it reports of.
        out: what `--out` names; None: `report.html` in the folder of the run or the study, where a new page takes the
            place of the one before, or a new file in the current folder for several runs.
        force: whether `out` may exist.

    Raises:
        UsageError: `out` exists, without `force`, or is a folder.
        FgvcError: the folder cannot be written.
    """
    home = collected.study or (collected.runs[0].path if len(collected.runs) == 1 else None)
    file = out or (_new_file() if home is None else home / REPORT_FILE)
    if file.is_dir():
        raise UsageError(f"--out {file} is a folder: name a file, such as {file / REPORT_FILE}.")
    if file.exists() and not file.is_file():  # a device or a pipe, which the page would take the place of
        raise UsageError(f"--out {file} is no ordinary file: choose another one.")
    if out is not None and out.exists() and not force:
        raise UsageError(f"--out {out} exists: choose another file, or replace it with --force.")
    check_writable(file.parent, "The page")
    return file


def _new_file() -> Path:
    stem = f"report-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [f"{stem}.html", *(f"{stem}-{number}.html" for number in range(2, 1000))]
    return next(path for name in names if not (path := Path(name)).exists())


def report_page(reports: Sequence[RunReport]) -> Page:
    """Return the page of a run, or of several: a section each, below a table of all.

    Args:
        reports: at least one.
    """
    if len(reports) == 1:
        report = reports[0]
        return made_page(report.recorded.title, f"Run {report.recorded.run.name}", result(report), run_parts(report))
    sections = [glance_section(reports), *(run_section(report, n) for n, report in enumerate(reports, 1))]
    data = " and ".join(sorted({report.recorded.dataset for report in reports}))
    return made_page(f"{len(reports)} runs on {data}", "Runs side by side", fragment("several_lede.html"), sections)


def study_page(report: StudyReport) -> Page:
    """Return the page of a study: its combinations compared, then a section for each run."""
    places = range(len(report.comparison.sections))
    named = {path: title for section in report.comparison.sections for path, title in titles(section).items()}
    runs = [run_section(run, n, named[run.recorded.run.path]) for n, run in enumerate(report.runs, 1)]
    sections = [
        *(comparison_section(report, place) for place in places),
        Section("runs", "The runs", fragment("study_runs.html"), runs),
        study_reproducing_section(report),
    ]
    data = " and ".join(sorted({run.recorded.dataset for run in report.runs}))
    return made_page(f"A study on {data}", f"Study {report.name}", study_lede(report), sections)


def made_page(title: str, kicker: str, lede: Markup, sections: Sequence[Section]) -> Page:
    """Return a page that says when and by what it was made.

    Args:
        title: the heading of the page.
        kicker: a line above it.
        lede: what came out, below it.
        sections: what follows.
    """
    made = f"Made by fgvc {__version__} on {time.strftime('%Y-%m-%d')} at {time.strftime('%H:%M')}."
    return Page(title, kicker, lede, sections, f"{made} This page is one file: it loads nothing, and asks for nothing.")


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
    paths: Sequence[Path], request: ReportRequest, registry: Registry, out: Path | None, force: bool
) -> Report:
    """Report of runs and write the page.

    Args:
        paths: run folders, or studies for all of their runs; none: the newest finished run. One study alone gets the
            page of a study, with its runs compared.
        request: what is reported of each.
        registry: finds datasets and explainers.
        out: the file, or None; see `page_file`.
        force: whether `out` may exist.

    Raises:
        FgvcError: a run is damaged, what was asked for is not to be had, or the page cannot be written.
        UsageError: there is no such split, explainer or device, or `out` exists.
    """
    collected = collect(paths or [find_run(None).path])
    file = page_file(collected, out, force)
    reports = [report_run(run, request, registry) for run in collected.runs]
    is_compared = collected.study is not None and request.subject.is_own
    study = report_study(collected, request.subject.split, reports) if is_compared else None
    page = report_page(reports) if study is None else study_page(study)
    document = page.html().encode(errors="replace")
    files.write_bytes(file, document)
    return Report(file, len(document), reports if study is None else study.runs, study)
