"""Grad-CAM against its definition: the whole graph, one image after the other, the layer named by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import Classifier

MODELS = {
    "cnn": ("timm/test_resnet", 64, {"embedding": "layer4", "last map": "layer4"}),
    "vit": ("timm/test_vit", 64, {"embedding": "blocks.5.norm1", "last map": "blocks.5"}),
    "mambaout": ("timm/test_mambaout", 64, {"embedding": "stages.3", "last map": "stages.3"}),
    "swin": ("timm/swin_tiny_patch4_window7_224", 64, {"embedding": "layers.3", "last map": "layers.3"}),
}
"""Name, image size, and the module whose output the score is read from."""


def channels_first(kind: str, output: Tensor) -> Tensor:
    """Bring a module's output for one image to C,H,W."""
    if kind == "cnn":
        return output[0]
    if kind in ("mambaout", "swin"):  # 1,H,W,C
        return output[0].permute(2, 0, 1)
    side = round((output.shape[1] - 1) ** 0.5)  # 1,1+N,C: a class token first
    return output[0, 1:].T.unflatten(1, (side, side))


def slow_gradcam(kind: str, classifier: Classifier, module: str, image: Tensor, target: int) -> Tensor:
    """Return the map S,S of one image."""
    outputs: list[Tensor] = []
    layer = classifier.backbone.model.get_submodule(module)
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    score = classifier.scores(image.unsqueeze(0))[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0])  # [0]: the pass over the image as it is
    activations, gradient = channels_first(kind, outputs[0].detach()), channels_first(kind, gradient)
    total = torch.zeros(activations.shape[1:], dtype=activations.dtype)
    for activation, slope in zip(activations, gradient, strict=True):
        total += slope.mean() * activation
    grid = total.clamp(min=0)
    size = image.shape[1:]
    resized = F.interpolate(grid[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return (resized / resized.max() if resized.max() > 0 else resized).float()


def double(classifier: Classifier, images: Tensor) -> tuple[Classifier, Tensor]:
    """In double precision, in which a batch and its images alone give the same numbers."""
    return classifier.double(), images.double()


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        *(("cnn", head) for head in ("linear", "pim", "cmal")),
        ("vit", "linear"),
        ("vit", "pim"),
        ("mambaout", "linear"),
        *(
            pytest.param(kind, head, marks=pytest.mark.slow)
            for kind, head in (("vit", "cmal"), ("swin", "linear"), ("swin", "pim"))
        ),
    ],
)
def test_it_is_the_definition(kind, head, classifier_of, explainer_of, images_of):
    name, size, modules = MODELS[kind]
    classifier = classifier_of(name, head, size)
    images, targets = images_of(6, size)
    classifier, images = double(classifier, images)
    maps = explainer_of("gradcam").explain(classifier, images, targets)
    module = modules["embedding" if head == "linear" else "last map"]
    expected = [slow_gradcam(kind, classifier, module, image, int(k)) for image, k in zip(images, targets, strict=True)]
    torch.testing.assert_close(maps, torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert sum(bool(m.any()) for m in expected) >= 4  # else maps without anything could pass
    assert len({tuple(m.flatten().tolist()) for m in expected}) >= 4


@pytest.mark.parametrize("index", [0, 2])
def test_a_shallower_map_can_be_chosen(index, classifier_of, explainer_of, images_of):
    classifier = classifier_of("timm/test_resnet", "pim")
    images, targets = images_of(3)
    classifier, images = double(classifier, images)
    maps = explainer_of("gradcam", map=index).explain(classifier, images, targets)
    for found, image, target in zip(maps, images, targets, strict=True):
        expected = slow_gradcam("cnn", classifier, f"layer{index + 1}", image, int(target))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_published_maps_of_a_vit_are_put_back_on_their_grid(classifier_of, explainer_of, images_of):
    """PIM's public code reads the class token with the patches, as one row."""
    classifier = classifier_of("timm/test_vit", "pim", maps="published")
    images, targets = images_of(2)
    classifier, images = double(classifier, images)
    maps = explainer_of("gradcam").explain(classifier, images, targets)
    for found, image, target in zip(maps, images, targets, strict=True):
        expected = slow_gradcam("vit", classifier, "blocks.5", image, int(target))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
