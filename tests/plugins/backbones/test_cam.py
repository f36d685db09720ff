from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgvc_backbones.timm_backbone import TimmBackbone
from fgvc_cli.contracts import CamLayer, Reads


def activations_and_gradient(backbone: TimmBackbone, index: int | None) -> tuple[CamLayer, Tensor, Tensor, Tensor]:
    """Hook the layer for a score; return it, its output, the score's gradient there, and what the score was read of."""
    layer, kept = backbone.cam_layer(index), []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    handle = layer.module.register_forward_hook(keep)
    images = torch.randn(2, 3, backbone.info.image_size, backbone.info.image_size)
    features = backbone(images, Reads(embedding=True) if index is None else Reads((index,)))
    handle.remove()
    source = features.embedding if index is None else features.maps[index]
    (source.flatten(1) * torch.randn(source.flatten(1).shape[1])).sum().backward()
    return layer, kept[-1], kept[-1].grad, source


def points(layer: CamLayer, tensor: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Bring a hooked tensor to B,N,C without prefix tokens, and tell its grid."""
    if layer.layout == "BNC":
        return tensor[:, layer.prefix :], layer.grid
    tensor = tensor.movedim(1, -1) if layer.layout == "BCHW" else tensor
    return tensor.flatten(1, 2), tuple(tensor.shape[1:3])


MODELS = (
    "test_resnet",
    "test_efficientnet",
    "test_vit",
    "test_vit3",
    "test_vit_relpos",
    "test_convnext",
    "test_mambaout",
)


@pytest.mark.parametrize("index", [None, 1])
@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_reaches_the_hooked_output_at_every_point(build, model: str, index: int | None) -> None:
    backbone = build(f"timm/{model}")
    layer, output, gradient, source = activations_and_gradient(backbone, index)
    by_point, grid = points(layer, gradient)
    assert by_point.shape[1] == grid[0] * grid[1]
    assert (by_point.abs().amax(dim=2) > 0).all()
    if index is not None:
        assert grid == backbone.info.maps[index].grid
        torch.testing.assert_close(points(layer, output)[0], source.flatten(2).transpose(1, 2))


def test_which_modules_are_named(build) -> None:
    def name(model: str, index: int | None) -> str:
        backbone = build(f"timm/{model}")
        module = backbone.cam_layer(index).module
        return next(n for n, m in backbone.model.named_modules() if m is module)

    assert name("test_resnet", None) == "layer4"
    assert name("test_efficientnet", None) == "bn2"
    assert name("test_vit", None) == "blocks.5.norm1"  # class token
    assert name("test_vit3", None) == "blocks.8"  # pooled over tokens
    assert name("test_vit", 2) == "blocks.4"
