"""Sliding-window occlusion against a loop over patches, and on a classifier that reads one corner only."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fgvc_cli import UsageError


def slow_sliding_window(classifier, image: Tensor, target: int, fill: Tensor, window: int, stride: int) -> Tensor:
    """Mask one patch after the other; the value of a pixel is the mean drop over the patches that contain it."""
    side = image.shape[1]
    count = math.ceil((side - window) / stride) + 1
    places = [round(i * (side - window) / (count - 1)) for i in range(count)]
    lost, times = torch.zeros(side, side), torch.zeros(side, side)
    with torch.no_grad():
        whole = classifier.scores(image[None])[0].softmax(0)[target]
        for y in places:
            for x in places:
                covered = image.clone()
                covered[:, y : y + window, x : x + window] = fill
                drop = whole - classifier.scores(covered[None])[0].softmax(0)[target]
                lost[y : y + window, x : x + window] += drop
                times[y : y + window, x : x + window] += 1
    assert times.min() > 0
    mean = (lost / times).clamp(min=0)
    return mean / mean.max() if mean.max() > 0 else mean


@pytest.mark.parametrize(("fill", "passes"), [("mean", 7), ("gray", 1000)])
def test_it_is_the_slow_loop(fill, passes, classifier_of, explainer_of, images_of):
    classifier = classifier_of("timm/test_resnet", "linear", 32)
    images, targets = images_of(3, 32)
    maps = explainer_of("sliding_window", window=0.3, stride=0.22, fill=fill, passes=passes).explain(
        classifier, images, targets
    )
    for found, image, target in zip(maps, images, targets, strict=True):
        color = image.mean(dim=(1, 2), keepdim=True)
        if fill == "gray":
            preprocessing = classifier.preprocessing
            gray = [(128 / 255 - mean) / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
            color = torch.tensor(gray).view(3, 1, 1)
        expected = slow_sliding_window(classifier, image, int(target), color, window=10, stride=7)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert maps.flatten(1).any(dim=1).sum() >= 2


def test_passes_limits_the_batch(tiny, explainer_of, monkeypatch):
    sizes, predict = [], tiny.head.predict

    def counted(model, images):
        sizes.append(len(images))
        return predict(model, images)

    monkeypatch.setattr(tiny.head, "predict", counted)
    images, targets = torch.randn(3, 3, 6, 6), torch.tensor([0, 1, 2])
    explainer_of("sliding_window", window=0.5, stride=0.5, passes=5).explain(tiny, images, targets)
    assert sizes == [3, 5, 5, 2]  # the images as they are, then 3 x 4 covered ones


def test_the_pixels_that_the_score_depends_on_are_marked(tiny, explainer_of):
    """A classifier that sees the upper left corner alone."""
    with torch.no_grad():
        tiny.backbone.stage[0].weight.fill_(1.0)
        tiny.backbone.stage[0].bias.zero_()
        tiny.head.classify.weight.zero_()
        tiny.head.classify.weight[2, 0] = 1.0  # class 2, first channel, first point: pixels 0 and 1 each way
    images = torch.zeros(1, 3, 6, 6)
    images[:, :, :2, :2] = 1.0
    (found,) = explainer_of("sliding_window", window=0.33, stride=0.33).explain(tiny, images, torch.tensor([2]))
    assert (found[:2, :2] == 1).all()
    found[:2, :2] = 0
    assert not found.any()


def test_a_stride_larger_than_the_window_is_rejected(explainer_of):
    with pytest.raises(UsageError, match=r"stride=0\.4 is larger than window=0\.2"):
        explainer_of("sliding_window", window=0.2, stride=0.4)
