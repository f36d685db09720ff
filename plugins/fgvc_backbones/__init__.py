"""The built-in backbones: five by name, and `timm/<any model with intermediate maps>`."""

from fgvc_backbones.zoo import ARCHITECTURES, FAMILY_PREFIX, OPTIONS, TARGET
from fgvc_cli import BackboneSpec, Family, hookimpl


@hookimpl
def fgvc_backbones() -> list[BackboneSpec]:
    """Register the built-in backbones."""
    return [
        BackboneSpec(a.name, TARGET, a.summary, OPTIONS, a.source, strides=a.strides, pretrained=a.timm)
        for a in ARCHITECTURES
    ]


@hookimpl
def fgvc_families() -> list[Family]:
    """Register `timm/<model>`."""
    return [
        Family(
            "backbone",
            FAMILY_PREFIX,
            "fgvc_backbones.family:resolve",
            "Any timm model with intermediate feature maps, with or without a weights tag: timm/resnet18.a1_in1k",
        )
    ]
