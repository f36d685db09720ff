from __future__ import annotations

import pytest

import fgvc_backbones
from fgvc_backbones.timm_backbone import resolve
from fgvc_cli import UsageError


def test_names_and_their_weights() -> None:
    weights = {spec.name: spec.pretrained for spec in fgvc_backbones.fgvc_backbones()}
    assert weights == {
        "resnet50": "resnet50.tv_in1k",
        "resnext50": "resnext50_32x4d.tv_in1k",
        "efficientnet_b5": "tf_efficientnet_b5.ra_in1k",
        "vit_b16": "vit_base_patch16_224.augreg_in1k",
        "swin_t": "swin_tiny_patch4_window7_224.ms_in1k",
        "efficientnet_lite0": "tf_efficientnet_lite0.in1k",
        "efficientnet_lite1": "tf_efficientnet_lite1.in1k",
        "efficientnet_lite2": "tf_efficientnet_lite2.in1k",
    }


def test_the_family_resolves_models_with_and_without_a_tag() -> None:
    assert fgvc_backbones.fgvc_families()[0].prefix == "timm/"
    plain, tagged = resolve("timm/resnet18"), resolve("timm/resnet18.tv_in1k")
    assert plain is not None and tagged is not None
    assert plain.name == "timm/resnet18" and plain.pretrained.startswith("resnet18.")
    assert tagged.pretrained == "resnet18.tv_in1k"
    assert resolve("other/resnet18") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet81", "no model 'resnet81'. Did you mean 'resnet18'"),
        ("timm/resnet18.a1_in2k", "no weights 'a1_in2k'. Did you mean 'a1_in1k'"),
    ],
)
def test_unknown_models_and_tags_suggest_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(name)
