"""What the heads themselves look at."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fgvc_cli import UsageError


def test_pim_marks_the_points_kept_by_their_confidence(classifier_of, explainer_of, images_of):
    classifier = classifier_of("timm/test_resnet", "pim")
    images, targets = images_of(3)
    maps = explainer_of("native").explain(classifier, images, targets)
    with torch.no_grad():
        output = classifier(images)
    for number, found in enumerate(maps):
        expected = torch.zeros(64, 64)
        for level, scores in enumerate(output.point_scores):
            side = round(scores.shape[1] ** 0.5)
            confidence = scores[number].softmax(dim=1).max(dim=1).values
            grid = torch.zeros(side * side)
            for point in confidence.argsort(descending=True)[: classifier.head.selectors[level].keep]:
                grid[point] = confidence[point]
            expected += F.interpolate(grid.view(1, 1, side, side), (64, 64), mode="bilinear")[0, 0]
        torch.testing.assert_close(found, expected / expected.max())
    assert classifier.head.selectors[0].keep < output.point_scores[0].shape[1]  # some points are dropped


def test_cmal_shows_its_overall_attention(classifier_of, explainer_of, images_of):
    classifier = classifier_of("timm/test_resnet", "cmal")
    images, targets = images_of(3)
    maps = explainer_of("native").explain(classifier, images, targets)
    torch.testing.assert_close(maps, classifier.head.attend(classifier, images).overall_map)
    assert maps.flatten(1).std(dim=1).min() > 0.01


def test_pim_on_rows_of_tokens_has_no_map(classifier_of, explainer_of):
    classifier = classifier_of("timm/test_vit", "pim", maps="published")
    with pytest.raises(UsageError, match="PimHead on timm/test_vit has none"):
        explainer_of("native").check(classifier)


def test_a_head_has_no_attention_by_default(tiny, explainer_of):
    assert tiny.head.attention(tiny, torch.randn(2, 3, 6, 6)) is None
    with pytest.raises(UsageError, match="TinyHead on tiny has none"):
        explainer_of("native").check(tiny)
