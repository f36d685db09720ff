"""Contract checks of explainers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fgvc_cli.contracts import Backbone, Classifier, Explainer, Reads
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import is_in_range
from fgvc_cli.specs import ExplainerSpec
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, expect_lines, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.device import ABOUT_SYNC, SyncDetector
from fgvc_cli.testing.models import changed, classifier_of, copied_state, describe, spread_scores
from fgvc_cli.testing.tiny import (
    CLASSES,
    TinyConvolutional,
    TinyHead,
    TinyTransformer,
    images_of,
    isolated,
    labels_of,
    seeded,
)

IMAGES = 3
"""Batch size."""

ROUNDING = 1e-3
"""Tolerance for maps in [0, 1], from the order of summation before scaling by the maximum."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class ExplainerUnderTest:
    """An explainer, checked on a tiny convolutional classifier, or on a transformer if it does not support that."""

    subject: ComponentUnderTest

    def make(self, classifier: Classifier | None = None) -> Explainer:
        """Build it; `NotApplicable` if it does not support the given classifier."""
        explainer: Explainer = self.subject.make(Explainer, options=self.subject.options())
        if classifier is not None:
            expect_supported(explainer, classifier)
        return explainer

    def classifier(self, seed: int = 0) -> Classifier:
        """Return a tiny classifier in evaluation mode whose scores differ between images."""
        made = [_classifier(seed, TinyConvolutional, Reads((3,))), _classifier(seed, TinyTransformer, Reads((), True))]
        explainer = self.make()
        return next((classifier for classifier in made if _is_supported(explainer, classifier)), made[0])

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return images and target classes."""
        return images_of(IMAGES, TinyConvolutional().info.image_size), labels_of(IMAGES)

    def maps(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Explain with a fixed seed and check the maps."""
        explainer = self.make(classifier)
        with seeded(1):
            maps = explainer.explain(classifier, images, targets)
        expect_maps(maps, images)
        return maps


def _classifier(seed: int, backbone: type[Backbone], reads: Reads) -> Classifier:
    torch.manual_seed(seed)
    classifier = classifier_of(backbone(), lambda info: TinyHead(info, CLASSES, wanted=reads))
    spread_scores(classifier)
    return classifier.eval()


def _is_supported(explainer: Explainer, classifier: Classifier) -> bool:
    try:
        explainer.check(classifier)
    except UsageError:
        return False
    return True


def expect_supported(explainer: Explainer, classifier: Classifier) -> None:
    """Raise `NotApplicable` with the reason if an explainer does not support a classifier."""
    try:
        explainer.check(classifier)
    except UsageError as error:
        raise NotApplicable(str(error)) from None


def expect_maps(maps: Any, images: Tensor) -> None:
    """Raise `ContractError` unless these are maps B,S,S of the images: float32, in [0, 1], without gradient."""
    shape = (len(images), *images.shape[-2:])
    expect(
        isinstance(maps, Tensor) and maps.shape == shape and maps.dtype == torch.float32,
        f"float32 maps of shape {shape}, one per image",
        f"explain returned {describe(maps)}",
        "resize to the images (bilinear) and use .float()",
    )
    low, high = float(maps.detach().min()), float(maps.detach().max())
    expect(
        bool(is_in_range(maps).all()),
        "values in [0, 1]",
        f"they range from {low:.4g} to {high:.4g}",
        "scale each map by its own maximum, and handle a map of zeros",
    )
    expect(not maps.requires_grad, "maps without gradient", "they have one", "detach() them")


def expect_explains(explainer: Explainer, classifier: Classifier, images: Tensor, targets: Tensor) -> None:
    """Raise `ContractError` unless an explainer explains these images or refuses the classifier."""
    expect_supported(explainer, classifier)
    maps = explainer.explain(classifier, images, targets)
    expect_maps(maps, images)
    if any(parameter.grad is not None for parameter in classifier.parameters()):
        raise ContractError("no .grad in any parameter", "explain leaves some", "use torch.autograd.grad")


CHECKS: Checks[ExplainerUnderTest] = Checks(ExplainerUnderTest, isolated)


