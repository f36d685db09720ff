"""Building a classifier from components, for training and for loading alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from fgvc_cli.contracts import Backbone, Classifier, Head, Preprocessing
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import as_toml
from fgvc_cli.registry import Component
from fgvc_cli.specs import HeadSpec


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
            f"head {component.name} needs {spec.maps} feature maps{different}; those of {backbone.info.name} have strides "
            f"{', '.join(map(str, strides)) or 'none'}: choose another backbone or head."
        )


def _checked(thing: Any, contract: type, component: Component) -> Any:
    if not isinstance(thing, contract):
        raise FgvcError(
            f"{component.reference} {component.version} breaks its contract: {component.spec.target} makes a "
            f"{type(thing).__name__}, not a {contract.__name__}. Its author can mend it."
        )
    return thing
