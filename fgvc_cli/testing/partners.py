"""Checks of a component together with the built-in components that it has to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fgvc_cli.contracts import Backbone, Classifier, Head, Optimizer
from fgvc_cli.errors import UsageError
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.specs import Kind
from fgvc_cli.testing.backbone import BackboneUnderTest, smallest_size
from fgvc_cli.testing.check import Check, NotApplicable, expect, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.explainer import ExplainerUnderTest, expect_explains
from fgvc_cli.testing.head import HeadUnderTest
from fgvc_cli.testing.models import classifier_of, copied_state, recording, spread_scores, trainable, update_of
from fgvc_cli.testing.optimizer import OptimizerUnderTest
from fgvc_cli.testing.tiny import CLASSES, TinyHead, groups_of, images_of, isolated, labels_of

ABOUT = "Users combine a component with the built-in ones first."

IMAGES = 4


def partner_checks(subject: ComponentUnderTest) -> Iterator[Check]:
    """Yield a check for each built-in partner of a component."""
    for title, kind, combine in COMBINATIONS.get(subject.kind, []):
        for component in subject.registry.components(kind):
            if component.builtin and component != subject.component:
                partner = ComponentUnderTest(component, subject.registry)
                run = isolated(lambda combine=combine, partner=partner: combine(subject, partner))  # type: ignore[misc]
                yield Check(title.format(component.name), ABOUT, run)


def _with_head(backbone: Backbone, head: ComponentUnderTest) -> Classifier:
    """Put a head on a backbone as the host does; `NotApplicable` if it refuses the backbone."""

    def make(_info: Any) -> Head:
        try:
            return build_head(head.component, head.options(), backbone, CLASSES)
        except UsageError as error:
            raise NotApplicable(str(error)) from None

    return classifier_of(backbone, make)


def _smallest(backbone: ComponentUnderTest) -> Backbone:
    """Build a backbone at the smallest image size that it supports."""
    component, options = backbone.component, backbone.options()
    torch.manual_seed(0)
    return build_backbone(component, options, smallest_size(component, options))


def _with_tiny_head(backbone: Backbone) -> Classifier:
    return classifier_of(backbone, lambda info: TinyHead(info, CLASSES))


def _expect_trains_with(head: ComponentUnderTest, optimizer: ComponentUnderTest) -> None:
    classifier = HeadUnderTest(head).classifier()
    groups = groups_of(classifier.backbone, classifier.head)
    _expect_trains(classifier, OptimizerUnderTest(optimizer).make(groups))


def _expect_trains(classifier: Classifier, optimizer: Optimizer | None = None) -> None:
    """Make two updates: every parameter gets a gradient, losses and weights are finite, and weights change."""
    size = classifier.preprocessing.image_size
    batch = images_of(IMAGES, size), labels_of(IMAGES)
    before, record = copied_state(classifier), recording(classifier, optimizer)
    update = update_of(classifier, record)
    losses = [loss.value for _ in range(2) for step in update([batch]) for loss in step.losses]
    overflow = "look for an overflow"
    expect(all(bool(v.isfinite()) for v in losses), "finite losses", "some are not finite", overflow)
    without = [name for name in trainable(classifier) if name not in record.with_grad]
    expect(not without, "a gradient for every parameter", f"{some(without)} without one", "check reads()")
    after = copied_state(classifier)
    infinite = [name for name, value in after.items() if not value.isfinite().all()]
    expect(not infinite, "finite weights after two updates", f"{some(infinite)}: not finite", overflow)
    still = all(torch.equal(before[name], after[name]) for name in trainable(classifier))
    expect(not still, "weights that change", "two updates change nothing", "check how the gradient reaches them")
    with torch.no_grad():
        scores = classifier.eval().scores(batch[0])
    fits = scores.shape == (IMAGES, CLASSES) and bool(scores.isfinite().all())
    expected = f"finite scores of shape ({IMAGES}, {CLASSES})"
    expect(fits, expected, f"predict returned {tuple(scores.shape)}", "check predict")


def _expect_explained(explainer: ComponentUnderTest, classifier: Classifier) -> None:
    spread_scores(classifier)
    classifier.eval()
    size = classifier.preprocessing.image_size
    expect_explains(ExplainerUnderTest(explainer).make(), classifier, images_of(2, size), labels_of(2))


COMBINATIONS: dict[Kind, list[tuple[str, Kind, Callable[[ComponentUnderTest, ComponentUnderTest], None]]]] = {
    "head": [
        ("trains on {}", "backbone", lambda head, backbone: _expect_trains(_with_head(_smallest(backbone), head))),
        ("trains with {}", "optimizer", _expect_trains_with),
        (
            "is explained by {}",
            "explainer",
            lambda h, explainer: _expect_explained(explainer, HeadUnderTest(h).classifier()),
        ),
    ],
    "backbone": [
        ("trains with {}", "head", lambda b, head: _expect_trains(_with_head(BackboneUnderTest(b).make(), head))),
        (
            "is explained by {}",
            "explainer",
            lambda b, explainer: _expect_explained(explainer, _with_tiny_head(BackboneUnderTest(b).make())),
        ),
    ],
    "optimizer": [("trains {}", "head", lambda optimizer, head: _expect_trains_with(head, optimizer))],
    "explainer": [
        ("explains {}", "head", lambda explainer, h: _expect_explained(explainer, HeadUnderTest(h).classifier())),
        ("explains {}", "backbone", lambda explainer, b: _expect_explained(explainer, _with_tiny_head(_smallest(b)))),
    ],
}
"""Checks by kind: title, kind of the partner, and a function of the component and its partner."""
