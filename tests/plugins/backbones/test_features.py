from __future__ import annotations

import pytest
import timm
import torch

from fgvc_backbones.timm_backbone import TimmBackbone
from fgvc_cli.contracts import Features, Reads

MODELS = (
    "test_resnet",
    "test_efficientnet",
    "test_vit",
    "test_vit3",
    "test_convnext",
    "test_mambaout",
    "test_nfnet",
    "test_coatnet",
)


@pytest.fixture(scope="module", params=MODELS)
def case(request, build) -> tuple[TimmBackbone, torch.Tensor, Features]:
    backbone = build(f"timm/{request.param}")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        return backbone, images, backbone(images, everything(backbone))


def everything(backbone: TimmBackbone) -> Reads:
    return Reads(tuple(range(len(backbone.info.maps))), embedding=True)


def test_info_has_the_shapes_of_the_output(case) -> None:
    backbone, _, features = case
    assert len(backbone.info.maps) == 4
    for index, info in enumerate(backbone.info.maps):
        assert features.maps[index].shape == (2, info.channels, *info.grid)
    assert features.embedding.shape == (2, backbone.info.embedding_width)


@torch.no_grad()
def test_maps_equal_timms_bit_for_bit(case) -> None:
    backbone, images, features = case
    reference = backbone.model.forward_intermediates(images, intermediates_only=True)[-4:]
    for index, wanted in enumerate(reference):
        assert torch.equal(features.maps[index], wanted)
        alone = backbone(images, Reads((index,)))
        assert set(alone.maps) == {index} and alone.embedding is None
        assert torch.equal(alone.maps[index], wanted)


@torch.no_grad()
def test_the_embedding_is_the_input_of_the_models_own_classifier(case) -> None:
    backbone, images, features = case
    full = timm.create_model(backbone.info.name.removeprefix("timm/"), num_classes=7, **backbone._plan.arguments).eval()
    full.load_state_dict(backbone.model.state_dict(), strict=False)
    read = []
    full.get_classifier().register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    full(images)
    assert torch.equal(features.embedding, read[0])
    assert torch.equal(backbone(images, Reads(embedding=True)).embedding, read[0])


@torch.no_grad()
def test_the_forward_pass_stops_after_the_deepest_map(build) -> None:
    backbone, calls = build("timm/test_resnet"), []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        backbone.model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: calls.append(name))
    images = torch.randn(1, 3, 64, 64)
    backbone(images, Reads((1,)))
    assert calls == ["layer1", "layer2"]
    calls.clear()
    backbone(images, Reads((0, 3), embedding=True))
    assert calls == ["layer1", "layer2", "layer3", "layer4"]
    calls.clear()
    assert backbone(images, Reads()) == Features({}, None)
    assert calls == []
