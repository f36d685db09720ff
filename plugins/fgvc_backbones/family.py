"""The family `timm/<model>`: every timm model that can return intermediate feature maps."""

from __future__ import annotations

import sys

import timm

from fgvc_backbones.zoo import FAMILY_PREFIX, OPTIONS, TARGET
from fgvc_cli import BackboneSpec, UsageError
from fgvc_cli.errors import did_you_mean


def resolve(name: str) -> BackboneSpec | None:
    """Return the spec of `timm/<model>` or `timm/<model>.<weights tag>`; None if the name is of another family.

    Raises:
        UsageError: timm has no such model or tag, or the model cannot return intermediate maps.
    """
    if not name.startswith(FAMILY_PREFIX):
        return None
    full_name = name.removeprefix(FAMILY_PREFIX)
    model, _, tag = full_name.partition(".")
    if not timm.is_model(model):
        raise UsageError(f"{name}: timm {timm.__version__} has no model '{model}'.{did_you_mean(model, _models())}")
    if tag:
        check_tag(model, tag, name)
    if not _may_return_maps(model):
        raise UsageError(f"{name}: this model cannot return intermediate feature maps, which every head reads.")
    default = timm.get_pretrained_cfg(full_name)
    weights = ".".join(filter(None, (model, default.tag))) if default.has_weights else ""
    return BackboneSpec(name, TARGET, f"timm's {full_name}", OPTIONS, "timm", pretrained=weights)


def check_tag(model: str, tag: str, given: str) -> None:
    """Raise `UsageError`, calling what was typed `given`, unless timm publishes weights of that tag for the model."""
    tags = known_tags(model)
    if tag not in tags:
        known = ", ".join(tags) or "none"
        raise UsageError(f"{given}: {model} has no weights '{tag}'.{did_you_mean(tag, tags)} Known tags: {known}.")


def known_tags(model: str) -> list[str]:
    """List the tags of the weights that timm publishes for a model."""
    return [full_name.partition(".")[2] for full_name in timm.list_pretrained(f"{model}.*")]


def _models() -> list[str]:
    models: list[str] = timm.list_models()
    return models


def _may_return_maps(model: str) -> bool:
    """Say whether the file that defines the model has classes with intermediate maps (without building it)."""
    module = sys.modules[timm.model_entrypoint(model).__module__]
    return any(isinstance(value, type) and hasattr(value, "forward_intermediates") for value in vars(module).values())
