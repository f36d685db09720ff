"""What a run folder records, its classifier and its images."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.split_selection import SelectedSplit, results_folder, select_split
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainer
from fgvc_cli.registry import Registry
from fgvc_cli.report.examples import DEFAULT_EXPLAINER, ReportRequest
from fgvc_cli.report.predictions import Scored, evaluate, read_scored
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary
from fgvc_cli.scoring.model import ReadyClassifier, load
from fgvc_cli.scoring.results import EvaluationSummary


@dataclass(frozen=True)
class Recorded:
    """A finished run, as its folder describes it.

    Attributes:
        run: the folder.
        summary: `summary.json`.
        epochs: `metrics.jsonl`, a line an epoch; none after `--epochs 0`.
        config: the text of `config.toml`; empty where there is none.
        model: what the model file says of itself: classes, preprocessing, components.
    """

    run: Run
    summary: TrainingSummary
    epochs: list[EpochMetrics]
    config: str
    model: dict[str, Any]

    @cached_property
    def _settings(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.config)
        except tomllib.TOMLDecodeError:
            return {}

    def setting(self, section: str, name: str) -> Any:
        """Return what `config.toml` says, or None: a damaged one says nothing, and the page shows it as it is."""
        table = self._settings.get(section)
        return table.get(name) if isinstance(table, dict) else None

    @property
    def title(self) -> str:
        """The combination that was trained, and on what."""
        names = {kind: str(component["name"]) for kind, component in self.summary.components.items()}
        return f"{names['backbone']} + {names['head']} on {self.dataset}"

    @property
    def dataset(self) -> str:
        """The dataset's name: of one that a person made, the folder's or file's that it is made from."""
        data = self.setting("dataset", "data")
        return Path(data).name if isinstance(data, str) else str(self.summary.dataset["name"])

    @property
    def optimizer(self) -> str:
        """The optimizer, and what it is built over: "sam over sgd"."""
        component = self.summary.components["optimizer"]
        base = component.get("base")
        return f"{component['name']} over {base['name']}" if base else str(component["name"])


def read_recorded(run: Run) -> Recorded:
    """Read what a finished run says of itself.

    Raises:
        FgvcError: one of its files is damaged.
    """
    config = run.config_file.read_text(encoding="utf-8", errors="replace") if run.config_file.is_file() else ""
    return Recorded(run, run.summary, run.metrics, config, read_metadata(run.model_file))


@dataclass
class RunArtifacts:
    """What a report of a run is made from. Each part is made when it is first asked for.

    Attributes:
        recorded: the run.
        request: what is wanted of it.
        registry: finds datasets and explainers.
        missing: why parts are not to be had, a sentence each.
    """

    recorded: Recorded
    request: ReportRequest
    registry: Registry

    def __post_init__(self) -> None:
        self.missing: list[str] = []

    @cached_property
    def subject(self) -> SelectedSplit | None:
        """The images, or None if the run's own dataset is not to be had any more.

        Raises:
            FgvcError: another dataset was asked for, and it is not to be had.
            UsageError: there is no such split.
        """
        recorded, wanted = self.recorded, self.request.subject
        try:
            return select_split(wanted, recorded.run.path, recorded.model["classes"], self.registry)
        except FgvcError as error:
            is_mistake = isinstance(error, UsageError) and wanted.split is not None
            if not wanted.is_own or wanted.options or (is_mistake and self._kept_without_images() is None):
                raise
            self.missing.append(f"The images are not to be had ({_sentence(error)}).")
            return None

    @cached_property
    def ready(self) -> ReadyClassifier | None:
        """The classifier on its device, or None if it cannot be loaded here, as where a plugin is missing.

        Raises:
            UsageError: there is no such device.
        """
        try:
            return load(self.recorded.run.model_file, self.request.computing)
        except UsageError:
            raise
        except FgvcError as error:
            self.missing.append(f"The classifier cannot be loaded ({_sentence(error)}).")
            return None

    @cached_property
    def explainer(self) -> NamedExplainer | None:
        """What draws the heat maps, or None if the usual one cannot explain the run.

        Raises:
            UsageError: the one that was asked for does not exist, or cannot.
        """
        if self.ready is None:
            return None
        explainer = make_explainer(self.request.explainer or DEFAULT_EXPLAINER, self.request.settings, self.registry)
        try:
            explainer.check(self.ready.classifier)
        except UsageError as error:
            if self.request.explainer is not None:
                raise
            self.missing.append(f"There are no heat maps ({_sentence(error)}).")
            return None
        return explainer

    @property
    def explaining(self) -> ReadyClassifier | None:
        """The classifier as it is explained: in fp32 unless another precision was asked for, as gradients like it."""
        if self.ready is None or self.request.computing.precision != "auto":
            return self.ready
        return replace(self.ready, precision="fp32")

    def scored(self) -> Scored | None:
        """Return the figures of the split: those that the run has kept, or new ones; None if neither can be had.

        Raises:
            FgvcError: what is kept is damaged, or belongs to other images of the same name; no image can be read.
        """
        if self.subject is None:
            return self._kept_without_images() or self._summarized()
        folder = results_folder(self.recorded.run.path, self.subject, None, False)
        kept = read_scored(folder)
        if kept is not None or self.ready is None:
            return kept or self._summarized()
        return evaluate(self.ready, self.subject, folder)

    def _kept_without_images(self) -> Scored | None:
        """Return what was kept of the split that is meant, or of the run's own in the order they are preferred in."""
        wanted = self.request.subject.split
        splits = [wanted] if wanted else ["test", "val"]
        found = (read_scored(self.recorded.run.evaluation(split)) for split in splits)
        return next((scored for scored in found if scored is not None), None)

    def _summarized(self) -> Scored | None:
        """Return the figures of the test split that the run's own summary has."""
        summary = self.recorded.summary
        if self.request.subject.split not in (None, "test") or not self.request.subject.is_own or summary.test is None:
            return None
        self.missing.append("What was predicted for each image is not kept: there is no confusion matrix.")
        metrics = {f.name: getattr(summary.test, f.name) for f in fields(summary.test)}
        dataset = {"name": self.recorded.dataset, "data": summary.dataset.get("folder")}
        origin = summary.splits.get("test", {}).get("origin", "")
        return Scored(EvaluationSummary(**metrics, dataset=dataset, split="test", origin=origin))


def _sentence(error: FgvcError) -> str:
    return str(error).rstrip(". ")
