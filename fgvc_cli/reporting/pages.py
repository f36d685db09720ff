"""Whole pages: of a run, of several, or of a study."""

from __future__ import annotations

import time
from collections.abc import Sequence

from markupsafe import Markup

from fgvc_cli._version import __version__
from fgvc_cli.reporting.page import Page, Section
from fgvc_cli.reporting.parts.comparison import comparison_section
from fgvc_cli.reporting.parts.result import result
from fgvc_cli.reporting.parts.study import study_lede, study_reproducing_section
from fgvc_cli.reporting.run_report import RunReport
from fgvc_cli.reporting.sections import glance_section, run_parts, run_section
from fgvc_cli.reporting.study_report import StudyReport, titles
from fgvc_cli.reporting.templating import fragment


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