@CHECKS("returns one map per image in [0, 1]", "The host draws, masks and scores maps B,S,S in [0, 1].")
def maps(explainer: ExplainerUnderTest) -> None:
    """For several images, for a single one, and for constant images."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    for chosen in (images, images[:1], torch.zeros_like(images)):
        explainer.maps(classifier, chosen, targets[: len(chosen)])


@CHECKS("maps do not depend on the batch", "An image's map must be its own.")
def batch_independent(explainer: ExplainerUnderTest) -> None:
    """A batch has the maps of its images one by one."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    together = explainer.maps(classifier, images, targets)
    apart = [explainer.maps(classifier, images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
    worst = float((together - torch.cat(apart)).abs().max())
    expect(
        worst <= ROUNDING,
        "the same map for an image in any batch",
        f"maps differ by up to {worst:.2g}",
        "scale each map by its own maximum (amax over its pixels), and draw random numbers per image",
    )


@CHECKS("keeps no state between calls", "One explainer is used for thousands of images.")
def stateless(explainer: ExplainerUnderTest) -> None:
    """The maps of some images are the same after other images."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    instance = explainer.make(classifier)
    found = []
    for given in (images, images.flip(3), images):
        with seeded(1):
            found.append(instance.explain(classifier, given, targets))
    worst = float((found[0] - found[2]).abs().max())
    expect(worst <= ROUNDING, "the same maps again", f"they differ by up to {worst:.2g}", "keep nothing between calls")


@CHECKS("has no side effects", "Other explainers, occlusion and training use the same classifier.")
def no_side_effects(explainer: ExplainerUnderTest) -> None:
    """Hooks, gradients, requires_grad, modes, weights, buffers, images and the gradient mode are unchanged."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    instance = explainer.make(classifier)
    classifier.backbone.requires_grad_(False)  # so that some parameters are frozen and others are not
    for enabled in (True, False):
        before, given = _Snapshot(classifier), images.clone()
        with torch.set_grad_enabled(enabled):
            maps = instance.explain(classifier, images, targets)
            same = torch.is_grad_enabled() == enabled
            expect(same, "an unchanged gradient mode", "it is switched", "use a with block")
        before.expect_unchanged(classifier)
        same = torch.equal(images, given) and not images.requires_grad
        expect(same, "unchanged images", "explain changes them", "work on images.detach().clone()")
        expect_maps(maps, images)


@CHECKS("has no side effects after an error", "An error in the model must not leave hooks behind.")
def no_side_effects_after_error(explainer: ExplainerUnderTest) -> None:
    """The same if a module of the model raises."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    instance = explainer.make(classifier)
    before = _Snapshot(classifier)
    head: nn.Module = classifier.head
    head.forward = _fail
    try:
        instance.explain(classifier, images, targets)
    except _DeliberateError:
        pass
    except Exception as error:
        if not isinstance(error.__cause__ or error.__context__, _DeliberateError):
            raise
    else:
        raise NotApplicable("it does not run the head")
    finally:
        del head.forward
    before.expect_unchanged(classifier)


@CHECKS("maps depend on the weights", "Otherwise they explain the image and not the decision.")
def weight_dependent(explainer: ExplainerUnderTest) -> None:
    """Other weights give other maps, except for a baseline (Adebayo et al. 2018, arXiv 1810.03292)."""
    images, targets = explainer.batch()
    first, second = (explainer.maps(explainer.classifier(seed), images, targets) for seed in (0, 1))
    differs = bool((first - second).abs().max() > ROUNDING)
    if cast(ExplainerSpec, explainer.subject.component.spec).baseline:
        expect(not differs, "maps independent of the model", "other weights change them", "set baseline=False")
    else:
        expect(differs, "other maps with other weights", "they are equal", "use the scores, or set baseline=True")


@CHECKS("works under bf16 autocast", "The host may compute in bf16.")
def autocast(explainer: ExplainerUnderTest) -> None:
    """Under bf16 autocast the maps are float32 in [0, 1]."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    with torch.autocast("cpu", torch.bfloat16):
        explainer.maps(classifier, images, targets)


@CHECKS("notes() returns single lines", "They are shown before the first image.")
def notes(explainer: ExplainerUnderTest) -> None:
    """notes() returns a list of lines."""
    classifier = explainer.classifier()
    expect_lines(explainer.make(classifier).notes(classifier))


@CHECKS("explain does not synchronize with the device", ABOUT_SYNC, advisory=True)
def no_sync(explainer: ExplainerUnderTest) -> None:
    """No operation of explain reads a value off the device."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    instance = explainer.make(classifier)
    with SyncDetector() as detector:
        instance.explain(classifier, images, targets)
    detector.expect_none()


class _DeliberateError(RuntimeError):
    """Raised on purpose in the model."""


def _fail(*_: object, **__: object) -> None:
    raise _DeliberateError("deliberate error in the head")


class _Snapshot:
    """Everything in a classifier that an explainer could change."""

    def __init__(self, classifier: Classifier) -> None:
        self.state, self.facts = copied_state(classifier), self._facts(classifier)

    def expect_unchanged(self, classifier: Classifier) -> None:
        moved = changed(self.state, copied_state(classifier))
        fix = "work in evaluation mode"
        expect(not moved, "unchanged weights and buffers", f"explain changes {some(moved)}", fix)
        after = self._facts(classifier)
        for (what, fix), before in self.facts.items():
            differing = [name for name, value in after[(what, fix)].items() if before.get(name) != value]
            expect(not differing, f"unchanged {what}", f"they are changed at {some(differing)}", fix)

    @staticmethod
    def _facts(classifier: Classifier) -> dict[tuple[str, str], dict[str, Any]]:
        """Return facts by module or parameter; keys are what they are and how to restore them."""
        modules, parameters = dict(classifier.named_modules()), dict(classifier.named_parameters())
        return {
            ("hooks", "remove them in a finally block"): {
                name or "the classifier": sum(len(getattr(module, kind)) for kind in HOOKS)
                for name, module in modules.items()
            },
            ("modes (train, eval)", "restore each module's mode"): {n: m.training for n, m in modules.items()},
            ("requires_grad", "restore it for each parameter"): {n: p.requires_grad for n, p in parameters.items()},
            (".grad of parameters", "use torch.autograd.grad instead of backward()"): {
                name: parameter.grad is None for name, parameter in parameters.items()
            },
        }
