"""The Python API: what the main commands do, as functions that return objects and print nothing.

Import it as `import fgvc_cli as fgvc`; every name of this module is an attribute of the package.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np
from PIL import Image, ImageOps
from PIL.Image import Image as PILImage

from fgvc_cli.config.run_config import setting_layer, user_settings
from fgvc_cli.contracts import Classifier
from fgvc_cli.devices import pick_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.formatting import html_table
from fgvc_cli.registry import Component, get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import load_classifier, model_file
from fgvc_cli.scoring.calibration.stored import find_calibration
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, find_model
from fgvc_cli.scoring.model import load as load_ready
from fgvc_cli.scoring.taxonomy import TaxonomySettings, find_names
from fgvc_cli.scoring.tta import Views, parse_tta
from fgvc_cli.specs import KINDS

if TYPE_CHECKING:
    from fgvc_cli.evaluation.predict import Prediction
    from fgvc_cli.explaining.explanation import ExplainedImage, OcclusionStep
    from fgvc_cli.scoring.results import EvaluationSummary
    from fgvc_cli.training.callbacks import Callback

RunLike = Run | str | PathLike[str]
ImageLike = str | PathLike[str] | PILImage | np.ndarray


def train(
    *,
    backbone: str | None = None,
    head: str | None = None,
    optimizer: str | None = None,
    data: str | PathLike[str] | None = None,
    dataset: str | None = None,
    weights: str | PathLike[str] | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    lr: float | None = None,
    head_lr: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    config: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    force: bool = False,
    resume: RunLike | None = None,
    allow_changed_data: bool = False,
    offline: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a classifier into a run folder, as `fgvc train` does.

    Arguments that are not given are taken from `config`, then from the recipe.

        run = fgvc.train(backbone="swin_t", head="pim", data="photos/")
        run.summary.test.top1

    Args:
        backbone: name of the backbone, such as "swin_t" or "timm/resnet18".
        head: name of the head.
        optimizer: name of the optimizer.
        data: folder with one folder per class, or a CSV or TSV file; instead of `dataset`.
        dataset: name of a dataset; the default is the synthetic "demo".
        weights: "auto", "imagenet", "none", a file, or a tag of the backbone's weights.
        recipe: named settings to start from; the default depends on whether there are pretrained weights.
        epochs: passes over the training images.
        batch_size: images per forward pass.
        image_size: side of the images that the backbone sees, in pixels.
        lr: learning rate (of the backbone, if `head_lr` is given).
        head_lr: learning rate of the head.
        seed: seeds weights, order, augmentation and dropout.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        workers: processes that load images; -1 chooses by device, 0 loads in this process.
        settings: further settings by dotted name, such as {"head.fpn_size": 1024, "train.label_smoothing": 0.1}.
        config: TOML file of settings, such as a run's `config.toml`.
        out: run folder to create; the default is a new one in the folder of runs.
        force: replace an existing run at `out`.
        resume: interrupted run to resume; excludes everything but the next three.
        allow_changed_data: resume even if images were added, removed or edited since.
        offline: download nothing.
        callbacks: observe the training; see `fgvc_cli.Callback`.

    Returns:
        The finished run: its folder, settings, metrics and summary.

    Raises:
        UsageError: a name, a setting or a value is wrong (also a `ValueError`).
        FgvcError: data or weights are missing, the loss is not finite, or memory or disk is full.
        Interrupted: SIGINT or SIGTERM was received; the state is saved, and `resume` continues it.
    """
    from fgvc_cli.training import run as training

    sections: dict[str, dict[str, Any]] = {
        "backbone": {"name": backbone},
        "head": {"name": head},
        "optimizer": {"name": optimizer, "lr": lr, "head_lr": head_lr},
        "dataset": {"name": dataset, "data": None if data is None else fspath(data)},
        "train": {
            "weights": None if weights is None else fspath(weights),
            "epochs": epochs,
            "batch_size": batch_size,
            "image_size": image_size,
            "seed": seed,
            "device": device,
            "precision": precision,
            "workers": workers,
        },
    }
    if resume is not None:
        others: dict[str, Any] = {"recipe": recipe, "settings": settings, "config": config, "out": out}
        named = {**{kind: table.get("name") for kind, table in sections.items()}, **others}
        given = [name for table in (named, *sections.values()) for name, value in table.items() if value is not None]
        if given:
            raise UsageError(f"`resume` keeps the run's own settings; leave out `{given[0]}`")
        return training.resume(Path(resume), get_registry(), callbacks, offline, allow_changed_data).run
    layers, of_file = user_settings(None if config is None else Path(config), sections)
    layers += [setting_layer(name, value) for name, value in (settings or {}).items()]
    folder = None if out is None else Path(out)
    return training.train(layers, recipe or of_file, folder, offline, get_registry(), callbacks, force).run


