"""Measure and compare the sharpness of runs, and write the figures and a plot."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import balanced_indices, subset
from fgvc_cli.devices import describe_device
from fgvc_cli.evaluation.landscape import draw_landscape
from fgvc_cli.evaluation.loss_surface import read_images
from fgvc_cli.evaluation.sharpness import RANDOM_DIRECTIONS, Sharpness, SharpnessSettings, measure
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, results_folder, select_split
from fgvc_cli.formatting import run_labels
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import choose_new_folder
from fgvc_cli.runs.model_file import read_class_names, read_metadata
from fgvc_cli.scoring.model import InferenceSettings, load, run_of
from fgvc_cli.scoring.results import SHARPNESS, dataset_record, images_text

logger = logging.getLogger(__name__)

FOLDER = "sharpness"
"""The folder for results of several runs without `out`, in the current folder."""
PICTURE = "landscape.png"


@dataclass(frozen=True)
class RunSharpness:
    """The sharpness of a run.

    Attributes:
        run: the run folder or model file.
        selected: the split that the images are from.
        failures: why images could not be read, by key.
        sharpness: the losses.
        device, precision: of the computation.
    """

    run: str
    selected: SelectedSplit
    failures: dict[str, str]
    sharpness: Sharpness
    device: str
    precision: str

    @property
    def images_text(self) -> str:
        """Split and dataset of the images."""
        return images_text(self._dataset())

    def _dataset(self) -> dict[str, Any]:
        selected = self.selected
        return {
            "dataset": dataset_record(selected.dataset, selected.data),
            "split": selected.split.name,
            "origin": selected.split.origin,
        }

    def as_json(self) -> dict[str, Any]:
        """Return an entry of `runs` in `sharpness.json`."""
        return {
            "run": self.run,
            **self._dataset(),
            "classes": self.sharpness.classes,
            "images_available": len(self.selected.split),
            **self.sharpness.as_json(),
        }


@dataclass(frozen=True)
class SharpnessResult:
    """The result of `measure_sharpness`.

    Attributes:
        runs: in order; those that were not measured because of an interruption are missing.
        settings: where the loss was measured.
        notes: what to know when reading the figures.
        interrupted: whether something is missing.
        seconds: wall time.
        files: the files written.
    """

    runs: Sequence[RunSharpness]
    settings: SharpnessSettings
    notes: Sequence[str]
    interrupted: bool
    seconds: float
    files: Sequence[Path] = ()

    @property
    def failures(self) -> dict[str, str]:
        """Why images could not be read, by key."""
        return {key: reason for run in self.runs for key, reason in run.failures.items()}

    def as_json(self) -> dict[str, Any]:
        """Return the content of `sharpness.json`; losses and rises are in nats."""
        settings = self.settings
        return {
            "runs": [run.as_json() for run in self.runs],
            "rho": settings.rho,
            "adaptive_rho": settings.adaptive_rho,
            "limit": settings.limit,
            "points": settings.points,
            "random_directions": RANDOM_DIRECTIONS,
            "seed": settings.seed,
            "notes": list(self.notes),
            "interrupted": self.interrupted,
            "failed": len(self.failures),
            "failures": [{"key": key, "reason": reason} for key, reason in self.failures.items()],
            "seconds": round(self.seconds, 3),
            "device": self.runs[0].device,
            "precision": self.runs[0].precision,
            "fgvc": __version__,
        }


def measure_sharpness(
    models: Sequence[Path],
    registry: Registry,
    settings: SharpnessSettings | None = None,
    split: SplitRequest | None = None,
    inference: InferenceSettings | None = None,
    out: Path | None = None,
    force: bool = False,
) -> SharpnessResult:
    """Measure the loss around the weights of runs, and write the figures and a plot.

    Args:
        models: model files of the runs.
        registry: resolves datasets.
        settings: where to measure the loss.
        split: the images; default: those that each run was trained on.
        inference: device, precision and batch size; precision "auto" is fp32, because differences are small.
        out: folder for the results; default: `evaluation/SPLIT` in the run, for several runs a new one in `sharpness`.
        force: whether `out` may exist.

    Raises:
        UsageError: the split does not exist, or `out` exists.
        FgvcError: a model or the images are missing, no image can be read, a loss is not finite, memory runs out, or
            the results cannot be written.
        KeyboardInterrupt: before anything was measured.
    """
    started, settings, inference = (
        time.perf_counter(),
        settings or SharpnessSettings(),
        inference or InferenceSettings(),
    )
    inference = replace(inference, precision="fp32") if inference.precision == "auto" else inference
    wanted = replace(split or SplitRequest(), prefer_training=True)
    selected = [select_split(wanted, model.parent, read_class_names(model), registry) for model in models]
    images = [
        subset(s, balanced_indices(s.labels, settings.limit), s.name, s.origin) for s in (e.split for e in selected)
    ]
    if len(models) > 1:
        folder = choose_new_folder(out, force, FOLDER, "the results")
    else:
        folder = results_folder(models[0].parent, selected[0], out, force)
    notes = [*_image_notes(models, selected, images), *_network_notes(models)]
    described = [_description(each, split) for each, split in zip(selected, images, strict=True)]
    for line in dict.fromkeys((*described, *notes)):
        logger.info(line)
    measured: list[RunSharpness] = []
    interrupted = False
    try:
        for model, each, chosen in zip(models, selected, images, strict=True):
            measured.append(_measure_run(model, each, chosen, settings, inference))
            if measured[-1].sharpness.plane is None:
                interrupted = True
                break
    except KeyboardInterrupt:
        if not measured:
            raise
        interrupted = True
    result = SharpnessResult(measured, settings, notes, interrupted, time.perf_counter() - started)
    return replace(result, files=_write(folder, result))


def _write(folder: Path, result: SharpnessResult) -> list[Path]:
    document, picture = folder / SHARPNESS, folder / PICTURE
    files.write_json(document, result.as_json())  # first, because it may have taken hours
    planes = [run for run in result.runs if run.sharpness.plane is not None]
    if not planes:
        picture.unlink(missing_ok=True)  # a plot of an earlier measurement would be misleading
        return [document]
    draw_landscape(picture, run_labels([run.run for run in planes]), [run.sharpness for run in planes])
    return [document, picture]


def _measure_run(
    model: Path, selected: SelectedSplit, images: Split, settings: SharpnessSettings, inference: InferenceSettings
) -> RunSharpness:
    ready = load(model, inference)
    (label,) = run_labels([str(ready.run)])
    with progress(f"{label}: reading", len(images)) as bar:
        batches, failures = read_images(ready, images, bar.advance)
    with progress(label, settings.passes * (len(images) - len(failures))) as bar:
        sharpness = measure(ready, batches, settings, bar)
    device = describe_device(ready.classifier.device)
    return RunSharpness(str(ready.run), selected, failures, sharpness, device, ready.precision)


def _description(selected: SelectedSplit, images: Split) -> str:
    available = len(selected.split)
    source = f"{images.name} of {selected.data or selected.dataset}"
    return f"images     {len(images)}, {source}" + f", evenly spaced in {available}" * (len(images) < available)


def _image_notes(models: Sequence[Path], selected: Sequence[SelectedSplit], images: Sequence[Split]) -> list[str]:
    """Return notes on runs measured on images they were not trained on, or on different images."""
    notes = [
        f"{run_of(model)}: it was not trained on these images, so their loss was not minimized."
        for model, each in zip(models, selected, strict=True)
        if each.is_own and each.role != "trained"
    ]
    different = {(str(each.data or each.dataset), *split.keys) for each, split in zip(selected, images, strict=True)}
    if len(different) > 1:
        notes.append("The runs are measured on different images, each on its own.")
    return notes


def _network_notes(models: Sequence[Path]) -> list[str]:
    """Return a note if the runs are different networks, for which radii are not comparable."""
    networks = []
    for model in models:
        components = read_metadata(model).get("components", {})
        parts = [components.get(kind, {}) for kind in ("backbone", "head")]
        networks.append([(part.get("name"), part.get("options")) for part in parts])
    if all(network == networks[0] for network in networks):
        return []
    return ["The runs are different networks: radii, and so rises, are not comparable between them."]
