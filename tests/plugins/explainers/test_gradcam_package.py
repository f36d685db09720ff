"""Grad-CAM against the `grad-cam` package, which knows nothing of our backbones: layers and layouts are named here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

MODELS = {
    "cnn": ("timm/resnet18", 64, "layer4", None),
    "vit": ("timm/test_vit", 64, "blocks.5.norm1", lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (4, 4))),
    "swin": ("timm/swin_tiny_patch4_window7_224", 64, "layers.3", lambda t: t.permute(0, 3, 1, 2)),
}
"""Name, image size, target layer, and what brings its output to B,C,H,W."""


class Scores(nn.Module):
    """A classifier as the package wants one: images in, scores out."""

    def __init__(self, classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.scores(images)


@pytest.fixture(scope="module")
def package():
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def explain(classifier, module: str, reshape, images: Tensor, targets: Tensor) -> Tensor:
        layers = [classifier.backbone.model.get_submodule(module)]
        with pytorch_grad_cam.GradCAM(Scores(classifier), layers, reshape_transform=reshape) as cam:
            return torch.from_numpy(cam(images, [ClassifierOutputTarget(int(k)) for k in targets]))

    return explain


@pytest.mark.parametrize("kind", ["cnn", "vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_the_maps_agree(kind, package, classifier_of, explainer_of, images_of):
    name, size, module, reshape = MODELS[kind]
    classifier = classifier_of(name, "linear", size)
    images, targets = images_of(8, size)
    ours = explainer_of("gradcam").explain(classifier, images, targets)
    theirs = package(classifier, module, reshape, images, targets)
    compared = 0
    for own, other in zip(ours, theirs, strict=True):
        if not other.any():
            assert not own.any()
            continue
        assert torch.corrcoef(torch.stack((own.flatten(), other.flatten())))[0, 1] > 0.99
        compared += 1
    assert compared >= 4
