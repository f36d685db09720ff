"""The named backbones, and the family `timm/<model>` of every other one."""

from __future__ import annotations

import sys

import timm

from fgvc_cli import BackboneSpec, UsageError
from fgvc_cli.errors import did_you_mean

TARGET = "fgvc_backbones.timm_backbone:TimmBackbone"
OPTIONS = "fgvc_backbones.options:TimmOptions"
FAMILY_PREFIX = "timm/"


BACKBONES = (
    BackboneSpec(
        "resnet50",
        TARGET,
        "ResNet-50: residual convolutions, 24 million parameters",
        OPTIONS,
        "He et al. 2016, Deep Residual Learning for Image Recognition, arXiv 1512.03385",
        strides=(4, 8, 16, 32),
        pretrained="resnet50.tv_in1k",
    ),
    BackboneSpec(
        "resnext50",
        TARGET,
        "ResNeXt-50 32x4d: residual convolutions in 32 groups, 23 million parameters",
        OPTIONS,
        "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431",
        strides=(4, 8, 16, 32),
        pretrained="resnext50_32x4d.tv_in1k",
    ),
    BackboneSpec(
        "efficientnet_b5",
        TARGET,
        "EfficientNet-B5: depthwise convolutions, 28 million parameters",
        OPTIONS,
        "Tan, Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv 1905.11946",
        strides=(4, 8, 16, 32),
        pretrained="tf_efficientnet_b5.ra_in1k",
    ),
    BackboneSpec(
        "vit_b16",
        TARGET,
        "ViT-B/16: attention between patches of 16 px, 86 million parameters",
        OPTIONS,
        "Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, arXiv 2010.11929",
        strides=(16, 16, 16, 16),
        pretrained="vit_base_patch16_224.augreg_in1k",
    ),
    BackboneSpec(
        "swin_t",
        TARGET,
        "Swin-T: attention in shifted windows, 28 million parameters",
        OPTIONS,
        "Liu et al. 2021, Swin Transformer, arXiv 2103.14030",
        strides=(4, 8, 16, 32),
        pretrained="swin_tiny_patch4_window7_224.ms_in1k",
    ),
)
"""Their `pretrained` is timm's full name: the architecture and the tag of the weights."""


def timm_name(name: str) -> str:
    """Return timm's full name of a backbone such as "swin_t" or "timm/resnet18.a1_in1k"."""
    return {spec.name: spec.pretrained for spec in BACKBONES}.get(name, name.removeprefix(FAMILY_PREFIX))


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
