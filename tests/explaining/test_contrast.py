"""Why one class and not another, by any explainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.contrast import Pair, difference
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.explaining.explanation import ImageExplanations, InputImage
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.registry import get_registry
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.testing.models import classifier_of, spread_scores
from fgvc_cli.testing.tiny import CLASSES, TinyConvolutional, TinyHead, images_of


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(1)
    made = classifier_of(TinyConvolutional(), lambda info: TinyHead(info, CLASSES))
    spread_scores(made)
    return made.eval()


def explainer(name: str, **options):
    return make_explainer(name, options, get_registry())


def test_a_pair_has_the_margin_as_its_score(classifier):
    images, whole = images_of(3, 64), classifier.scores(images_of(3, 64))
    scores = Pair(classifier, 4, 1).scores(images)
    torch.testing.assert_close(scores[:, 0], whole[:, 4] - whole[:, 1])
    torch.testing.assert_close(scores.softmax(1), whole[:, [4, 1]].softmax(1))


def test_gradcam_of_the_difference_is_the_difference_before_the_relu(classifier):
    """Grad-CAM's weights are linear in the score, so its sums of channels subtract."""
    images, targets = images_of(4, 64), torch.tensor([0, 3, 0, 2])
    named = explainer("gradcam", map=3)
    layer = classifier.backbone.cam_layer(3).module
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    scores = classifier.scores(images)
    handle.remove()
    margin = scores.gather(1, targets[:, None]).squeeze(1) - scores[:, 1]
    (gradient,) = torch.autograd.grad(margin.sum(), kept[0])
    expected = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu()
    expected = torch.nn.functional.interpolate(expected[:, None], (64, 64), mode="bilinear")[:, 0]
    expected = expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-12)
    found = difference(named, 1).explain(classifier, images, targets)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-4)
    assert found.any()


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "layercam", "finer-cam", "sliding_window"])
def test_each_class_specific_explainer_explains_the_difference(name, classifier):
    given = {"window": 0.5, "stride": 0.5} if name == "sliding_window" else {}
    named, images, targets = explainer(name, **given), images_of(4, 64), torch.tensor([0, 3, 0, 2])
    parameters = [(p.requires_grad, p.grad) for p in classifier.parameters()]
    together = difference(named, 1).explain(classifier, images, targets)
    alone = torch.cat([difference(named, 1).explain(classifier, images[[i]], targets[[i]]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert together.shape == (4, 64, 64) and together.min() >= 0 and together.max() <= 1
    assert not torch.allclose(together, named.explain(classifier, images, targets), atol=1e-2)
    assert not classifier.training and parameters == [(p.requires_grad, p.grad) for p in classifier.parameters()]


def explanations(classifier, names=("gradcam",), versus="class 1", **more) -> ImageExplanations:
    pixels = (images_of(3, 64) * 64 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    ready = ReadyClassifier(classifier, Path("run/model.safetensors"), "fp32", 2, 0)
    inputs = [InputImage(f"image {i}", image) for i, image in enumerate(pixels)]
    return ImageExplanations([ready], [explainer(name) for name in names], inputs, versus=versus, **more)


def test_an_image_has_three_maps_and_the_difference_is_masked(classifier):
    asked = explanations(classifier, masking=Masking(), steps=1)
    images = [image for batch in asked for image in batch]
    assert images or asked.failures
    for image in images:
        (found,) = image.explanations
        own, other = found.contrast
        assert (own.target, other.target) == (own.predicted, "class 1") and len(found.steps) == 2
        assert {step.target for step in found.steps} == {own.target}  # also once another class is predicted
        masked = found.steps[1].mask
        assert found.saliency[masked].min(initial=1) >= found.saliency[~masked].max()
        assert image.as_json()["explanations"][0]["versus"] == "class 1"
    compared = [e for image in images for e in image.explanations]
    assert any((e.saliency != e.contrast[0].saliency).any() and e.steps[1].mask.any() for e in compared)


def test_an_image_of_that_class_has_nothing_to_be_compared_with(classifier):
    (predicted,) = {e.steps[0].predicted for b in explanations(classifier) for i in b for e in i.explanations} or {""}
    asked = explanations(classifier, versus=predicted)
    assert not [image for batch in asked for image in batch]
    assert len(asked.failures) == 3 and all(predicted in reason for reason in asked.failures.values())


def test_what_cannot_be_compared_is_refused_in_one_line(classifier):
    with pytest.raises(UsageError, match=r"`versus=clas 1`.*Did you mean 'class 1'"):
        explanations(classifier, versus="clas 1")
    with pytest.raises(UsageError, match="random are the same for every class"):
        explanations(classifier, names=("gradcam", "random"))
    with pytest.raises(UsageError, match="the class to explain itself"):
        explanations(classifier, target="class 1")
