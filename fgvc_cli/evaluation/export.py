"""Export a run to a file of another runtime, and check that the file computes what the run computes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Classifier, ExportedModel, Exporter, ExportJob, ExportPrecision
from fgvc_cli.data.splits import balanced_indices, subset
from fgvc_cli.enforcement import make
from fgvc_cli.errors import FgvcError, UsageError, cause_of
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, select_split
from fgvc_cli.formatting import percent
from fgvc_cli.options import as_toml, build
from fgvc_cli.progress import progress
from fgvc_cli.registry import Component, get_registry
from fgvc_cli.runs.folder import EXPORTED
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, find_model, folder_of, load, run_of
from fgvc_cli.specs import ExporterSpec

logger = logging.getLogger(__name__)

RECORDED = ("format", "classes", "preprocessing", "calibration", "taxonomy", "weights", "versions", "epoch", "added")
"""What a file says of itself as its run does. What identifies the training images, and their folder, stays behind."""

DEFAULT_IMAGES = 64
CALIBRATION_IMAGES = 128
"""Maximum number of further images to quantize by."""
BATCHES = (1, 16)
"""Batch sizes of the check."""


@dataclass(frozen=True)
class Tolerance:
    """What an exported file may differ by.

    Attributes:
        difference: largest difference of a probability.
        same_class: fraction of the images with the same predicted class.
        score_error: relative error of the scores, see `ExportCheck`.
    """

    difference: float
    same_class: float
    score_error: float


TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(0.01, 0.98, 0.05),
    "fp16": Tolerance(0.05, 0.97, 0.1),
    "int8": Tolerance(0.5, 0.9, 0.5),
}
"""By precision. Where a head crops a region or selects points, rounding may move one of them by a step."""


@dataclass(frozen=True)
class ExportCheck:
    """Comparison of an exported file with its run.

    Attributes:
        images: number of images.
        source: what they are, such as "val of photos".
        largest_difference: of a probability, over all images, classes and batch sizes.
        same_class: fraction of the images with the same predicted class, whatever the batch size.
        score_error: root mean square error of the scores, less their mean over the classes, relative to these. It sees
            what the probabilities of a network that is very sure, or not at all, do not show.
        tolerance: what was allowed.
    """

    images: int
    source: str
    largest_difference: float
    same_class: float
    score_error: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether the file may be used."""
        allowed = self.tolerance
        return (
            self.largest_difference <= allowed.difference
            and self.same_class >= allowed.same_class
            and self.score_error <= allowed.score_error
        )

    @property
    def text(self) -> str:
        """The figures and their bounds."""
        return (
            f"largest difference of a probability {self.largest_difference:.2g} (at most "
            f"{self.tolerance.difference:g}), same class {percent(self.same_class)} (at least "
            f"{percent(self.tolerance.same_class)}), error of the scores {percent(self.score_error)} (at most "
            f"{percent(self.tolerance.score_error)})"
        )


@dataclass(frozen=True)
class Export:
    """An exported run.

    Attributes:
        file: the exported file.
        script: a Python script beside it that uses it without fgvc; None if the format has none.
        format: name of the exporter.
        precision: "fp32", "fp16" or "int8".
        size: of the file, in bytes.
        check: comparison with the run.
        notes: of the exporter.
    """

    file: Path
    script: Path | None
    format: str
    precision: str
    size: int
    check: ExportCheck
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "file": str(self.file), "script": None if self.script is None else str(self.script)}


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how to check it.

    Attributes:
        model: file of the run.
        format: name of the exporter; None: by the suffix of `out`, else "onnx".
        precision: "fp32", "fp16" or "int8"; None: the exporter's first.
        out: the file to write; None: one in the run.
        settings: options of the exporter, as TOML values.
        split: images for the check; None: the run's validation images.
        images: number of images for the check.
        tolerance: largest difference of a probability; None: by precision.
        force: whether `out` may exist.
    """

    model: Path
    format: str | None = None
    precision: str | None = None
    out: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: SplitRequest | None = None
    images: int = DEFAULT_IMAGES
    tolerance: float | None = None
    force: bool = False


class Scores(nn.Module):
    """The whole prediction of a classifier: scores B,K (float32) of normalized images B,3,S,S."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores."""
        return self.classifier.scores(images).float()