class TrainedClassifier(Classifier):
    """A trained classifier: a `torch.nn.Module` that maps normalized images B,3,S,S to the head's output.

    Attributes:
        class_names: in the order of the scores.
        preprocessing: resize, crop and normalization.
        model_file: the file that it was loaded from.
    """

    model_file = Path()

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is one image
        self,
        images: ImageLike,
        top_k: int = 5,
        *,
        batch_size: int = 32,
        tta: str | Sequence[str] | None = None,
        sure: float | None = None,
        taxonomy: str | PathLike[str] | None = None,
        calibrated: bool = True,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        images: Sequence[ImageLike],
        top_k: int = 5,
        *,
        batch_size: int = 32,
        tta: str | Sequence[str] | None = None,
        sure: float | None = None,
        taxonomy: str | PathLike[str] | None = None,
        calibrated: bool = True,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        top_k: int = 5,
        *,
        batch_size: int = 32,
        tta: str | Sequence[str] | None = None,
        sure: float | None = None,
        taxonomy: str | PathLike[str] | None = None,
        calibrated: bool = True,
    ) -> Prediction | list[Prediction]:
        """Predict the top-k classes of an image or of several.

            classifier.predict("a.jpg").classes[0]  # ("Crested-Spotted-Warbler", 0.58)

        Args:
            images: paths, PIL images, or uint8 arrays H,W,3 (or H,W); one of them or a sequence.
            top_k: number of classes per image.
            batch_size: images per forward pass.
            tta: test-time augmentation: "flip", "crops", "sizes", or several, such as "flip,crops".
            sure: also name the lowest class or group of classes with this probability or more, as `Prediction.sure`.
            taxonomy: CSV file of the groups; the default is what the model file has of them.
            calibrated: whether to use the run's calibration, if it has one; see `fgvc_cli.calibrate`.

        Returns:
            One `Prediction` per image, with `classes`: (name, probability) pairs in descending order; of a calibrated
            run also with `answer`, `reason` and `set`.

        Raises:
            UsageError: `top_k` or `batch_size` is below 1, an image has another type, `tta` is unknown or does not
                work with this classifier, or `sure` is no probability or the classes have no groups (also a
                `ValueError`).
            FgvcError: an image cannot be read, or its scores are not finite.
        """
        from fgvc_cli.evaluation.predict import Predictions

        if top_k < 1:
            raise UsageError(f"`top_k={top_k}` must be at least 1")
        views = Views.of(parse_tta(tta), self, self.model_file)
        calibration = None
        if calibrated and self.model_file.is_file():
            calibration = find_calibration(self.model_file, len(self.class_names), views.names)
        ready = ReadyClassifier(self, self.model_file, "fp32", batch_size, 0, views, calibration)
        groups = TaxonomySettings(None if taxonomy is None else Path(taxonomy), sure)
        names = find_names(self.model_file, self.class_names, groups)
        predicting = Predictions(ready, [_source(image) for image in _listed(images)], top_k, names=names)
        found = [prediction for batch in predicting for prediction in batch]
        _refuse_failures(predicting.failures)
        return found if _is_sequence(images) else found[0]


def load(run: RunLike, device: str = "cpu") -> TrainedClassifier:
    """Load the classifier of a run, in evaluation mode.

        classifier = fgvc.load("runs/20261130-birds")
        classifier.predict(["a.jpg", image, array], top_k=3)

    Args:
        run: a run, its folder, or a `model.safetensors`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        UsageError: this machine has no such device (also a `ValueError`).
        FgvcError: there is no such run, it is damaged, or a component it needs is not installed.
    """
    classifier = load_classifier(Path(run), str(pick_device(device)), TrainedClassifier)
    classifier.model_file = model_file(Path(run))
    return classifier


