"""Model files: tensors and a JSON document in one safetensors file; build, save and load classifiers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fgvc_cli.config.renamed import current
from fgvc_cli.contracts import Backbone, Classifier, Head, Preprocessing, Taxonomy
from fgvc_cli.enforcement import make
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.files import replacing
from fgvc_cli.options import as_toml, build
from fgvc_cli.registry import Component, Registry, get_registry
from fgvc_cli.registry.lookup import NotInstalledError
from fgvc_cli.registry.versions import made_with
from fgvc_cli.runs.description import check_description
from fgvc_cli.runs.exported import exported_classifier, exporter_of, is_exported, open_exported
from fgvc_cli.runs.folder import MODEL_FILE
from fgvc_cli.specs import HeadSpec, Kind

KEY = "fgvc"


def save(path: Path, tensors: Mapping[str, Tensor], document: Any) -> None:
    """Write tensors and a JSON document to a file atomically.

    Tensors that share memory are written separately; memory formats such as channels-last are not kept.
    """
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        storage = kept.untyped_storage().data_ptr()
        plain[name] = kept.clone() if storage in seen else kept
        seen.add(storage)
    with replacing(path) as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            text = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace").decode()
            save_file(plain, part, metadata={KEY: text})
        except SafetensorError as error:
            raise _as_os_error(error) from error
        part.chmod(mode)  # safetensors creates files that only the owner can read, whatever the umask


def load(path: Path, device: str | torch.device = "cpu", prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Read what `save` wrote; of the tensors, those whose names start with `prefix`.

    Raises:
        FgvcError: the file is missing, damaged, or was not written by this program.
    """
    with _opened(path, device) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}, _document(path, file)


def load_document(path: Path) -> Any:
    """Read only the JSON document."""
    with _opened(path, "cpu") as file:
        return _document(path, file)


