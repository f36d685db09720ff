"""The section of a run: result, settings, details and how to reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fgvc_cli.experiments.compared_run import NO_OPTIMIZER
from fgvc_cli.formatting import duration_text, quoted
from fgvc_cli.report.artifacts import RunRecord
from fgvc_cli.report.detail_sections import (
    classes_section,
    confusion_section,
    curves_section,
    mistakes_section,
    occlusion_section,
    taxonomy_section,
)
from fgvc_cli.report.examples import IMAGES, ReportRequest
from fgvc_cli.report.page import NO_BREAK, Section, count_text, fragment, percent_text
from fgvc_cli.report.predictions import SplitScores, augmented_scores
from fgvc_cli.report.run_report import RunReport
from fgvc_cli.runs.results import TrainingSummary

Facts = list[tuple[str, str]]
VERSIONS = ("fgvc-cli", "torch", "timm", "python")
"""Packages whose version the summary shows; the last section lists all of them."""


def split_text(split: str) -> str:
    """Return a split's name as an adjective."""
    return {"test": "test", "val": "validation", "train": "training"}.get(split, f"“{split}”")


def result(report: RunReport) -> Markup:
    """Return the main result: a sentence and the figures."""
    scores = report.scores
    if scores is None:
        return fragment("result.html", scores=None, missing=report.missing)
    summary = scores.summary
    return fragment(
        "result.html",
        scores=scores,
        split=split_text(summary.split),
        images=summary.images_text,
        chance=report.record.summary.chance,
        statistics=_statistics(scores),
        untrained=not report.record.summary.epochs,
        missing=report.missing,
    )


def _statistics(scores: SplitScores) -> list[tuple[str, str, str]]:
    """Return name, value and remark of each figure."""
    summary = scores.summary
    present, classes = summary.classes_present, summary.classes
    return [
        ("top-1", percent_text(summary.top1), f"± {percent_text(scores.standard_error)}"),
        *([("top-5", percent_text(summary.top5), "")] if summary.top5 is not None else []),
        ("macro F1", percent_text(summary.macro.f1), "mean over classes"),
        ("weighted F1", percent_text(summary.weighted.f1), "mean over images"),
        ("calibration error", percent_text(summary.calibration_error), "15 bins"),
        ("images", count_text(summary.images), f"{present} of {classes} classes"),
        *(
            ("top-1", percent_text(augmented.top1), f"test-time augmentation: {', '.join(augmented.tta)}")
            for augmented in ([] if scores.folder is None else augmented_scores(scores.folder))
        ),
    ]


def summary_section(record: RunRecord, anchor: str) -> Section:
    """Return the tables of facts on data, model and training."""
    tables = [
        (title, [fact for fact in facts if fact[1]])
        for title, facts in (("Data and model", _data_and_model(record)), ("Training", _training(record)))
    ]
    return Section(f"{anchor}summary", "Summary", fragment("summary.html", tables=tables))


def _data_and_model(record: RunRecord) -> Facts:
    summary, preprocessing = record.summary, record.model["preprocessing"]
    splits = summary.splits
    parameters = {part: _amount(number) for part, number in summary.parameters.items()}
    return [
        ("dataset", record.dataset),
        ("path", str(record.setting("dataset", "data") or "")),
        ("classes", count_text(summary.classes)),
        ("images", ", ".join(f"{name} {count_text(split['images'])}" for name, split in splits.items())),
        ("splits", "; ".join(dict.fromkeys(split["origin"] for split in splits.values() if split["origin"]))),
        ("backbone", _component(summary.components["backbone"])),
        ("head", _component(summary.components["head"])),
        ("parameters", f"{parameters['backbone']} backbone + {parameters['head']} head = {parameters['total']}"),
        ("image size", f"{preprocessing['image_size']} px, cropped from {preprocessing['resize']} px"),
        ("weights", str(summary.weights)),
    ]


def _training(record: RunRecord) -> Facts:
    summary, batch = record.summary, record.setting("train", "batch_size")
    rate = summary.images_per_second
    return [
        ("optimizer", record.optimizer),
        ("options", "" if record.optimizer == NO_OPTIMIZER else _options(summary.components["optimizer"])),
        ("recipe", str(summary.recipe)),
        ("epochs", _epochs(summary)),
        ("batch size", str(batch or "")),
        ("time", duration_text(summary.seconds) + (f", {rate:.0f} images/s" if rate else "")),
        ("device", f"{summary.device}, {summary.precision}"),
        ("processes", str(summary.processes) if summary.processes > 1 else ""),
        ("seed", str(summary.seed)),
        ("versions", ", ".join(f"{name} {v}" for name in VERSIONS if (v := summary.versions.get(name)))),
    ]


def _component(component: dict[str, Any]) -> str:
    """Return a component's name, with its distribution unless it is a built-in."""
    own = component["distribution"] == "fgvc-cli"
    return component["name"] if own else f"{component['name']} ({component['distribution']} {component['version']})"


