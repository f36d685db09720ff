"""Explain a whole split and measure how faithful the saliency maps are."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Split
from fgvc_cli.data.images import ImageError
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.devices import describe_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, results_folder, select_split
from fgvc_cli.explaining.explainers import KIND, NamedExplainer, make_explainer, make_explainers, with_baseline
from fgvc_cli.explaining.explanation import PREDICTED, TRUE, ImageExplanations, InputImage, class_index
from fgvc_cli.explaining.faithfulness import PartLocations
from fgvc_cli.explaining.gallery import select_gallery
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.explaining.measuring import Accumulator, Measurements, MeasureSettings, measure_batch
from fgvc_cli.explaining.panels import PANEL_SUFFIX, write_panel
from fgvc_cli.explaining.selection import select_images
from fgvc_cli.explaining.statistics import DatasetSummary, ExplainerMeasurements, ExplainerSummary, GalleryImage, write
from fgvc_cli.files import unique_names
from fgvc_cli.progress import Progress, progress
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, load, run_of

logger = logging.getLogger(__name__)

GALLERY = "gallery"


@dataclass(frozen=True)
class DatasetExplanationRequest:
    """What to explain and measure.

    Attributes:
        models: model files of the runs to compare (see `find_model`). The default dataset is that of the first run;
            the others must have its classes.
        split: the images.
        explainers: names; a baseline is added unless there is one.
        settings: options of explainers, by name; each explainer gets those that it has.
        target: the class to explain: "predicted", "true", or the name of a class.
        masking: how each occlusion step masks the images.
        steps: number of occlusion steps.
        curve_steps: number of steps of the deletion and insertion curves.
        tolerance: how far outside of a box the pointing game still counts a hit, in sides of the crop.
        limit: maximum number of images, balanced across classes.
        classes: only images of these classes; empty: all.
        differ: only images that the first of two runs classifies correctly and the second does not, the most
            confident predictions first.
        inference: device, precision and batch size.
        out: folder for the results; None: `explanation/SPLIT` in the first run.
        force: whether `out` may exist.
        gallery: maximum number of example images of each kind.

    Raises:
        UsageError: a value is out of range, or `differ` is set without exactly two runs.
    """

    models: Sequence[Path]
    split: SplitRequest = field(default_factory=SplitRequest)
    explainers: Sequence[str] = ("gradcam",)
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: str = PREDICTED
    masking: Masking = field(default_factory=Masking)
    steps: int = 1
    curve_steps: int = 20
    tolerance: float = 0.0
    limit: int | None = None
    classes: Sequence[str] = ()
    differ: bool = False
    inference: InferenceSettings = field(default_factory=lambda: InferenceSettings(precision="fp32"))
    out: Path | None = None
    force: bool = False
    gallery: int = 4

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("no run is given; name one with `run`")
        if self.differ and len(self.models) != 2:
            raise UsageError(f"`differ` compares two runs, not {len(self.models)}; name two with `run`")
        for name, minimum in (("steps", 1), ("limit", 1), ("curve_steps", 2)):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UsageError(f"`{name}={value}`: must be at least {minimum}")


@dataclass(frozen=True)
class DatasetExplanation:
    """All figures and example images of a dataset explanation, and the files written, the summary last."""

    summary: DatasetSummary
    files: Sequence[Path]

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.files[-1].parent


def explain_dataset(request: DatasetExplanationRequest, registry: Registry) -> DatasetExplanation:
    """Explain a split with each explainer, measure the saliency maps and write the results.

    Raises:
        UsageError: a class, split or explainer does not exist, or an explainer cannot explain a run.
        FgvcError: no image is left or readable, an explainer breaks its contract, memory runs out, or the results
            cannot be written.
        KeyboardInterrupt: before the first batch was measured; later, the results cover the images measured so far.
    """
    started = time.perf_counter()
    explainers, baseline = with_baseline(make_explainers(request.explainers, request.settings, registry), registry)
    runs = [load(model, request.inference) for model in request.models]
    for ready in runs:
        for explainer in explainers:
            explainer.check(ready.classifier)
    for line in dict.fromkeys(line for r in runs for e in explainers for line in e.notes(r.classifier)):
        logger.info(line)
    settings = [_measure_settings(request, ready) for ready in runs]
    run_folder = request.models[0].parent
    selected = select_split(request.split, run_folder, runs[0].classifier.class_names, registry)
    folder = results_folder(run_folder, selected, request.out, request.force, "explanation")
    images = select_images(selected, runs, request.classes, request.limit, request.differ, request.split.ignore_unknown)
    passes = len(images.splits[0]) * sum(each.passes(len(explainers)) for each in settings)
    measurements = [
        _RunMeasurement(ready, split, explainers, each, _part_locations(selected, ready, split, request.tolerance))
        for ready, split, each in zip(runs, images.splits, settings, strict=True)
    ]
    interrupted = False
    try:
        with progress("explaining", passes, "passes") as bar:
            for measurement in measurements:
                measurement.run(bar)
    except KeyboardInterrupt:
        interrupted = True
    scored = [scored for each in measurements for scored in each.scored(baseline)]
    if not scored:
        if interrupted:
            raise KeyboardInterrupt
        raise FgvcError(f"none of the {len(images.splits[0])} images of {selected.dataset} can be read")
    baselines = {entry.ready.run: entry for entry in scored if entry.is_baseline}
    summary = DatasetSummary(
        dataset=selected.dataset,
        data=selected.data,
        split=selected.split.name,
        origin=selected.split.origin,
        notes=selected.notes,
        images_available=len(selected.split),
        images_chosen=len(images.splits[0]),
        chosen=images.description,
        target=request.target,
        masking=request.masking,
        cover_steps=request.steps,
        curve_steps=request.curve_steps,
        tolerance=request.tolerance,
        interrupted=interrupted,
        explainers=[ExplainerSummary.of(entry, baselines.get(entry.ready.run)) for entry in scored],
        failures={key: reason for each in measurements for key, reason in each.failures.items()},
        seconds=time.perf_counter() - started,
        device=describe_device(runs[0].classifier.device),
        precision=runs[0].precision,
        gallery=select_gallery(scored, request.gallery),
    )
    return DatasetExplanation(summary, write(folder, summary, scored))


def _measure_settings(request: DatasetExplanationRequest, ready: ReadyClassifier) -> MeasureSettings:
    target: str | int = request.target
    if target not in (PREDICTED, TRUE):
        target = class_index(request.target, ready.classifier.class_names, "target")
    return MeasureSettings(request.masking, request.steps, request.curve_steps, target)


def _part_locations(
    selected: SelectedSplit, ready: ReadyClassifier, split: Split, tolerance: float
) -> PartLocations | None:
    """Return where the parts are, if the split has parts and the dataset knows which of them decide the class."""
    deciding = None if selected.opened is None else selected.opened.deciding_parts()
    if split.parts is None or deciding is None:
        return None
    classifier = ready.classifier
    return PartLocations(split, deciding, classifier.class_names, classifier.preprocessing, tolerance)


class _RunMeasurement:
    """Measures all explainers on one run, batch by batch."""

    def __init__(
        self,
        ready: ReadyClassifier,
        split: Split,
        explainers: Sequence[NamedExplainer],
        settings: MeasureSettings,
        parts: PartLocations | None,
    ) -> None:
        self.ready, self.split, self.explainers = ready, split, explainers
        self.settings, self.parts = settings, parts
        self.measured = Accumulator()
        self.loader: EvaluationLoader | None = None

    def run(self, bar: Progress) -> None:
        self.loader, done = self.ready.loader(self.split), 0
        self.ready.classifier.eval()
        for batch in self.loader:
            parts = None if self.parts is None else self.parts.masks(batch.indices.tolist())
            text = f"{done} of {len(self.split)} images"
            with self.ready.memory_explained():
                self.measured.add(
                    measure_batch(
                        self.ready,
                        self.explainers,
                        batch,
                        parts,
                        self.settings,
                        lambda n: bar.advance(n, text),  # noqa: B023
                    )
                )
            if not done:  # report a broken explainer at once
                self._check_range(self.measured.all())
            done += len(batch.labels)

    def scored(self, baseline: NamedExplainer) -> list[ExplainerMeasurements]:
        """Return the measurements of each explainer; none if no image was measured."""
        measured = self.measured.all()
        self._check_range(measured)
        return [
            ExplainerMeasurements(self.ready, explainer, explainer is baseline, self.split, each)
            for explainer, each in zip(self.explainers, measured, strict=False)
        ]

    def _check_range(self, measured: Sequence[Measurements]) -> None:
        for explainer, each in zip(self.explainers, measured, strict=False):
            if not each.in_range.all():
                raise explainer.out_of_range()

    @property
    def failures(self) -> dict[str, str]:
        """Why images could not be read, by key."""
        return {} if self.loader is None else dict(self.loader.failures)


def draw_gallery(result: DatasetExplanation, request: DatasetExplanationRequest, registry: Registry) -> list[Path]:
    """Draw panels of the example images that are files into the results folder, replacing earlier ones; return them."""
    folder, gallery = result.folder / GALLERY, result.summary.gallery
    for old in folder.glob(f"*{PANEL_SUFFIX}"):
        old.unlink()
    names = unique_names([_panel_name(image, len(request.models) > 1) for image in gallery])
    drawn: list[Path] = []
    with progress("pictures", len(gallery)) as bar:
        for model in request.models:
            for explainer in request.explainers:
                chosen = {
                    str(image.file): (image, folder / f"{name}{PANEL_SUFFIX}")
                    for image, name in zip(gallery, names, strict=True)
                    if image.file and (image.run, image.explainer) == (run_of(model), explainer)
                }
                if not chosen:
                    continue
                known = {option.name for option in fields(registry.find(KIND, explainer).options_type())}
                settings = {name: value for name, value in request.settings.items() if name in known}
                explanations = ImageExplanations(
                    [load(model, request.inference)],
                    [make_explainer(explainer, settings, registry)],
                    [InputImage(file, Path(file), image.true) for file, (image, _) in chosen.items()],
                    request.target,
                    request.masking,
                    request.steps,
                )
                for batch in explanations:
                    for explained in batch:
                        panel = chosen[explained.input.name][1]
                        try:
                            write_panel(panel, explained)
                        except ImageError:  # the file has been deleted in the meantime
                            continue
                        drawn.append(panel)
                        bar.advance()
    return drawn


def _panel_name(image: GalleryImage, several_runs: bool) -> str:
    key = Path(image.key).with_suffix("").as_posix().replace("/", "-")
    run = f"{image.run.absolute().name}-" if several_runs else ""
    return f"{image.reason.replace(' ', '-')}-{run}{key}"
