"""Model files: build a classifier from components, save it, and load it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from fgvc_cli.config.renamed import current
from fgvc_cli.contracts import Backbone, Classifier, Head, Preprocessing
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import as_toml, build
from fgvc_cli.registry import Component, Registry, get_registry
from fgvc_cli.runs import tensors
from fgvc_cli.runs.folder import MODEL_FILE
from fgvc_cli.specs import HeadSpec, Kind


def build_backbone(component: Component, options: Any, image_size: int) -> Backbone:
    """Build a backbone with random weights for square images of that size."""
    backbone = component.make(name=component.spec.name, image_size=image_size, options=options)
    return cast(Backbone, _checked(backbone, Backbone, component))


def build_head(component: Component, options: Any, backbone: Backbone, classes: int) -> Head:
    """Build a head on a backbone, and drop what it does not read of that.

    Raises:
        UsageError: the head cannot work with the backbone's maps.
    """
    _check_maps(component, backbone)
    head = cast(
        Head, _checked(component.make(backbone=backbone.info, classes=classes, options=options), Head, component)
    )
    backbone.prune(head.reads())
    return head


def describe_component(component: Component, options: Any) -> dict[str, Any]:
    """Return what a model file records of a component."""
    return {
        "name": component.spec.name,
        "distribution": component.distribution,
        "version": component.version,
        "options": as_toml(options),
    }


def describe_classifier(classifier: Classifier) -> dict[str, Any]:
    """Return what a model file records of classes and preprocessing."""
    return {"classes": list(classifier.class_names), "preprocessing": asdict(classifier.preprocessing)}


def assemble(backbone: Backbone, head: Head, class_names: Sequence[str], preprocessing: Preprocessing) -> Classifier:
    """Put backbone and head together."""
    return Classifier(backbone, head, class_names, preprocessing)


def _check_maps(component: Component, backbone: Backbone) -> None:
    spec = cast(HeadSpec, component.spec)
    strides = tuple(m.stride for m in backbone.info.maps)
    if not spec.accepts(strides):
        different = " of different stride" if spec.distinct_strides else ""
        raise UsageError(
            f"head {component.name} needs {spec.maps} feature maps{different}; {backbone.info.name} has strides "
            f"{', '.join(map(str, strides)) or 'none'}: choose another backbone or head."
        )


def _checked(thing: Any, contract: type, component: Component) -> Any:
    if not isinstance(thing, contract):
        raise FgvcError(
            f"{component.reference} {component.version} breaks its contract: {component.spec.target} makes a "
            f"{type(thing).__name__}, not a {contract.__name__}. Its author can mend it."
        )
    return thing


FORMAT = 1
"""The version of what a model file's document holds."""


def save_classifier(path: Path, classifier: Classifier, document: dict[str, Any]) -> None:
    """Write a classifier to one file that is enough to predict.

    Args:
        path: the file.
        classifier: its weights are saved.
        document: what `read_metadata` will return: components, class names, preprocessing and where it came from.
    """
    tensors.save(path, classifier.state_dict(), {"format": FORMAT, **document})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what a model file (or a run folder's) says of itself: components, classes, preprocessing, dataset.

    Raises:
        FgvcError: it is missing, damaged or of a later format.
    """
    file = model_file(Path(path))
    document = tensors.load_document(file)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FgvcError(
            f"{file} was written by another version of fgvc (format {document.get('format')}): update fgvc."
        )
    return document


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Return the class names of a model file, in the order of its scores, without loading its weights.

    Raises:
        FgvcError: it is missing, damaged or of a later format.
    """
    document = read_metadata(path)
    if "classes" not in document:
        raise FgvcError(f"{path} is damaged: its description lacks 'classes'. Train again, or restore the file.")
    return tuple(document["classes"])


def load_classifier(path: str | Path, device: Any = "cpu") -> Classifier:
    """Load the classifier of a run folder or a `model.safetensors`, in evaluation mode.

    Raises:
        FgvcError: nothing is there, it is damaged, or a component that it needs is not installed.
    """
    file = model_file(Path(path))
    document = read_metadata(file)
    registry = get_registry()
    try:
        preprocessing = _preprocessing(document["preprocessing"])
        backbone_component, backbone_options = _component("backbone", document, registry, file)
        head_component, head_options = _component("head", document, registry, file)
        backbone = build_backbone(backbone_component, backbone_options, preprocessing.image_size)
        head = build_head(head_component, head_options, backbone, len(document["classes"]))
    except (KeyError, TypeError) as error:
        raise FgvcError(
            f"{file} is damaged: its description lacks {error}. Train again, or restore the file."
        ) from error
    classifier = assemble(backbone, head, document["classes"], preprocessing)
    state, _ = tensors.load(file)
    load_state(classifier, state, file)
    return classifier.to(device).eval()


def load_state(classifier: Classifier, state: dict[str, Any], file: Path) -> None:
    """Load weights that must fit exactly.

    Raises:
        FgvcError: they do not.
    """
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        cause = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise FgvcError(
            f"{file} does not fit the components installed here ({cause}): install the versions that it names, "
            "or train again."
        ) from error


def model_file(path: Path) -> Path:
    """Return the model file of a run folder, or the file itself."""
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        what = "the run has no trained model yet" if path.is_dir() else "there is no such file"
        raise FgvcError(f"{path}: {what}. Name a run folder or a {MODEL_FILE} that fgvc train wrote.")
    return file


def _preprocessing(values: dict[str, Any]) -> Preprocessing:
    mean, std = tuple(values["mean"]), tuple(values["std"])
    return Preprocessing(**{**current("preprocessing", values), "mean": mean, "std": std})


def _component(kind: Kind, document: dict[str, Any], registry: Registry, file: Path) -> tuple[Component, Any]:
    """Find the very component that the file was made with; the same name of another distribution will not do."""
    record = document["components"][kind]
    try:
        component = registry.find(kind, f"{record['distribution']}:{record['name']}")
    except UsageError as error:
        raise FgvcError(
            f"{file} needs {kind} '{record['name']}' of {record['distribution']} {record['version']}, "
            f"which is not to be had here: pip install {record['distribution']}. ({error})"
        ) from error
    return component, cast(Any, build(component.options_type(), current(kind, record["options"]), kind))
