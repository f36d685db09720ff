"""The named architectures, each built once at a small size, and the maps that the PIM paper's code reads."""

from __future__ import annotations

import pytest
import torch

import fgvc_backbones
from fgvc_backbones.timm_backbone import TimmBackbone
from fgvc_cli.contracts import Reads

ALL = Reads((0, 1, 2, 3), embedding=True)


@pytest.fixture(scope="module")
def swin(build) -> TimmBackbone:
    return build("swin_t", 64)


@pytest.mark.parametrize("spec", fgvc_backbones.fgvc_backbones(), ids=lambda spec: spec.name)
@torch.no_grad()
def test_maps_embedding_and_strides(build, request, spec) -> None:
    size = 32 if spec.name == "vit_b16" else 64
    backbone = request.getfixturevalue("swin") if spec.name == "swin_t" else build(spec.name, size)
    assert tuple(m.stride for m in backbone.info.maps) == spec.strides
    assert [m.grid for m in backbone.info.maps] == [(size // s, size // s) for s in spec.strides]
    images = torch.randn(1, 3, size, size)
    features = backbone(images, ALL)
    for index, info in enumerate(backbone.info.maps):
        assert features.maps[index].shape == (1, info.channels, *info.grid)
    own = backbone.model.forward_head(backbone.model.forward_features(images), pre_logits=True)
    assert torch.equal(features.embedding, own)
    transformer = spec.name in ("vit_b16", "swin_t")
    assert backbone.info.architecture == ("transformer" if transformer else "convolutional")
    assert backbone.info.channels_last is not transformer
    assert backbone.pretrained().name == spec.pretrained


def test_published_swin_maps_come_after_patch_merging(build, swin: TimmBackbone) -> None:
    backbone = build("swin_t", 64, maps="published")
    assert [m.stride for m in backbone.info.maps] == [8, 16, 32, 32]
    assert [m.channels for m in backbone.info.maps] == [192, 384, 768, 768]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        stages, features = swin(images, ALL), backbone(images, ALL)
        for index in range(3):
            merged = swin.model.layers[index + 1].downsample(stages.maps[index].permute(0, 2, 3, 1))
            assert torch.equal(features.maps[index], merged.permute(0, 3, 1, 2))
        assert torch.equal(features.maps[3], stages.maps[3])
        assert torch.equal(features.embedding, stages.embedding)
    backbone.prune(Reads((0, 1)))
    layer, kept = backbone.cam_layer(1), []
    layer.module.register_forward_hook(lambda m, i, o: (o.retain_grad(), kept.append(o), None)[-1])
    maps = backbone(images, Reads((0, 1))).maps
    assert torch.equal(maps[1], features.maps[1])
    (maps[0].square().sum() + maps[1].square().sum()).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert kept[0].grad.abs().min() > 0


def test_published_efficientnet_maps_are_the_last_four_block_stages(build) -> None:
    backbone = build("efficientnet_b5", 64, maps="published")
    assert [m.stride for m in backbone.info.maps] == [16, 16, 32, 32]
    assert [m.channels for m in backbone.info.maps] == [128, 176, 304, 512]
    blocks = {}
    for number in range(3, 7):
        backbone.model.blocks[number].register_forward_hook(lambda m, i, o, number=number: blocks.update({number: o}))
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 64), Reads((0, 1, 2, 3))).maps
    assert all(torch.equal(maps[index], blocks[3 + index]) for index in range(4))


def test_published_vit_maps_keep_the_class_token(build) -> None:
    backbone = build("timm/test_vit", 160, maps="published")
    assert {m.grid for m in backbone.info.maps} == {(1, 101)}
    plain = build("timm/test_vit", 160)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        kept, dropped = backbone(images, ALL), plain(images, ALL)
    assert torch.equal(kept.maps[1][:, :, 0, 1:], dropped.maps[1].flatten(2))
    assert torch.equal(kept.embedding, dropped.embedding)
    layer = backbone.cam_layer(1)
    assert (layer.layout, layer.prefix, layer.grid) == ("BNC", 1, (10, 10))
    class_token = backbone.model.norm(kept.maps[3][:, :, 0, 0])
    torch.testing.assert_close(class_token, kept.embedding)
