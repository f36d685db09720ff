"""The contents of a report of a run: its records, its classifier and its images."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fgvc_cli.config.renamed import current_document
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.split_selection import SelectedSplit, results_folder, select_split
from fgvc_cli.experiments.compared_run import optimizer_title
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainer
from fgvc_cli.registry import Registry
from fgvc_cli.report.examples import DEFAULT_EXPLAINER, Examples, ReportRequest, make_examples
from fgvc_cli.report.predictions import SplitScores, evaluate, read_scores
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary
from fgvc_cli.scoring.model import ReadyClassifier, load
from fgvc_cli.scoring.results import EvaluationSummary


@dataclass(frozen=True)
class RunRecord:
    """The records of a finished run.

    Attributes:
        run: its folder.
        summary: of the training.
        epochs: metrics of each epoch.
        config: text of `config.toml`; "" if it is missing.
        model: metadata of the model file: classes, preprocessing, components.
    """

    run: Run
    summary: TrainingSummary
    epochs: list[EpochMetrics]
    config: str
    model: dict[str, Any]

    @classmethod
    def read(cls, run: Run) -> RunRecord:
        """Read the files of a finished run.

        Raises:
            FgvcError: one of them is damaged.
        """
        config = run.config_file.read_text(encoding="utf-8", errors="replace") if run.config_file.is_file() else ""
        return cls(run, run.summary, run.metrics, config, read_metadata(run.model_file))

    @cached_property
    def _settings(self) -> dict[str, Any]:
        try:
            return current_document(tomllib.loads(self.config))
        except tomllib.TOMLDecodeError:
            return {}

    def setting(self, section: str, name: str) -> Any:
        """Return a setting of `config.toml`; None if it is missing or the file is damaged."""
        table = self._settings.get(section)
        return table.get(name) if isinstance(table, dict) else None

    @property
    def title(self) -> str:
        """The names of backbone, head and dataset."""
        components = self.summary.components
        return f"{components['backbone']['name']} + {components['head']['name']} on {self.dataset}"

    @property
    def dataset(self) -> str:
        """Name of the dataset: of the user's own data, that of its folder or file."""
        data = self.setting("dataset", "data")
        return Path(data).name if isinstance(data, str) else str(self.summary.dataset["name"])

    @property
    def optimizer(self) -> str:
        """Name of the optimizer, with that of its base: "sam over sgd"; "none" if the head is fitted at once."""
        return optimizer_title(self.summary.components)


@dataclass
class RunArtifacts:
    """The contents of a report of a run, each loaded on first use; `missing` says why parts are missing."""

    record: RunRecord
    request: ReportRequest
    registry: Registry
    missing: list[str] = field(default_factory=list)

    @cached_property
    def selected(self) -> SelectedSplit | None:
        """The images; None if the run's own dataset is no longer available.

        Raises:
            FgvcError: another dataset was requested and is not available.
            UsageError: there is no such split.
        """
        wanted = self.request.split
        try:
            return select_split(wanted, self.record.run.path, self.record.model["classes"], self.registry)
        except FgvcError as error:
            unknown_split = isinstance(error, UsageError) and wanted.split is not None
            if not wanted.is_own or wanted.options or (unknown_split and self._scores_without_images() is None):
                raise
            self._add_missing("The images are not available", error)
            return None

    @cached_property
    def ready(self) -> ReadyClassifier | None:
        """The classifier on its device; None if it cannot be loaded, such as without its plugin.

        Raises:
            UsageError: there is no such device.
        """
        try:
            return load(self.record.run.model_file, self.request.inference)
        except UsageError:
            raise
        except FgvcError as error:
            self._add_missing("The classifier cannot be loaded", error)
            return None

    @cached_property
    def explainer(self) -> NamedExplainer | None:
        """The explainer; None if the default one does not support the classifier.

        Raises:
            UsageError: the requested explainer does not exist or does not support the classifier.
        """
        if self.ready is None:
            return None
        explainer = make_explainer(self.request.explainer or DEFAULT_EXPLAINER, self.request.settings, self.registry)
        try:
            explainer.check(self.ready.classifier)
        except UsageError as error:
            if self.request.explainer is not None:
                raise
            self._add_missing("There are no saliency maps", error)
            return None
        return explainer

    @cached_property
    def scores(self) -> SplitScores | None:
        """The evaluation of the split, which is evaluated if necessary; None if that is impossible.

        Raises:
            FgvcError: the stored evaluation is damaged or of other images of the same name, or no image can be read.
        """
        if self.selected is None:
            return self._scores_without_images() or self._summarized_scores()
        folder = results_folder(self.record.run.path, self.selected, None, False)
        stored = read_scores(folder)
        if stored is not None or self.ready is None:
            return stored or self._summarized_scores()
        return evaluate(self.ready, self.selected, folder)

    @cached_property
    def examples(self) -> Examples | None:
        """Example images with saliency maps; None without images, predictions, classifier or explainer."""
        if self.scores is None or not self.scores.predictions or self.selected is None or not self.request.images:
            return None
        ready, explainer = self.ready, self.explainer
        if ready is None or explainer is None:
            return None
        if self.request.inference.precision == "auto":
            ready = replace(ready, precision="fp32")  # gradients are more accurate
        examples = make_examples(ready, explainer, self.selected.split, self.scores.predictions, self.request.images)
        if examples.skipped:
            key, reason = next(iter(examples.skipped.items()))
            more = f" and {len(examples.skipped) - 1} more" if len(examples.skipped) > 1 else ""
            self.missing.append(f"Images were skipped: {key}{more} ({reason.rstrip('.')}).")
        return examples

    @cached_property
    def image_files(self) -> dict[str, Path]:
        """Files of the example images, by key; images that are not files are left out."""
        if self.examples is None or self.selected is None:
            return {}
        shown = {example.key for example in (*self.examples.mistakes, *self.examples.panels)}
        images = zip(self.selected.split.keys, self.selected.split.images, strict=True)
        return {key: image for key, image in images if key in shown and isinstance(image, Path)}

    def _scores_without_images(self) -> SplitScores | None:
        """Return the stored evaluation of the requested split, else of test or val."""
        wanted = self.request.split.split
        stored = (read_scores(self.record.run.evaluation(split)) for split in ([wanted] if wanted else ["test", "val"]))
        return next((scores for scores in stored if scores is not None), None)

    def _summarized_scores(self) -> SplitScores | None:
        """Return the test results in the run's summary, which has no predictions."""
        summary, wanted = self.record.summary, self.request.split
        if wanted.split not in (None, "test") or not wanted.is_own or summary.test is None:
            return None
        self.missing.append("There is no confusion matrix: the predictions for each image are not stored.")
        metrics = {each.name: getattr(summary.test, each.name) for each in fields(summary.test)}
        dataset = {"name": self.record.dataset, "data": summary.dataset.get("folder")}
        origin = summary.splits.get("test", {}).get("origin", "")
        return SplitScores(EvaluationSummary(**metrics, dataset=dataset, split="test", origin=origin))

    def _add_missing(self, what: str, error: FgvcError) -> None:
        self.missing.append(f"{what} ({str(error).rstrip('. ')}).")
