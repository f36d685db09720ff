"""The built-in backbones: five by name, and `timm/<any model with intermediate maps>`."""

from fgvc_backbones.zoo import BACKBONES, FAMILY_PREFIX
from fgvc_cli import BackboneSpec, Family, hookimpl


@hookimpl
def fgvc_backbones() -> list[BackboneSpec]:
    """Register the built-in backbones."""
    return list(BACKBONES)


@hookimpl
def fgvc_families() -> list[Family]:
    """Register `timm/<model>`."""
    return [
        Family(
            "backbone",
            FAMILY_PREFIX,
            "fgvc_backbones.plan:resolve",
            "Any timm model with intermediate feature maps, with or without a weights tag: timm/resnet18.a1_in1k",
        )
    ]
