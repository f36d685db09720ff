"""What came out of a study, and how to do it again."""

from __future__ import annotations

from markupsafe import Markup

from fgvc_cli.display.comparison_figures import share_text
from fgvc_cli.display.evaluation_tables import quoted
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.parts.result import NAMES
from fgvc_cli.reporting.study_report import StudyReport
from fgvc_cli.reporting.templating import fragment, unbroken
from fgvc_cli.studies.places import STUDY_FILE


def study_lede(report: StudyReport) -> Markup:
    """Return which combination is ahead, whether clearly, and what is missing."""
    first = report.comparison.sections[0]
    behind = [first.behind(place) for place in range(1, len(first.rows))]
    split = str(first.evaluation["split"])
    return fragment(
        "study_lede.html",
        best=first.rows[0].title,
        top1=unbroken(share_text(first.rows[0].top1)),
        images=first.evaluation["images"],
        split=NAMES.get(split, f"“{split}”"),
        lone=len(first.rows) == 1,
        others=len(behind),
        alike=sum(difference is not None and not difference.clear for difference in behind),
        combinations=sum(len(section.rows) for section in report.comparison.sections),
        runs=len(report.runs),
        sections=len(report.comparison.sections),
        missing=missing(report),
    )


def missing(report: StudyReport) -> list[str]:
    """Return what the study has not, and what the sections of its runs lack, a sentence each."""
    failed = [
        f"{each.backbone} + {each.head} + {each.optimizer}, seed {each.seed}, failed: {each.reason}"
        for each in report.comparison.failed
    ]
    unfinished = [f"{name} is not finished." for name in report.comparison.unfinished]
    lacking = [f"{run.recorded.run.name}: {sentence}" for run in report.runs for sentence in run.missing]
    return [*failed, *unfinished, *lacking]


def study_reproducing_section(report: StudyReport) -> Section:
    """Return the commands and `study.toml`."""
    folder = quoted(str(report.folder))
    commands = [
        ("train it again", f"fgvc sweep --config {quoted(str(report.folder / STUDY_FILE))}"),
        ("go on with it, after adding cells or seeds to its file", f"fgvc sweep --resume {folder}"),
        ("compare its runs again", f"fgvc compare {folder}"),
        ("make this page again", f"fgvc report {folder}"),
    ]
    body = fragment("study_reproducing.html", commands=commands, text=report.text)
    return Section("reproduce", "How to reproduce it", body)
