"""Contract checks of explainers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import is_in_range
from fgvc_cli.specs import ExplainerSpec
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect
from fgvc_cli.testing.models import classifier_of, lively
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import CLASSES, TinyConvolutional, TinyHead, images_of, isolated, labels_of, seeded
from fgvc_cli.testing.traces import DeliberateError, Failing, Traces
from fgvc_cli.testing.waiting import WaitWatch

IMAGES = 3
"""Images that are explained together."""


@dataclass(frozen=True)
class ExplainerSubject:
    """An explainer, and a small classifier whose head reads the deepest map."""

    subject: Subject

    @property
    def spec(self) -> ExplainerSpec:
        """What its plugin says of it."""
        return cast(ExplainerSpec, self.subject.component.spec)

    def make(self) -> Explainer:
        """Build it."""
        explainer: Explainer = self.subject.make(Explainer, options=self.subject.options())
        return explainer

    def classifier(self, seed: int = 0) -> Classifier:
        """Make the kit's classifier, with weights that tell images apart."""
        torch.manual_seed(seed)
        classifier = classifier_of(TinyConvolutional(), lambda info: TinyHead(info, CLASSES))
        lively(classifier)
        return classifier.eval()

    def batch(self, count: int = IMAGES) -> tuple[Tensor, Tensor]:
        """Return images and a class to explain for each."""
        return images_of(count, TinyConvolutional().info.image_size), labels_of(count)

    def maps(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Explain, each time from one seed, and see that the maps are maps."""
        explainer = self.make()
        accept(explainer, classifier)
        with seeded(1):
            maps = explainer.explain(classifier, images, targets)
        expect_maps(maps, images)
        return maps


def accept(explainer: Explainer, classifier: Classifier) -> None:
    """Ask an explainer whether it can explain a classifier; `NotApplicable` with its reason if it cannot."""
    try:
        explainer.check(classifier)
    except UsageError as error:
        raise NotApplicable(str(error)) from None


def expect_maps(maps: Any, images: Tensor) -> None:
    """Raise unless these are maps B,S,S of those images, float32, in [0, 1], without gradient."""
    shape = (len(images), *images.shape[-2:])
    found = f"{maps.dtype} of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
    expect(
        isinstance(maps, Tensor) and maps.shape == shape and maps.dtype == torch.float32,
        f"float32 maps of shape {shape}, one an image",
        f"explain returns {found}",
        "resize to the images (bilinear) and use .float()",
    )
    low, high = float(maps.detach().min()), float(maps.detach().max())
    expect(
        bool(is_in_range(maps).all()),
        "values in [0, 1]",
        f"they go from {low:.4g} to {high:.4g}",
        "scale each map by its own largest value, and take care of a map of zeros",
    )
    expect(not maps.requires_grad, "maps without gradient", "they carry one", "detach() them")


def expect_explains(explainer: Explainer, classifier: Classifier, images: Tensor, targets: Tensor) -> None:
    """Raise unless an explainer gives maps of these images, or says in words that it cannot."""
    accept(explainer, classifier)
    maps = explainer.explain(classifier, images, targets)
    expect_maps(maps, images)
    if any(parameter.grad is not None for parameter in classifier.parameters()):
        raise ContractBroken("no .grad of a parameter", "explain leaves some", "use torch.autograd.grad")


EXPLAINING: Checks[ExplainerSubject] = Checks()

ROUNDING = 1e-3
"""How much a map may differ by the order of its sums: scaling to [0, 1] divides by the largest value."""


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of an explainer."""
    found = [*EXPLAINING.of(ExplainerSubject(subject))]
    for check in found:
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@EXPLAINING("it gives a map an image", "The host draws, covers and scores maps B,S,S in [0, 1].")
def maps(explainer: ExplainerSubject) -> None:
    """For several images, for one, and for images without any contrast."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    for chosen in (images, images[:1], torch.zeros_like(images)):
        explainer.maps(classifier, chosen, targets[: len(chosen)])


@EXPLAINING("an image's map is its own", "A map must not depend on what it is explained together with.")
def alone(explainer: ExplainerSubject) -> None:
    """A batch gives the maps that its images give one by one."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    together = explainer.maps(classifier, images, targets)
    apart = [explainer.maps(classifier, images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
    worst = float((together - torch.cat(apart)).abs().max())
    expect(
        worst <= ROUNDING,
        "the same map for an image in any batch",
        f"maps differ by up to {worst:.2g}",
        "scale each image's map by itself (amax over its own pixels), and draw for each image alone",
    )


@EXPLAINING("it keeps nothing", "Thousands of images go through one explainer.")
def keeps_nothing(explainer: ExplainerSubject) -> None:
    """After other images it gives the same map again."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    made = explainer.make()
    accept(made, classifier)
    found = []
    for given in (images, images.flip(3), images):
        with seeded(1):
            found.append(made.explain(classifier, given, targets))
    worst = float((found[0] - found[2]).abs().max())
    expect(worst <= ROUNDING, "the same maps again", f"they differ by up to {worst:.2g}", "keep nothing between calls")


@EXPLAINING(
    "it leaves no trace", "The classifier is used by other explainers, by occlusion and by training afterwards."
)
def no_trace(explainer: ExplainerSubject) -> None:
    """Hooks, gradients, requires_grad, modes, weights, buffers, images and the mode of gradients are as found."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    made = explainer.make()
    accept(made, classifier)
    classifier.backbone.requires_grad_(False)  # some are frozen, some are not
    for enabled in (True, False):
        before, given = Traces(classifier), images.clone()
        with torch.set_grad_enabled(enabled):
            maps = made.explain(classifier, images, targets)
            expect(
                torch.is_grad_enabled() == enabled, "gradients as they were", "they are switched", "use a with block"
            )
        before.expect_none(classifier)
        same = torch.equal(images, given) and not images.requires_grad
        expect(same, "the images as they were given", "explain changes them", "work on images.detach().clone()")
        expect_maps(maps, images)


@EXPLAINING("it leaves no trace when something fails", "An error in the model must not leave hooks behind.")
def no_trace_after_error(explainer: ExplainerSubject) -> None:
    """The same where a module of the model raises."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    made = explainer.make()
    accept(made, classifier)
    before = Traces(classifier)
    failing = Failing(classifier.head)
    try:
        made.explain(classifier, images, targets)
    except DeliberateError:
        pass
    except Exception as error:
        if not isinstance(error.__cause__ or error.__context__, DeliberateError):
            raise
    else:
        raise NotApplicable("it does not run the head")
    finally:
        failing.restore()
    before.expect_none(classifier)


@EXPLAINING("it depends on the model", "A map that other weights leave as it is explains the image, not the decision.")
def depends(explainer: ExplainerSubject) -> None:
    """Other weights give other maps; those of a baseline stay (Adebayo et al. 2018, arXiv 1810.03292)."""
    images, targets = explainer.batch()
    first, second = (explainer.maps(explainer.classifier(seed), images, targets) for seed in (0, 1))
    differs = bool((first - second).abs().max() > ROUNDING)
    if explainer.spec.baseline:
        expect(not differs, "maps that know nothing of the model", "other weights change them", "set baseline=False")
    else:
        expect(differs, "other maps with other weights", "they are the same", "follow the scores, or set baseline=True")


@EXPLAINING("it works under autocast", "The host may compute in bf16.")
def autocast(explainer: ExplainerSubject) -> None:
    """Under bf16 autocast the maps are float32, in range."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    with torch.autocast("cpu", torch.bfloat16):
        explainer.maps(classifier, images, targets)


@EXPLAINING("its notes are lines", "The host prints them before the first image.")
def notes(explainer: ExplainerSubject) -> None:
    """notes() is a list of one-line texts."""
    classifier, made = explainer.classifier(), explainer.make()
    accept(made, classifier)
    found = made.notes(classifier)
    expect(
        isinstance(found, list) and all(isinstance(line, str) and "\n" not in line for line in found),
        "a list of lines from notes()",
        f"it returns {found!r}",
        "return a list of strings without line breaks",
    )


@EXPLAINING(
    "it does not wait for the device",
    "Each value that is read off a GPU (.item(), a loop over images) lets it run dry.",
    advisory=True,
)
def no_wait(explainer: ExplainerSubject) -> None:
    """No operation of explain reads a value off the device."""
    classifier, (images, targets) = explainer.classifier(), explainer.batch()
    made = explainer.make()
    accept(made, classifier)
    with WaitWatch() as watch:
        made.explain(classifier, images, targets)
    watch.expect_none()
