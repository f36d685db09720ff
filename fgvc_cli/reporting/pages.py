"""Whole pages: of a run, or of several."""

from __future__ import annotations

import time
from collections.abc import Sequence

from markupsafe import Markup

from fgvc_cli._version import __version__
from fgvc_cli.reporting.page import Page, Section
from fgvc_cli.reporting.parts.result import result
from fgvc_cli.reporting.run_report import RunReport
from fgvc_cli.reporting.sections import glance_section, run_parts, run_section
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
