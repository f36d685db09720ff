"""Every built-in explainer with every built-in head: maps of the right form, or a refusal that says why."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli import UsageError
from fgvc_cli.registry import get_registry

EXPLAINERS = [c.name for c in get_registry().components("explainer") if c.builtin]
HEADS = [c.name for c in get_registry().components("head") if c.builtin]


@pytest.fixture(scope="module")
def classifiers(classifier_of):
    made = {}

    def get(backbone: str, head: str):
        if (backbone, head) not in made:
            made[backbone, head] = classifier_of(backbone, head, 64)
        return made[backbone, head]

    return get


def made(explainer_of, name: str):
    return explainer_of(name, **({"window": 0.5, "stride": 0.25} if name == "sliding_window" else {}))


def refusal(name: str, backbone: str, head: str) -> str:
    """What the explainer says of this classifier; empty if it explains it."""
    if name == "native" and head not in ("pim", "cmal"):
        return "Head on .* has none"
    if name in ("legrad", "rollout") and "vit" not in backbone:
        return "plain transformers" if name == "rollout" or head not in ("pim", "cmal") else "reads the maps"
    return "reads the maps" if name == "legrad" and head in ("pim", "cmal") else ""


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        *(("timm/test_resnet", head) for head in HEADS),
        ("timm/test_vit", "linear"),
        ("timm/test_efficientnet", "linear"),
        *(pytest.param("timm/test_vit", head, marks=pytest.mark.slow) for head in ("pim", "cmal")),
    ],
)
def test_maps_are_in_range_and_each_image_has_its_own(name, head, backbone, classifiers, explainer_of, images_of):
    classifier, explainer = classifiers(backbone, head), made(explainer_of, name)
    images, targets = images_of(4)
    if reason := refusal(name, backbone, head):
        with pytest.raises(UsageError, match=reason):
            explainer.check(classifier)
        return
    explainer.check(classifier)
    maps = explainer.explain(classifier, images, targets)
    assert maps.shape == (4, 64, 64) and maps.dtype == torch.float32 and maps.device == images.device
    assert maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1
    assert maps.max() > 0.99  # scaled, and not all of them empty
    for index in range(4):
        alone = explainer.explain(classifier, images[index : index + 1], targets[index : index + 1])
        torch.testing.assert_close(maps[index : index + 1], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_maps_depend_on_the_target_as_declared(name, classifiers, explainer_of, images_of):
    backbone, head = ("timm/test_vit" if name in ("legrad", "rollout") else "timm/test_resnet"), "linear"
    classifier = classifiers(backbone, "pim" if name == "native" else head)
    explainer, (images, targets) = made(explainer_of, name), images_of(4)
    first, second = (explainer.explain(classifier, images, k) for k in (targets, (targets + 1) % 5))
    assert torch.allclose(first, second, atol=1e-2) != explainer.class_specific


@pytest.mark.parametrize("name", ["gradcam", "sliding_window"])
def test_images_of_another_size_are_rejected(name, classifiers, explainer_of, images_of):
    with pytest.raises(UsageError, match="64x64"):
        made(explainer_of, name).explain(classifiers("timm/test_resnet", "linear"), *images_of(2, 32))
