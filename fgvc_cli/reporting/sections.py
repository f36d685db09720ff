"""A run as a section of the page, and the head of a page on one run or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgvc_cli.display.evaluation_tables import images_text
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.parts.classes import classes_section
from fgvc_cli.reporting.parts.confusion import confusion_section
from fgvc_cli.reporting.parts.curves import curves_section
from fgvc_cli.reporting.parts.images import mistakes_section, occlusion_section
from fgvc_cli.reporting.parts.reproducing import reproducing_section
from fgvc_cli.reporting.parts.result import result
from fgvc_cli.reporting.parts.summary import summary_section
from fgvc_cli.reporting.run_report import RunReport
from fgvc_cli.reporting.templating import fragment, share


def run_parts(report: RunReport, anchor: str = "") -> list[Section]:
    """Return the sections on a run, as far as it has what they need.

    Args:
        report: what was gathered of it.
        anchor: what their anchors begin with; different for each run of a page.
    """
    parts = [summary_section(report.recorded, anchor), curves_section(report.recorded, anchor)]
    if report.scored is not None:
        parts.append(classes_section(report.scored, anchor))
        if report.scored.predictions:
            parts.append(confusion_section(report.scored, anchor))
    if report.examples is not None:
        parts += [mistakes_section(report.examples, anchor), occlusion_section(report.examples, anchor)]
    return [*parts, reproducing_section(report, anchor)]


def run_section(report: RunReport, number: int, title: str | None = None, folded: bool = True) -> Section:
    """Return a run as one section, its parts below headings of their own.

    Args:
        report: what was gathered of it.
        number: of the run in the page, from 1.
        title: what to call it; None: as its folder is called.
        folded: whether only heading and accuracy are to be seen until a reader opens it.
    """
    scored = report.scored
    said = "" if scored is None else f"{scored.summary['split']} top-1 {share(scored.summary['top1'])}"
    parts = run_parts(report, f"run-{number}-")
    name = report.recorded.run.name if title is None else title
    return Section(f"run-{number}", f"{number}. {name}", result(report), parts, folded, said)


@dataclass(frozen=True)
class _Row:
    """A run at a glance."""

    anchor: str
    report: RunReport


def glance_section(reports: Sequence[RunReport]) -> Section:
    """Return a table with a line a run that leads to its section."""
    rows = [_Row(f"run-{number}", report) for number, report in enumerate(reports, 1)]
    scored_on = {images_text(report.scored.summary) for report in reports if report.scored is not None}
    return Section("runs", "The runs at a glance", fragment("glance.html", rows=rows, several=len(scored_on) > 1))
