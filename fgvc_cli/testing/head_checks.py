"""What every head must keep: how it scores."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.testing.check import Check, Checks, expect, some
from fgvc_cli.testing.elsewhere import WHY, expect_moves
from fgvc_cli.testing.head_subject import IMAGES, HeadSubject
from fgvc_cli.testing.models import changed, copied_state, saved_state, update_of
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.backbones import TinyTokens
from fgvc_cli.testing.tiny.images import CLASSES
from fgvc_cli.testing.tiny.isolation import isolated
from fgvc_cli.testing.waiting import WaitWatch

SCORING: Checks[HeadSubject] = Checks()

ROUNDING = 1e-4
"""How much scores may differ by the order of their sums."""


def checks(subject: Subject, partners: bool) -> Iterator[Check]:
    """Return the checks of a head."""
    from fgvc_cli.testing.head_says import SAYING
    from fgvc_cli.testing.head_training import TRAINING
    from fgvc_cli.testing.partners import partner_checks

    head = HeadSubject(subject)
    found = [*SCORING.of(head), *SAYING.of(head), *TRAINING.of(head), *(partner_checks(subject) if partners else ())]
    for check in found:
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@SCORING("it scores every class", "predict must return B,K numbers: their softmax is the prediction.")
def scores(head: HeadSubject) -> None:
    """B,K floating-point scores, for one image too."""
    classifier = head.classifier().eval()
    for count in (IMAGES, 1):
        found = classifier.scores(head.batch(count)[0])
        _expect_scores(found, count)


@SCORING("the same seed makes the same head", "A run is repeated from its seed; torch's generators are what it sets.")
def same_seed(head: HeadSubject) -> None:
    """Weights come from torch's generator alone."""
    states = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        states.append(copied_state(head.classifier(seed=7)))
    differing = changed(*states)
    expect(
        not differing,
        "equal weights from equal seeds",
        f"{some(differing)} differ",
        "draw initial weights with torch, neither with random nor with numpy",
    )


@SCORING("an image is scored alone", "What an image is taken for must not depend on what it is shown together with.")
def alone(head: HeadSubject) -> None:
    """In evaluation mode a batch is scored as its images one by one."""
    classifier, (images, _) = head.lively(), head.batch()
    with torch.no_grad():
        together = classifier.scores(images)
        apart = torch.cat([classifier.scores(image[None]) for image in images])
    worst = float((together - apart).abs().max())
    expect(
        worst <= ROUNDING * max(1.0, float(apart.abs().max())),
        "the same scores for an image in any batch",
        f"they differ by up to {worst:.2g} from those of the image alone",
        "use no statistics of the batch in evaluation mode",
    )


@SCORING("images are told apart", "A head whose scores do not depend on the image learns the class frequencies alone.")
def sees(head: HeadSubject) -> None:
    """Different images have different scores."""
    classifier, (images, _) = head.lively(), head.batch()
    with torch.no_grad():
        found = classifier.scores(images)
    expect(
        bool((found - found[:1]).abs().amax() > 0),
        "other scores for other images",
        "all images of a batch have the same",
        "let the scores follow from the features",
    )


@SCORING("evaluation changes nothing", "Scoring twice must give the same: no dropout, no running statistics.")
def repeatable(head: HeadSubject) -> None:
    """In evaluation mode predict draws nothing and leaves parameters and buffers alone."""
    classifier, (images, _) = head.lively(), head.batch()
    before = copied_state(classifier)
    with torch.no_grad():
        first, second = classifier.scores(images), classifier.scores(images)
    moved = changed(before, copied_state(classifier))
    expect(not moved, "weights and buffers as they were", f"predict changes {some(moved)}", _EVALUATION)
    expect(torch.equal(first, second), "equal scores of equal images", "a second call gives others", _EVALUATION)


@SCORING("a saved head is the head", "model.safetensors holds state_dict() alone: what is not in it is lost.")
def state_round_trip(head: HeadSubject) -> None:
    """After some training, its state dict makes another one score alike."""
    trained, (images, targets) = head.classifier(), head.batch()
    update = update_of(trained)
    for _ in range(2):
        update([(images, targets)])
    other = head.classifier(seed=1)
    other.load_state_dict(saved_state(trained))
    with torch.no_grad():
        expected, found = trained.eval().scores(images), other.eval().scores(images)
    expect(
        torch.equal(expected, found),
        "the same scores from a head that loads its state dict",
        f"they differ by up to {float((expected - found).abs().max()):.2g}",
        "keep what it learns in parameters and buffers, not in plain attributes",
    )


@SCORING("it works on tokens", "Transformers have maps of one stride, and a head should say in its spec if it cannot.")
def tokens(head: HeadSubject) -> None:
    """It scores on maps that share a stride, if its spec does not ask for different ones."""
    head.takes(TinyTokens)
    classifier = head.classifier(TinyTokens()).eval()
    _expect_scores(classifier.scores(head.batch()[0]), IMAGES)


@SCORING("it scores on a GPU as well", WHY)
def elsewhere(head: HeadSubject) -> None:
    """predict makes no tensor on the CPU that meets one which is not."""
    expect_moves(head.classifier().eval(), lambda classifier, images: classifier.scores(images), head.batch()[0])


@SCORING(
    "predict does not wait for the device",
    "Each value that is read off a GPU (.item(), nonzero, a mask as index) lets it run dry.",
    advisory=True,
)
def no_wait(head: HeadSubject) -> None:
    """No operation of predict reads a value off the device."""
    classifier, (images, _) = head.lively(), head.batch()
    with torch.no_grad(), WaitWatch() as watch:
        classifier.scores(images)
    watch.expect_none()


def _expect_scores(found: object, count: int) -> None:
    fits = isinstance(found, Tensor) and found.shape == (count, CLASSES) and found.is_floating_point()
    expect(
        fits,
        f"floating-point scores of shape ({count}, {CLASSES}) for {count} images and {CLASSES} classes",
        f"predict returns {described(found)}",
        "return B,K scores, or override predict where forward puts out more than them",
    )
    assert isinstance(found, Tensor)
    expect(bool(found.isfinite().all()), "finite scores", "some are not", "look for a division by zero or a logarithm")


def described(found: object) -> str:
    """Say what was found where a tensor is meant."""
    return f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


_EVALUATION = "draw and count only while self.training"
