"""The whole of `fgvc report`: from runs to a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.display.progress import View
from fgvc_cli.registry import Registry
from fgvc_cli.reporting.pages import report_page
from fgvc_cli.reporting.places import page_file
from fgvc_cli.reporting.request import ReportRequest
from fgvc_cli.reporting.run_report import RunReport, report_run
from fgvc_cli.runs import files
from fgvc_cli.runs.folder import RunFolder


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        file: where it is.
        size: bytes.
        runs: what it reports of.
    """

    file: Path
    size: int
    runs: Sequence[RunReport]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing in it."""
        return not any(run.missing for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return its facts as JSON has them."""
        return {"page": str(self.file), "bytes": self.size, "runs": [run.as_json() for run in self.runs]}


def make_report(
    runs: Sequence[RunFolder], request: ReportRequest, registry: Registry, view: View, out: Path | None, force: bool
) -> Report:
    """Report of runs and write the page.

    Args:
        runs: finished ones, at least one.
        request: what is reported of each.
        registry: finds data sets and explainers.
        view: takes notes and progress.
        out: the file, or None; see `page_file`.
        force: whether `out` may exist.

    Raises:
        FgvcError: a run is damaged, what was asked for is not to be had, or the page cannot be written.
        UsageError: there is no such split, explainer or device, or `out` exists.
    """
    file = page_file(runs, out, force)
    reports = [report_run(run, request, registry, view) for run in runs]
    document = report_page(reports).html().encode(errors="replace")
    files.write_bytes(file, document)
    return Report(file, len(document), reports)
