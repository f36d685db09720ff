"""Grad-CAM++ and LayerCAM against the papers' formulas, on a network small enough to differentiate three times."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli import UsageError
from fgvc_cli.contracts import Reads
from fgvc_cli.registry import get_registry

TARGETS = torch.tensor([0, 3, 3])
METHODS = ("gradcam", "gradcam++", "layercam")


def enlarged(grid: Tensor) -> Tensor:
    """Bring a map 3,3 to 6,6 and its largest value to 1."""
    resized = F.interpolate(grid.clamp(min=0)[None, None], (6, 6), mode="bilinear", align_corners=False)[0, 0]
    return resized / resized.max()


def derivatives(weights: Tensor, activations: Tensor, order: int) -> list[Tensor]:
    """Return the first derivatives, up to the third, of exp(weights . A) by each single activation alone."""
    found = []
    inputs = activations.clone().requires_grad_()
    value = torch.exp((weights * inputs).sum())
    (first,) = torch.autograd.grad(value, inputs, create_graph=True)
    found.append(first)
    for _ in range(order - 1):
        last = found[-1].flatten()
        rows = [torch.autograd.grad(last[i], inputs, create_graph=True)[0].flatten()[i] for i in range(len(last))]
        found.append(torch.stack(rows).view_as(activations))
    return [f.detach() for f in found]


def slow_gradcam_plus_plus(weights: Tensor, activations: Tensor) -> Tensor:
    """The paper's alpha, from real derivatives of exp(score); weights and activations C,H,W."""
    first, second, third = derivatives(weights, activations, 3)
    sums = activations.sum(dim=(1, 2), keepdim=True)
    alpha = second / (2 * second + sums * third)
    by_channel = (alpha * first.clamp(min=0)).sum(dim=(1, 2))
    return enlarged((by_channel[:, None, None] * activations).sum(dim=0))


def slow_layercam(weights: Tensor, activations: Tensor) -> Tensor:
    return enlarged((weights.clamp(min=0) * activations).sum(dim=0))


@pytest.mark.parametrize(("name", "slow"), [("gradcam++", slow_gradcam_plus_plus), ("layercam", slow_layercam)])
def test_it_is_the_papers_formula(name, slow, tiny, explainer_of):
    tiny = tiny.double()
    images = torch.randn(3, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    maps = explainer_of(name).explain(tiny, images, TARGETS)
    activations = tiny.backbone.stage(images).detach()
    for found, own, target in zip(maps, activations, TARGETS, strict=True):
        weights = tiny.head.classify.weight[target].detach().view(2, 3, 3)
        torch.testing.assert_close(found.double(), slow(weights, own), rtol=1e-5, atol=1e-6)
    assert all(m.any() for m in maps)


@pytest.mark.parametrize("name", METHODS)
def test_without_evidence_for_the_class_the_map_is_zero(name, tiny, explainer_of):
    with torch.no_grad():
        tiny.head.classify.weight[3] = -1  # activations are positive, after a ReLU
        tiny.head.classify.weight[0] = 1
    maps = explainer_of(name).explain(tiny, torch.randn(3, 3, 6, 6), TARGETS)
    assert not maps[1:].any()
    assert maps[0].max() == 1


def test_gradcam_plus_plus_stays_finite_where_activations_are_negative(tiny, explainer_of):
    tiny.backbone.stage = torch.nn.Conv2d(3, 2, 2, 2)
    for seed in range(20):
        images = 10 * torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        maps = explainer_of("gradcam++").explain(tiny, images, TARGETS)
        assert maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1


def test_a_head_may_modify_its_input_in_place(tiny, explainer_of):
    images = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    expected = explainer_of("layercam").explain(tiny, images, TARGETS)
    tiny.head.inplace = True  # which doubles gradients, and maps are scaled
    torch.testing.assert_close(explainer_of("layercam").explain(tiny, images, TARGETS), expected)


def test_any_map_of_the_backbone_can_be_chosen(classifier_of, explainer_of):
    pim, cmal = (classifier_of("timm/test_resnet", head) for head in ("pim", "cmal"))
    for classifier in (pim, cmal, classifier_of("timm/test_resnet", "linear")):  # cmal reads maps 1 to 3
        for index in range(4):
            explainer_of("layercam", map=index).check(classifier)
    with pytest.raises(UsageError, match=r"explainer\.map=4`: maps of timm/test_resnet: 0, 1, 2, 3"):
        explainer_of("layercam", map=4).check(pim)


def test_a_pruned_map_is_rejected(classifier_of, explainer_of):
    classifier = classifier_of("timm/test_resnet", "pim")
    classifier.backbone.prune(Reads((0, 1)))
    explainer_of("gradcam", map=0).check(classifier)
    with pytest.raises(UsageError, match="explainer sliding_window"):
        explainer_of("gradcam", map=2).check(classifier)


@pytest.mark.parametrize(
    ("head", "size", "least", "index"),
    [
        ("linear", 64, 6, 1),  # maps of 16, 8, 4 and 2 points a side
        ("cmal", 64, 4, 2),
        ("linear", 64, 1, None),
        ("linear", 64, 99, 0),  # no map has as many: the finest
        ("linear", 224, 6, None),
    ],
)
def test_small_images_use_the_deepest_map_with_enough_points(
    head, size, least, index, classifier_of, explainer_of, images_of
):
    classifier = classifier_of("timm/test_resnet", head, size)
    images, targets = images_of(2, size)
    chosen = explainer_of("gradcam", least_side=least)
    explicit = explainer_of("gradcam", least_side=1, **({} if index is None else {"map": index}))
    assert torch.equal(chosen.explain(classifier, images, targets), explicit.explain(classifier, images, targets))
    told = chosen.notes(classifier)
    assert bool(told) == (index is not None) and not explicit.notes(classifier)
    assert not told or f"map {index} (" in told[0]


def test_by_default_a_map_has_six_points_per_side(classifier_of):
    component = get_registry().find("explainer", "gradcam")
    explainer = component.load()(options=component.options_type()())
    assert "map 1 (8x8)" in explainer.notes(classifier_of("timm/test_resnet", "linear"))[0]
