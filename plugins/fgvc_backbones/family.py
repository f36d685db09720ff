"""The family `timm/<model>`: every timm model that can return intermediate feature maps."""

from __future__ import annotations

import sys

import timm

from fgvc_backbones.zoo import FAMILY_PREFIX, OPTIONS, TARGET
from fgvc_cli import BackboneSpec, UsageError
from fgvc_cli.errors import did_you_mean


def resolve(name: str) -> BackboneSpec | None:
    """Return the spec of `timm/<model>` or `timm/<model>.<weights tag>`; None for any other name.

    Raises:
        UsageError: timm has no such model or tag, or the model cannot return intermediate maps.
    """
    if not name.startswith(FAMILY_PREFIX):
        return None
    full_name = name.removeprefix(FAMILY_PREFIX)
    model, _, tag = full_name.partition(".")
    if not timm.is_model(model):
        near = did_you_mean(model, timm.list_models())
        raise UsageError(f"{name}: timm {timm.__version__} has no model '{model}'.{near}")
    if tag:
        check_tag(model, tag, name)
    if not _may_return_maps(model):
        raise UsageError(f"{name}: this model cannot return intermediate feature maps, which heads need")
    default = timm.get_pretrained_cfg(full_name)
    weights = ".".join(filter(None, (model, default.tag))) if default.has_weights else ""
    return BackboneSpec(name, TARGET, f"timm's {full_name}", OPTIONS, "timm", pretrained=weights)


def check_tag(model: str, tag: str, given: str) -> None:
    """Raise `UsageError`, naming the backbone `given`, unless timm publishes weights with that tag for the model."""
    tags = [full_name.partition(".")[2] for full_name in timm.list_pretrained(f"{model}.*")]
    if tag not in tags:
        known = ", ".join(tags) or "none"
        raise UsageError(f"{given}: {model} has no weights '{tag}'.{did_you_mean(tag, tags)} Known tags: {known}")


def _may_return_maps(model: str) -> bool:
    """Check without building the model whether its module has classes with intermediate maps."""
    module = sys.modules[timm.model_entrypoint(model).__module__]
    return any(isinstance(value, type) and hasattr(value, "forward_intermediates") for value in vars(module).values())