def _options(component: dict[str, Any]) -> str:
    """Return the options of an optimizer and its base that are set."""
    options = {**component["options"], **component.get("base", {}).get("options", {})}
    texts = {True: "yes", False: "no"}
    return ", ".join(
        f"{name} {texts.get(value, value) if isinstance(value, bool) else value}"
        for name, value in options.items()
        if value not in ("none", "", None)
    )


def _epochs(summary: TrainingSummary) -> str:
    if not summary.epochs:
        return "none: weights loaded from a file"
    early = ", stopped early" if summary.stopped_early else ""
    return f"{summary.epochs}{early}; best: {summary.best_epoch or 'the start, before epoch 1'}"


def _amount(parameters: int) -> str:
    """Format a number of parameters with three digits."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= factor:
            return f"{parameters / factor:.3g}{NO_BREAK}{unit}"
    return str(parameters)


def reproducing_section(report: RunReport, anchor: str) -> Section:
    """Return the commands, `config.toml` and the versions."""
    summary = report.record.summary
    versions = {component["distribution"]: component["version"] for component in summary.components.values()}
    body = fragment(
        "reproducing.html",
        commands=commands(report),
        file="config.toml",
        text=report.record.config,
        versions={**versions, **summary.versions},
    )
    return Section(f"{anchor}reproduce", "How to reproduce it", body)


def commands(report: RunReport) -> list[tuple[str, str]]:
    """Return purposes and commands to reproduce the run and the report."""
    record, request = report.record, report.request
    run = quoted(str(record.run.path))
    explainer = _setting_options("explainer", request.settings)
    if request.explainer is not None:
        explainer = [f"--explainer {shlex.quote(request.explainer)}", *explainer]
    images = [] if request.images == IMAGES else [f"--images {request.images}"]
    found = []
    if record.config:
        found.append(("train", ["fgvc train --config", quoted(str(record.run.config_file))]))
    found.append(("evaluate", ["fgvc evaluate", run, *_split_options(request)]))
    if report.image_files:
        image = quoted(str(next(iter(report.image_files.values()))))
        found.append(("explain an image", ["fgvc explain", image, f"--run {run} --occlude --steps 3", *explainer]))
    found.append(("report", ["fgvc report", run, *_split_options(request), *explainer, *images]))
    return [(purpose, " ".join(words)) for purpose, words in found]


def _split_options(request: ReportRequest) -> list[str]:
    """Return the command-line options that select the images."""
    wanted = request.split
    return [
        *([] if wanted.split is None else [f"--split {shlex.quote(wanted.split)}"]),
        *([] if wanted.data is None else [f"--data {quoted(str(wanted.data))}"]),
        *([] if wanted.dataset is None else [f"--dataset {shlex.quote(wanted.dataset)}"]),
        *_setting_options("dataset", wanted.options),
        *(["--ignore-unknown"] if wanted.ignore_unknown else []),
    ]


def _setting_options(kind: str, settings: Mapping[str, Any]) -> list[str]:
    """Return options of a component as `--set` takes them."""
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}
    return [f"--set {shlex.quote(f'{kind}.{name}={text}')}" for name, text in texts.items()]


def run_parts(report: RunReport, anchor: str = "") -> list[Section]:
    """Return the sections of a run for which there is data; `anchor` is a prefix of their anchors."""
    parts = [summary_section(report.record, anchor), curves_section(report.record, anchor)]
    if report.scores is not None:
        parts.append(classes_section(report.scores, anchor))
        if report.scores.summary.taxonomy is not None:
            parts.append(taxonomy_section(report.scores.summary.taxonomy, anchor))
        if report.scores.predictions:
            parts.append(confusion_section(report.scores, anchor))
    if report.examples is not None:
        parts += [mistakes_section(report.examples, anchor), occlusion_section(report.examples, anchor)]
    return [*parts, reproducing_section(report, anchor)]


def run_section(report: RunReport, number: int, title: str | None = None) -> Section:
    """Return run `number` of the page as one collapsed section; default title: the name of its folder."""
    subtitle = ""
    if report.scores is not None:
        summary = report.scores.summary
        subtitle = f"{summary.split} top-1 {percent_text(summary.top1)}"
    name = report.record.run.name if title is None else title
    parts = run_parts(report, f"run-{number}-")
    return Section(f"run-{number}", f"{number}. {name}", result(report), parts, folded=True, subtitle=subtitle)


def overview_section(reports: Sequence[RunReport]) -> Section:
    """Return a table with a line for each run, linked to its section."""
    rows = [(f"run-{number}", report) for number, report in enumerate(reports, 1)]
    images = {report.scores.summary.images_text for report in reports if report.scores is not None}
    return Section("runs", "Overview", fragment("overview.html", rows=rows, several=len(images) > 1))
