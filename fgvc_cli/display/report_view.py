"""What a person is told of a report page that was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgvc_cli.display.console import out, warn
from fgvc_cli.display.evaluation_tables import percent, quoted
from fgvc_cli.sizes import bytes_text

if TYPE_CHECKING:
    from fgvc_cli.reporting.report import Report
    from fgvc_cli.reporting.run_report import RunReport


def show_report(report: Report) -> None:
    """Print what came out of each run, what is missing, where the page is, and what to try next."""
    for run in report.runs:
        for sentence in run.missing:
            warn(f"{run.recorded.run.name}: {sentence}" if len(report.runs) > 1 else sentence)
    for line in closing_lines(report):
        out().print(line, soft_wrap=True)


def closing_lines(report: Report) -> list[str]:
    """Return the figures, the file, and the commands most people would want next."""
    page = quoted(str(report.file))
    lines = [_outcome(run) for run in report.runs] if report.study is None else []
    lines.append(f"page: {page} ({bytes_text(report.size)}), to be opened in any browser")
    run = report.runs[0]
    path = quoted(str(run.recorded.run.path))
    commands = []
    if run.files:
        image = quoted(str(next(iter(run.files.values()))))
        commands.append(f"fgvc explain {image} --run {path} --occlude --steps 3")
    if run.scored is not None:
        commands.append(f"fgvc evaluate {path} --split {run.scored.summary['split']} --per-class")
    return lines + [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]


def _outcome(run: RunReport) -> str:
    name, scored = run.recorded.run.name, run.scored
    if scored is None:
        return f"{name}: no split is scored"
    summary = scored.summary
    error = percent(scored.standard_error)
    return f"{name}: {summary['split']} top-1 {percent(summary['top1'])} ± {error}, {summary['images']} images"
