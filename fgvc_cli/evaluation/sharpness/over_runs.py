"""The whole of `fgvc evaluate --sharpness`: from runs and a request to figures and files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgvc_cli.display.landscape import draw_landscape
from fgvc_cli.display.progress import View
from fgvc_cli.display.run_labels import run_labels
from fgvc_cli.evaluation import results
from fgvc_cli.evaluation.computing import Computing, load
from fgvc_cli.evaluation.sharpness.images import Chosen, choose_images, notes_on_images
from fgvc_cli.evaluation.sharpness.measuring import measure
from fgvc_cli.evaluation.sharpness.request import SharpnessRequest
from fgvc_cli.evaluation.sharpness.summary import Measured, summarise
from fgvc_cli.evaluation.sharpness.surface import read_images
from fgvc_cli.registry import Registry
from fgvc_cli.runs import files
from fgvc_cli.runs.loading import read_metadata
from fgvc_cli.runs.new_folder import choose_new_folder

FOLDER = "sharpness"
"""Where the results of several runs go that are given no folder, in the current one."""
PICTURE = "landscape.png"


@dataclass(frozen=True)
class SharpnessReport:
    """What came out.

    Attributes:
        summary: what `sharpness.json` holds.
        files: what was written.
    """

    summary: dict[str, Any]
    files: list[Path]


def measure_sharpness(request: SharpnessRequest, registry: Registry, view: View) -> SharpnessReport:
    """Measure the loss around each run's weights, and write figures and a picture.

    Args:
        request: what is wanted. Precision "auto" means fp32 here: what is measured are small differences.
        registry: finds data sets.
        view: takes notes and progress.

    Raises:
        UsageError: the images that are meant do not exist, or a folder for the results is refused.
        FgvcError: a run or its images are not there, none can be read, a loss at the weights is not finite, memory
            runs out, or nothing can be written.
        KeyboardInterrupt: before anything was measured.
    """
    started = time.perf_counter()
    chosen, runs = choose_images(request, registry), request.evaluation.runs
    folder = _folder(request, chosen)
    notes = [*notes_on_images(chosen, runs), *_notes_on_networks(request.evaluation.models)]
    for line in dict.fromkeys((*(f"images     {images.words}" for images in chosen), *notes)):
        view.note(line)
    measured, interrupted = _measure_each(request, chosen, view)
    summary = summarise(measured, request, notes, interrupted, time.perf_counter() - started)
    return SharpnessReport(summary, _write(folder, summary))


def _write(folder: Path, summary: dict[str, Any]) -> list[Path]:
    """Write the figures, and the picture if there is a plane; return the files."""
    document, picture = folder / results.SHARPNESS, folder / PICTURE
    files.write_json(document, summary)  # first: it may have taken hours
    if not any(entry["landscape"] for entry in summary["runs"]):
        picture.unlink(missing_ok=True)  # an earlier one beside the new figures would deceive
        return [document]
    draw_landscape(picture, summary)
    return [document, picture]


def _measure_each(request: SharpnessRequest, chosen: Sequence[Chosen], view: View) -> tuple[list[Measured], bool]:
    """Measure one run after the other; return those that were, and whether that was interrupted.

    Raises:
        KeyboardInterrupt: before anything was measured.
    """
    measured: list[Measured] = []
    try:
        for model, images in zip(request.evaluation.models, chosen, strict=True):
            measured.append(_measure_one(request, model, images, view))
            if measured[-1].sharpness.plane is None:
                return measured, True
    except KeyboardInterrupt:
        if not measured:
            raise
        return measured, True
    return measured, False


def _measure_one(request: SharpnessRequest, model: Path, images: Chosen, view: View) -> Measured:
    ready = load(model, _computing(request.evaluation.computing))
    (name,), count = run_labels([str(ready.run)]), len(images.split)
    with view.progress(f"{name}: reading", count) as bar:
        batches, failures = read_images(ready, images.split, bar.advance)
    readable = count - len(failures)
    with view.progress(name, request.passes * readable) as bar:
        sharpness = measure(ready, batches, request, bar)
    return Measured.of(ready, images, failures, sharpness)


def _computing(computing: Computing) -> Computing:
    return replace(computing, precision="fp32") if computing.precision == "auto" else computing


def _folder(request: SharpnessRequest, chosen: Sequence[Chosen]) -> Path:
    evaluation = request.evaluation
    if len(evaluation.models) > 1:
        return choose_new_folder(evaluation.out, evaluation.force, FOLDER, "the results")
    return results.choose_folder(evaluation.models[0].parent, chosen[0].subject, evaluation.out, evaluation.force)


def _notes_on_networks(models: Sequence[Path]) -> list[str]:
    """Say where the runs are not the same network, of which no radius says the same."""
    networks = []
    for model in models:
        document = read_metadata(model)
        parts = [document.get("components", {}).get(kind, {}) for kind in ("backbone", "head")]
        networks.append([(part.get("name"), part.get("options")) for part in parts])
    if all(network == networks[0] for network in networks):
        return []
    return ["The runs are different networks: a radius is not the same thing in each, and their rises do not compare."]
