"""The sections of a run: result, settings and how to reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fgvc_cli.formatting import duration_text, quoted
from fgvc_cli.report.artifacts import Recorded
from fgvc_cli.report.detail_sections import (
    classes_section,
    confusion_section,
    curves_section,
    mistakes_section,
    occlusion_section,
)
from fgvc_cli.report.examples import IMAGES, ReportRequest
from fgvc_cli.report.page import Section
from fgvc_cli.report.predictions import Scored
from fgvc_cli.report.run_report import RunReport
from fgvc_cli.report.templating import NO_BREAK, count, fragment, share
from fgvc_cli.runs.results import TrainingSummary

NAMES = {"test": "test", "val": "validation", "train": "training"}
"""What a split is called in a sentence."""


@dataclass(frozen=True)
class Statistic:
    """A figure that is shown large.

    Attributes:
        name: of what.
        value: the figure.
        more: what to know beside it.
    """

    name: str
    value: str
    more: str = ""


def result(report: RunReport) -> Markup:
    """Return the sentence and the figures; of a run without any, that it has none."""
    scored = report.scored
    if scored is None:
        return fragment("result.html", scored=None, missing=report.missing)
    summary = scored.summary
    return fragment(
        "result.html",
        scored=scored,
        split=NAMES.get(summary.split, f"“{summary.split}”"),
        images=summary.images_text,
        chance=report.recorded.summary.chance,
        statistics=_statistics(scored),
        untrained=not report.recorded.summary.epochs,
        missing=report.missing,
    )


def _statistics(scored: Scored) -> list[Statistic]:
    summary = scored.summary
    macro, weighted = summary.macro, summary.weighted
    present, classes = summary.classes_present, summary.classes
    shown = [
        Statistic("top-1", share(summary.top1), f"± {share(scored.standard_error)}"),
        Statistic("top-5", share(summary.top5)) if summary.top5 is not None else None,
        Statistic("macro F1", share(macro.f1), "classes weigh alike"),
        Statistic("weighted F1", share(weighted.f1), "images weigh alike"),
        Statistic("calibration error", share(summary.calibration_error), "15 bins"),
        Statistic("images", count(summary.images), f"{present} of {classes} classes"),
    ]
    return [statistic for statistic in shown if statistic is not None]


Facts = list[tuple[str, str]]
VERSIONED = ("fgvc-cli", "torch", "timm", "python")
"""Of what the summary names the version; all of them stand where it is said how to do the run again."""


def summary_section(recorded: Recorded, anchor: str) -> Section:
    """Return the tables of facts."""
    tables = [("Data and model", _data_and_model(recorded)), ("Training", _training(recorded))]
    return Section(f"{anchor}summary", "Summary", fragment("summary.html", tables=tables))


def _data_and_model(recorded: Recorded) -> Facts:
    summary, preprocessing = recorded.summary, recorded.model["preprocessing"]
    splits = summary.splits
    origins = dict.fromkeys(split["origin"] for split in splits.values() if split["origin"])
    parameters = summary.parameters
    facts = [
        ("dataset", recorded.dataset),
        ("where", str(recorded.setting("dataset", "data") or "")),
        ("classes", count(summary.classes)),
        ("images", ", ".join(f"{name} {count(split['images'])}" for name, split in splits.items())),
        ("splits", "; ".join(origins)),
        ("backbone", _component(summary.components["backbone"])),
        ("head", _component(summary.components["head"])),
        (
            "parameters",
            f"{_amount(parameters['backbone'])} backbone + {_amount(parameters['head'])} head = "
            f"{_amount(parameters['total'])}",
        ),
        ("image size", f"{preprocessing['image_size']} px, from {preprocessing['resize']} px"),
        ("weights", str(summary.weights)),
    ]
    return [fact for fact in facts if fact[1]]


def _training(recorded: Recorded) -> Facts:
    summary, batch = recorded.summary, recorded.setting("train", "batch_size")
    rate = summary.images_per_second
    facts = [
        ("optimizer", recorded.optimizer),
        ("options", _options(summary.components["optimizer"])),
        ("recipe", str(summary.recipe)),
        ("epochs", _epochs(summary)),
        ("batch", f"{batch} images" if batch else ""),
        ("time", duration_text(summary.seconds) + (f", {rate:.0f} images/s" if rate else "")),
        ("device", f"{summary.device}, {summary.precision}"),
        ("processes", str(summary.processes) if summary.processes > 1 else ""),
        ("seed", str(summary.seed)),
        ("versions", ", ".join(f"{name} {v}" for name in VERSIONED if (v := summary.versions.get(name)))),
    ]
    return [fact for fact in facts if fact[1]]


def _component(component: dict[str, Any]) -> str:
    """Name a component, and what it is of where that is not this program."""
    own = component["distribution"] == "fgvc-cli"
    return component["name"] if own else f"{component['name']} ({component['distribution']} {component['version']})"


def _options(component: dict[str, Any]) -> str:
    """Return the options that are set, those of what an optimizer is built over with them."""
    options = {**component["options"], **component.get("base", {}).get("options", {})}
    return ", ".join(f"{name} {_value(value)}" for name, value in options.items() if value not in ("none", "", None))


def _value(value: object) -> str:
    return "yes" if value is True else "no" if value is False else str(value)


def _epochs(summary: TrainingSummary) -> str:
    if not summary.epochs:
        return "none: weights as they came from a file"
    early = ", stopped early" if summary.stopped_early else ""
    return f"{summary.epochs}{early}; best: {summary.best_epoch}"


def _amount(parameters: int) -> str:
    """Write a number of parameters with three digits or so."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= factor:
            return f"{parameters / factor:.3g}{NO_BREAK}{unit}"
    return str(parameters)


def reproducing_section(report: RunReport, anchor: str) -> Section:
    """Return the commands, `config.toml` and the versions."""
    recorded = report.recorded
    components = recorded.summary.components.values()
    versions = {component["distribution"]: component["version"] for component in components}
    body = fragment(
        "reproducing.html",
        commands=commands(report),
        config=recorded.config,
        versions={**versions, **recorded.summary.versions},
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
    said = "" if scored is None else f"{scored.summary.split} top-1 {share(scored.summary.top1)}"
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
    scored_on = {report.scored.summary.images_text for report in reports if report.scored is not None}
    return Section("runs", "The runs at a glance", fragment("glance.html", rows=rows, several=len(scored_on) > 1))
