"""Finer-CAM and Eigen-CAM against the grad-cam package, torchcam and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli import UsageError


class Scores(nn.Module):
    """A classifier as the packages want one: images in, scores out."""

    def __init__(self, classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.scores(images)


def correlations(ours: Tensor, theirs: Tensor) -> Tensor:
    """The correlation of the two maps of each image; the packages resize and scale in other ways."""
    assert ours.flatten(1).any(dim=1).all()
    pairs = zip(ours.flatten(1), theirs.flatten(1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])


@pytest.fixture(scope="module")
def resnet(classifier_of):
    return classifier_of("timm/test_resnet", "linear", 160)  # 5 x 5 points


def test_finer_cam_agrees_with_the_gradcam_package(resnet, explainer_of, images_of):
    """With one other class its weights cancel; it takes the predicted class and the nearest score, too."""
    from pytorch_grad_cam import FinerCAM

    images = images_of(4, 160)[0]
    layer = resnet.backbone.cam_layer(None).module
    cam = FinerCAM(Scores(resnet), [layer])
    theirs = torch.from_numpy(cam(images, None, alpha=0.6, comparison_categories=[1]))
    cam.base_cam.activations_and_grads.release()
    targets = resnet.scores(images).argmax(dim=1)
    ours = explainer_of("finer-cam", gamma=0.6, references=1).explain(resnet, images, targets)
    assert correlations(ours, theirs).min() > 0.99


def test_finer_cam_agrees_with_torchcam(resnet, explainer_of, images_of):
    methods = pytest.importorskip("torchcam.methods", exc_type=ImportError)
    if not hasattr(methods, "FinerCAM"):
        pytest.skip("this torchcam has no FinerCAM")
    images, targets = images_of(4, 160)
    layer = resnet.backbone.cam_layer(None).module
    with methods.FinerCAM(Scores(resnet), layer, gamma=0.6, num_references=3) as extractor:
        scores = extractor.model(images)
        (theirs,) = extractor(targets.tolist(), scores)
    theirs = F.interpolate(theirs.detach()[:, None], (160, 160), mode="bilinear")[:, 0]
    ours = explainer_of("finer-cam").explain(resnet, images, targets)
    assert correlations(ours, theirs).min() > 0.999


def test_without_gamma_it_is_gradcam(resnet, explainer_of, images_of):
    images, targets = images_of(3, 160)
    finer = explainer_of("finer-cam", gamma=0.0).explain(resnet, images, targets)
    torch.testing.assert_close(finer, explainer_of("gradcam").explain(resnet, images, targets))


@pytest.mark.parametrize("references", [1, 2, 99])
def test_the_nearest_scores_are_subtracted(references, explainer_of):
    scores = torch.tensor([[3.0, 2.5, -9.0, 3.2], [0.0, 5.0, 5.5, -1.0]])
    found = explainer_of("finer-cam", gamma=0.5, references=references).score(scores, torch.tensor([0, 3]))
    others = {1: [3.2, 0.0], 2: [(3.2 + 2.5) / 2, 2.5], 99: [(2.5 - 9 + 3.2) / 3, 10.5 / 3]}[references]
    torch.testing.assert_close(found, torch.tensor([3 - others[0] / 2, -1 - others[1] / 2]))


def test_a_single_class_has_no_others(tiny, explainer_of):
    tiny.class_names = ("only",)
    with pytest.raises(UsageError, match="only one"):
        explainer_of("finer-cam").check(tiny)


def test_eigencam_agrees_with_the_gradcam_package(explainer_of):
    """The package centers the activations first; together with their negatives they are centered."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    generator = torch.Generator().manual_seed(0)
    for relu in (True, False):
        points = torch.randn(3, 12, 7, generator=generator) + 0.3  # B,N,C
        points = points.relu() if relu else points
        found = explainer_of("eigencam").combine(points, points)
        maps = points.mT.unflatten(2, (3, 4)).numpy()
        theirs = get_2d_projection(np.concatenate([maps, -maps], axis=2))[:, :3].reshape(3, -1)
        for ours, other in zip(found, torch.from_numpy(theirs), strict=True):
            torch.testing.assert_close(ours, other if other.sum() > 0 else -other, rtol=1e-3, atol=1e-4)
            assert not relu or ours.min() > -1e-5


def test_eigencam_needs_no_gradients(tiny, explainer_of, monkeypatch):
    scores = tiny.head.predict
    monkeypatch.setattr(tiny.head, "predict", lambda model, images: scores(model, images).detach())
    images = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    maps = explainer_of("eigencam").explain(tiny, images, torch.tensor([0, 1, 2]))
    assert maps.amax(dim=(1, 2)).eq(1).all()
    tiny.backbone.stage = nn.Sequential(tiny.backbone.stage, nn.Threshold(torch.inf, 0.0))  # no activation at all
    assert not explainer_of("eigencam").explain(tiny, images, torch.tensor([0, 1, 2])).any()


LAYERS = {
    "timm/test_resnet": ["layer4", "layer3", "layer2.0.conv1", "model.layer3"],
    "timm/test_vit": ["blocks.5.norm1", "blocks.3", "patch_embed"],
    "timm/swin_tiny_patch4_window7_224": ["layers.3.blocks.1.norm1", "layers.2", "layers.1.blocks.0.norm2"],
    "timm/hiera_tiny_224": ["blocks.5.norm2"],
}


@pytest.mark.parametrize(("backbone", "layer"), [(b, layer) for b, layers in LAYERS.items() for layer in layers])
def test_another_layer_can_be_named(backbone, layer, classifier_of, explainer_of, images_of):
    classifier, (images, targets) = classifier_of(backbone, "linear"), images_of(2)
    explainer = explainer_of("gradcam", layer=layer)
    explainer.check(classifier)
    assert explainer.notes(classifier) == []
    maps = explainer.explain(classifier, images, targets)
    assert maps.shape == (2, 64, 64) and maps.isfinite().all()


def test_a_layer_of_a_map_is_the_map(classifier_of, explainer_of, images_of):
    """Also where tokens are in another order than the points of the map."""
    for backbone, layer, index in (("timm/test_resnet", "layer3", 2), ("timm/hiera_tiny_224", "blocks.2", 1)):
        classifier, (images, targets) = classifier_of(backbone, "linear"), images_of(2)
        named, indexed = (explainer_of("layercam", **o) for o in ({"layer": layer}, {"map": index}))
        torch.testing.assert_close(
            named.explain(classifier, images, targets), indexed.explain(classifier, images, targets)
        )


@pytest.mark.parametrize(
    ("backbone", "layer", "reason"),
    [
        ("timm/test_resnet", "layer5", "no such module. Did you mean"),
        ("timm/test_resnet", "fc", "."),
        ("timm/swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn", "is not a grid of points"),
        ("timm/test_vit", "blocks.0.attn.qkv.", "no such module"),
        ("timm/test_vit", "blocks.0.attn.attn_drop", "does not run|not a grid"),
    ],
)
def test_a_layer_that_is_no_grid_is_refused(backbone, layer, reason, classifier_of, explainer_of):
    with pytest.raises(UsageError, match=f"`explainer.layer={layer}`: .*{reason}"):
        explainer_of("gradcam", layer=layer).check(classifier_of(backbone, "linear"))


def test_a_backbone_without_named_layers_says_so(tiny, explainer_of):
    with pytest.raises(UsageError, match="tiny does not take layers by name"):
        explainer_of("gradcam", layer="stage").check(tiny)