def pack(value: Any, tensors: dict[str, Tensor], at: str) -> Any:
    """Turn nested dicts, lists and tuples into a JSON document, moving their tensors to `tensors` under `at`."""
    if isinstance(value, Tensor):
        tensors[at] = value
        return {"tensor": at}
    if isinstance(value, Mapping):
        return {"dict": [[pack(k, {}, at), pack(v, tensors, f"{at}.{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [pack(v, tensors, f"{at}.{i}") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{at}: a state may contain tensors, numbers, text, and lists or dicts of them, not {type(value)}")


def unpack(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`."""
    if not isinstance(document, dict):
        return document
    ((kind, value),) = document.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value}
    items = [unpack(v, tensors) for v in value]
    return tuple(items) if kind == "tuple" else items


def _as_os_error(error: SafetensorError) -> Exception:
    """Return the OSError that safetensors reports in words (disk full, permission denied), or a FgvcError."""
    text = str(error)
    if "os error" in text:
        code = text.rsplit("os error", 1)[1].strip(" ):")
        if code.split(")")[0].isdigit():
            return OSError(int(code.split(")")[0]), text)
    return FgvcError(f"Cannot write the weights: {text}")


def _opened(path: Path, device: str | torch.device) -> Any:
    if not path.is_file():
        raise FgvcError(f"{path} does not exist")
    try:
        return safe_open(path, framework="pt", device=str(device))
    except (SafetensorError, OSError) as error:
        raise FgvcError(
            f"{path} is damaged or not a safetensors file ({error}). Restore it, or train again."
        ) from error


def _document(path: Path, file: Any) -> Any:
    metadata = file.metadata() or {}
    if KEY not in metadata:
        raise FgvcError(f"{path} was not written by fgvc: it lacks class names and preprocessing")
    try:
        return json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise FgvcError(f"{path} is damaged: its metadata is not JSON. Restore it, or train again.") from error


C = TypeVar("C", bound=Classifier)


def build_backbone(component: Component, options: Any, image_size: int) -> Backbone:
    """Build a backbone with random weights for square images of that size."""
    return make(component, Backbone, name=component.spec.name, image_size=image_size, options=options)


def build_head(component: Component, options: Any, backbone: Backbone, classes: int) -> Head:
    """Build a head on a backbone, and prune the parts of the backbone that it does not read.

    Raises:
        UsageError: the head cannot work with the feature maps of the backbone.
    """
    spec = cast(HeadSpec, component.spec)
    strides = tuple(m.stride for m in backbone.info.maps)
    if not spec.accepts(strides):
        different = " of different stride" if spec.distinct_strides else ""
        raise UsageError(
            f"head {component.name} needs {spec.maps} feature maps{different}; {backbone.info.name} has strides "
            f"{', '.join(map(str, strides)) or 'none'}: choose another backbone or head"
        )
    head = make(component, Head, backbone=backbone.info, classes=classes, options=options)
    backbone.prune(head.reads())
    return head


def describe_component(component: Component, options: Any) -> dict[str, Any]:
    """Return what a model file records of a component."""
    return {
        "name": component.spec.name,
        "distribution": component.distribution,
        "version": component.origin.version,
        "options": as_toml(options),
    }


def describe_classifier(classifier: Classifier) -> dict[str, Any]:
    """Return what a model file records of classes and preprocessing."""
    return {"classes": list(classifier.class_names), "preprocessing": asdict(classifier.preprocessing)}


FORMAT = 1
"""Version of the metadata in a model file."""

CALIBRATION = "calibration"
"""The metadata that `fgvc calibrate` adds to a model file, and with a dot the prefix of its tensors."""


def save_classifier(path: Path, classifier: Classifier | Mapping[str, Tensor], document: dict[str, Any]) -> None:
    """Write a classifier, or its state dict, to a file that is sufficient for prediction.

    `document` is the metadata: components, class names, preprocessing, dataset, origin of the weights.
    """
    state = classifier.state_dict() if isinstance(classifier, Classifier) else classifier
    save(path, state, {"format": FORMAT, **document})


def load_calibration(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return the calibration in a model file and its tensors by name (none in an exported file); None without one.

    Raises:
        FgvcError: the file is missing, damaged or of a later format.
    """
    document = read_metadata(file).get(CALIBRATION)
    if document is None:
        return None
    prefix = f"{CALIBRATION}."
    tensors, _ = load(file, prefix=prefix) if exporter_of(file) is None else ({}, None)
    return document, {name.removeprefix(prefix): value for name, value in tensors.items()}


def save_calibration(file: Path, calibration: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Add a calibration to a model file, in place of an earlier one; everything else stays as it is.

    Raises:
        FgvcError: the file is missing, damaged or of a later format, or cannot be written.
    """
    document, (state, _) = read_metadata(file), load(file)
    weights = {name: value for name, value in state.items() if not name.startswith(f"{CALIBRATION}.")}
    added = {f"{CALIBRATION}.{name}": value for name, value in tensors.items()}
    save(file, {**weights, **added}, {**document, CALIBRATION: calibration})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a model file or of the one in a run folder: components, classes, preprocessing, dataset.

    An exported file has the metadata too, except what concerns training.

    Raises:
        FgvcError: it is missing, damaged or of a later format.
    """
    file = model_file(Path(path))
    return _checked(load_document(file) if exporter_of(file) is None else open_exported(file).document, file)


def _checked(document: Any, file: Path) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise FgvcError(f"{file} was written by another version of fgvc (format {found!r:.40}): update fgvc")
    check_description(document, file)
    return document


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Return the class names of a model file, in the order of its scores, without loading its weights.

    Raises:
        FgvcError: it is missing, damaged or of a later format.
    """
    document = read_metadata(path)
    if "classes" not in document:
        raise FgvcError(f"{path} is damaged: its metadata lacks 'classes'. Train again, or restore the file.")
    return tuple(document["classes"])


def read_taxonomy(path: str | Path) -> Taxonomy | None:
    """Return the taxonomy of a model file's classes; None if it has none, as those of older versions.

    Raises:
        FgvcError: the file is missing, damaged or of a later format.
    """
    document = read_metadata(path)
    return Taxonomy.from_json(document["taxonomy"]) if "taxonomy" in document else None


def load_classifier(path: str | Path, device: Any = "cpu", cls: type[C] = Classifier) -> C:  # type: ignore[assignment]
    """Load the classifier of a run folder, a `model.safetensors` or an exported file as a `cls`, in evaluation mode.

    Raises:
        FgvcError: it does not exist, is damaged, or needs a component that is not installed.
    """
    file = model_file(Path(path))
    if exporter_of(file) is not None:
        model = open_exported(file)
        with _described(file):
            return exported_classifier(file, model, _preprocessing(_checked(model.document, file)), cls).to(device)
    with _made_with(file):
        classifier = _build(file, cls)
        state, _ = load(file)
        load_state(classifier, state, file)
    if wrong := not_finite(classifier):
        raise FgvcError(f"{file} is damaged: {wrong}. Restore it, or train again.")
    return classifier.to(device).eval()


def not_finite(module: nn.Module) -> str:
    """Return which weights are NaN or infinite, as "3 of 96 values of head.bias are NaN or infinite"; "" if none is."""
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not (finite := value.isfinite()).all():
            return f"{int((~finite).sum())} of {value.numel()} values of {name} are NaN or infinite"
    return ""


def resize_classifier(classifier: Classifier, file: Path, image_size: int) -> Classifier:
    """Return a classifier of a model file with the weights that it has now, for another image size.

    Weights that do not depend on the image size are shared. Position embeddings of the backbone are resampled.

    Raises:
        UsageError: the backbone or the head does not support that.
        FgvcError: the file is missing or damaged.
    """
    if is_exported(classifier):
        size = classifier.preprocessing.image_size
        raise UsageError(f"{file} is exported for images of {size} px and cannot take {image_size} px")
    with _made_with(file):
        resized = _build(file, Classifier, image_size)
    here, there = classifier.state_dict(), resized.state_dict()
    of_images = {f"head.{name}" for name in getattr(resized.head, "resizable", ())}  # of a fitted head, at any size
    differing = [n for n in there if n not in here or (here[n].shape != there[n].shape and n not in of_images)]
    of_backbone = {name.removeprefix("backbone."): v for name, v in here.items() if name.startswith("backbone.")}
    if differing and all(name.startswith("backbone.") for name in differing):
        kept = resized.backbone.load_weights(of_backbone).missing  # resamples what depends on the size
        differing = [f"backbone.{name}" for name in kept]
    elif not differing:
        resized.load_state_dict(here, assign=True)
    if differing:
        size = classifier.preprocessing.image_size
        raise UsageError(
            f"{file} is built for images of {size} px and cannot take {image_size} px: the shape of {differing[0]} "
            "depends on the size"
        )
    resized.head.load_state_dict(classifier.head.state_dict(), assign=True)
    return resized.to(classifier.device).eval()


def _build(file: Path, cls: type[C], image_size: int | None = None) -> C:
    """Build the classifier of a model file with random weights; `image_size`: None for its own."""
    document = read_metadata(file)
    registry = get_registry()
    with _described(file):
        preprocessing = _preprocessing(document)
        if image_size is not None:
            preprocessing = preprocessing.at_size(image_size)
        backbone_component, backbone_options = _component("backbone", document, registry, file)
        head_component, head_options = _component("head", document, registry, file)
        backbone = build_backbone(backbone_component, backbone_options, preprocessing.image_size)
        head = build_head(head_component, head_options, backbone, len(document["classes"]))
        return cls(backbone, head, document["classes"], preprocessing)


def _preprocessing(document: dict[str, Any]) -> Preprocessing:
    values = current("preprocessing", document["preprocessing"])
    return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


@contextmanager
def _described(file: Path) -> Iterator[None]:
    """Turn errors from a description that lacks something into a line that names the file."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise FgvcError(f"{file} is damaged: its metadata lacks {error}. Train again, or restore the file.") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, FgvcError):
            raise
        raise FgvcError(f"{file} is damaged: its metadata is invalid: {error}. Train again, or restore it.") from error


def load_state(classifier: Classifier, state: dict[str, Any], file: Path) -> None:
    """Load weights, which must match exactly; the tensors of a calibration are ignored.

    Raises:
        FgvcError: they do not.
    """
    try:
        classifier.load_state_dict({n: value for n, value in state.items() if not n.startswith(f"{CALIBRATION}.")})
    except RuntimeError as error:
        cause = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise FgvcError(
            f"{file} does not match the installed components ({cause}): install the versions it was trained with, or "
            "train again"
        ) from error


def model_file(path: Path) -> Path:
    """Return the model file of a run folder, or the file itself."""
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        what = f"has no {MODEL_FILE}: the run is not finished" if path.is_dir() else "does not exist"
        raise FgvcError(f"{path} {what}; pass a finished run or its {MODEL_FILE}")
    return file


def _made_with(file: Path) -> AbstractContextManager[None]:
    """Return the context in which errors are explained by the plugins that a file was written with."""
    records = read_metadata(file).get("components", {})
    versions = {
        record["distribution"]: record["version"]
        for kind in ("backbone", "head")
        if {"distribution", "version"} <= (record := records.get(kind, {})).keys()
    }
    return made_with(versions, str(file), get_registry())


def _component(kind: Kind, document: dict[str, Any], registry: Registry, file: Path) -> tuple[Component, Any]:
    """Find the component that the file was written with, in the same distribution."""
    record = document["components"][kind]
    try:
        component = registry.find(kind, f"{record['distribution']}:{record['name']}")
    except NotInstalledError:
        raise
    except UsageError as error:
        origin = f"{record['distribution']} {record['version']}"
        raise FgvcError(f"{file} needs {kind} '{record['name']}' of {origin}: {error}") from error
    options = current(kind, record["options"], record["name"])
    return component, cast(Any, build(component.options_type(), options, kind))
