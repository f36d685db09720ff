"""Checks of a component with the built-in components that it has to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fgvc_cli.contracts import Backbone, Classifier, Explainer, Head, Optimizer
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import Component
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.specs import Kind
from fgvc_cli.testing.backbone import BackboneSubject, smallest_size
from fgvc_cli.testing.check import Check, NotApplicable, expect, some
from fgvc_cli.testing.explainer import expect_explains
from fgvc_cli.testing.head import HeadSubject
from fgvc_cli.testing.models import classifier_of, copied_state, lively, trainable, update_of, watched
from fgvc_cli.testing.optimizer import OptimizerSubject
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import CLASSES, TinyHead, groups_of, images_of, isolated, labels_of

MET = "Everything built in is what people combine it with first."

IMAGES = 4


def partner_checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a component with built-in partners, one for each."""
    meetings: dict[Kind, list[tuple[str, Kind, Callable[[Subject, Component], None]]]] = {
        "head": [
            ("it trains on {}", "backbone", _head_on_backbone),
            ("it trains by {}", "optimizer", _head_by_optimizer),
            ("{} explains it", "explainer", _head_explained),
        ],
        "backbone": [
            ("{} trains on it", "head", _backbone_under_head),
            ("{} explains it", "explainer", _backbone_explained),
        ],
        "optimizer": [("it trains {}", "head", _optimizer_of_head)],
        "explainer": [
            ("it explains {}", "head", _explains_head),
            ("it explains {}", "backbone", _explains_backbone),
        ],
    }
    for title, kind, meet in meetings.get(subject.kind, []):
        for partner in subject.registry.components(kind):
            if partner.builtin and partner != subject.component:
                yield Check(
                    title.format(partner.name),
                    MET,
                    isolated(lambda meet=meet, partner=partner: meet(subject, partner)),  # type: ignore[misc]
                )


def _head_on_backbone(subject: Subject, partner: Component) -> None:
    _expect_trains(_on_backbone(_built(partner), subject.component, subject.options()))


def _head_by_optimizer(subject: Subject, partner: Component) -> None:
    head = HeadSubject(subject)
    classifier = head.classifier()
    other = OptimizerSubject(Subject(partner, subject.registry))
    _expect_trains(classifier, other.make(groups_of(classifier.backbone, classifier.head)))


def _head_explained(subject: Subject, partner: Component) -> None:
    head = HeadSubject(subject)
    classifier = head.classifier()
    _expect_explained(_defaults(partner), classifier)


def _backbone_under_head(subject: Subject, partner: Component) -> None:
    _expect_trains(_on_backbone(BackboneSubject(subject).make(), partner, _options(partner)))


def _backbone_explained(subject: Subject, partner: Component) -> None:
    classifier = classifier_of(BackboneSubject(subject).make(), lambda info: TinyHead(info, CLASSES))
    _expect_explained(_defaults(partner), classifier)


def _optimizer_of_head(subject: Subject, partner: Component) -> None:
    head = HeadSubject(Subject(partner, subject.registry))
    classifier = head.classifier()
    made = OptimizerSubject(subject).make(groups_of(classifier.backbone, classifier.head))
    _expect_trains(classifier, made)


def _explains_head(subject: Subject, partner: Component) -> None:
    classifier = HeadSubject(Subject(partner, subject.registry)).classifier()
    _expect_explained(subject.make(Explainer, options=subject.options()), classifier)


def _explains_backbone(subject: Subject, partner: Component) -> None:
    torch.manual_seed(0)
    classifier = classifier_of(_built(partner), lambda info: TinyHead(info, CLASSES))
    _expect_explained(subject.make(Explainer, options=subject.options()), classifier)


def _on_backbone(backbone: Backbone, component: Component, options: Any) -> Classifier:
    """Put a head on a backbone as the host does; what it refuses in words does not concern it."""

    def make(_info: Any) -> Head:
        try:
            return build_head(component, options, backbone, CLASSES)
        except UsageError as error:
            raise NotApplicable(str(error)) from None

    return classifier_of(backbone, make)


def _built(component: Component) -> Backbone:
    """Build a backbone with its default options at the smallest size that it takes."""
    options = _options(component)
    return build_backbone(component, options, smallest_size(component, options))


def _options(component: Component) -> Any:
    return component.options_type()()


def _defaults(component: Component) -> Explainer:
    explainer: Explainer = component.make(options=_options(component))
    return explainer


def _expect_trains(classifier: Classifier, optimizer: Optimizer | None = None) -> None:
    """Make two updates: each parameter has a gradient, losses and weights stay finite, and something moves."""
    size = classifier.preprocessing.image_size
    batch = images_of(IMAGES, size), labels_of(IMAGES)
    before, watch = copied_state(classifier), watched(classifier, optimizer)
    update = update_of(classifier, watch)
    losses = [loss.value for _ in range(2) for step in update([batch]) for loss in step.losses]
    expect(all(bool(v.isfinite()) for v in losses), "finite losses", "some are not", "look for an overflow")
    without = [name for name in trainable(classifier) if name not in watch.reached]
    expect(not without, "a gradient for every parameter", f"{some(without)} lack one", "see what reads() names")
    after = copied_state(classifier)
    unfit = [name for name, value in after.items() if not value.isfinite().all()]
    expect(not unfit, "finite weights after two updates", f"{some(unfit)} are not", "look for an overflow")
    still = all(torch.equal(before[name], after[name]) for name in trainable(classifier))
    expect(not still, "weights that move", "two updates move nothing", "look at how the gradient reaches them")
    with torch.no_grad():
        scores = classifier.eval().scores(batch[0])
    fits = scores.shape == (IMAGES, CLASSES) and bool(scores.isfinite().all())
    expect(fits, f"finite scores of shape ({IMAGES}, {CLASSES})", f"predict gives {tuple(scores.shape)}", "see predict")


def _expect_explained(explainer: Explainer, classifier: Classifier) -> None:
    lively(classifier)
    classifier.eval()
    size = classifier.preprocessing.image_size
    expect_explains(explainer, classifier, images_of(2, size), labels_of(2))