def evaluate(
    run: RunLike,
    split: str | None = None,
    *,
    data: str | PathLike[str] | None = None,
    dataset: str | None = None,
    exclude: str | PathLike[str] | None = None,
    ignore_unknown: bool = False,
    allow_changed_data: bool = False,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    workers: int = -1,
    tta: str | Sequence[str] | None = None,
    sure: float | None = None,
    taxonomy: str | PathLike[str] | None = None,
    calibrated: bool = True,
    unknown: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    force: bool = False,
) -> EvaluationSummary:
    """Score a run on a split of its dataset, or on other images of the same classes, as `fgvc evaluate` does.

        fgvc.evaluate(run, split="test").top1

    The results are also written to the run folder (or to `out`), where comparisons and reports find them.

    Args:
        run: a run, its folder, or a `model.safetensors`.
        split: its name; the default is "test", or "val" where there is none.
        data: other images: a folder of class folders, or a CSV or TSV file; classes are matched by name.
        dataset: another dataset, by name.
        exclude: CSV file of images to leave out, such as that of `fgvc_cli.audit`.
        ignore_unknown: skip images of classes that the classifier does not know.
        allow_changed_data: use the run's own dataset even if it changed since training.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        batch_size: images per forward pass.
        workers: processes that load images; -1 chooses by device.
        tta: test-time augmentation: "flip", "crops", "sizes", or several, such as "flip,crops".
        sure: probability from which the lowest class or group is named, for `taxonomy` of the result; default 0.9.
        taxonomy: CSV file of groups of classes; the default is what the model file or the dataset has of them.
        calibrated: whether to use the run's calibration, if it has one, for `calibrated` of the result.
        unknown: folder of images of classes that the run does not know, or the name of a dataset, for `unknown` of the
            result.
        out: folder for the results.
        force: overwrite an existing `out`.

    Returns:
        The metrics: `top1`, `top5`, `macro_f1`, `loss`, `per_class` and more, fractions in [0, 1].

    Raises:
        UsageError: there is no such split, or a class is unknown to the classifier (also a `ValueError`).
        FgvcError: the run or the images are missing or cannot be used.
    """
    from fgvc_cli.evaluation.evaluate import evaluate_run
    from fgvc_cli.evaluation.split_selection import SplitRequest

    evaluation = evaluate_run(
        find_model(Path(run)),
        get_registry(),
        SplitRequest(
            split,
            None if data is None else Path(data),
            dataset,
            ignore_unknown=ignore_unknown,
            allow_changed_data=allow_changed_data,
            exclude=None if exclude is None else Path(exclude),
        ),
        InferenceSettings(device, precision, batch_size, workers, tta, calibrated),
        None if out is None else Path(out),
        force,
        TaxonomySettings(None if taxonomy is None else Path(taxonomy), sure),
        None if unknown is None else fspath(unknown),
    )
    return evaluation.summary


@dataclass(frozen=True)
class Embeddings:
    """What `fgvc_cli.embed` returns.

    Attributes:
        images: names of the images that could be read: paths, or "image N".
        values: float32 N,D, one row per image.
        failures: why an image could not be read, by its name.
    """

    images: tuple[str, ...]
    values: np.ndarray
    failures: Mapping[str, str]


def embed(
    images: ImageLike | Sequence[ImageLike],
    *,
    run: RunLike | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    offline: bool = False,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    workers: int = 0,
) -> Embeddings:
    """Compute the embeddings of images with the backbone of a run or a pretrained one, as `fgvc embed` does.

        fgvc.embed(["a.jpg", "b.jpg"], backbone="efficientnet_lite0").values  # float32 2,1280

    Args:
        images: paths, PIL images, or uint8 arrays H,W,3; one of them or a sequence.
        run: a run, its folder, or a `model.safetensors`; the default is the latest finished run.
        backbone: name of a backbone to use instead.
        weights: of the backbone: "auto" (the default), "imagenet", "none", a file, or a tag of its published weights.
        image_size: side of the images for the backbone, in pixels; the default is 224.
        offline: download nothing.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        batch_size: images per forward pass.
        workers: processes that load images; -1 chooses by device, 0 loads in this process.

    Raises:
        UsageError: `run` and `backbone` are given, `weights` or `image_size` without `backbone`, or a value is wrong
            (also a `ValueError`).
        FgvcError: the run or the weights are not available.
    """
    from fgvc_cli.contracts import Split
    from fgvc_cli.evaluation import embedding

    inference, of = InferenceSettings(device, precision, batch_size, workers), None if run is None else Path(run)
    embedder = embedding.open_embedder(of, backbone, weights, image_size, inference, get_registry(), offline)
    sources = [_source(image) for image in _listed(images)]
    names = [str(source) if isinstance(source, Path) else f"image {i}" for i, source in enumerate(sources)]
    batches = list(embedder.batches(Split("images", sources, [0] * len(names), names)))
    values = [batch.embeddings for batch in batches] or [np.empty((0, embedder.width), np.float32)]
    read = tuple(names[i] for batch in batches for i in batch.indices.tolist())
    return Embeddings(read, np.concatenate(values), dict(embedder.failures))


