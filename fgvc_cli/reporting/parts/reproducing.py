"""How to do the run again: commands, configuration and versions."""

from __future__ import annotations

import shlex

from fgvc_cli.display.evaluation_tables import quoted
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.request import IMAGES, ReportRequest
from fgvc_cli.reporting.run_report import RunReport
from fgvc_cli.reporting.templating import fragment


def reproducing_section(report: RunReport, anchor: str) -> Section:
    """Return the commands, `config.toml` and the versions."""
    recorded = report.recorded
    components = recorded.summary["components"].values()
    versions = {component["distribution"]: component["version"] for component in components}
    body = fragment(
        "reproducing.html",
        commands=commands(report),
        config=recorded.config,
        versions={**versions, **recorded.summary["versions"]},
    )
    return Section(f"{anchor}reproduce", "How to reproduce it", body)


def commands(report: RunReport) -> list[tuple[str, str]]:
    """Return what can be done again, and the command that does it."""
    recorded, request = report.recorded, report.request
    run = quoted(str(recorded.run.path))
    found = []
    if recorded.config:
        found.append(("train it again", f"fgvc train --config {quoted(str(recorded.run.config_file))}"))
    found.append(("score it again", " ".join(["fgvc evaluate", run, *_subject(request)])))
    if report.files and report.examples is not None:
        image, options = quoted(str(next(iter(report.files.values())))), " ".join(_explainer(request))
        found.append(
            ("look longer at an image", f"fgvc explain {image} --run {run} --occlude --steps 3 {options}".rstrip())
        )
    images = [] if request.images == IMAGES else [f"--images {request.images}"]
    found.append(
        ("make this page again", " ".join(["fgvc report", run, *_subject(request), *_explainer(request), *images]))
    )
    return found


def _subject(request: ReportRequest) -> list[str]:
    """Return the options that say which images were asked for."""
    subject = request.subject
    return [
        *([] if subject.split is None else [f"--split {shlex.quote(subject.split)}"]),
        *([] if subject.data is None else [f"--data {quoted(str(subject.data))}"]),
        *([] if subject.dataset is None else [f"--dataset {shlex.quote(subject.dataset)}"]),
        *_settings("dataset", subject.options),
        *(["--ignore-unknown"] if subject.ignore_unknown else []),
    ]


def _explainer(request: ReportRequest) -> list[str]:
    named = [] if request.explainer is None else [f"--explainer {shlex.quote(request.explainer)}"]
    return [*named, *_settings("explainer", request.settings)]


def _settings(kind: str, settings: object) -> list[str]:
    """Return options of a component as `--set` takes them."""
    assert isinstance(settings, dict)
    return [f"--set {shlex.quote(f'{kind}.{name}={_toml(value)}')}" for name, value in settings.items()]


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
