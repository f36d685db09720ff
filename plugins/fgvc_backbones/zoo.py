"""The five named architectures: what timm calls them and which ImageNet-1k weights are theirs."""

from __future__ import annotations

from dataclasses import dataclass

TARGET = "fgvc_backbones.timm_backbone:TimmBackbone"
OPTIONS = "fgvc_backbones.options:TimmOptions"
FAMILY_PREFIX = "timm/"


@dataclass(frozen=True)
class Architecture:
    """A backbone with a name of its own.

    Attributes:
        name: what a person types.
        timm: timm's full name, with the tag of the weights that `--weights imagenet` means.
        strides: of the four maps, shallow to deep.
        summary: one line for `fgvc list-plugins`.
        source: the paper.
    """

    name: str
    timm: str
    strides: tuple[int, ...]
    summary: str
    source: str


ARCHITECTURES = (
    Architecture(
        "resnet50",
        "resnet50.tv_in1k",
        (4, 8, 16, 32),
        "ResNet-50: residual convolutions, 24 million parameters",
        "He et al. 2016, Deep Residual Learning for Image Recognition, arXiv 1512.03385",
    ),
    Architecture(
        "resnext50",
        "resnext50_32x4d.tv_in1k",
        (4, 8, 16, 32),
        "ResNeXt-50 32x4d: residual convolutions in 32 groups, 23 million parameters",
        "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431",
    ),
    Architecture(
        "efficientnet_b5",
        "tf_efficientnet_b5.ra_in1k",
        (4, 8, 16, 32),
        "EfficientNet-B5: depthwise convolutions, 28 million parameters",
        "Tan, Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv 1905.11946",
    ),
    Architecture(
        "vit_b16",
        "vit_base_patch16_224.augreg_in1k",
        (16, 16, 16, 16),
        "ViT-B/16: attention between patches of 16 px, 86 million parameters",
        "Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, arXiv 2010.11929",
    ),
    Architecture(
        "swin_t",
        "swin_tiny_patch4_window7_224.ms_in1k",
        (4, 8, 16, 32),
        "Swin-T: attention in shifted windows, 28 million parameters",
        "Liu et al. 2021, Swin Transformer, arXiv 2103.14030",
    ),
)


def timm_name(name: str) -> str:
    """Return timm's full name of a backbone called `name`, such as "swin_t" or "timm/resnet18.a1_in1k"."""
    for architecture in ARCHITECTURES:
        if architecture.name == name:
            return architecture.timm
    return name.removeprefix(FAMILY_PREFIX)