def add_classes(
    run: RunLike,
    folders: Sequence[str | PathLike[str]],
    *,
    out: str | PathLike[str] | None = None,
    force: bool = False,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    workers: int = 0,
) -> Run:
    """Add classes to a run without training, as `fgvc classes add` does, and return the new run.

    Args:
        run: a run of a head that can add classes, such as class means; it stays as it is.
        folders: a folder of images for each class, named like it, or folders of such folders.
        out: folder of the new run; the default is a new one in the folder of runs.
        force: replace another run at `out`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        batch_size: images per forward pass.
        workers: processes that load images; -1 chooses by device, 0 loads in this process.

    Raises:
        UsageError: the head cannot add classes, or a class exists already (also a `ValueError`).
        FgvcError: the run does not exist, or no image of a class can be read.
    """
    from fgvc_cli.training import classes

    inference = InferenceSettings(device, precision, batch_size, workers)
    target, named = None if out is None else Path(out), [Path(folder) for folder in folders]
    return classes.add_classes(find_model(Path(run)), named, inference, get_registry(), target, force).run


@dataclass(frozen=True)
class ImageExplanation:
    """What `fgvc_cli.explain` returns: the saliency map of a prediction and, on request, the occlusion test.

    Notebooks show it as its panel.

    Attributes:
        explained: everything that was computed.
    """

    explained: ExplainedImage

    @property
    def steps(self) -> Sequence[OcclusionStep]:
        """The prediction for the whole image, then for each occlusion step."""
        return self.explained.explanations[0].steps

    @property
    def heat_map(self) -> np.ndarray:
        """The saliency map: float32 S,S in [0, 1], over the crop that the classifier sees."""
        return self.steps[0].saliency

    @property
    def predicted(self) -> str:
        """The predicted class."""
        return self.steps[0].predicted

    @property
    def survived(self) -> bool | None:
        """Whether the predicted class stays the same at every occlusion step; None without the occlusion test."""
        return self.explained.explanations[0].survived

    def figure(self) -> PILImage:
        """Draw the panel: the photograph, its saliency map and the masked copies."""
        from fgvc_cli.explaining.panels import draw_panel

        return draw_panel(self.explained)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().save(buffer, format="png")
        return buffer.getvalue()


class _ExplainOptions(TypedDict, total=False):
    """The keyword arguments of `explain`, for type checkers."""

    occlude: bool
    steps: int
    explainer: str
    target: str
    versus: str | None
    cover: str
    cover_area: float | None
    cover_threshold: float | None
    settings: Mapping[str, Any] | None
    device: str
    precision: str
    batch_size: int


@overload
def explain(  # type: ignore[overload-overlap]  # a str is one image
    run: RunLike, images: ImageLike, **options: Unpack[_ExplainOptions]
) -> ImageExplanation: ...


@overload
def explain(
    run: RunLike, images: Sequence[ImageLike], **options: Unpack[_ExplainOptions]
) -> list[ImageExplanation]: ...