def export_run(request: ExportRequest) -> Export:
    """Export a run to a file, and check the file before it gets its name.

    Raises:
        UsageError: the format, the precision or an option does not exist, or the file exists.
        FgvcError: the run cannot be exported, or its file computes something else than the run.
    """
    component = _exporter(request)
    spec = cast(ExporterSpec, component.spec)
    options: Any = build(component.options_type(), request.settings, "exporter")
    precision, out = _precision(request, spec), _out(request, spec)
    exporter = make(component, Exporter, options=options)
    script_file, script = out.with_name(f"predict_{out.stem}_{out.suffix[1:]}.py"), exporter.script(out.name)
    if not request.force:
        _refuse_existing(out)
        if script is not None:
            _refuse_existing(script_file)
    ready = load(request.model, InferenceSettings(device="cpu", workers=0))
    images = _images(request, ready, representative=precision == "int8")
    document = {
        **_description(ready),
        "export": {"format": component.reference, "precision": precision, **as_toml(options), "fgvc": __version__},
    }
    with files.replacing(out) as part:
        job = ExportJob(
            Scores(ready.classifier).eval(), images.calibration, images.representative, part, precision, document
        )
        notes = _contained(component, lambda: exporter.export(job))
        for note in notes:
            logger.info(note)
        check = compare(ready.classifier, exporter.open(part), images, _tolerance(request, precision))
        if not check.passed:
            raise FgvcError(
                f"{out} is not written, because it computes something else than {ready.run}: {check.text}, on "
                f"{check.images} images of {check.source}" + _advice(precision)
            )
        size = part.stat().st_size
    if script is not None:
        files.write_text(script_file, script)
    return Export(out, None if script is None else script_file, component.name, precision, size, check, tuple(notes))


def compare(classifier: Classifier, model: ExportedModel, images: CheckImages, tolerance: Tolerance) -> ExportCheck:
    """Compare the scores of an exported file with those of its classifier, in batches of `BATCHES` images."""
    largest, same = 0.0, torch.ones(len(images.check), dtype=torch.bool)
    error = power = 0.0
    with progress("check", len(BATCHES) * len(images.check)) as bar:
        for size in BATCHES:
            for start in range(0, len(images.check), size):
                batch = images.check[start : start + size]
                with torch.inference_mode():
                    wanted = _centered(classifier.scores(batch))
                scores = _centered(model.scores(batch))
                error, power = error + float((scores - wanted).square().sum()), power + float(wanted.square().sum())
                found, expected = scores.softmax(dim=1), wanted.softmax(dim=1)
                difference = float((found - expected).abs().max())
                largest = difference if difference != difference else max(largest, difference)
                same[start : start + size] &= found.argmax(dim=1) == expected.argmax(dim=1)
                bar.advance(len(batch))
    relative = math.sqrt(error / power) if power else math.inf if error else 0.0
    return ExportCheck(len(same), images.source, largest, float(same.float().mean()), relative, tolerance)


def _centered(scores: Tensor) -> Tensor:
    """Return scores B,K in double precision less their mean over the classes, which no probability depends on."""
    return scores.double() - scores.double().mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class CheckImages:
    """Images for an export: float32 N,3,S,S, normalized.

    Attributes:
        check: to compare file and run.
        calibration: to trace the network, and to quantize by.
        source: what they are, such as "val of photos".
        representative: whether they are photographs instead of noise.
    """

    check: Tensor
    calibration: Tensor
    source: str
    representative: bool


