"""The built-in backbones: eight by name, and `timm/<any model with intermediate maps>`."""

from fgvc_cli import BackboneSpec, Family, hookimpl

TARGET = "fgvc_backbones.timm_backbone:TimmBackbone"
OPTIONS = "fgvc_backbones.options:TimmOptions"
FAMILY_PREFIX = "timm/"


def _efficientnet_lite(k: int, parameters: str) -> BackboneSpec:
    return BackboneSpec(
        f"efficientnet_lite{k}",
        TARGET,
        f"EfficientNet-Lite{k}: depthwise convolutions for phones and CPUs, {parameters} million parameters",
        OPTIONS,
        "Tan, Le 2019, EfficientNet, arXiv 1905.11946, without squeeze-and-excitation and swish",
        strides=(4, 8, 16, 32),
        pretrained=f"tf_efficientnet_lite{k}.in1k",
    )


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
    _efficientnet_lite(0, "3.4"),
    _efficientnet_lite(1, "4.1"),
    _efficientnet_lite(2, "4.8"),
)
"""Their `pretrained` is timm's full name: the architecture and the tag of the weights."""


def timm_name(name: str) -> str:
    """Return timm's full name of a backbone such as "swin_t" or "timm/resnet18.a1_in1k"."""
    return {spec.name: spec.pretrained for spec in BACKBONES}.get(name, name.removeprefix(FAMILY_PREFIX))


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
            "fgvc_backbones.timm_backbone:resolve",
            "Any timm model with intermediate feature maps, with or without a weights tag: timm/resnet18.a1_in1k",
        )
    ]