def explain(
    run: RunLike,
    images: ImageLike | Sequence[ImageLike],
    *,
    occlude: bool = False,
    steps: int = 1,
    explainer: str = "gradcam",
    target: str = "predicted",
    versus: str | None = None,
    cover: str = "mean",
    cover_area: float | None = None,
    cover_threshold: float | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 32,
) -> ImageExplanation | list[ImageExplanation]:
    """Explain predictions with saliency maps, as `fgvc explain` does.

        explanation = fgvc.explain(run, "a.jpg", occlude=True)
        explanation.heat_map, explanation.survived, explanation.figure()

    Args:
        run: a run, its folder, or a `model.safetensors`.
        images: paths, PIL images, or uint8 arrays H,W,3; one of them or a sequence.
        occlude: mask the most salient pixels, predict again, and explain the new prediction.
        steps: number of occlusion steps.
        explainer: name of the explainer.
        target: class to explain: "predicted", "true" (files in a folder named after their class) or a class name.
        versus: name of a class to compare with: maps explain the difference of the two scores.
        cover: fill of masked pixels: "mean", "blur" or "gray".
        cover_area: fraction of the image that a step masks; the default is 0.2.
        cover_threshold: mask pixels with saliency at or above this value instead.
        settings: options of the explainer by name, such as {"least_side": 1}.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16", of gradients too.
        batch_size: images per forward pass.

    Returns:
        One `ImageExplanation` per image; a single one for a single image.

    Raises:
        UsageError: a value is wrong, or the explainer cannot explain this classifier (also a `ValueError`).
        FgvcError: the run is missing, or an image cannot be read.
    """
    from fgvc_cli.explaining.explainers import make_explainers
    from fgvc_cli.explaining.explanation import ImageExplanations, InputImage, true_class
    from fgvc_cli.explaining.masking import Masking

    if cover_area is not None and cover_threshold is not None:
        raise UsageError("`cover_area` and `cover_threshold` exclude each other")
    if steps < 1:
        raise UsageError(f"`steps={steps}` must be at least 1")
    chosen = {"fill": cover, "area": cover_area, "threshold": cover_threshold}
    masking = Masking(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    ready = load_ready(find_model(Path(run)), InferenceSettings(device, precision, batch_size, workers=0))
    inputs = []
    for number, image in enumerate(_listed(images)):
        source = _source(image)
        if isinstance(source, Path):
            inputs.append(InputImage(str(source), source, true_class(source, ready.classifier.class_names)))
        else:
            inputs.append(InputImage(f"image {number}", source))
    explaining = ImageExplanations(
        [ready],
        make_explainers([explainer], dict(settings or {}), get_registry()),
        inputs,
        target,
        masking if occlude else None,
        steps if occlude else 0,
        versus,
    )
    found = [ImageExplanation(explained) for batch in explaining for explained in batch]
    _refuse_failures(explaining.failures)
    return found if _is_sequence(images) else found[0]


class Components(Sequence[Component]):
    """Installed components; notebooks show them as a table."""

    def __init__(self, found: Sequence[Component]) -> None:
        self._found = tuple(found)

    @overload
    def __getitem__(self, index: int) -> Component: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Component]: ...

    def __getitem__(self, index: int | slice) -> Component | Sequence[Component]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"Components({[component.name for component in self]})"

    def _repr_html_(self) -> str:
        rows = ((c.kind, c.name, c.spec.summary, str(c.origin)) for c in self)
        return html_table(rows, ("kind", "name", "summary", "from"))


def components(kind: str | None = None) -> Components:
    """List installed components, as `fgvc list-plugins` does.

        [component.name for component in fgvc.components("head")]  # ["cmal", "knn", "linear", ...]

    Args:
        kind: "backbone", "head", "optimizer", "dataset", "explainer", "tracker", "exporter", "launcher", "recipe" or
            "study"; None: all.

    Raises:
        UsageError: there is no such kind (also a `ValueError`).
    """
    from fgvc_cli.registry.lookup import check_kind

    kinds = KINDS if kind is None else (check_kind(kind),)
    registry = get_registry()
    return Components([component for each in kinds for component in registry.components(each)])


def _is_sequence(images: ImageLike | Sequence[ImageLike]) -> bool:
    return isinstance(images, Sequence) and not isinstance(images, str)


def _listed(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]


def _source(image: ImageLike) -> Path | np.ndarray:
    """Return a file's path, or an image as a uint8 array H,W,3.

    Raises:
        UsageError: it is neither a path nor an image.
    """
    if isinstance(image, str | PathLike):
        return Path(image)
    if isinstance(image, PILImage):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    array = np.asarray(image)
    if not array.ndim:
        raise UsageError(f"{image!r} is not an image: expected a path, a PIL image or a uint8 array H,W,3")
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UsageError(f"an image of shape {array.shape} and type {array.dtype}: expected a path, a PIL image or a "
                         "uint8 array H,W,3")  # fmt: skip
    return np.array(Image.fromarray(array.squeeze(2) if array.shape[2:] == (1,) else array).convert("RGB"))


def _refuse_failures(failures: Mapping[str, str]) -> None:
    for name, reason in failures.items():
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise FgvcError(f"{name}: {reason}{more}")