def _images(request: ExportRequest, ready: ReadyClassifier, representative: bool) -> CheckImages:
    """Return images of the run's validation split, or of the requested data; noise if there are none.

    To quantize, other images are used than for the check, as far as there are enough.
    """
    wanted = request.images + (CALIBRATION_IMAGES if representative else 0)
    selected = _selected(request, ready)
    if selected is not None:
        split = selected.split
        chosen = subset(split, balanced_indices(split.labels, wanted), split.name, split.origin)
        pixels = [batch.pixels for batch in ready.loader(chosen)]
        if pixels:
            found = ready.classifier.normalize(torch.cat(pixels))
            stride = max(1, len(found) // request.images)
            check, rest = found[::stride][: request.images], torch.ones(len(found), dtype=torch.bool)
            rest[::stride] = False
            calibration = found[rest] if representative and rest.sum() >= len(check) else found
            source = f"{split.name} of {selected.data or selected.dataset}"
            return CheckImages(check, _at_least_two(calibration), source, representative=True)
        logger.warning(f"no image of {split.name} can be read: checking with random images")
    size = ready.classifier.preprocessing.image_size
    noise = torch.randint(256, (request.images, 3, size, size), generator=torch.Generator().manual_seed(0))
    images = ready.classifier.normalize(noise.to(torch.uint8))
    return CheckImages(images, _at_least_two(images), "random noise", representative=False)


def _selected(request: ExportRequest, ready: ReadyClassifier) -> SelectedSplit | None:
    """Return the requested images; the run's own may be missing."""
    names, folder = ready.classifier.class_names, folder_of(request.model)
    own = request.split is None or request.split.is_own
    split = request.split or SplitRequest()
    if own and split.split is None:
        split = SplitRequest("val", options=split.options, allow_changed_data=True)
    try:
        selected = select_split(split, folder, names, get_registry())
    except FgvcError as error:
        if not own or (request.split is not None and request.split.split is not None):
            raise
        logger.warning(f"checking with random images, because validation images are missing: {error}")
        return None
    logger.info(selected.description)
    return selected


def _at_least_two(images: Tensor) -> Tensor:
    return images if len(images) > 1 else images.repeat(2, 1, 1, 1)


def _description(ready: ReadyClassifier) -> dict[str, Any]:
    """Return what the file says of itself."""
    document = read_metadata(ready.model_file)
    components = {kind: document["components"][kind] for kind in ("backbone", "head")}
    license = weights_license(ready.classifier, document)
    recorded = {name: document[name] for name in RECORDED if name in document}
    if calibration := recorded.get("calibration"):
        recorded["calibration"] = {**calibration, "dataset": {**calibration.get("dataset", {}), "data": None}}
    return {**recorded, "components": components, **({"license": license} if license else {})}


def weights_license(classifier: Classifier, document: Mapping[str, Any]) -> str:
    """Return the license of the published weights that the run of a document started from; "" if unknown."""
    weights = classifier.backbone.pretrained()
    return weights.license if weights is not None and weights.name in document.get("weights", "") else ""


def _exporter(request: ExportRequest) -> Component:
    registry = get_registry()
    if request.format is not None:
        return registry.find("exporter", request.format)
    suffix = ".onnx" if request.out is None else request.out.suffix
    found = [c for c in registry.components("exporter") if cast(ExporterSpec, c.spec).suffix == suffix]
    if not found:
        known = ", ".join(f"{cast(ExporterSpec, c.spec).suffix} ({c.name})" for c in registry.components("exporter"))
        raise UsageError(f"`out={request.out}`: no exporter writes {suffix or 'such'} files; known are {known}")
    return min(found, key=lambda component: not component.builtin)


def _precision(request: ExportRequest, spec: ExporterSpec) -> ExportPrecision:
    precision = request.precision or spec.precisions[0]
    if precision not in spec.precisions:
        raise UsageError(f"`precision={precision}`: exporter {spec.name} writes {', '.join(spec.precisions)}")
    return cast(ExportPrecision, precision)


def _out(request: ExportRequest, spec: ExporterSpec) -> Path:
    if request.out is None:
        of_run = run_of(request.model)
        folder = of_run / EXPORTED if of_run.is_dir() else of_run.parent
        precision = _precision(request, spec)
        return folder / f"model{'' if precision == 'fp32' else f'-{precision}'}{spec.suffix}"
    if request.out.suffix != spec.suffix:
        raise UsageError(f"`out={request.out}`: files of exporter {spec.name} end in {spec.suffix}")
    if request.out.is_dir():
        raise UsageError(f"`out={request.out}` is a folder; name a file")
    return request.out


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} already exists; choose another file with `out`, or replace it with `force`")


def _tolerance(request: ExportRequest, precision: str) -> Tolerance:
    default = TOLERANCES[precision]
    return default if request.tolerance is None else replace(default, difference=request.tolerance)


def _advice(precision: str) -> str:
    less = {"int8": "`precision=fp16` or `fp32`", "fp16": "`precision=fp32`"}
    return f"; export with {less[precision]}" if precision in less else ""


def _contained(component: Component, run: Any) -> list[str]:
    """Call an exporter, and turn whatever it raises into a line that names it."""
    try:
        return list(run())
    except (FgvcError, OSError, MemoryError):
        raise
    except Exception as error:  # third-party code can raise anything
        raise FgvcError(
            f"exporter {component.name} of {component.origin} failed: {cause_of(error)} (`debug` shows the traceback)"
        ) from error


def export(
    run: str | PathLike[str],
    format: str | None = None,
    *,
    precision: str | None = None,
    out: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    split: str | None = None,
    images: int = DEFAULT_IMAGES,
    tolerance: float | None = None,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Export:
    """Export a run to a file that other programs load, as `fgvc export` does, and check that it computes the same.

        fgvc.export(run, "onnx", precision="int8", out="birds.onnx").check.same_class
        fgvc.load("birds.onnx").predict("a.jpg")

    Args:
        run: a run, its folder, or a `model.safetensors`.
        format: name of the exporter: "onnx" or "torch"; the default is by the suffix of `out`, else "onnx".
        precision: "fp32", "fp16" or "int8".
        out: the file to write; the default is one in the run.
        data: other images of its classes to check and quantize by: a folder of class folders, or a CSV or TSV file.
        split: split of the images; the default is "val".
        images: number of images to check with.
        tolerance: largest difference of a probability that is allowed; the default is by precision.
        settings: options of the exporter by name, such as {"opset": 18}.
        force: replace an existing file.

    Raises:
        UsageError: a value is wrong, or `out` exists (also a `ValueError`).
        FgvcError: a layer cannot be exported, a package is not installed, or the file computes something else.
    """
    if images < 1:
        raise UsageError(f"`images={images}` must be at least 1")
    named = data is not None or split is not None
    return export_run(
        ExportRequest(
            find_model(Path(run)),
            format,
            precision,
            None if out is None else Path(out),
            dict(settings or {}),
            SplitRequest(split, None if data is None else Path(data)) if named else None,
            images,
            tolerance,
            force,
        )
    )
