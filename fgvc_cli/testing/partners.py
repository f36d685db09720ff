"""Checks of a component together with the built-in components that it has to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fgvc_cli.contracts import Backbone, Classifier, Explainer, Head, Optimizer
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import Component
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
    combinations: dict[Kind, list[tuple[str, Kind, Callable[[ComponentUnderTest, Component], None]]]] = {
        "head": [
            ("trains on {}", "backbone", _head_on_backbone),
            ("trains with {}", "optimizer", _head_with_optimizer),
            ("is explained by {}", "explainer", _head_explained),
        ],
        "backbone": [
            ("trains with {}", "head", _backbone_with_head),
            ("is explained by {}", "explainer", _backbone_explained),
        ],
        "optimizer": [("trains {}", "head", _optimizer_of_head)],
        "explainer": [("explains {}", "head", _explains_head), ("explains {}", "backbone", _explains_backbone)],
    }
    for title, kind, combine in combinations.get(subject.kind, []):
        for partner in subject.registry.components(kind):
            if partner.builtin and partner != subject.component:
                run = isolated(lambda combine=combine, partner=partner: combine(subject, partner))  # type: ignore[misc]
                yield Check(title.format(partner.name), ABOUT, run)


def _head_on_backbone(subject: ComponentUnderTest, partner: Component) -> None:
    _expect_trains(_with_head(_built(partner), subject.component, subject.options()))


def _head_with_optimizer(subject: ComponentUnderTest, partner: Component) -> None:
    _expect_trains_with(HeadUnderTest(subject), OptimizerUnderTest(ComponentUnderTest(partner, subject.registry)))


def _optimizer_of_head(subject: ComponentUnderTest, partner: Component) -> None:
    _expect_trains_with(HeadUnderTest(ComponentUnderTest(partner, subject.registry)), OptimizerUnderTest(subject))


def _head_explained(subject: ComponentUnderTest, partner: Component) -> None:
    _expect_explained(partner.make(options=_defaults(partner)), HeadUnderTest(subject).classifier())


def _backbone_with_head(subject: ComponentUnderTest, partner: Component) -> None:
    _expect_trains(_with_head(BackboneUnderTest(subject).make(), partner, _defaults(partner)))


def _backbone_explained(subject: ComponentUnderTest, partner: Component) -> None:
    classifier = classifier_of(BackboneUnderTest(subject).make(), lambda info: TinyHead(info, CLASSES))
    _expect_explained(partner.make(options=_defaults(partner)), classifier)


def _explains_head(subject: ComponentUnderTest, partner: Component) -> None:
    classifier = HeadUnderTest(ComponentUnderTest(partner, subject.registry)).classifier()
    _expect_explained(ExplainerUnderTest(subject).make(), classifier)


def _explains_backbone(subject: ComponentUnderTest, partner: Component) -> None:
    torch.manual_seed(0)
    classifier = classifier_of(_built(partner), lambda info: TinyHead(info, CLASSES))
    _expect_explained(ExplainerUnderTest(subject).make(), classifier)


def _with_head(backbone: Backbone, component: Component, options: Any) -> Classifier:
    """Put a head on a backbone as the host does; `NotApplicable` if it refuses the backbone."""

    def make(_info: Any) -> Head:
        try:
            return build_head(component, options, backbone, CLASSES)
        except UsageError as error:
            raise NotApplicable(str(error)) from None

    return classifier_of(backbone, make)


def _built(component: Component) -> Backbone:
    """Build a backbone with default options at the smallest image size that it supports."""
    options = _defaults(component)
    return build_backbone(component, options, smallest_size(component, options))


def _defaults(component: Component) -> Any:
    return component.options_type()()


def _expect_trains_with(head: HeadUnderTest, optimizer: OptimizerUnderTest) -> None:
    classifier = head.classifier()
    _expect_trains(classifier, optimizer.make(groups_of(classifier.backbone, classifier.head)))


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


def _expect_explained(explainer: Explainer, classifier: Classifier) -> None:
    spread_scores(classifier)
    classifier.eval()
    size = classifier.preprocessing.image_size
    expect_explains(explainer, classifier, images_of(2, size), labels_of(2))
